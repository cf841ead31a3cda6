//! A client that a generator makes of the specification: it compiles, and it works.
//!
//! openapi-python-client reads `openapi/holdfast.json` and may not leave out anything; mypy holds the client and a
//! program that uses it (`tests/generated_client/`) to the types, strictly; the program then does its errand on a
//! service. The generated models read each answer: a field that is missing, or an enumeration's word that is not
//! in the specification, ends it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::server::Server;

/// Where `make test` puts the generator.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/client-generator/bin");
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/generated_client");
const SPECIFICATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/holdfast.json");

/// mypy reads 250 modules within a few seconds, of one core that others may use too.
const TOOL_MAX: Duration = Duration::from_mins(2);

const ERRAND: &str = "\
cluster generated on pro
made meter-0:1 meter-1:1 meter-2:1 meter-3:1 meter-4:1
pages meter-0+meter-1 meter-2+meter-3 meter-4
patched 60
again 412 precondition_failed
quota 10 override
deleted 404 session_not_found
cluster deleted 204
";

/// A generated client.
struct Generated {
    directory: TempDir,
}

impl Generated {
    /// Generates it; `None` where the generator is not installed.
    async fn new() -> Option<Self> {
        let found = ["openapi-python-client", "mypy"].iter().all(|tool| Path::new(TOOLS).join(tool).exists());
        let required = std::env::var_os("HOLDFAST_TEST_CLIENTS").is_some_and(|value| value == "required");
        assert!(found || !required, "openapi-python-client is not installed");
        if !found {
            eprintln!("skipped: openapi-python-client is not installed");
            return None;
        }
        let generated = Self { directory: TempDir::new().expect("a directory") };
        let output = generated
            .run("openapi-python-client", |command| {
                command.args(["generate", "--meta", "none", "--fail-on-warning", "--path", SPECIFICATION]);
                command.arg("--config").arg(program("generator.yaml"));
                command.args(["--output-path", "holdfast_client"])
            })
            .await;
        assert!(output.status.success(), "the specification trips the generator:\n{}", said(&output));
        Some(generated)
    }

    /// What mypy says of a program and of the client beneath it.
    async fn checked(&self, file: &str) -> Output {
        self.run("mypy", |command| {
            command.args(["--strict", "--no-error-summary", "--cache-dir", "mypy-cache"]);
            command.arg(program(file)).arg("holdfast_client")
        })
        .await
    }

    async fn run(&self, tool: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Output {
        let mut command = Command::new(Path::new(TOOLS).join(tool));
        with(&mut command).current_dir(self.directory.path());
        command.env("PYTHONPATH", self.directory.path()).env("MYPYPATH", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = timeout(TOOL_MAX, command.output()).await;
        output.unwrap_or_else(|_| panic!("{tool} does not end")).expect("it starts")
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[tokio::test]
async fn a_client_generated_from_the_specification_compiles_and_works() {
    let Some(generated) = Generated::new().await else { return };
    let checked = generated.checked("program.py").await;
    assert!(checked.status.success(), "mypy:\n{}", said(&checked));
    refuses_misuse(&generated).await;

    let server = Server::start_dev().await;
    let token = std::fs::read_to_string(server.data_path().join("admin.token")).expect("a token");
    let output = generated
        .run("python", |command| {
            let url = format!("http://{}", server.http);
            command.arg("-B").arg(program("program.py")).arg(url).env("HOLDFAST_TOKEN", token.trim_end())
        })
        .await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), ERRAND, "{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
    server.stop().await;
}

/// Its types say enough for mistakes to be seen: exactly those that the file names in its comments.
async fn refuses_misuse(generated: &Generated) {
    let text = std::fs::read_to_string(program("misuse.py")).expect("the file");
    let named: Vec<_> = (1..)
        .zip(text.lines())
        .filter_map(|(number, line)| Some((number, line.split_once("  # ")?.1.to_owned())))
        .collect();
    assert!(!named.is_empty());
    let output = generated.checked("misuse.py").await;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = output.lines().filter(|line| line.contains(": error: "));
    let found: Vec<(usize, String)> = errors
        .map(|line| {
            let number =
                line.rsplit_once("misuse.py:").and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
            let kind = line.rsplit_once('[').and_then(|(_, kind)| kind.strip_suffix(']'));
            (number.unwrap_or_default(), kind.unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!(found, named, "{output}");
}
