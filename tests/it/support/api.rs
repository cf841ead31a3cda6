//! The HTTP API on a free port, over a database of its own and a stand-in for the data plane.
//!
//! Every answer is held against the specification: an operation that answers with a status or a
//! problem code that it does not document fails the test that met it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use holdfast::clock::Clock;
use holdfast::control_plane::background::desired::DesiredPublisher;
use holdfast::control_plane::background::operations::Operations;
use holdfast::control_plane::http::{ApiState, openapi, router, server};
use holdfast::control_plane::tokens::{Grant, Role, TokenIssuer, TokenSecret, TokenVerifier};
use holdfast::model::Timestamp;
use holdfast::seam::command::DataPlane;
use holdfast::seam::desired::DesiredReceiver;
use holdfast::seam::{command, desired};
use holdfast::store::Store;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::data_plane::FakeDataPlane;
use super::database::TestDatabase;
use super::sessions::{T, cluster_id};

const SECRET: TokenSecret = TokenSecret::new(*b"a secret of the integration test");

/// The specification as JSON.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(openapi()).expect("the specification is JSON"));

/// A served API.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) data_plane: FakeDataPlane,
    pub(crate) desired: DesiredReceiver,
    pub(crate) publisher: Arc<DesiredPublisher>,
    pub(crate) router: Router,
    /// Commands to the stand-in.
    pub(crate) commands: DataPlane,
    /// Carries its purges out, when a test says so.
    pub(crate) operations: Arc<Operations>,
    /// Ends its streams.
    pub(crate) stopping: CancellationToken,
    base: String,
    client: reqwest::Client,
    tasks: Vec<JoinHandle<()>>,
    // Last: dropped when nothing needs it any more.
    pub(crate) database: TestDatabase,
}

impl Api {
    /// An API without clusters, at the time [`T`].
    pub(crate) async fn start() -> Self {
        Self::start_with(|state| state).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(settings: impl FnOnce(ApiState) -> ApiState) -> Self {
        let clock = Clock::new();
        clock.jump_millis(T.as_millis() - clock.wall().as_millis());
        let database = TestDatabase::create().await;
        let store = Store::connect(database.options(), clock.clone()).await.expect("connect");
        let (sender, desired) = desired::channel();
        let publisher = Arc::new(DesiredPublisher::new(store.clone(), sender));
        let (commands, receiver) = command::channel();
        let (data_plane, answering) =
            FakeDataPlane::start(store.clone(), clock.clone(), desired.clone(), receiver);
        let state = ApiState::new(
            store.clone(),
            commands.clone(),
            Arc::clone(&publisher),
            clock.clone(),
            TokenVerifier::new(&SECRET),
            TaskTracker::new(),
        );
        let operations = Arc::clone(&state.operations);
        let stopping = CancellationToken::new();
        let state = settings(state.stopped_by(stopping.clone()));
        let router = router(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (served, ends) = (router.clone(), stopping.clone());
        let serving = tokio::spawn(async move {
            server::serve(listener, served, server::Limits::default(), ends).await.expect("serve");
        });
        let client = reqwest::Client::new();
        let tasks = vec![serving, answering];
        Self {
            store,
            clock,
            data_plane,
            desired,
            publisher,
            router,
            commands,
            operations,
            stopping,
            base,
            client,
            tasks,
            database,
        }
    }

    /// The same with these clusters.
    pub(crate) async fn with_clusters(ids: &[&str]) -> Self {
        Self::start().await.and_clusters(ids).await
    }

    /// The same with these clusters too.
    pub(crate) async fn and_clusters(self, ids: &[&str]) -> Self {
        let api = self;
        for id in ids {
            api.admin().post("/v1/clusters", &json!({"id": id})).await.expect(201);
        }
        api
    }

    /// A token that ends in a minute.
    pub(crate) fn token(&self, role: Role, cluster: Option<&str>) -> String {
        token_at(role, cluster, self.clock.wall())
    }

    /// Calls as administrator of everything.
    pub(crate) fn admin(&self) -> Caller<'_> {
        self.with_token(&self.token(Role::Admin, None))
    }

    /// Calls with this token.
    pub(crate) fn with_token(&self, token: &str) -> Caller<'_> {
        Caller { api: self, headers: vec![("authorization".to_owned(), format!("Bearer {token}"))] }
    }

    /// Calls without a token.
    pub(crate) fn anonymous(&self) -> Caller<'_> {
        Caller { api: self, headers: Vec::new() }
    }
}

/// Judges the tokens of [`Api::token`].
pub(crate) fn own_tokens() -> TokenVerifier {
    TokenVerifier::new(&SECRET)
}

/// A token issued then, for a minute.
pub(crate) fn token_at(role: Role, cluster: Option<&str>, at: Timestamp) -> String {
    let grant = Grant { subject: "ada".to_owned(), role, cluster: cluster.map(cluster_id) };
    TokenIssuer::new(&SECRET).issue(&grant, at, Duration::from_mins(1)).expect("a token")
}

impl Drop for Api {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Somebody who calls the API.
#[derive(Clone)]
pub(crate) struct Caller<'a> {
    api: &'a Api,
    headers: Vec<(String, String)>,
}

impl Caller<'_> {
    /// The same with one more header.
    pub(crate) fn header(&self, name: &str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, Some(body.to_string())).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Asks for a stream, and leaves its body to be read.
    pub(crate) async fn open(&self, path: &str) -> reqwest::Response {
        let mut request = self.api.client.get(format!("{}{path}", self.api.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.send().await.expect("an answer")
    }

    /// Sends; a body is JSON unless a header says otherwise.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let mut request = self.api.client.request(method.clone(), format!("{}{path}", self.api.base));
        if let Some(body) = body {
            if !self.headers.iter().any(|(name, _)| name == "content-type") {
                request = request.header("content-type", "application/json");
            }
            request = request.body(body);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let headers = response.headers().clone();
        // A stream of events does not end: that it begins is the answer.
        let endless = headers.get("content-type").is_some_and(|value| value == "text/event-stream");
        let text = if endless { String::new() } else { response.text().await.expect("a text") };
        let answer = Answer { asked: format!("{method} {path}"), status, headers, text };
        answer.check_conventions();
        check_documented(&method, path, &answer);
        answer
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    asked: String,
    pub(crate) status: StatusCode,
    headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body, when the status is this one.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.asked, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The body of a problem with this code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, code: &str) -> Value {
        let body = self.json();
        assert_eq!(body["code"], code, "{}: {}", self.asked, self.text);
        body
    }

    /// A header, which must be there.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.asked));
        value.to_str().expect("a text")
    }

    pub(crate) fn etag(&self) -> &str {
        self.header("etag")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{}: {e}: {}", self.asked, self.text))
    }

    /// Whether it says that the change is committed and not enforced yet.
    pub(crate) fn is_pending(&self) -> bool {
        let said = self.headers.get("enforcement").is_some_and(|value| value == "pending");
        assert!(!said || self.status == 202, "{}: {}", self.asked, self.status);
        said
    }

    /// Whether it is an earlier answer given again.
    pub(crate) fn replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some()
    }

    /// What holds for every answer.
    fn check_conventions(&self) {
        assert!(!self.header("x-request-id").is_empty());
        assert_eq!(self.header("cache-control"), "no-store", "{}", self.asked);
        if !self.status.is_client_error() && !self.status.is_server_error() {
            return;
        }
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.asked);
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16(), "{}", self.asked);
        assert_eq!(body["request_id"], self.header("x-request-id"), "{}", self.asked);
        assert!(body["instance"].is_string() && body["title"].is_string(), "{}", self.text);
        if matches!(self.status.as_u16(), 429 | 503) {
            assert!(self.header("retry-after").parse::<u32>().is_ok());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            assert!(self.header("www-authenticate").starts_with("Bearer"));
        }
    }
}

/// Fails when an operation answers with what it does not document.
fn check_documented(method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else { return };
    let responses = &operation["responses"];
    let documented = &responses[answer.status.as_str()];
    assert!(documented.is_object(), "{}: {} is not documented: {}", answer.asked, answer.status, answer.text);
    if answer.status.is_client_error() || answer.status.is_server_error() {
        let code = answer.json()["code"].as_str().expect("a code").to_owned();
        let listed = &documented["content"]["application/problem+json"]["examples"][&code];
        assert!(listed.is_object(), "{}: {code} is not documented", answer.asked);
    }
}

/// The operation of the specification that a request meets.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let meets = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(want), Some(give)) if want == give || (want.starts_with('{') && !give.is_empty()) => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let item = paths.iter().find(|(template, _)| meets(template)).map(|(_, item)| item)?;
    item.get(method.as_str().to_ascii_lowercase())
}
