//! The HTTP request that becomes a WebSocket.
//!
//! One request per connection: `GET /mqtt` with the subprotocol `mqtt` (MQTT 5.0, 6; RFC 6455, 4.2).
//! Anything else gets an HTTP answer that says what is wrong, and the connection is closed.
//!
//! The origin of a web page is not judged: it guards against a browser's own credentials being used
//! behind the user's back, and MQTT takes none from the browser.

use std::convert::Infallible;
use std::future::{Ready, ready};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use thiserror::Error;

use super::WebSocket;
use crate::data_plane::runtime::arrival::{Entrance, OpenError, Opened};
use crate::data_plane::runtime::carrier::Carrier;
use crate::data_plane::runtime::goodbye;

/// Where MQTT is (PRODUCT 4).
const PATH: &str = "/mqtt";

/// The subprotocols that are spoken, best first. The second is what clients of MQTT 3.1 ask for.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// The version of RFC 6455.
const VERSION: &str = "13";

/// What the client's key is put together with (RFC 6455, 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How long a request's head may be, in bytes; all that a stranger can make us keep here.
const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// Why there is no WebSocket.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The request is not one for MQTT over WebSocket; the client was told.
    #[error("refused with {}: {}", .0.status().as_u16(), .0.why())]
    Refused(Refusal),
    /// What came is not HTTP, or the connection broke.
    #[error("no HTTP request")]
    Http(#[from] hyper::Error),
    /// The client went on before it had an answer (RFC 6455, 4.1).
    #[error("the client did not wait for the answer to its request")]
    Hasty,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another path.
    Path,
    /// Another method than GET.
    Method,
    /// It asks for no WebSocket.
    NoUpgrade,
    /// It asks for another version.
    Version,
    /// The key is missing or malformed.
    Key,
    /// It does not offer MQTT (`[MQTT-6.0.0-3]`).
    Subprotocol,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Key | Self::Subprotocol => StatusCode::BAD_REQUEST,
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Path => "MQTT is at /mqtt",
            Self::Method => "a WebSocket begins with GET",
            Self::NoUpgrade => "this is a WebSocket; the request asks for no upgrade to one",
            Self::Version => "the WebSocket version spoken here is 13",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
            Self::Subprotocol => "Sec-WebSocket-Protocol must offer mqtt",
        }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.why())));
        *response.status_mut() = self.status();
        let mut put = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        match self {
            Self::Method => drop(put(hyper::header::ALLOW, "GET")),
            Self::NoUpgrade => drop(put(UPGRADE, "websocket")),
            Self::Version => drop(put(SEC_WEBSOCKET_VERSION, VERSION)),
            Self::Path | Self::Key | Self::Subprotocol => {}
        }
        put(hyper::header::CONTENT_TYPE, "text/plain");
        put(CONNECTION, "close");
        response
    }
}

/// Answers the request on a stream and makes a WebSocket of it. The caller bounds the time.
///
/// # Errors
/// [`OpenError::WebSocket`]; the stream is then closed.
pub async fn upgrade<S>(entrance: &Entrance, opened: Opened<S>) -> Result<Opened<WebSocket<S>>, OpenError>
where
    S: Carrier,
{
    let Opened { stream, origin, mut asked, certificates } = opened;
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), Doorman::default());
    // The stream comes back out of it: nothing of HTTP stays with the connection.
    let parts = connection.without_shutdown().await.map_err(UpgradeError::Http)?;
    let mut stream = parts.io.into_inner();
    match parts.service.verdict.into_inner() {
        Some(Ok(_)) if !parts.read_buf.is_empty() => Err(UpgradeError::Hasty.into()),
        Some(Ok(host)) => {
            if let Some(host) = host {
                entrance.note_host(&mut asked, &host);
            }
            Ok(Opened { stream: WebSocket::new(stream), origin, asked, certificates })
        }
        Some(Err(refusal)) => {
            goodbye::close(&mut stream).await;
            Err(UpgradeError::Refused(refusal).into())
        }
        None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Answers one request and remembers what it said.
#[derive(Debug, Default)]
struct Doorman {
    /// The host that was asked for.
    verdict: Mutex<Option<Result<Option<String>, Refusal>>>,
}

impl Service<Request<Incoming>> for Doorman {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (response, verdict) = match judge(&request) {
            Ok(response) => (response, Ok(host(&request))),
            Err(refusal) => (refusal.response(), Err(refusal)),
        };
        *self.verdict.lock() = Some(verdict);
        ready(Ok(response))
    }
}

fn host<B>(request: &Request<B>) -> Option<String> {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    header.or(request.uri().host()).map(str::to_owned)
}

/// The answer that makes a WebSocket, if the request is for one (RFC 6455, 4.2.1 and 4.2.2).
fn judge<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, Refusal> {
    let headers = request.headers();
    if request.uri().path() != PATH {
        return Err(Refusal::Path);
    }
    if request.method() != Method::GET {
        return Err(Refusal::Method);
    }
    let upgrades = request.version() == Version::HTTP_11
        && names(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
        && names(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case("websocket"));
    if !upgrades {
        return Err(Refusal::NoUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Refusal::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::Key)?;
    let accept = accept(key).ok_or(Refusal::Key)?;
    let offered = |known: &&str| names(headers, &SEC_WEBSOCKET_PROTOCOL).any(|name| name == *known);
    let subprotocol = SUBPROTOCOLS.into_iter().find(offered).ok_or(Refusal::Subprotocol)?;

    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    // [MQTT-6.0.0-4]
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    Ok(response)
}

/// Everything that headers of this name list, separated by commas.
fn names<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// What proves that the key was read; `None` when it is none.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let decoded = BASE64_STANDARD.decode(key).ok()?;
    if decoded.len() != 16 {
        return None;
    }
    let proof = [key.as_bytes(), KEY_SUFFIX.as_bytes()].concat();
    let proof = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof));
    HeaderValue::try_from(proof).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, 1.3, for MQTT, with `changed` headers (an empty value takes one away).
    fn request(changed: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = "/mqtt?v=1".parse().expect("a path");
        let whole = [
            ("host", "fleet.example.com"),
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "mqtt"),
            ("sec-websocket-version", "13"),
        ];
        for (name, value) in whole.iter().chain(changed) {
            let name = HeaderName::try_from(*name).expect("a name");
            let value = HeaderValue::try_from(*value).expect("a value");
            request.headers_mut().insert(name, value);
        }
        let emptied: Vec<_> = changed.iter().filter(|(_, value)| value.is_empty()).collect();
        for (name, _) in emptied {
            request.headers_mut().remove(*name);
        }
        request
    }

    fn header(response: &Response<Full<Bytes>>, name: &HeaderName) -> String {
        response.headers()[name].to_str().expect("text").to_owned()
    }

    #[test]
    fn a_request_for_mqtt_is_switched() {
        let response = judge(&request(&[])).expect("accepted");
        assert_eq!(response.status(), 101);
        // The example of RFC 6455, 1.3.
        assert_eq!(header(&response, &SEC_WEBSOCKET_ACCEPT), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(header(&response, &SEC_WEBSOCKET_PROTOCOL), "mqtt");
        assert_eq!(host(&request(&[])).as_deref(), Some("fleet.example.com"));
    }

    #[test]
    fn mqtt_is_chosen_among_the_offers() {
        for (offer, chosen) in [
            ("mqttv3.1, mqtt", Ok("mqtt")),
            ("chat,mqttv3.1", Ok("mqttv3.1")),
            ("chat", Err(Refusal::Subprotocol)),
            ("MQTT", Err(Refusal::Subprotocol)),
            ("", Err(Refusal::Subprotocol)),
        ] {
            let response = judge(&request(&[("sec-websocket-protocol", offer)]));
            let got = response.map(|response| header(&response, &SEC_WEBSOCKET_PROTOCOL));
            assert_eq!(got, chosen.map(str::to_owned), "{offer:?}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_what_is_wrong() {
        for (changed, refusal) in [
            (("upgrade", ""), Refusal::NoUpgrade),
            (("upgrade", "h2c"), Refusal::NoUpgrade),
            (("connection", "keep-alive"), Refusal::NoUpgrade),
            (("sec-websocket-version", "8"), Refusal::Version),
            (("sec-websocket-version", ""), Refusal::Version),
            (("sec-websocket-key", ""), Refusal::Key),
            (("sec-websocket-key", "c2hvcnQ="), Refusal::Key),
            (("sec-websocket-key", "not base64 at all......."), Refusal::Key),
        ] {
            assert_eq!(judge(&request(&[changed])).err(), Some(refusal), "{changed:?}");
        }
        let mut elsewhere = request(&[]);
        *elsewhere.uri_mut() = "/".parse().expect("a path");
        assert_eq!(judge(&elsewhere).err(), Some(Refusal::Path));
        let mut post = request(&[]);
        *post.method_mut() = Method::POST;
        assert_eq!(judge(&post).err(), Some(Refusal::Method));
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(judge(&old).err(), Some(Refusal::NoUpgrade));
    }
}
