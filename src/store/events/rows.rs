//! Events as rows. What one commit says of one session is one row: a row costs an entry in two indexes, and a session
//! that comes and goes says four things at once. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use super::{EventKind, NewEvent, SessionEvent};
use crate::model::{ClientId, ClusterId, Epoch, SessionId, Timestamp};
use crate::store::{Error, Result};

/// How many events a row holds at most.
pub(super) const ROW_MAX: u8 = 16;

/// A row to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRow<'a> {
    earlier: &'a [NewEvent],
    /// The last of its events, which has columns of its own.
    pub(super) last: &'a NewEvent,
}

impl<'a> NewRow<'a> {
    /// The events by row, in order. What an operator does has a row of its own.
    pub(super) fn all_of(events: &'a [NewEvent]) -> impl Iterator<Item = Self> {
        let together = |one: &NewEvent, next: &NewEvent| {
            let of = |event: &NewEvent| (event.session_id, event.epoch);
            of(one) == of(next) && one.cluster == next.cluster && one.actor.is_none() && next.actor.is_none()
        };
        let rows = events.chunk_by(together).flat_map(|run| run.chunks(ROW_MAX.into()));
        rows.filter_map(|row| row.split_last().map(|(last, earlier)| Self { earlier, last }))
    }

    /// How many events it holds.
    pub(super) fn len(self) -> usize {
        self.earlier.len() + 1
    }

    /// All of them but the last; `None` for none.
    pub(super) fn steps(self) -> Option<Json<Vec<Step<'a>>>> {
        (!self.earlier.is_empty()).then(|| Json(self.earlier.iter().map(Step::from).collect()))
    }
}

/// An event of a row but its last, which has columns of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Step<'a> {
    kind: EventKind,
    at: Timestamp,
    detail: Cow<'a, Value>,
}

impl<'a> From<&'a NewEvent> for Step<'a> {
    fn from(event: &'a NewEvent) -> Self {
        Self { kind: event.kind, at: event.at, detail: Cow::Borrowed(&event.detail) }
    }
}

/// A row as Postgres gives it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct EventRow {
    cluster_id: String,
    /// The number of the last.
    seq: i64,
    at: OffsetDateTime,
    client_id: String,
    session_id: Uuid,
    #[sqlx(try_from = "i64")]
    epoch: u32,
    kind: String,
    detail: Value,
    earlier: Option<Json<Vec<Step<'static>>>>,
    actor: Option<String>,
    request_id: Option<String>,
    /// The lowest number of the cluster that may still be read.
    first: i64,
}

impl EventRow {
    /// Its events that may be read, in order.
    pub(super) fn events(self) -> Result<impl DoubleEndedIterator<Item = SessionEvent>> {
        let kind = EventKind::parse(&self.kind)
            .ok_or_else(|| Error::unreadable(format!("event kind {:?}", self.kind)))?;
        let last = Step { kind, at: self.at.into(), detail: Cow::Owned(self.detail) };
        let mut steps = self.earlier.map_or_else(Vec::new, |earlier| earlier.0);
        steps.push(last);
        let cluster = ClusterId::new(&self.cluster_id).map_err(Error::unreadable)?;
        let client_id = ClientId::new(&self.client_id).map_err(Error::unreadable)?;
        let event = move |step: Step<'_>| NewEvent {
            cluster: cluster.clone(),
            client_id: client_id.clone(),
            session_id: SessionId(self.session_id),
            epoch: Epoch(self.epoch),
            at: step.at,
            kind: step.kind,
            detail: step.detail.into_owned(),
            actor: self.actor.clone(),
            request_id: self.request_id.clone(),
        };
        let before = self.seq - i64::try_from(steps.len()).map_err(Error::unreadable)?;
        let numbered = (before + 1..=self.seq).zip(steps);
        let readable = numbered.filter(move |(seq, _)| *seq >= self.first);
        Ok(readable
            .map(move |(seq, step)| SessionEvent { seq, event: event(step) })
            .collect::<Vec<_>>()
            .into_iter())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(session: u128, epoch: u32, actor: Option<&str>) -> NewEvent {
        NewEvent {
            cluster: ClusterId::default_cluster(),
            client_id: ClientId::new("c").expect("a client id"),
            session_id: SessionId(Uuid::from_u128(session)),
            epoch: Epoch(epoch),
            at: Timestamp::from_millis(i64::from(epoch)),
            kind: EventKind::Attached,
            detail: json!({"epoch": epoch}),
            actor: actor.map(str::to_owned),
            request_id: actor.map(str::to_owned),
        }
    }

    fn lengths(events: &[NewEvent]) -> Vec<usize> {
        NewRow::all_of(events).map(NewRow::len).collect()
    }

    /// The events, which make one row, as that comes back under its number.
    fn stored(events: &[NewEvent], seq: i64, first: i64) -> EventRow {
        let mut rows = NewRow::all_of(events);
        let row = rows.next().filter(|_| rows.next().is_none()).expect("one row");
        let last = row.last.clone();
        let earlier = row.steps().map(|steps| serde_json::to_value(steps.0).expect("JSON"));
        EventRow {
            cluster_id: last.cluster.to_string(),
            seq,
            at: last.at.into(),
            client_id: last.client_id.to_string(),
            session_id: last.session_id.0,
            epoch: last.epoch.0,
            kind: last.kind.as_str().to_owned(),
            detail: last.detail,
            earlier: earlier.map(|earlier| Json(serde_json::from_value(earlier).expect("steps"))),
            actor: last.actor,
            request_id: last.request_id,
            first,
        }
    }

    #[test]
    fn a_row_is_of_one_attachment_of_one_session_and_no_operators() {
        let (a, b, later) = (event(1, 1, None), event(2, 1, None), event(1, 2, None));
        assert_eq!(lengths(&[]), Vec::<usize>::new());
        assert_eq!(lengths(&[a.clone(), a.clone(), b.clone(), a.clone(), later]), [2, 1, 1, 1]);
        let ada = event(1, 1, Some("ada"));
        assert_eq!(lengths(&[a.clone(), ada.clone(), ada, a.clone()]), [1, 1, 1, 1]);
        assert_eq!(lengths(&vec![a; 35]), [16, 16, 3]);
    }

    #[test]
    fn what_goes_in_comes_out() {
        for count in 1..=3 {
            let row: Vec<NewEvent> =
                (0..count).map(|n| NewEvent { at: Timestamp::from_millis(n), ..event(1, 1, None) }).collect();
            let events: Vec<_> = stored(&row, 10, 1).events().expect("readable").collect();
            let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
            assert_eq!(seqs, (11 - count..=10).collect::<Vec<_>>());
            assert_eq!(events.into_iter().map(|event| event.event).collect::<Vec<_>>(), row);
        }
    }

    #[test]
    fn what_was_retired_of_a_row_is_not_read() {
        let row = vec![event(1, 1, None); 4];
        let seqs = |first| {
            stored(&row, 10, first).events().expect("readable").map(|event| event.seq).collect::<Vec<_>>()
        };
        assert_eq!(seqs(7), [7, 8, 9, 10]);
        assert_eq!(seqs(9), [9, 10]);
    }
}
