//! What a batch says of subscriptions: one statement for those that end, one for those that begin or change.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Batch, read_before, rows_planned_anew};
use crate::model::{Subscription, Timestamp};
use crate::store::Result;
use crate::store::events::{EventKind, NewEvent};

const UNSUBSCRIBE: &str = "
    DELETE FROM subscriptions b
    USING UNNEST($1::uuid[], $2::text[]) AS n (session_id, filter)
    WHERE b.session_id = n.session_id AND b.filter = n.filter
    RETURNING b.session_id, b.filter";

// `alive` passes over sessions that are gone, and locks the others so that they stay until the commit.
const SUBSCRIBE: &str = "
    WITH alive AS MATERIALIZED (
        SELECT session_id FROM sessions WHERE session_id = ANY($1) ORDER BY session_id FOR KEY SHARE
    )
    INSERT INTO subscriptions AS b (session_id, filter, qos, no_local, retain_as_published,
        retain_handling, identifier, origin, created_at)
    SELECT n.*, $9
    FROM UNNEST($1::uuid[], $2::text[], $3::smallint[], $4::boolean[], $5::boolean[],
        $6::smallint[], $7::bigint[], $8::text[]) AS n (session_id, filter, qos, no_local,
        retain_as_published, retain_handling, identifier, origin)
    JOIN alive USING (session_id)
    ON CONFLICT (session_id, filter) DO UPDATE
    SET (qos, no_local, retain_as_published, retain_handling, identifier, origin)
        = (excluded.qos, excluded.no_local, excluded.retain_as_published,
            excluded.retain_handling, excluded.identifier, excluded.origin)
    WHERE (b.qos, b.no_local, b.retain_as_published, b.retain_handling, b.identifier, b.origin)
        IS DISTINCT FROM (excluded.qos, excluded.no_local, excluded.retain_as_published,
            excluded.retain_handling, excluded.identifier, excluded.origin)
    RETURNING b.session_id, b.filter, b.qos, b.origin";

/// Writes what a batch says of subscriptions, and gives the events that tell of what has changed.
pub(super) async fn change_subscriptions(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    now: Timestamp,
) -> Result<Vec<NewEvent>> {
    let ended = unsubscribe(connection, &batch.unsubscriptions).await?;
    let begun = subscribe(connection, &batch.subscriptions, now).await?;
    if ended.is_empty() && begun.is_empty() {
        return Ok(Vec::new());
    }
    let ended =
        ended.into_iter().map(|(id, filter)| (id, EventKind::Unsubscribed, json!({"filter": filter})));
    let begun = begun.into_iter().map(|(id, filter, qos, origin)| {
        (id, EventKind::Subscribed, json!({"filter": filter, "qos": qos, "origin": origin}))
    });
    let changed: Vec<_> = ended.chain(begun).collect();
    let ids: Vec<Uuid> = changed.iter().map(|(id, ..)| *id).collect::<BTreeSet<_>>().into_iter().collect();
    let sessions = read_before(connection, &ids).await?;
    let events = changed
        .into_iter()
        .filter_map(|(id, kind, detail)| Some(sessions.get(&id)?.subscription(kind, detail, now)));
    events.collect()
}

async fn unsubscribe(connection: &mut PgConnection, gone: &[(Uuid, &str)]) -> Result<Vec<(Uuid, String)>> {
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let (sessions, filters): (Vec<Uuid>, Vec<&str>) = gone.iter().copied().unzip();
    Ok(rows_planned_anew(UNSUBSCRIBE).bind(sessions).bind(filters).fetch_all(connection).await?)
}

async fn subscribe(
    connection: &mut PgConnection,
    put: &[(Uuid, &Subscription)],
    now: Timestamp,
) -> Result<Vec<(Uuid, String, i16, String)>> {
    if put.is_empty() {
        return Ok(Vec::new());
    }
    let column = |of: fn(&Subscription) -> i16| put.iter().map(|(_, s)| of(s)).collect::<Vec<i16>>();
    let changed = rows_planned_anew(SUBSCRIBE)
        .bind(put.iter().map(|(session, _)| *session).collect::<Vec<Uuid>>())
        .bind(put.iter().map(|(_, s)| s.filter.as_str()).collect::<Vec<&str>>())
        .bind(column(|s| u8::from(s.qos).into()))
        .bind(put.iter().map(|(_, s)| s.no_local).collect::<Vec<bool>>())
        .bind(put.iter().map(|(_, s)| s.retain_as_published).collect::<Vec<bool>>())
        .bind(column(|s| u8::from(s.retain_handling).into()))
        .bind(put.iter().map(|(_, s)| s.identifier.map(|id| i64::from(id.get()))).collect::<Vec<_>>())
        .bind(put.iter().map(|(_, s)| s.origin.as_str()).collect::<Vec<&str>>())
        .bind(OffsetDateTime::from(now))
        .fetch_all(connection)
        .await?;
    Ok(changed)
}
