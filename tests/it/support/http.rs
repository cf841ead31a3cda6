//! A caller of the HTTP API, with the administrator's token unless told otherwise.

use std::net::SocketAddr;

use reqwest::header::{ETAG, HeaderMap, IF_MATCH};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// A caller of one server.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    token: Option<String>,
    prefer: Option<&'static str>,
}

/// What the server answered.
pub(crate) struct Answer {
    request: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    pub(crate) fn new(address: SocketAddr, token: impl Into<Option<String>>) -> Self {
        Self { client: Client::new(), base: format!("http://{address}"), token: token.into(), prefer: None }
    }

    /// The same with this preference.
    pub(crate) fn preferring(&self, preference: &'static str) -> Self {
        Self { prefer: Some(preference), ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body), None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body), None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body), None).await
    }

    /// Replaces what was read before, as `answer` showed it.
    pub(crate) async fn put_over(&self, answer: &Answer, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body), Some(answer.etag())).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>, if_match: Option<&str>) -> Answer {
        let name = format!("{method} {path}");
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(preference) = self.prefer {
            request = request.header("prefer", preference);
        }
        if let Some(tag) = if_match {
            request = request.header(IF_MATCH, tag);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        Answer { request: name, status, headers, text }
    }
}

impl Answer {
    /// The body, which must have come with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        let Self { request, status: found, text, .. } = &self;
        assert_eq!(found.as_u16(), status, "{request}: {text}");
        self.json()
    }

    /// The body, which must be the problem of this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Value {
        let kind = self.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let problem = self.expect(status);
        assert_eq!(kind, "application/problem+json", "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        problem
    }

    #[track_caller]
    fn json(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.request, self.text))
    }

    #[track_caller]
    fn etag(&self) -> &str {
        let tag = self.headers.get(ETAG).unwrap_or_else(|| panic!("{}: no ETag", self.request));
        tag.to_str().expect("an ASCII ETag")
    }
}
