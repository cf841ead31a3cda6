//! Events of what the data plane's batches change, by comparing rows before and after.
//!
//! A batch holds the last word about each session, so a connection that came and went between two commits
//! shows as one step: its end is told with its beginning, and a takeover of a takeover as one. A session that
//! began and ended between two commits has left no row, but its events; nothing shows that they were written
//! before, so that they are twice there should the answer to a commit be lost.

use serde_json::{Value, json};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{EventKind, NewEvent};
use crate::model::{ClientId, ClusterId, Epoch, SessionEnd, SessionId, Timestamp};
use crate::seam::ports::SessionRow;
use crate::store::{Error, Result};

/// What is compared of a row as it was.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(in crate::store) struct Before {
    pub(in crate::store) session_id: Uuid,
    pub(in crate::store) cluster_id: String,
    pub(in crate::store) client_id: String,
    #[sqlx(try_from = "i64")]
    epoch: u32,
    peer: Option<String>,
    disconnected_at: Option<OffsetDateTime>,
    disconnect_reason: Option<String>,
    expires_at: Option<OffsetDateTime>,
}

/// The columns of [`Before`], of a table called `s`.
macro_rules! before_columns {
    () => {
        "s.session_id, s.cluster_id, s.client_id, s.epoch, s.peer, s.disconnected_at, s.disconnect_reason, \
         s.expires_at"
    };
}
pub(in crate::store) use before_columns;

impl Before {
    fn event(&self, kind: EventKind, at: Timestamp, detail: Value) -> Result<NewEvent> {
        Ok(NewEvent {
            cluster: ClusterId::new(&self.cluster_id).map_err(Error::unreadable)?,
            client_id: ClientId::new(&self.client_id).map_err(Error::unreadable)?,
            session_id: SessionId(self.session_id),
            epoch: Epoch(self.epoch),
            at,
            kind,
            detail,
            actor: None,
            request_id: None,
        })
    }

    /// What a removal of the row says.
    pub(in crate::store) fn removed(&self, end: SessionEnd, now: Timestamp) -> Result<NewEvent> {
        if end == SessionEnd::Expired {
            let at = self.expires_at.map(Timestamp::from).filter(|at| *at <= now);
            return self.event(EventKind::Expired, at.unwrap_or(now), json!({}));
        }
        self.event(EventKind::Ended, now, json!({"reason": end.as_str()}))
    }

    /// What a subscription of the session says.
    pub(in crate::store) fn subscription(
        &self,
        kind: EventKind,
        detail: Value,
        now: Timestamp,
    ) -> Result<NewEvent> {
        self.event(kind, now, detail)
    }
}

/// What a row says that was written over `before`.
pub(in crate::store) fn put(before: Option<&Before>, row: &SessionRow) -> Vec<NewEvent> {
    let mut events = Vec::new();
    let mut tell = |kind, at, detail| events.push(event(row, kind, at, detail));
    if before.is_none() {
        let detail = match row.connected_at {
            Some(_) => json!({"protocol": row.protocol, "clean_start": row.clean_start}),
            None => json!({"provisioned": true}),
        };
        tell(EventKind::Created, row.created_at, detail);
    }
    let Some(connected_at) = row.connected_at else { return events };
    let attached = before.is_none_or(|before| before.epoch < row.epoch.0);
    if attached {
        let taken = before.filter(|before| {
            before.disconnected_at.is_none() || before.disconnect_reason.as_deref() == Some("taken_over")
        });
        if let Some(before) = taken {
            let detail = json!({
                "from_peer": before.peer, "from_epoch": before.epoch,
                "peer": row.peer, "transport": row.transport,
            });
            tell(EventKind::TakenOver, connected_at, detail);
        } else {
            let resumed = before.is_some();
            let detail = json!({"peer": row.peer, "transport": row.transport, "resumed": resumed});
            tell(EventKind::Attached, connected_at, detail);
        }
    }
    let was_online = attached || before.is_some_and(|before| before.disconnected_at.is_none());
    if let Some(at) = row.disconnected_at
        && was_online
    {
        let cause = row.disconnect.as_ref();
        let detail = json!({"reason": cause.map(|cause| &cause.reason), "by": cause.map(|cause| cause.by)});
        tell(EventKind::Detached, at, detail);
    }
    events
}

/// What the end of a session says of which there is no row.
pub(in crate::store) fn passed(row: &SessionRow, end: SessionEnd, now: Timestamp) -> NewEvent {
    event(row, EventKind::Ended, now, json!({"reason": end.as_str()}))
}

fn event(row: &SessionRow, kind: EventKind, at: Timestamp, detail: Value) -> NewEvent {
    NewEvent {
        cluster: row.cluster.clone(),
        client_id: row.client_id.clone(),
        session_id: row.session_id,
        epoch: row.epoch,
        at,
        kind,
        detail,
        actor: None,
        request_id: None,
    }
}
