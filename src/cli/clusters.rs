//! `holdfast clusters …`: clusters of a running service.

use std::process::ExitCode;

use hyper::Method;
use serde_json::json;

use super::api_client::Target;
use super::remote::{Answer, Column, RemoteArgs};
use crate::model::ClusterId;

/// Look at and change clusters of a running service.
#[derive(Debug, clap::Args)]
pub(super) struct ClustersArgs {
    #[command(subcommand)]
    command: ClustersCommand,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Debug, clap::Subcommand)]
enum ClustersCommand {
    /// List clusters
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = super::sessions::limit)]
        limit: usize,
    },
    /// Show one cluster
    Get {
        /// Its id
        cluster: ClusterId,
    },
    /// Make a cluster
    Create {
        /// Its id: 1 to 63 of a-z, 0-9 and '-'
        cluster: ClusterId,
        /// What people call it [default: its id]
        #[arg(long)]
        name: Option<String>,
        /// The quotas it gets [default: the service's]
        #[arg(long)]
        plan: Option<String>,
    },
    /// Delete a cluster with all its sessions
    Delete {
        /// Its id
        cluster: ClusterId,
    },
}

const COLUMNS: &[Column] = &[
    ("CLUSTER", "/id"),
    ("NAME", "/name"),
    ("STATUS", "/status"),
    ("PLAN", "/plan"),
    ("ANONYMOUS", "/allow_anonymous"),
    ("CREATED", "/created_at"),
];

pub(super) fn run(args: ClustersArgs) -> anyhow::Result<ExitCode> {
    let one = |cluster: &ClusterId| Target::new(&["clusters", cluster.as_str()]);
    args.remote.run(async move |client| match args.command {
        ClustersCommand::List { limit } => {
            let (items, more) = client.list(|| Target::new(&["clusters"]), limit).await?;
            Ok(Answer::List(items, more, COLUMNS))
        }
        ClustersCommand::Get { cluster } => {
            Ok(Answer::Record(client.send(Method::GET, &one(&cluster), None).await?))
        }
        ClustersCommand::Create { cluster, name, plan } => {
            let mut body = json!({ "id": cluster });
            for (field, value) in [("name", name), ("plan", plan)] {
                if let Some(value) = value {
                    body[field] = value.into();
                }
            }
            let answer = client.send(Method::POST, &Target::new(&["clusters"]), Some(&body)).await?;
            Ok(Answer::Done(format!("cluster {cluster} exists now"), answer))
        }
        ClustersCommand::Delete { cluster } => {
            let answer = client.send(Method::DELETE, &one(&cluster), None).await?;
            Ok(Answer::Done(format!("cluster {cluster} is gone, with its sessions"), answer))
        }
    })
}
