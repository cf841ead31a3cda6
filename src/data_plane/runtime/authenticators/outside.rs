//! Asks another service over HTTP who a client is.
//!
//! `200` with a JSON object answers: `result` is `allow`, `deny` or `ignore`; `is_superuser`, `expire_at` (seconds
//! since 1970) and `acl` go with `allow`. `204` allows. Everything else is no answer. All of it has one time, the
//! wait for a place among the requests at once included.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::model::{Acl, BodyEncoding, HttpMethod, HttpSettings, Timestamp, Values};
use crate::outbound::{HttpClient, OutboundError, Outgoing};

/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// A service that can be asked.
#[derive(Debug)]
pub(super) struct Outside {
    settings: HttpSettings,
    http: HttpClient,
    /// A permit for each request that there may be at once.
    requests: Arc<Semaphore>,
}

/// What it answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow { is_superuser: bool, expires_at: Option<Timestamp>, acl: Acl },
    Deny,
    Ignore,
}

#[derive(Deserialize)]
struct Body {
    result: Word,
    #[serde(default)]
    is_superuser: Option<bool>,
    #[serde(default)]
    expire_at: Option<i64>,
    #[serde(default)]
    acl: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
    Ignore,
}

impl Outside {
    pub(super) fn new(settings: HttpSettings, http: HttpClient) -> Self {
        let requests = usize::try_from(settings.requests_max).unwrap_or(1).max(1);
        Self { settings, http, requests: Arc::new(Semaphore::new(requests)) }
    }

    /// Asks.
    ///
    /// # Errors
    /// There is no answer: why. Says nothing of the client.
    pub(super) async fn ask(&self, values: &Values<'_>) -> Result<Answer, String> {
        let time_max = Duration::from_secs(self.settings.timeout_secs.into());
        let exchange = async {
            let Ok(_permit) = self.requests.acquire().await else { return Err("no place".to_owned()) };
            self.exchange(values, time_max).await
        };
        let late = || Err(OutboundError::TimedOut(time_max).to_string());
        tokio::time::timeout(time_max, exchange).await.unwrap_or_else(|_| late())
    }

    async fn exchange(&self, values: &Values<'_>, time_max: Duration) -> Result<Answer, String> {
        let cannot = || "what the client sent cannot be told in the request".to_owned();
        let url = self.settings.url.fill(values).ok_or_else(cannot)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.settings.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            let mut value = HeaderValue::try_from(value.expose()).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let (method, body) = match self.settings.method {
            HttpMethod::Get => (Method::GET, Bytes::new()),
            HttpMethod::Post => {
                let (kind, body) = self.body(values).ok_or_else(cannot)?;
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                (Method::POST, body)
            }
        };
        let answer_bytes_max = ANSWER_BYTES_MAX;
        let asked = Outgoing { method, url: &url, headers, body, time_max, answer_bytes_max };
        let answer = self.http.send(asked).await.map_err(|error| error.to_string())?;
        read(answer.status, &answer.body)
    }

    /// The body and its media type.
    fn body(&self, values: &Values<'_>) -> Option<(&'static str, Bytes)> {
        let fields = self.settings.fields.iter().map(|(name, template)| Some((name, template.fill(values)?)));
        Some(match self.settings.encoding {
            BodyEncoding::Json => {
                let fields =
                    fields.map(|field| field.map(|(name, value)| (name.clone(), Value::String(value))));
                let object: Map<String, Value> = fields.collect::<Option<_>>()?;
                ("application/json", Value::Object(object).to_string().into())
            }
            BodyEncoding::Form => {
                let fields: Vec<_> = fields.collect::<Option<_>>()?;
                ("application/x-www-form-urlencoded", serde_html_form::to_string(fields).ok()?.into())
            }
        })
    }
}

fn read(status: StatusCode, body: &[u8]) -> Result<Answer, String> {
    match status {
        StatusCode::NO_CONTENT => {
            Ok(Answer::Allow { is_superuser: false, expires_at: None, acl: Acl::default() })
        }
        StatusCode::OK => {
            // What is wrong with it is not repeated: it may be anything.
            let body: Body = serde_json::from_slice(body).map_err(|_| {
                "the answer is not {\"result\": \"allow\" | \"deny\" | \"ignore\"}".to_owned()
            })?;
            Ok(match body.result {
                Word::Deny => Answer::Deny,
                Word::Ignore => Answer::Ignore,
                Word::Allow => {
                    let acl = body.acl.filter(|acl| !acl.is_null()).as_ref().map(Acl::parse).transpose();
                    let acl = acl.map_err(|_| "the answer's acl cannot be read".to_owned())?;
                    let expires_at =
                        body.expire_at.map(|secs| Timestamp::from_millis(secs.saturating_mul(1_000)));
                    let is_superuser = body.is_superuser.unwrap_or_default();
                    Answer::Allow { is_superuser, expires_at, acl: acl.unwrap_or_default() }
                }
            })
        }
        other => Err(format!("answered with {}", other.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Template;
    use crate::outbound::Reach;

    fn outside(encoding: BodyEncoding) -> Outside {
        let template = |text: &str| Template::new(text).expect("a template");
        let fields = [("c", "${clientid}"), ("p", "${password}")];
        let settings = HttpSettings {
            method: HttpMethod::Post,
            url: "http://127.0.0.1:9/".parse().expect("a URL"),
            headers: [].into(),
            fields: fields.map(|(name, text)| (name.to_owned(), template(text))).into(),
            encoding,
            timeout_secs: 1,
            requests_max: 1,
        };
        Outside::new(settings, HttpClient::new(None, Reach::Public).expect("a client"))
    }

    #[test]
    fn a_body_says_of_a_client_what_it_sent_and_no_more() {
        let values = Values {
            client_id: "a\",\"p\":\"x&p=y",
            username: "",
            password: Some("ü =+"),
            peer: "",
            cluster: "",
        };
        let body = |encoding| {
            let (_, body) = outside(encoding).body(&values).expect("a body");
            String::from_utf8(body.to_vec()).expect("text")
        };
        assert_eq!(body(BodyEncoding::Json), r#"{"c":"a\",\"p\":\"x&p=y","p":"ü =+"}"#);
        assert_eq!(body(BodyEncoding::Form), "c=a%22%2C%22p%22%3A%22x%26p%3Dy&p=%C3%BC+%3D%2B");
        let no_text = Values { password: None, ..values };
        assert!(outside(BodyEncoding::Json).body(&no_text).is_none());
    }

    #[test]
    fn only_what_is_understood_is_an_answer() {
        let ok = |body: &str| read(StatusCode::OK, body.as_bytes());
        assert_eq!(ok(r#"{"result":"deny"}"#), Ok(Answer::Deny));
        assert_eq!(ok(r#"{"result":"ignore","more":1}"#), Ok(Answer::Ignore));
        let full = ok(r#"{"result":"allow","is_superuser":true,"expire_at":5,"acl":{"all":["a"]}}"#);
        let Ok(Answer::Allow { is_superuser: true, expires_at, acl }) = full else { panic!("{full:?}") };
        assert_eq!((expires_at, acl.rules().len()), (Some(Timestamp::from_millis(5_000)), 1));
        let plain = Answer::Allow { is_superuser: false, expires_at: None, acl: Acl::default() };
        assert_eq!(ok(r#"{"result":"allow","acl":null}"#).as_ref(), Ok(&plain));
        assert_eq!(read(StatusCode::NO_CONTENT, b""), Ok(plain));
        for bad in ["", "allow", r#"{"result":"yes"}"#, "{}", r#"{"result":"allow","acl":["x"]}"#] {
            assert!(ok(bad).is_err(), "{bad}");
        }
        for status in [201, 302, 401, 500] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(read(status, br#"{"result":"allow"}"#).is_err(), "{status}");
        }
    }
}
