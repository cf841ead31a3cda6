//! What the commands that work on a running service share: where it is, who asks, and how the answer
//! is shown.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use super::api_client::ApiClient;
use super::{output, small_runtime};
use crate::config::{Config, DataDirFlags, Flags};

/// Where the service is and who asks.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct RemoteArgs {
    /// Where the HTTP API is
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// Who asks [default: the administrator, by {data-dir}/admin.token]
    #[arg(long, global = true, env = "HOLDFAST_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// Where the token is when none is given [default: ./data]
    #[arg(long, global = true, env = "HOLDFAST_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON, not a table
    #[arg(long, global = true)]
    json: bool,
}

/// A bearer token; never shown.
#[derive(Clone)]
struct Token(String);

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// One field of a record as a column: its heading and where it is (a JSON pointer).
pub(super) type Column = (&'static str, &'static str);

/// What a command has to show.
pub(super) enum Answer {
    /// Records, one a line, and whether there are more than were asked for.
    List(Vec<Value>, bool, &'static [Column]),
    /// One record, one field a line.
    Record(Value),
    /// A sentence; with `--json` the answer itself.
    Done(String, Value),
    /// Nothing more: it was shown as it came.
    Shown,
}

impl RemoteArgs {
    /// Runs a command against the service and shows its answer.
    pub(super) fn run<F>(self, command: impl FnOnce(ApiClient) -> F) -> anyhow::Result<ExitCode>
    where
        F: Future<Output = anyhow::Result<Answer>>,
    {
        let client = ApiClient::new(&self.url, self.token()?)?;
        let answer = small_runtime()?.block_on(command(client))?;
        if !matches!(answer, Answer::Shown) {
            output::line(&if self.json { as_json(&answer)? } else { as_text(&answer) })?;
        }
        if let Answer::List(items, true, _) = &answer {
            output::notice(&format!("the first {}; there are more (--limit)", items.len()));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Whether JSON is to be printed.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    fn token(&self) -> anyhow::Result<String> {
        if let Some(Token(text)) = &self.token {
            return Ok(text.clone());
        }
        let data_dir = DataDirFlags { data_dir: self.data_dir.clone() };
        let path = Config::load(Flags { data_dir, ..Flags::default() })?.data_dir.admin_token_path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no --token is given and {} cannot be read", path.display()))?;
        Ok(text.trim_end().to_owned())
    }
}

fn as_json(answer: &Answer) -> anyhow::Result<String> {
    Ok(match answer {
        Answer::List(items, _, _) => serde_json::to_string_pretty(items)?,
        Answer::Record(record) | Answer::Done(_, record) => serde_json::to_string_pretty(record)?,
        Answer::Shown => String::new(),
    })
}

fn as_text(answer: &Answer) -> String {
    match answer {
        Answer::List(items, _, columns) => {
            let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
            let row = |item: &Value| columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))).collect();
            output::table(&headings, &items.iter().map(row).collect::<Vec<_>>())
        }
        Answer::Record(record) => {
            let fields = record.as_object().into_iter().flatten();
            let rows: Vec<_> = fields.map(|(name, value)| vec![name.clone(), cell(Some(value))]).collect();
            output::table(&["FIELD", "VALUE"], &rows)
        }
        Answer::Done(sentence, _) => sentence.clone(),
        Answer::Shown => String::new(),
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_shown_field_by_field() {
        let record = json!({"client_id": "a", "expires_at": null, "expiry": {"seconds": 5}});
        let shown = as_text(&Answer::Record(record));
        assert_eq!(shown, "FIELD       VALUE\nclient_id   a\nexpires_at  -\nexpiry      {\"seconds\":5}");
    }

    #[test]
    fn a_list_shows_the_columns_asked_for() {
        let items = vec![json!({"id": "default", "quota": {"connections": 3}}), json!({"id": "x"})];
        let answer = Answer::List(items, false, &[("CLUSTER", "/id"), ("LIMIT", "/quota/connections")]);
        assert_eq!(as_text(&answer), "CLUSTER  LIMIT\ndefault  3\nx        -");
    }
}
