//! An operator's order about when a session ends: its form, and what is refused.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::code::Code;
use super::super::extract::{Object, present};
use super::super::number::AtMost;
use super::super::problem::{Problem, Result};
use crate::model::{OperatorExpiry, SessionExpiry, Timestamp};
use crate::store::SessionRecord;

/// Either of two ways to say when a session ends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, try_from = "Object<ExpiryFields>")]
pub(super) enum ExpiryOrder {
    Interval(ExpiryInterval),
    At(ExpiryInstant),
}

/// So long after its connection ends, or has ended.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpiryInterval {
    /// Seconds; at most the quota's `session_expiry_max_seconds`. 0 ends the session with its
    /// connection.
    #[schema(minimum = 0, maximum = 259_200)]
    interval_seconds: u32,
}

/// At an instant.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpiryInstant {
    /// The instant; when the connection lasts longer, the session ends with it.
    expires_at: Timestamp,
}

/// Both ways side by side, so that a wrong field is pointed at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpiryFields {
    #[serde(default, deserialize_with = "present")]
    interval_seconds: Option<AtMost<{ u32::MAX }>>,
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<Timestamp>,
}

impl TryFrom<Object<ExpiryFields>> for ExpiryOrder {
    type Error = &'static str;

    fn try_from(Object(fields): Object<ExpiryFields>) -> Result<Self, Self::Error> {
        match (fields.interval_seconds, fields.expires_at) {
            (Some(secs), None) => Ok(Self::Interval(ExpiryInterval { interval_seconds: secs.0 })),
            (None, Some(expires_at)) => Ok(Self::At(ExpiryInstant { expires_at })),
            _ => Err("either interval_seconds or expires_at"),
        }
    }
}

impl From<ExpiryOrder> for OperatorExpiry {
    fn from(order: ExpiryOrder) -> Self {
        match order {
            ExpiryOrder::Interval(order) => Self::Interval(order.interval_seconds),
            ExpiryOrder::At(order) => Self::At(order.expires_at),
        }
    }
}

/// No session waits longer than its cluster lets it, from when its connection ended or would end now.
pub(super) fn check_ceiling(
    order: Option<OperatorExpiry>,
    disconnected_at: Timestamp,
    ceiling_secs: u32,
) -> Result<()> {
    let (above, field) = match order {
        None => return Ok(()),
        Some(OperatorExpiry::Interval(secs)) => (secs > ceiling_secs, "interval_seconds"),
        Some(OperatorExpiry::At(at)) => (at > disconnected_at.plus_secs(ceiling_secs), "expires_at"),
    };
    if above {
        let detail =
            format!("at most {ceiling_secs} seconds after the connection ends, the cluster's ceiling");
        return Err(Problem::field(Code::ExpiryAboveCeiling, &format!("/expiry/{field}"), detail));
    }
    Ok(())
}

/// An offline session that would be gone at once is more likely a mistake than a wish.
pub(super) fn check_not_past(
    order: Option<OperatorExpiry>,
    current: &SessionRecord,
    now: Timestamp,
) -> Result<()> {
    let Some(disconnected_at) = current.row.disconnected_at else { return Ok(()) };
    let expires_at = SessionExpiry { operator: order, ..current.expiry() }.expires_at(disconnected_at);
    if expires_at <= now {
        let detail = format!(
            "the connection ended at {disconnected_at}, so the session would have expired at {expires_at}"
        );
        return Err(Problem::new(Code::ExpiryInPast, detail));
    }
    Ok(())
}
