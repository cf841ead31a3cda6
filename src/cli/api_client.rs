//! A caller of the HTTP API: one request, one connection, one JSON answer.
//!
//! Deliberately small: plain HTTP only (a service behind TLS is reached through its proxy's plain side or
//! with curl), no redirects, no retries, no pool.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, IF_MATCH};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{UsageError, output};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longer than the service itself allows a request to take.
const ANSWER_MAX: Duration = Duration::from_secs(45);
/// A page of a thousand records with the longest client ids is below 4 MiB.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// What stands for itself in a path segment (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a service is and who asks.
pub(super) struct ApiClient {
    host: String,
    port: u16,
    token: String,
}

/// What a request was answered.
pub(super) struct Reply {
    /// `Null` where there is no body.
    pub(super) json: Value,
    /// The version of what was answered.
    pub(super) etag: Option<String>,
    /// Whether it is committed and not enforced yet.
    is_pending: bool,
}

impl Reply {
    async fn read(answer: Response<Incoming>) -> anyhow::Result<Self> {
        let (parts, body) = answer.into_parts();
        let bytes = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| anyhow!(error).context("the answer broke off or is too long"))?
            .to_bytes();
        let status = parts.status;
        let json = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).with_context(|| format!("status {status}, and no JSON"))?
        };
        if !status.is_success() {
            return Err(problem(status.as_u16(), &json));
        }
        let header = |name: &str| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
        Ok(Self { json, etag: header("etag"), is_pending: header("enforcement").is_some() })
    }
}

/// A stream of events that is read as it comes.
pub(super) struct EventStream {
    body: Incoming,
    /// What has come of the next event.
    read: Vec<u8>,
    _driver: AbortOnDrop,
}

/// A task that ends with whoever holds this.
struct AbortOnDrop(JoinHandle<()>);

impl From<JoinHandle<()>> for AbortOnDrop {
    fn from(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl EventStream {
    /// The data of the next event; `None` when the stream has ended.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                // The service writes an event's data as one line; the other lines repeat parts of it.
                if let Some(data) = line.strip_prefix(b"data: ") {
                    return Ok(Some(String::from_utf8_lossy(data).trim_end().to_owned()));
                }
            }
            if self.read.len() > ANSWER_BYTES_MAX {
                bail!("an event is too long");
            }
            // A heartbeat comes more often than this.
            let frame = timeout(ANSWER_MAX, self.body.frame()).await;
            let frame = frame.map_err(|_| anyhow!("nothing came for {} s", ANSWER_MAX.as_secs()))?;
            match frame {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.context("the stream broke off")?.into_data() {
                        self.read.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }
}

async fn within<T>(time_max: Duration, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(time_max, work).await.map_err(|_| anyhow!("no answer within {} s", time_max.as_secs())).flatten()
}

/// Path and query of a request, escaped piece by piece.
pub(super) struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// `/v1` and the segments: names of resources and ids alike.
    pub(super) fn new(segments: &[&str]) -> Self {
        let mut text = "/v1".to_owned();
        for segment in segments {
            text.push('/');
            text.extend(escape(segment));
        }
        Self { text, has_query: false }
    }

    /// The same with a parameter more.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(escape(value));
        self.has_query = true;
        self
    }
}

/// A segment of dots alone would be taken for a step in the hierarchy: it is escaped whole.
fn escape(text: &str) -> impl Iterator<Item = &str> {
    static DOTS: &AsciiSet = NON_ALPHANUMERIC;
    let set = if text.bytes().all(|b| b == b'.') { DOTS } else { SEGMENT };
    utf8_percent_encode(text, set)
}

impl ApiClient {
    /// A caller of the service at `url`, such as `http://127.0.0.1:8080`.
    pub(super) fn new(url: &str, token: String) -> Result<Self, UsageError> {
        let refuse =
            || UsageError(format!("--url {url}: expected http://HOST:PORT, such as http://127.0.0.1:8080"));
        let uri: Uri = url.parse().map_err(|_| refuse())?;
        let plain =
            uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri.authority().filter(|_| plain).ok_or_else(refuse)?;
        let host = authority.host().to_owned();
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), token })
    }

    /// Sends a request and returns the JSON of its answer; `Null` where the answer has no body.
    ///
    /// # Errors
    /// What kept the service from answering, or the problem it answered with.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &Target,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        Ok(self.ask(method, target, body, None).await?.json)
    }

    /// The same with a precondition, and with the headers of the answer that matter.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &Target,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let exchange = async {
            let mut request = self.request(method, target, body)?;
            if let Some(tag) = if_match {
                let refuse = |_| UsageError("--if-match: expected an entity tag or *".to_owned());
                request.headers_mut().insert(IF_MATCH, HeaderValue::from_str(tag).map_err(refuse)?);
            }
            let (answer, driver) = self.exchange(request).await?;
            let reply = Reply::read(answer).await;
            driver.abort();
            reply
        };
        let reply = within(ANSWER_MAX, exchange).await.with_context(|| self.url_of(target))?;
        if reply.is_pending {
            output::notice("committed, but the service has not confirmed yet that it is enforced");
        }
        Ok(reply)
    }

    /// Follows a stream of events, behind the one with the id `last` where one is given.
    pub(super) async fn follow(&self, target: &Target, last: Option<&str>) -> anyhow::Result<EventStream> {
        let open = async {
            let mut request = self.request(Method::GET, target, None)?;
            if let Some(last) = last {
                request.headers_mut().insert("last-event-id", HeaderValue::from_str(last)?);
            }
            let (answer, driver) = self.exchange(request).await?;
            if !answer.status().is_success() {
                Reply::read(answer).await?;
                bail!("the answer is no stream");
            }
            Ok(EventStream { body: answer.into_body(), read: Vec::new(), _driver: driver.into() })
        };
        within(ANSWER_MAX, open).await.with_context(|| self.url_of(target))
    }

    fn url_of(&self, target: &Target) -> String {
        format!("http://{}:{}{}", self.host, self.port, target.text)
    }

    /// Sends a request over a connection of its own, which the task drives until it is aborted.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(Response<Incoming>, JoinHandle<()>)> {
        let address = (self.host.trim_matches(['[', ']']), self.port);
        let stream = timeout(CONNECT_MAX, TcpStream::connect(address))
            .await
            .map_err(|_| anyhow!("no connection within {} s", CONNECT_MAX.as_secs()))?
            .context("cannot connect (is the service running?)")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Its failure is the failure of the request.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok((sender.send_request(request).await?, driver))
    }

    fn request(
        &self,
        method: Method,
        target: &Target,
        body: Option<&Value>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .map_err(|_| UsageError("--token: expected one line of printable characters".to_owned()))?;
        token.set_sensitive(true);
        let mut request = Request::builder()
            .method(method)
            .uri(&target.text)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(AUTHORIZATION, token);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        Ok(request.body(Full::from(body))?)
    }

    /// Every item of a list, page by page, at most `limit`; and whether there are more.
    pub(super) async fn list(
        &self,
        target: impl Fn() -> Target,
        limit: usize,
    ) -> anyhow::Result<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let mut page_token: Option<String> = None;
        loop {
            let page_size = (limit - items.len()).min(1_000).to_string();
            let mut page = target().with("page_size", &page_size);
            if let Some(token) = &page_token {
                page = page.with("page_token", token);
            }
            let answer = self.send(Method::GET, &page, None).await?;
            let Some(more) = answer["items"].as_array() else { bail!("the answer has no items") };
            items.extend(more.iter().cloned());
            page_token = answer["next_page_token"].as_str().map(str::to_owned);
            if page_token.is_none() || items.len() >= limit {
                items.truncate(limit);
                return Ok((items, page_token.is_some()));
            }
        }
    }
}

/// A problem (RFC 9457) as one line.
fn problem(status: u16, json: &Value) -> anyhow::Error {
    let text = |name: &str| json[name].as_str().unwrap_or_default();
    let mut line = match text("code") {
        "" => format!("status {status}"),
        code => format!("{} ({status} {code})", text("title")),
    };
    if !text("detail").is_empty() {
        line = format!("{line}: {}", text("detail"));
    }
    for error in json["errors"].as_array().into_iter().flatten() {
        let place = error["pointer"].as_str().or(error["parameter"].as_str()).unwrap_or("request");
        line = format!("{line}; {place}: {}", error["detail"].as_str().unwrap_or("wrong"));
    }
    if !text("request_id").is_empty() {
        line = format!("{line} [request {}]", text("request_id"));
    }
    anyhow!(line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_id_is_one_segment_whatever_is_in_it() {
        let path = |id: &str| Target::new(&["clusters", "default", "sessions", id]).text;
        assert_eq!(path("a/b?c=ü %"), "/v1/clusters/default/sessions/a%2Fb%3Fc%3D%C3%BC%20%25");
        assert_eq!(path(".."), "/v1/clusters/default/sessions/%2E%2E");
        assert_eq!(path("meter-1.a_b~c"), "/v1/clusters/default/sessions/meter-1.a_b~c");
        let query = Target::new(&["clusters"]).with("a", "1&2").with("b", "x");
        assert_eq!(query.text, "/v1/clusters?a=1%262&b=x");
    }

    #[test]
    fn urls_are_plain_http_without_a_path() {
        for good in ["http://127.0.0.1:8080", "http://[::1]:8080/", "http://localhost"] {
            assert!(ApiClient::new(good, String::new()).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:8080", "https://h", "http://h/v1", "http://h?x", "http://", ""] {
            assert!(ApiClient::new(bad, String::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_problem_is_one_line() {
        let json = json!({
            "title": "The body has a wrong field", "code": "invalid_body", "detail": "see errors",
            "errors": [{"pointer": "#/expiry", "detail": "at most 9"}], "request_id": "r1",
        });
        assert_eq!(
            problem(400, &json).to_string(),
            "The body has a wrong field (400 invalid_body): see errors; #/expiry: at most 9 [request r1]"
        );
        assert_eq!(problem(502, &Value::Null).to_string(), "status 502");
    }
}
