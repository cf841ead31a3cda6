//! `holdfast sessions disconnect|delete|create|subscribe|unsubscribe|holds|release`.

use clap::ValueEnum;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::api_client::{ApiClient, Target};
use super::remote::{Answer, Column};
use super::sessions::limit;
use crate::model::{ClientId, ClusterId, OperatorReason, TopicFilter, WillChoice};

/// What changes sessions.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SessionChange {
    /// End the connection and keep the session
    Disconnect {
        /// The client
        client_id: ClientId,
        #[command(flatten)]
        how: EndArgs,
    },
    /// End the connection and the session
    Delete {
        /// The client
        client_id: ClientId,
        #[command(flatten)]
        how: EndArgs,
    },
    /// Make a session before its client comes
    Create {
        /// The client
        client_id: ClientId,
        #[command(flatten)]
        how: CreateArgs,
    },
    /// Subscribe on a client's behalf
    Subscribe {
        /// The client
        client_id: ClientId,
        /// The topic filter
        #[arg(value_parser = TopicFilter::new)]
        filter: TopicFilter,
        /// The greatest quality of service
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=2))]
        qos: u8,
    },
    /// Unsubscribe on a client's behalf
    Unsubscribe {
        /// The client
        client_id: ClientId,
        /// The topic filter
        #[arg(value_parser = TopicFilter::new)]
        filter: TopicFilter,
    },
    /// List the client ids that are refused for a while
    Holds {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = limit)]
        limit: usize,
    },
    /// Refuse a client id no longer
    Release {
        /// The client
        client_id: ClientId,
    },
}

/// How a session or its connection is ended.
#[derive(Debug, clap::Args)]
pub(super) struct EndArgs {
    /// What becomes of its will
    #[arg(long, default_value = "publish")]
    will: Will,
    /// Why: kept in the history, told to MQTT 5 clients
    #[arg(long, value_name = "TEXT", value_parser = OperatorReason::new)]
    reason: Option<OperatorReason>,
    /// Refuse the client id for so many seconds
    #[arg(long, value_name = "SECONDS")]
    hold: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Will {
    Publish,
    Suppress,
}

impl From<Will> for WillChoice {
    fn from(will: Will) -> Self {
        match will {
            Will::Publish => Self::Publish,
            Will::Suppress => Self::Suppress,
        }
    }
}

impl EndArgs {
    fn apply(&self, target: Target) -> Target {
        let target = target.with("will", WillChoice::from(self.will).as_str());
        let target = match &self.reason {
            Some(reason) => target.with("reason", reason.as_str()),
            None => target,
        };
        match self.hold {
            Some(secs) => target.with("hold_seconds", &secs.to_string()),
            None => target,
        }
    }
}

/// What a session is made of.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// How long it outlives its connections, whatever its client asks for
    #[arg(long, value_name = "SECONDS")]
    expiry: Option<u32>,
    /// A label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Refuse to delete it over the API
    #[arg(long)]
    protected: bool,
    /// A topic filter that it subscribes to; may be given more than once
    #[arg(long = "subscribe", value_name = "FILTER", value_parser = TopicFilter::new)]
    filters: Vec<TopicFilter>,
    /// The greatest quality of service of what it subscribes to
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
}

impl CreateArgs {
    fn as_json(&self) -> Value {
        let labels: Map<_, _> = self.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let options = || json!({ "qos": self.qos });
        let filters: Map<_, _> = self.filters.iter().map(|f| (f.as_str().to_owned(), options())).collect();
        let expiry = self.expiry.map(|secs| json!({ "interval_seconds": secs }));
        json!({
            "expiry": expiry, "labels": labels, "protected": self.protected, "subscriptions": filters,
        })
    }
}

const HOLD_COLUMNS: &[Column] =
    &[("CLIENT ID", "/client_id"), ("UNTIL", "/until"), ("REASON", "/reason"), ("BY", "/actor")];

impl SessionChange {
    pub(super) async fn run(self, client: &ApiClient, cluster: &ClusterId) -> anyhow::Result<Answer> {
        let of = |rest: &[&str]| Target::new(&[&["clusters", cluster.as_str()], rest].concat());
        let of_session = |id: &ClientId| of(&["sessions", id.as_str()]);
        let of_filter = |id: &ClientId, filter: &TopicFilter| {
            of(&["sessions", id.as_str(), "subscriptions", filter.as_str()])
        };
        match self {
            Self::Disconnect { client_id, how } => {
                let target = how.apply(of(&["sessions", client_id.as_str(), "disconnect"]));
                let answer = client.send(Method::POST, &target, None).await?;
                Ok(told(format!("the connection of {client_id} has ended"), answer))
            }
            Self::Delete { client_id, how } => {
                let target = how.apply(of_session(&client_id));
                let answer = client.send(Method::DELETE, &target, None).await?;
                Ok(told(format!("the session of {client_id} is gone"), answer))
            }
            Self::Create { client_id, how } => {
                let answer = client.send(Method::PUT, &of_session(&client_id), Some(&how.as_json())).await?;
                Ok(told(format!("the session of {client_id} waits for it"), answer))
            }
            Self::Subscribe { client_id, filter, qos } => {
                let target = of_filter(&client_id, &filter);
                let answer = client.send(Method::PUT, &target, Some(&json!({ "qos": qos }))).await?;
                Ok(told(format!("{client_id} subscribes to {}", filter.as_str()), answer))
            }
            Self::Unsubscribe { client_id, filter } => {
                let answer = client.send(Method::DELETE, &of_filter(&client_id, &filter), None).await?;
                Ok(told(format!("{client_id} no longer subscribes to {}", filter.as_str()), answer))
            }
            Self::Holds { limit } => {
                let (items, more) = client.list(|| of(&["holds"]), limit).await?;
                Ok(Answer::List(items, more, HOLD_COLUMNS))
            }
            Self::Release { client_id } => {
                let target = of(&["holds", client_id.as_str()]);
                let answer = client.send(Method::DELETE, &target, None).await?;
                Ok(Answer::Done(format!("{client_id} is refused no longer"), answer))
            }
        }
    }
}

/// What was done, or what will tell whether it was: an operation, or a path to read.
fn told(sentence: String, answer: Value) -> Answer {
    let text = |name: &str| answer[name].as_str();
    let sentence = match (text("id"), text("path")) {
        (Some(id), _) => format!("not confirmed yet: holdfast operations wait {id}"),
        (None, Some(path)) => format!("not confirmed yet: GET {path} tells whether it is done"),
        (None, None) => sentence,
    };
    Answer::Done(sentence, answer)
}

fn label(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = parts.ok_or_else(|| "expected KEY=VALUE, such as site=north".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_to_be_made_is_written_as_the_api_reads_it() {
        let how = CreateArgs {
            expiry: Some(60),
            labels: vec![label("site=a=b").expect("a label")],
            protected: true,
            filters: vec![TopicFilter::new("a/#").expect("a filter")],
            qos: 2,
        };
        let expected = json!({
            "expiry": {"interval_seconds": 60}, "labels": {"site": "a=b"}, "protected": true,
            "subscriptions": {"a/#": {"qos": 2}},
        });
        assert_eq!(how.as_json(), expected);
        assert!(label("site").is_err() && label("=x").is_err());
    }

    #[test]
    fn what_is_under_way_is_not_said_to_be_done() {
        for (answer, tells) in [
            (json!({"id": "4f1d"}), "holdfast operations wait 4f1d"),
            (json!({"path": "/v1/x"}), "GET /v1/x"),
            (json!({"client_id": "meter"}), "done"),
            (Value::Null, "done"),
        ] {
            let Answer::Done(sentence, _) = told("done".to_owned(), answer) else { panic!("a sentence") };
            assert!(sentence.contains(tells), "{sentence}");
        }
    }
}
