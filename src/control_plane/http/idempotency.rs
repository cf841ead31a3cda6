//! `Idempotency-Key`: a change asked for twice under one key is made once.
//!
//! Keys belong to their caller. The answer is kept for a day, in the transaction of the effect, and given
//! again with `Idempotency-Replayed: true`. A request that had no effect gives its key back: it may
//! be corrected and sent again.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;

use super::code::Code;
use super::problem::{Problem, Result};
use super::state::ApiState;
use crate::store::{Claim, IdempotencyKey, KeptAnswer};

/// The header that a caller sends.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that marks an answer given again.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What the specification says of the header.
pub(super) const ABOUT: &str = "Makes the change once, however often it is asked for: the same request with \
    the same key is answered as the first time, with `Idempotency-Replayed: true`, for 24 hours. 1 to \
    255 visible characters, best a random UUID.";
/// What every operation that takes the header can answer because of it, and because it is written down.
pub(super) const CODES: [Code; 5] = [
    Code::InvalidHeader,
    Code::IdempotencyKeyReused,
    Code::IdempotencyKeyInFlight,
    Code::IdempotencyOutcomeUnknown,
    Code::StoreUnavailable,
];

/// The longest key.
const KEY_BYTES_MAX: usize = 255;
/// The headers of an answer that belong to the record.
const KEPT_HEADERS: [HeaderName; 3] = [CONTENT_TYPE, ETAG, LOCATION];

/// The key that was sent, if one was.
pub(super) fn sent_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut sent = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = sent.next() else { return Ok(None) };
    let visible = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if visible && sent.next().is_none() => Ok(Some(key.to_owned())),
        _ => Err(Problem::new(
            Code::InvalidHeader,
            "Idempotency-Key is 1 to 255 visible characters, sent once",
        )),
    }
}

/// What makes two requests the same: method, path with query, and body, byte for byte. Lengths keep the
/// parts apart.
pub(super) fn fingerprint(method: &str, path_and_query: &str, body: &[u8]) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    for part in [method.as_bytes(), path_and_query.as_bytes(), body] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finish().as_ref().to_vec()
}

/// Claims the key; gives what is kept of the answer instead when the request was answered before.
pub(super) async fn claim(
    state: &ApiState,
    key: &IdempotencyKey,
    request: &[u8],
) -> Result<Option<KeptAnswer>> {
    match state.store.claim_key(key, request, state.clock.wall()).await? {
        Claim::Claimed => Ok(None),
        Claim::Answered(answer) => Ok(Some(answer)),
        Claim::OtherRequest => {
            Err(Problem::new(Code::IdempotencyKeyReused, "the key came with another request"))
        }
        Claim::InFlight => {
            Err(Problem::new(Code::IdempotencyKeyInFlight, "the first request is being worked on"))
        }
        Claim::OutcomeUnknown => Err(Problem::new(
            Code::IdempotencyOutcomeUnknown,
            "the first request may have taken effect: read the record",
        )),
    }
}

/// The answer, once more.
pub(super) fn replay(answer: KeptAnswer) -> Result<Response> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(Problem::internal)?;
    for (name, value) in answer.headers {
        let name = HeaderName::try_from(name).map_err(Problem::internal)?;
        response.headers_mut().insert(name, HeaderValue::try_from(value).map_err(Problem::internal)?);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// A response taken apart, so that it can be kept and still be sent.
pub(super) async fn read_out(response: Response) -> Result<(Response, Bytes)> {
    let (parts, body) = response.into_parts();
    // Made by a handler, in memory: there is nothing to wait for.
    let bytes = body.collect().await.map_err(Problem::internal)?.to_bytes();
    Ok((Response::from_parts(parts, Body::from(bytes.clone())), bytes))
}

/// What is kept of a response.
pub(super) fn kept(response: &Response, body: &[u8], enforced: bool) -> KeptAnswer {
    let headers = response.headers();
    let text = |name: &HeaderName| Some((name.to_string(), headers.get(name)?.to_str().ok()?.to_owned()));
    KeptAnswer {
        status: response.status().as_u16(),
        headers: KEPT_HEADERS.iter().filter_map(text).collect::<BTreeMap<_, _>>(),
        body: body.to_vec(),
        enforced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_text_sent_once() {
        let sent = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).expect("a value"));
            }
            sent_key(&headers)
        };
        assert_eq!(sent(&[]).expect("none"), None);
        assert_eq!(sent(&[b"\"a-1\""]).expect("a key").as_deref(), Some("\"a-1\""));
        assert!(sent(&[&[b'x'; 255]]).is_ok());
        for bad in [&[b"" as &[u8]] as &[&[u8]], &[b"a b"], &[b"\xff"], &[&[b'x'; 256]], &[b"a", b"a"]] {
            assert_eq!(sent(bad).map_err(|problem| problem.code()), Err(Code::InvalidHeader), "{bad:?}");
        }
    }

    #[test]
    fn requests_differ_by_each_of_their_parts() {
        let base = fingerprint("POST", "/a?b", b"c");
        assert_eq!(base, fingerprint("POST", "/a?b", b"c"));
        for other in [
            fingerprint("PUT", "/a?b", b"c"),
            fingerprint("POST", "/a?", b"bc"),
            fingerprint("POST", "/a?b", b""),
        ] {
            assert_ne!(base, other);
        }
    }
}
