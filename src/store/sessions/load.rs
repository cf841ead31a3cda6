//! Reading every session back at start, page by page.

use std::iter::Peekable;

use sqlx::types::Uuid;

use super::{SessionColumns, session_columns};
use crate::model::{SessionId, Subscription};
use crate::seam::ports::StoredSession;
use crate::store::subscriptions::SubscriptionColumns;
use crate::store::{Result, Store};

// Every id is above the nil one. A condition that may be switched off would lose the index.
const SESSIONS: &str = concat!(
    "SELECT ",
    session_columns!(),
    " FROM sessions s WHERE s.session_id > $1 ORDER BY s.session_id LIMIT $2"
);

// The page's range rather than its ids: both tables are then walked in the order of their keys.
const SUBSCRIPTIONS: &str = "SELECT session_id, filter, qos, no_local, retain_as_published, retain_handling, \
     identifier, origin, created_at FROM subscriptions \
     WHERE session_id BETWEEN $1 AND $2 ORDER BY session_id, filter";

impl Store {
    pub(super) async fn load_sessions(
        &self,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<StoredSession>> {
        let sessions: Vec<SessionColumns> = sqlx::query_as(SESSIONS)
            .bind(after.map_or(Uuid::nil(), |id| id.0))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let (Some(first), Some(last)) = (sessions.first(), sessions.last()) else {
            return Ok(Vec::new());
        };
        let subscriptions: Vec<SubscriptionColumns> = sqlx::query_as(SUBSCRIPTIONS)
            .bind(first.session_id)
            .bind(last.session_id)
            .fetch_all(&self.pool)
            .await?;
        let mut subscriptions = subscriptions.into_iter().peekable();
        sessions
            .into_iter()
            .map(|session| {
                Ok(StoredSession {
                    subscriptions: take_subscriptions(&mut subscriptions, session.session_id)?,
                    operator_expiry: session.operator_expiry()?,
                    protected: session.protected,
                    row: session.into_row()?,
                })
            })
            .collect()
    }
}

/// Takes the subscriptions of one session off the front. Those of a session below it are passed
/// over: it was removed, or came, between the two reads.
fn take_subscriptions(
    rows: &mut Peekable<impl Iterator<Item = SubscriptionColumns>>,
    session: Uuid,
) -> Result<Vec<Subscription>> {
    let mut taken = Vec::new();
    while let Some(row) = rows.next_if(|row| row.session_id <= session) {
        if row.session_id == session {
            taken.push(row.try_into()?);
        }
    }
    Ok(taken)
}
