//! Entity tags: a change is made to the record that its caller has read, or not at all.
//!
//! Tags are strong (RFC 9110, 8.8.3): two records with the same tag are the same record in the same
//! version. `If-Match` compares strongly, so a weak tag matches nothing.

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{Object, Required, Type};
use uuid::Uuid;

use super::code::Code;
use super::problem::{Problem, Result};
use crate::model::{Cluster, SessionId, User};
use crate::store::GroupSetting;
use crate::store::WebhookRecord;

/// The tag of one record in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ETag(String);

impl ETag {
    /// The tag of a cluster: its version.
    pub(super) fn of_cluster(cluster: &Cluster) -> Self {
        Self(cluster.version.to_string())
    }

    /// The tag of a cluster's quota: the quota's own version, so that renaming a cluster is no
    /// change to its quota.
    pub(super) fn of_quota(cluster: &Cluster) -> Self {
        Self(cluster.quota_version.to_string())
    }

    /// The tag of a session. The next session of the same client counts its versions from the
    /// beginning, so the session is part of it.
    pub(super) fn of_session(session: SessionId, version: i64) -> Self {
        Self(format!("{session}.{version}"))
    }

    /// The tag of a user. The next user of the same name counts its versions from the beginning and has
    /// other secrets.
    pub(super) fn of_user(user: &User) -> Self {
        Self(format!("{}.{}", user.secrets_id, user.version))
    }

    /// The tag of what was said of a shared group: `0` when nothing was.
    pub(super) fn of_group(setting: Option<&GroupSetting>) -> Self {
        Self(setting.map_or(0, |setting| setting.version).to_string())
    }

    /// The tag of a webhook. Ids are not used again.
    pub(super) fn of_webhook(webhook: &WebhookRecord) -> Self {
        Self(format!("{}.{}", webhook.webhook.id, webhook.version))
    }

    /// The tag of a record whose id is no other's.
    pub(super) fn of_record(id: Uuid, version: i64) -> Self {
        Self(format!("{id}.{version}"))
    }

    /// As the `ETag` header has it.
    pub(super) fn header(&self) -> HeaderValue {
        // Digits, hyphens and a dot: always a header value.
        HeaderValue::try_from(format!("\"{}\"", self.0)).unwrap_or(HeaderValue::from_static("\"\""))
    }
}

/// The `If-Match` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Not sent.
    Absent,
    /// `*`: any record that exists.
    Any,
    /// One of these, weak ones left out.
    OneOf(Vec<ETag>),
}

impl IfMatch {
    /// Refuses a record that is not the one the caller has read.
    pub(super) fn check(&self, current: &ETag) -> Result<()> {
        match self {
            Self::Absent | Self::Any => Ok(()),
            Self::OneOf(tags) if tags.contains(current) => Ok(()),
            Self::OneOf(_) => {
                let detail = format!("the record's ETag is now \"{}\"", current.0);
                Err(Problem::new(Code::PreconditionFailed, detail))
            }
        }
    }

    /// As [`IfMatch::check`] for a record that need not exist: none is what nobody has read (RFC 9110,
    /// 13.1.1).
    pub(super) fn check_maybe(&self, current: Option<ETag>) -> Result<()> {
        match (self, current) {
            (_, Some(current)) => self.check(&current),
            (Self::Absent, None) => Ok(()),
            (_, None) => Err(Problem::new(Code::PreconditionFailed, "there is no such record")),
        }
    }

    /// As [`IfMatch::check`], and refuses a request that did not say what it has read.
    pub(super) fn check_required(&self, current: &ETag) -> Result<()> {
        match self {
            Self::Absent => Err(Problem::new(
                Code::PreconditionRequired,
                "send the ETag of the record that you have read as If-Match",
            )),
            sent => sent.check(current),
        }
    }

    /// Whether the header was sent with tags to compare.
    pub(super) fn is_conditional(&self) -> bool {
        matches!(self, Self::OneOf(_))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
            if !weak {
                tags.push(ETag(opaque.to_owned()));
            }
            rest = after.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',')?.trim_start();
            }
        }
        Some(Self::OneOf(tags))
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let lines: Vec<&[u8]> = parts.headers.get_all(IF_MATCH).iter().map(HeaderValue::as_bytes).collect();
        if lines.is_empty() {
            return Ok(Self::Absent);
        }
        // Several lines are one list (RFC 9110, 5.3).
        let text = String::from_utf8_lossy(&lines.join(&b", "[..])).into_owned();
        Self::parse(&text).ok_or_else(|| {
            Problem::new(Code::InvalidHeader, "If-Match is * or a list of entity tags in double quotes")
        })
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "The `ETag` that the record must have: a change is made to what was read or not at all.";
        vec![optional_header("If-Match", about, "*")]
    }
}

/// The specification of a header that an operation takes.
pub(super) fn optional_header(name: &str, about: &str, example: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(Object::with_type(Type::String)))
        .example(Some(example.into()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> ETag {
        ETag(text.to_owned())
    }

    #[test]
    fn if_match_is_read_as_the_standard_says() {
        for (text, read) in [
            ("*", Some(IfMatch::Any)),
            (r#""7""#, Some(IfMatch::OneOf(vec![tag("7")]))),
            (r#" "7" , "8,9""#, Some(IfMatch::OneOf(vec![tag("7"), tag("8,9")]))),
            (r#"W/"7", "8""#, Some(IfMatch::OneOf(vec![tag("8")]))),
            ("7", None),
            (r#""7"#, None),
            (r#""7" "8""#, None),
        ] {
            assert_eq!(IfMatch::parse(text), read, "{text}");
        }
    }

    #[test]
    fn only_the_version_that_was_read_is_changed() {
        let read = IfMatch::OneOf(vec![tag("7")]);
        assert!(read.check(&tag("7")).is_ok());
        assert_eq!(read.check(&tag("8")).map_err(|p| p.code()), Err(Code::PreconditionFailed));
        assert!(IfMatch::Absent.check(&tag("8")).is_ok());
        assert!(IfMatch::Any.check_required(&tag("8")).is_ok());
        let absent = IfMatch::Absent.check_required(&tag("8"));
        assert_eq!(absent.map_err(|p| p.code()), Err(Code::PreconditionRequired));
        // A weak tag compares strongly with nothing.
        let weak = IfMatch::parse(r#"W/"7""#).expect("a list");
        assert_eq!(weak.check(&tag("7")).map_err(|p| p.code()), Err(Code::PreconditionFailed));
    }
}
