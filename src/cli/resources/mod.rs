//! `holdfast quota|users|block-rules|…`: the resources of the API that take no command of their own.
//!
//! Each is a row of [`table`]; list, show and change are the same for all. Bodies are JSON as the API's
//! documentation has them (`--file`), and its query parameters are sent as they are (`--param`): what the
//! API learns, these commands know. What is done by hand often has flags instead, in `sessions` and `clusters`.

mod arguments;
mod table;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::Value;

use super::UsageError;
use super::api_client::{ApiClient, Target};
use super::output;
use super::remote::{Answer, Column, RemoteArgs};
use crate::model::ClusterId;

/// How often a running operation is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A kind of record, as a command.
#[derive(Clone, Copy)]
struct Resource {
    /// The command.
    name: &'static str,
    about: &'static str,
    /// Its segment of the API's path.
    path: &'static str,
    /// Whether it is below a cluster.
    in_cluster: bool,
    /// What the help calls the id of one.
    id: &'static str,
    verbs: &'static [Verb],
}

/// What can be done to it.
#[derive(Clone, Copy)]
struct Verb {
    /// The command below that of the resource.
    name: &'static str,
    about: &'static str,
    /// Whether it is done to one, which is named.
    of_one: bool,
    /// Further segments of the path.
    below: &'static [&'static str],
    does: Does,
}

#[derive(Clone, Copy)]
enum Does {
    List(&'static [Column]),
    /// A list that is too short for pages.
    ListWhole(&'static [Column]),
    Show,
    Change(How),
    /// Shows an operation when it has ended.
    Wait,
    /// Prints a stream of events.
    Follow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Post,
    PostBody,
    Put,
    Patch,
    Delete,
}

impl How {
    const fn method(self) -> Method {
        match self {
            Self::Post | Self::PostBody => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }

    const fn has_body(self) -> bool {
        !matches!(self, Self::Post | Self::Delete)
    }

    /// Whether it is done to a record that `get` may have shown.
    const fn is_conditional(self) -> bool {
        !matches!(self, Self::Post | Self::PostBody)
    }
}

/// A command on one of the resources.
pub(super) struct ResourceCommand {
    resource: &'static Resource,
    verb: &'static Verb,
    cluster: ClusterId,
    args: VerbArgs,
    remote: RemoteArgs,
}

/// What the verb was given; what it does not take is absent.
#[derive(Default)]
struct VerbArgs {
    id: Option<String>,
    limit: usize,
    count: Option<usize>,
    file: Option<PathBuf>,
    if_match: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Resource {
    /// Where one of them is, or all.
    fn target(&self, cluster: &ClusterId, id: Option<&str>, below: &[&str]) -> Target {
        let above: &[&str] = if self.in_cluster { &["clusters", cluster.as_str()] } else { &[] };
        Target::new(&[above, &[self.path], id.as_slice(), below].concat())
    }
}

pub(super) fn run(command: ResourceCommand) -> anyhow::Result<ExitCode> {
    let ResourceCommand { resource, verb, cluster, args, remote } = command;
    let body = args.file.as_deref().map(read_json).transpose()?;
    let target = || {
        let target = resource.target(&cluster, args.id.as_deref(), verb.below);
        args.parameters.iter().fold(target, |target, (name, value)| target.with(name, value))
    };
    let as_json = remote.is_json();
    remote.run(async |client| match &verb.does {
        Does::List(columns) => {
            let (items, more) = client.list(target, args.limit).await?;
            Ok(Answer::List(items, more, columns))
        }
        Does::ListWhole(columns) => {
            let mut answer = client.send(Method::GET, &target(), None).await?;
            let Value::Array(items) = answer["items"].take() else { bail!("the answer has no items") };
            Ok(Answer::List(items, false, columns))
        }
        Does::Show => {
            let reply = client.ask(Method::GET, &target(), None, None).await?;
            if let Some(etag) = reply.etag {
                output::notice(&format!("ETag {etag}"));
            }
            Ok(Answer::Record(reply.json))
        }
        Does::Change(how) => {
            let if_match = args.if_match.as_deref();
            let reply = client.ask(how.method(), &target(), body.as_ref(), if_match).await?;
            Ok(match (reply.json, &args.id) {
                (Value::Null, Some(id)) => Answer::Done(format!("{id} is gone"), Value::Null),
                (json, _) => Answer::Record(json),
            })
        }
        Does::Wait => ended(&client, &target()).await,
        Does::Follow => {
            follow(&client, target, args.count, as_json).await?;
            Ok(Answer::Shown)
        }
    })
}

/// An operation, once it has ended.
async fn ended(client: &ApiClient, target: &Target) -> anyhow::Result<Answer> {
    loop {
        let operation = client.send(Method::GET, target, None).await?;
        if operation["state"] != "running" {
            return Ok(Answer::Record(operation));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Prints events, over the ends of streams, until there were `count`.
async fn follow(
    client: &ApiClient,
    target: impl Fn() -> Target,
    count: Option<usize>,
    as_json: bool,
) -> anyhow::Result<()> {
    let (mut seen, mut last) = (0, None::<String>);
    loop {
        let mut events = client.follow(&target(), last.as_deref()).await?;
        while let Some(data) = events.next().await? {
            let event: Value = serde_json::from_str(&data).context("an event that is no JSON")?;
            last = event["seq"].as_i64().map(|seq| seq.to_string());
            output::line(&if as_json { data } else { line_of(&event) })?;
            seen += 1;
            if count == Some(seen) {
                return Ok(());
            }
        }
        // The service ends a stream after a while; what comes in between is not lost where something was seen.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn line_of(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or("-");
    let line = [
        text("at"),
        &event["seq"].to_string(),
        text("client_id"),
        text("kind"),
        &event["detail"].to_string(),
    ];
    output::printable(&line.join("  "))
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("--file {} cannot be read", path.display()))?;
    }
    match serde_json::from_str(&text) {
        Ok(json) => Ok(json),
        Err(error) => bail!(UsageError(format!("--file {}: not JSON: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every row is an operation of the specification, with its method, and takes a body where that does.
    #[test]
    fn the_table_is_what_the_api_has() {
        let document = crate::control_plane::http::openapi().to_pretty_json().expect("JSON");
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let shape = |path: &str| -> Vec<String> {
            path.split('/')
                .map(|part| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() })
                .collect()
        };
        for resource in table::ALL {
            for verb in resource.verbs {
                let above = if resource.in_cluster { "/v1/clusters/{}" } else { "/v1" };
                let id: &[&str] = if verb.of_one { &["{}"] } else { &[] };
                let path = [&[above, resource.path][..], id, verb.below].concat().join("/");
                let found = paths.iter().find(|(known, _)| shape(known) == shape(&path));
                let item = found.unwrap_or_else(|| panic!("the API has no {path}")).1;
                let (method, has_body) = match &verb.does {
                    Does::Change(how) => (how.method().as_str().to_lowercase(), how.has_body()),
                    _ => ("get".to_owned(), false),
                };
                let operation = item.get(&method).unwrap_or_else(|| panic!("the API has no {method} {path}"));
                assert_eq!(operation.get("requestBody").is_some(), has_body, "{method} {path}");
                let is_paged = operation["parameters"].as_array().is_some_and(|parameters| {
                    parameters.iter().any(|parameter| parameter["name"] == "page_size")
                });
                match &verb.does {
                    Does::List(columns) | Does::ListWhole(columns) => {
                        assert_eq!(is_paged, matches!(verb.does, Does::List(_)), "{path}");
                        check_columns(&document, operation, columns);
                    }
                    _ => assert!(!is_paged, "{path}"),
                }
            }
        }
    }

    /// A column is a field of what is listed.
    fn check_columns(document: &Value, operation: &Value, columns: &[Column]) {
        let page = &operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        let schema = |reference: &Value| {
            let pointer = reference.as_str().expect("a reference").trim_start_matches('#');
            document.pointer(pointer).expect("a schema").clone()
        };
        let item = schema(&schema(page)["properties"]["items"]["items"]["$ref"]);
        for (heading, pointer) in columns {
            let field = pointer.trim_start_matches('/').split('/').next().expect("a field");
            assert!(item["properties"][field].is_object(), "{heading}: {pointer} is no field of {page}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let names: BTreeSet<_> = table::ALL.iter().map(|resource| resource.name).collect();
        assert_eq!(names.len(), table::ALL.len());
        for resource in table::ALL {
            let verbs: BTreeSet<_> = resource.verbs.iter().map(|verb| verb.name).collect();
            assert_eq!(verbs.len(), resource.verbs.len(), "{}", resource.name);
        }
    }
}
