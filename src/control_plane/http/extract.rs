//! Extractors whose refusals are problems that point at what is wrong.
//!
//! - [`Json`]: a body, with a JSON pointer to the wrong field.
//! - [`Query`]: query parameters, by name. Unknown ones were refused before, by the route's rule.
//! - What a path names: [`super::path`].
//! - [`NoBody`]: nothing may be sent.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde_path_to_error::Segment;

use super::code::Code;
pub(super) use super::path::{ClusterPath, GroupPath, SessionPath, SubscriptionPath, UserPath, segment};
use super::problem::{Problem, Result};

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        if !is_json(request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok())) {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        parse_json(&read(request, state).await?).map(Self)
    }
}

/// `application/json`, or JSON with a meaning of its own such as `application/merge-patch+json`.
fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The whole body, within its bound.
pub(super) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes> {
    Bytes::from_request(request, state).await.map_err(|error| {
        let status = error.into_response().status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::of_status(status)
        } else {
            Problem::new(Code::InvalidRequest, "the body ended before its time")
        }
    })
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        let cause = error.into_inner();
        // JSON all the same: null in the place of a word is told as if it were none.
        let is_json = || serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        if cause.is_data() || is_json() {
            Problem::field(Code::InvalidBody, &pointer, without_position(&cause))
        } else {
            Problem::new(Code::InvalidJson, cause.to_string())
        }
    })?;
    json.end().map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))?;
    Ok(value)
}

/// A value written as a JSON object. Left to itself, serde also takes an array for a struct.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsObject<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AsObject<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(AsObject(PhantomData)).map(Self)
    }
}

/// The message without `at line 1 column 9`: the pointer says where.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // A variant is not a place in the document; an unknown one is not a known place.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// What an operation with [`NoBody`] can answer about one.
pub(super) const NO_BODY: [Code; 3] = [Code::InvalidBody, Code::InvalidRequest, Code::BodyTooLarge];

/// Nothing may be sent, so that what is sent is never silently ignored. An empty JSON object is
/// nothing: some clients cannot send less.
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let bytes = read(request, state).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) || bytes.trim_ascii() == b"{}" {
            Ok(Self)
        } else {
            Err(Problem::field(Code::InvalidBody, "", "this operation takes no body"))
        }
    }
}

/// Query parameters.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T> {
    let pairs = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let parameter = error.path().to_string();
        let detail = match error.into_inner().to_string() {
            // What the library says of a parameter that is there twice.
            text if text == "unsupported value" => "it may be given only once".to_owned(),
            text => text,
        };
        Problem::parameter(Code::InvalidParameter, &parameter, detail)
    })
}

/// Deserialises a field that may be left out but not be null.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        #[serde(default, deserialize_with = "present")]
        name: Option<String>,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<u8>,
        #[serde(default)]
        labels: BTreeMap<String, u8>,
        #[serde(default, deserialize_with = "present")]
        state: Option<crate::model::SessionState>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        secs: u32,
    }

    fn refused(body: &str) -> (Code, Option<String>) {
        let problem = parse_json::<Outer>(body.as_bytes()).expect_err("a problem");
        let shown = serde_json::to_value(problem.body("/", "r")).expect("json");
        (problem.code(), shown["errors"][0]["pointer"].as_str().map(str::to_owned))
    }

    #[test]
    fn a_wrong_field_is_pointed_at() {
        assert!(parse_json::<Outer>(br#" {"name":"x","inner":{"secs":1}} "#).is_ok());
        for (body, pointer) in [
            (r#"{"name":null}"#, "#/name"),
            (r#"{"name":1}"#, "#/name"),
            (r#"{"inner":{"secs":-1}}"#, "#/inner/secs"),
            (r#"{"inner":{"secs":4294967296}}"#, "#/inner/secs"),
            (r#"{"inner":{}}"#, "#/inner"),
            (r#"{"list":[1,300]}"#, "#/list/1"),
            (r#"{"labels":{"a/b~c":"x"}}"#, "#/labels/a~1b~0c"),
            (r#"{"state":null}"#, "#/state"),
            (r#"{"state":"on"}"#, "#/state"),
            (r#"{"state":7}"#, "#/state"),
            (r#"{"nmae":1}"#, "#/nmae"),
            (r#"{"inner":{"secs":1,"minutes":2}}"#, "#/inner/minutes"),
            ("[]", "#"),
            ("7", "#"),
        ] {
            let (code, found) = refused(body);
            assert_eq!(code, Code::InvalidBody, "{body}");
            assert_eq!(found.as_deref(), Some(pointer), "{body}");
        }
        for body in ["", "{", "{\"name\":\"x\"} x", "\u{0}"] {
            assert_eq!(refused(body).0, Code::InvalidJson, "{body}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Params {
            page_size: Option<u32>,
            state: Option<crate::model::SessionState>,
        }
        assert!(parse_query::<Params>("page_size=5&state=online").is_ok());
        for (query, parameter) in
            [("page_size=x", "page_size"), ("state=on", "state"), ("page_size=1&page_size=2", "page_size")]
        {
            let problem = parse_query::<Params>(query).expect_err("a problem");
            let shown = serde_json::to_value(problem.body("/", "r")).expect("json");
            assert_eq!(shown["errors"][0]["parameter"], parameter, "{query}: {problem:?}");
        }
    }

    #[test]
    fn json_is_recognised_by_its_media_type() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(Some(good)), "{good}");
        }
        for bad in [None, Some(""), Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            assert!(!is_json(bad), "{bad:?}");
        }
    }
}
