//! `holdfast sessions …`: sessions of a running service.

use std::process::ExitCode;

use clap::ValueEnum;
use hyper::Method;
use serde_json::{Value, json};

use super::api_client::Target;
use super::remote::{Answer, Column, RemoteArgs};
use super::session_changes::SessionChange;
use crate::model::{ClientId, ClusterId, Timestamp};

/// Look at, make, change and end sessions of a running service.
#[derive(Debug, clap::Args)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
    /// The cluster
    #[arg(long, global = true, value_name = "CLUSTER", default_value = "default")]
    cluster: ClusterId,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Debug, clap::Subcommand)]
enum SessionsCommand {
    /// List sessions, online and offline
    List {
        /// Only client ids that begin with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Only sessions with a connection, or without one
        #[arg(long)]
        state: Option<State>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = limit)]
        limit: usize,
    },
    /// Show one session
    Get {
        /// The client
        client_id: ClientId,
    },
    /// Say how long the session outlives its connection
    SetExpiry {
        /// The client
        client_id: ClientId,
        #[command(flatten)]
        expiry: ExpiryArgs,
        /// Let a session end at once whose new expiry has passed already
        #[arg(long)]
        allow_immediate: bool,
    },
    #[command(flatten)]
    Change(SessionChange),
}

/// The new expiry, in one of three forms.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ExpiryArgs {
    /// So many seconds after the connection ends
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    /// At this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// As the client itself asked for
    #[arg(long)]
    clear: bool,
}

impl ExpiryArgs {
    fn as_json(&self) -> Value {
        match (self.seconds, self.at) {
            (Some(seconds), _) => json!({ "expiry": { "interval_seconds": seconds } }),
            (None, Some(at)) => json!({ "expiry": { "expires_at": at } }),
            // The argument parser has seen to it that this is --clear.
            (None, None) => json!({ "expiry": null }),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Online,
    Offline,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

const COLUMNS: &[Column] = &[
    ("CLIENT ID", "/client_id"),
    ("STATE", "/state"),
    ("PROTOCOL", "/protocol"),
    ("PEER", "/peer"),
    ("CONNECTED", "/connected_at"),
    ("DISCONNECTED", "/disconnected_at"),
    ("EXPIRES", "/expires_at"),
    ("SUBSCRIPTIONS", "/subscription_count"),
];

pub(super) fn run(args: SessionsArgs) -> anyhow::Result<ExitCode> {
    let SessionsArgs { command, cluster, remote } = args;
    let sessions = || Target::new(&["clusters", cluster.as_str(), "sessions"]);
    let session = |id: &ClientId| Target::new(&["clusters", cluster.as_str(), "sessions", id.as_str()]);
    remote.run(async |client| match command {
        SessionsCommand::List { prefix, state, limit } => {
            let target = || {
                let mut target = sessions();
                for (name, value) in
                    [("client_id_prefix", prefix.as_deref()), ("state", state.map(State::as_str))]
                {
                    if let Some(value) = value {
                        target = target.with(name, value);
                    }
                }
                target
            };
            let (items, more) = client.list(target, limit).await?;
            Ok(Answer::List(items, more, COLUMNS))
        }
        SessionsCommand::Get { client_id } => {
            Ok(Answer::Record(client.send(Method::GET, &session(&client_id), None).await?))
        }
        SessionsCommand::Change(change) => change.run(&client, &cluster).await,
        SessionsCommand::SetExpiry { client_id, expiry, allow_immediate } => {
            let mut target = session(&client_id);
            if allow_immediate {
                target = target.with("allow_immediate", "true");
            }
            let answer = client.send(Method::PATCH, &target, Some(&expiry.as_json())).await?;
            Ok(Answer::Done(format!("the expiry of {client_id} has changed"), answer))
        }
    })
}

/// Parses how many items a list may have; the error says what is allowed.
pub(super) fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "expected a number above 0".to_owned())
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "expected an RFC 3339 time, such as 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_has_three_forms() {
        let json = |seconds, at, clear| ExpiryArgs { seconds, at, clear }.as_json().to_string();
        assert_eq!(json(Some(5), None, false), r#"{"expiry":{"interval_seconds":5}}"#);
        let at = time("2026-01-31T12:00:00Z").expect("a time");
        assert_eq!(json(None, Some(at), false), r#"{"expiry":{"expires_at":"2026-01-31T12:00:00.000Z"}}"#);
        assert_eq!(json(None, None, true), r#"{"expiry":null}"#);
    }
}
