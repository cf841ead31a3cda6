//! The command-line contract as a shell sees it: what is refused, with which words and exit code; who
//! beats whom; what an operator's commands print.

use std::process::Output;

use tempfile::TempDir;

use crate::support::server::{Server, program};

async fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().await.expect("the program starts")
}

/// What it said on standard error, having ended with this code.
#[track_caller]
fn refusal(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    text
}

#[tokio::test]
async fn a_bad_value_is_named_with_its_flag_and_what_is_allowed() {
    for (arguments, said) in [
        (
            vec!["serve", "--http", "localhost"],
            "invalid value 'localhost' for '--http <ADDR>': expected IP:PORT",
        ),
        (vec!["serve", "--dev=perhaps"], "invalid value 'perhaps' for '--dev[=<BOOL>]'"),
        (
            vec!["serve", "--database-url", "mysql://u:pw@h/d"],
            "--database-url mysql://u:***@h/d: expected a URL",
        ),
        (vec!["serve", "--mqtts", "127.0.0.1:0"], "--mqtts needs --tls-cert and --tls-key"),
        (vec!["serve", "--tls-cert", "c.pem"], "--tls-cert needs --tls-key"),
        (vec!["serve", "--proxy-protocol", "quic"], "expected some of mqtt, mqtts, ws, wss"),
        (vec!["serve", "--listener-cluster", "ws=a"], "--listener-cluster names ws, a listener that is off"),
        (vec!["serve", "--config", "/nowhere"], "--config /nowhere: cannot be read: No such file"),
        (vec!["serve", "--verbose"], "unexpected argument '--verbose'"),
        (vec!["token", "create", "--role", "root"], "[possible values: viewer, operator, admin]"),
        (
            vec!["token", "create", "--role", "admin", "--ttl", "0d"],
            "expected a number above 0 with s, m, h or d",
        ),
        (
            vec!["sessions", "list", "--token", "x", "--url", "https://h"],
            "--url https://h: expected http://HOST:PORT",
        ),
        (vec!["sessions", "set-expiry", "x"], "--seconds <N>|--at <TIME>|--clear"),
    ] {
        let said_instead = refusal(&run(&arguments).await, 2);
        assert!(said_instead.contains(said), "{arguments:?}: {said_instead}");
        assert!(!said_instead.contains("pw"), "a password is shown: {said_instead}");
    }
}

#[tokio::test]
async fn a_flag_beats_the_environment_and_that_beats_the_file() {
    let temp = TempDir::new().expect("a directory");
    let file = temp.path().join("holdfast.toml");
    std::fs::write(&file, "tls-cert = '/from-file'\ntls-key = '/key'\n").expect("written");
    // A certificate that cannot be read is named, before anything else is done.
    let given = async |variable: Option<&str>, flag: Option<&str>| {
        let mut command = program();
        command.arg("serve").arg("--config").arg(&file);
        command.envs(variable.map(|value| ("HOLDFAST_TLS_CERT", value)));
        command.args(flag.iter().flat_map(|value| ["--tls-cert", *value]));
        refusal(&command.output().await.expect("the program starts"), 1)
    };
    assert!(given(None, None).await.contains("--tls-cert /from-file: cannot be read"));
    assert!(given(Some("/from-variable"), None).await.contains("--tls-cert /from-variable: cannot be read"));
    assert!(given(Some("/from-variable"), Some("/flag")).await.contains("--tls-cert /flag: cannot be read"));
}

#[tokio::test]
async fn an_unknown_key_of_the_file_is_refused() {
    let temp = TempDir::new().expect("a directory");
    let file = temp.path().join("holdfast.toml");
    std::fs::write(&file, "htpp = '127.0.0.1:1'\n").expect("written");
    let output = run(&["serve", "--config", file.to_str().expect("UTF-8")]).await;
    assert!(refusal(&output, 2).contains("unknown key htpp; the keys are "));
}

#[tokio::test]
async fn a_service_that_is_away_is_one_clear_line() {
    let output = run(&["sessions", "list", "--token", "x", "--url", "http://127.0.0.1:1"]).await;
    let said = refusal(&output, 1);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("http://127.0.0.1:1/v1/clusters/default/sessions"), "{said}");
    assert!(said.contains("cannot connect (is the service running?): Connection refused"), "{said}");
}

#[tokio::test]
async fn a_token_cannot_be_made_where_no_service_was() {
    let temp = TempDir::new().expect("a directory");
    let path = temp.path().to_str().expect("UTF-8");
    let said = refusal(&run(&["token", "create", "--role", "admin", "--data-dir", path]).await, 1);
    assert!(said.contains("has no signing secret: start the service once"), "{said}");
}

#[tokio::test]
async fn the_readme_names_every_setting() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
    let help = String::from_utf8(run(&["serve", "--help"]).await.stdout).expect("UTF-8");
    // A line of the help begins with its flag: `  -h, --help`, `      --http <ADDR>`, `--dev[=<BOOL>]`.
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let names = flags.filter_map(|flag| flag.split(|c: char| !c.is_ascii_lowercase() && c != '-').next());
    let (known, missing): (Vec<_>, Vec<_>) =
        names.partition(|name| readme.contains(&format!("| `--{name}` |")));
    assert!(known.len() >= 14 && missing.is_empty(), "in the README's table: {known:?}, not: {missing:?}");
}

#[tokio::test]
async fn the_operator_s_commands_work_on_a_running_service() {
    let server = Server::start_dev().await;
    let url = format!("http://{}", server.http);
    let data = server.data_path();
    let operator = async |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).args(["--url", &url, "--data-dir"]).arg(&data);
        let output = command.output().await.expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };

    let (code, out, _) = operator(&["clusters", "create", "team-7", "--plan", "pro"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "cluster team-7 exists now\n"));
    let (_, out, _) = operator(&["clusters", "list"]).await;
    let ids: Vec<_> = out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(ids, ["CLUSTER", "default", "team-7"]);
    let (_, out, _) = operator(&["clusters", "get", "team-7", "--json"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).expect("JSON")["plan"], "pro");
    let (code, _, said) = operator(&["sessions", "get", "nobody"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("(404 session_not_found)"), "{said}");
    let (code, ..) = operator(&["clusters", "delete", "team-7"]).await;
    assert_eq!(code, Some(0));
    server.stop().await;
}

#[tokio::test]
async fn a_token_opens_what_its_role_allows() {
    let server = Server::start_dev().await;
    let data = server.data_path();
    let output = program()
        .args(["token", "create", "--role", "viewer", "--ttl", "5m", "--data-dir"])
        .arg(&data)
        .output()
        .await
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("ASCII").trim_end().to_owned();
    let viewer = server.api_as(Some(token));
    viewer.get("/v1/clusters/default").await.expect(200);
    viewer.delete("/v1/clusters/default").await.expect_problem(403, "forbidden");
    server.stop().await;
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_nothing_else() {
    let temp = TempDir::new().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("an address");
    let doctor = async |mqtt: &str| {
        let mut command = program();
        command.args(["doctor", "--http", "127.0.0.1:0", "--mqtt", mqtt, "--data-dir"]).arg(temp.path());
        let output = command.output().await.expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, table) = doctor("127.0.0.1:0").await;
    assert_eq!(code, Some(0), "{table}");
    let (code, table) = doctor(&taken.1.to_string()).await;
    assert_eq!(code, Some(1), "{table}");
    let failed: Vec<_> = table.lines().filter(|line| line.contains(" failed ")).collect();
    assert_eq!(failed.len(), 1, "{table}");
    assert!(failed[0].contains(&taken.1.to_string()), "{table}");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_ends_the_start_with_one_line() {
    let temp = TempDir::new().expect("a directory");
    let url = "postgres://u:secret@127.0.0.1:1/d";
    let output = program()
        .args([
            "serve",
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "127.0.0.1:0",
            "--database-url",
            url,
            "--data-dir",
        ])
        .arg(temp.path())
        .output()
        .await
        .expect("the program starts");
    let said = refusal(&output, 1);
    let last = said.lines().last().unwrap_or_default();
    let clear = "holdfast: cannot reach the database at postgres://u:***@127.0.0.1:1/d: ";
    assert!(last.starts_with(clear), "{said}");
    assert!(!said.contains("secret"), "a password is shown: {said}");
}

#[tokio::test]
async fn one_data_directory_serves_one_process() {
    let server = Server::start_dev().await;
    let output = program()
        .args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_path())
        .output()
        .await
        .expect("the program starts");
    let said = refusal(&output, 1);
    assert!(said.contains("is another holdfast using it?"), "{said}");
    server.stop().await;
}
