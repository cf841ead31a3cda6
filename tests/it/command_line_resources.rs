//! The operator's commands on resources, on a running service: what they print, and with which exit code.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::support::mqtt::{RawClient, connect_v5};
use crate::support::server::{Server, program};

/// A service, and whoever types commands for it.
struct Site {
    server: Server,
    files: TempDir,
}

/// What a command has said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// What it printed, having done what it should.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Why it could not.
    #[track_caller]
    fn refused(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        self.err
    }
}

impl Site {
    async fn start() -> Self {
        Self { server: Server::start_dev().await, files: TempDir::new().expect("a directory") }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = program();
        command.args(arguments.split(' ')).arg("--url").arg(format!("http://{}", self.server.http));
        command.arg("--data-dir").arg(self.server.data_path());
        command
    }

    async fn run(&self, arguments: &str) -> Said {
        let output = self.command(arguments).output().await.expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The same with `--json`.
    async fn json(&self, arguments: &str) -> Value {
        let out = self.run(&format!("{arguments} --json")).await.done();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments}: {error}: {out}"))
    }

    /// The name of a file with this body.
    fn file(&self, body: &Value) -> String {
        let path: PathBuf = self.files.path().join("body.json");
        std::fs::write(&path, body.to_string()).expect("written");
        path.display().to_string()
    }
}

#[tokio::test]
async fn a_quota_is_read_and_written_unless_it_has_changed() {
    let site = Site::start().await;
    let read = site.run("quota get").await;
    let etag = read.err.trim_end().strip_prefix("ETag ").expect("an entity tag").to_owned();
    assert!(read.out.contains("connections"), "{read:?}");
    let file = site.file(&json!({"connections": 3}));
    let said = site.run(&format!("quota put --file {file}")).await.refused(1);
    assert!(said.contains("(428 precondition_required)"), "{said}");
    let put = site.json(&format!("quota put -f {file} --if-match {etag}")).await;
    assert_eq!(put["connections"]["limit"], 3);
    let said = site.run(&format!("quota put -f {file} --if-match {etag}")).await.refused(1);
    assert!(said.contains("(412 precondition_failed)"), "{said}");
    let tried = site.file(&json!({"connections": 1}));
    let foreseen = site.json(&format!("quota put -f {tried} --if-match * -p validate_only=true")).await;
    assert_eq!(foreseen["excess"]["validate_only"], true);
    assert_eq!(site.json("usage get").await["limit"], 3);
    assert!(site.run("usage history").await.done().starts_with("HOUR "));
    site.server.stop().await;
}

#[tokio::test]
async fn who_is_known_allowed_and_kept_out_is_written_by_files() {
    let site = Site::start().await;
    let user = site.file(&json!({"password": "a long password"}));
    site.run(&format!("users put ada -f {user}")).await.done();
    let out = site.run("users list").await.done();
    assert_eq!(out.lines().map(|line| &line[..8]).collect::<Vec<_>>(), ["USERNAME", "ada     "]);
    assert_eq!(site.run("users delete ada").await.done(), "ada is gone\n");

    for (resource, body, changed) in [
        (
            "policies",
            json!({"priority": 1, "effect": "allow", "actions": ["publish"], "resources": ["a/#"]}),
            json!({"priority": 2, "effect": "allow", "actions": ["publish"], "resources": ["a/#"]}),
        ),
        (
            "block-rules",
            json!({"subject": "client_id", "pattern": "meter-*"}),
            json!({"subject": "client_id", "pattern": "meter-1"}),
        ),
        (
            "authenticators",
            json!({"position": 1, "password": {}, "enabled": false}),
            json!({"position": 2, "password": {}, "enabled": false}),
        ),
    ] {
        let file = site.file(&body);
        let made = site.json(&format!("{resource} create -f {file}")).await;
        let id = made["id"].as_str().expect("an id");
        let file = site.file(&changed);
        site.run(&format!("{resource} put {id} -f {file} --if-match *")).await.done();
        let read = site.json(&format!("{resource} get {id}")).await;
        for (field, value) in changed.as_object().expect("fields") {
            assert_eq!(read[field], *value, "{resource} {field}");
        }
        let out = site.run(&format!("{resource} list")).await.done();
        assert!(out.lines().nth(1).expect("a row").starts_with(id), "{out}");
        site.run(&format!("{resource} delete {id}")).await.done();
        let said = site.run(&format!("{resource} get {id}")).await.refused(1);
        assert!(said.contains("(404 "), "{said}");
    }
    site.server.stop().await;
}

#[tokio::test]
async fn a_body_comes_from_standard_input_too() {
    let site = Site::start().await;
    let mut child = site.command("admission-checks check --file - --json").stdin(Stdio::piped()).spawn();
    let child_stdin = child.as_mut().expect("the program starts").stdin.take();
    child_stdin.expect("a pipe").write_all(br#"{"client_id": "meter"}"#).await.expect("it reads");
    let output = child.expect("the program starts").wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["admitted"], true);
    let file = site.files.path().join("body.json");
    std::fs::write(&file, "{").expect("written");
    let said = site.run(&format!("block-rules create -f {}", file.display())).await.refused(2);
    assert!(said.contains("body.json: not JSON"), "{said}");
    let said = site.run("block-rules create").await.refused(2);
    assert!(said.contains("--file <FILE>"), "{said}");
    let said = site.run("block-rules list -p x").await.refused(2);
    assert!(said.contains("expected NAME=VALUE"), "{said}");
    site.server.stop().await;
}

#[tokio::test]
async fn what_happens_is_followed_and_found_again() {
    let site = Site::start().await;
    let mut follower =
        site.command("events follow -p since=0 --count 2").spawn().expect("the program starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let mut device = RawClient::open(site.server.mqtt).await;
    device.send(&connect_v5("meter", false, 600)).await;
    device.packet().await;
    site.run("sessions delete meter --reason moved").await.done();
    for kind in ["created", "attached"] {
        let line = lines.next_line().await.expect("readable").expect("an event");
        assert!(line.contains("  meter  ") && line.contains(kind), "{line}");
    }
    assert!(follower.wait().await.expect("it ends").success());

    let rows = site.json("audit-log list -p client_id=meter -p operation=delete_session").await;
    assert_eq!((rows.as_array().map(Vec::len), &rows[0]["outcome"]), (Some(1), &json!("succeeded")));
    let said = site.run("audit-log list -p colour=red").await.refused(1);
    assert!(said.contains("unknown_parameter") && said.contains("colour"), "{said}");
    assert_eq!(site.json("nodes list").await.as_array().map(Vec::len), Some(1));
    assert!(site.run("plans list").await.done().contains("unlimited"));
    assert_eq!(site.run("refusals list").await.done().lines().count(), 1);
    site.server.stop().await;
}

#[tokio::test]
async fn an_operation_is_waited_for_and_a_key_is_shown_once() {
    let site = Site::start().await;
    let api = site.server.api();
    for n in 0..3 {
        api.put(&format!("/v1/clusters/default/sessions/meter-{n}"), json!({})).await.expect(201);
    }
    let mut purge = json!({"action": "delete", "filter": "client_id_prefix=meter-"});
    let plan = api.post("/v1/clusters/default/session-purges", purge.clone()).await.expect(200);
    purge["plan_token"] = plan["plan_token"].clone();
    let made = api.post("/v1/clusters/default/session-purges", purge).await.expect(202);
    let id = made["id"].as_str().expect("an id");
    let ended = site.json(&format!("operations wait {id}")).await;
    assert_eq!((&ended["state"], &ended["outcomes"]), (&json!("succeeded"), &json!({"deleted": 3})));
    let out = site.run(&format!("operations sessions {id}")).await.done();
    assert_eq!(out.lines().filter(|line| line.contains("deleted")).count(), 3, "{out}");
    let said = site.run(&format!("operations cancel {id}")).await.refused(1);
    assert!(said.contains("(409 operation_ended)"), "{said}");

    let file = site.file(&json!({"name": "dashboard", "role": "viewer"}));
    let key = site.json(&format!("api-keys create -f {file}")).await;
    let secret = key["key"].as_str().expect("the key");
    let listed = site.run("api-keys list").await.done();
    assert!(listed.contains("dashboard") && !listed.contains(secret), "{listed}");
    let known = site.run(&format!("clusters list --token {secret}")).await.done();
    assert!(known.contains("default"), "{known}");
    let id = key["api_key"]["id"].as_str().expect("an id");
    assert_ne!(site.json(&format!("api-keys revoke {id}")).await["revoked_at"], Value::Null);
    site.run(&format!("clusters list --token {secret}")).await.refused(1);
    site.server.stop().await;
}

#[tokio::test]
async fn groups_and_webhooks_are_looked_at_and_ended() {
    let site = Site::start().await;
    site.run("sessions create worker --subscribe $share/readers/site/#").await.done();
    let out = site.run("shared-groups list").await.done();
    assert!(out.lines().nth(1).expect("a row").starts_with("$share/readers/site/#  1"), "{out}");
    let file = site.file(&json!({"to": "now"}));
    site.run(&format!("shared-groups move $share/readers/site/# -f {file}")).await.done();
    site.run("shared-groups delete $share/readers/site/#").await.refused(1);
    let ended = site.json("shared-groups delete $share/readers/site/# -p force=true").await;
    assert_eq!(ended["members"], 1);

    let file = site.file(&json!({"name": "w", "url": "https://example.com/hook"}));
    let made = site.json(&format!("webhooks create -f {file}")).await;
    let id = made["webhook"]["id"].as_str().expect("an id");
    let file = site.file(&json!({"enabled": false}));
    assert_eq!(site.json(&format!("webhooks patch {id} -f {file}")).await["enabled"], false);
    assert_eq!(site.run(&format!("webhooks dead-letters {id}")).await.done().lines().count(), 1);
    assert_eq!(site.run(&format!("webhooks delete {id}")).await.done(), format!("{id} is gone\n"));
    site.server.stop().await;
}
