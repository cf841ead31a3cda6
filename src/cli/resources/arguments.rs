//! The table's rows as commands of the argument parser, and what was typed as a command on one of them.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};

use super::{Does, Resource, ResourceCommand, Verb, VerbArgs, table};
use crate::cli::remote::RemoteArgs;
use crate::cli::sessions::limit;
use crate::model::ClusterId;

impl std::fmt::Debug for ResourceCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.resource.name, self.verb.name)
    }
}

impl Subcommand for ResourceCommand {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command.subcommands(table::ALL.iter().map(Resource::command))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        table::ALL.iter().any(|resource| resource.name == name)
    }
}

impl FromArgMatches for ResourceCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, of_resource) = matches.subcommand().ok_or_else(missing)?;
        let resource = table::ALL.iter().find(|resource| resource.name == name).ok_or_else(missing)?;
        let (name, given) = of_resource.subcommand().ok_or_else(missing)?;
        let verb = resource.verbs.iter().find(|verb| verb.name == name).ok_or_else(missing)?;
        let cluster = if resource.in_cluster { of_resource.get_one::<ClusterId>("cluster") } else { None };
        let cluster = cluster.cloned().unwrap_or_else(ClusterId::default_cluster);
        let remote = RemoteArgs::from_arg_matches(of_resource)?;
        Ok(Self { resource, verb, cluster, args: VerbArgs::of(verb, given), remote })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Resource {
    fn command(&self) -> clap::Command {
        let mut command = clap::Command::new(self.name).about(self.about).subcommand_required(true);
        if self.in_cluster {
            let cluster =
                Arg::new("cluster").long("cluster").value_name("CLUSTER").help("The cluster").global(true);
            command =
                command.arg(cluster.default_value("default").value_parser(clap::value_parser!(ClusterId)));
        }
        RemoteArgs::augment_args(command).subcommands(self.verbs.iter().map(|verb| verb.command(self.id)))
    }
}

impl Verb {
    fn command(&self, id: &'static str) -> clap::Command {
        let mut command = clap::Command::new(self.name).about(self.about);
        if self.of_one {
            command = command.arg(Arg::new("id").value_name(id).required(true).help("Which one"));
        }
        match &self.does {
            Does::List(_) => {
                let most = Arg::new("limit").long("limit").value_name("N").default_value("1000");
                command = command.arg(most.value_parser(limit).help("How many at most"));
            }
            Does::Follow => {
                let count = Arg::new("count").long("count").value_name("N").value_parser(limit);
                command = command.arg(count.help("End after so many"));
            }
            Does::Change(how) => {
                if how.has_body() {
                    let file = Arg::new("file").long("file").short('f').value_name("FILE").required(true);
                    let file = file.value_parser(clap::value_parser!(PathBuf));
                    command = command.arg(file.help("The body as JSON; - for standard input"));
                }
                if how.is_conditional() {
                    let tag = Arg::new("if_match").long("if-match").value_name("ETAG");
                    command = command.arg(tag.help("Only if it is still as `get` has shown it; * for any"));
                }
            }
            Does::ListWhole(_) | Does::Show | Does::Wait => {}
        }
        let parameter =
            Arg::new("param").long("param").short('p').value_name("NAME=VALUE").value_parser(pair);
        command.arg(
            parameter.action(ArgAction::Append).help(
                "A query parameter of the API, such as client_id=meter-17; may be given more than once",
            ),
        )
    }
}

impl VerbArgs {
    fn of(verb: &Verb, given: &ArgMatches) -> Self {
        let text = |name: &str| given.get_one::<String>(name).cloned();
        let mut args = Self { id: verb.of_one.then(|| text("id")).flatten(), ..Self::default() };
        match &verb.does {
            Does::List(_) => args.limit = given.get_one("limit").copied().unwrap_or_default(),
            Does::Follow => args.count = given.get_one("count").copied(),
            Does::Change(how) => {
                args.file = how.has_body().then(|| given.get_one("file").cloned()).flatten();
                args.if_match = how.is_conditional().then(|| text("if_match")).flatten();
            }
            Does::ListWhole(_) | Does::Show | Does::Wait => {}
        }
        args.parameters = given.get_many("param").into_iter().flatten().cloned().collect();
        args
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or_else(|| "expected NAME=VALUE, such as client_id=meter-17".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_name_and_a_value() {
        assert_eq!(pair("label=site=north"), Ok(("label".to_owned(), "site=north".to_owned())));
        assert!(pair("label").is_err() && pair("=x").is_err());
    }
}
