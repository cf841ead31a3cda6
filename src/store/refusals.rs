//! What clients were refused: added up by the data plane, written here in batches, read by operators.
//!
//! A refusal that goes on is one row whose count grows. The history of a session tells of it when it begins, and
//! again when it begins anew after a pause ([`SERIES_PAUSE_MAX`]), not every time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::json;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::events::{self, EventKind, NewEvent};
use super::{BEGIN_CHANGE, Error, Result, Store};
use crate::model::{ClientId, ClusterId, Refusal, RefusalKind, RefusalReason, Timestamp};
use crate::seam::ports::{self, RefusalStore};

/// How many rows a cluster has at most: those that were repeated least recently go.
pub const REFUSALS_MAX: u32 = 10_000;

/// After how long without one a refusal is told again in the history.
pub const SERIES_PAUSE_MAX: Duration = Duration::from_mins(1);

/// A batch that is not committed by then has failed.
const COMMIT_MAX: Duration = Duration::from_secs(15);

// Keeps the clusters until the commit, as the session records do.
const LOCK_CLUSTERS: &str = "SELECT id FROM clusters WHERE id = ANY($1) ORDER BY id FOR KEY SHARE";

const PUT: &str = "INSERT INTO refusals AS r (cluster_id, kind, reason, code, client_id, username, ip, detail, \
        count, first_at, last_at, series_at)
    SELECT n.*, n.first_at FROM UNNEST($1::text[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::bigint[], $10::timestamptz[], $11::timestamptz[])
        AS n (cluster_id, kind, reason, code, client_id, username, ip, detail, count, first_at, last_at)
    ON CONFLICT ON CONSTRAINT refusals_one DO UPDATE SET
        detail = excluded.detail,
        count = r.count + excluded.count,
        first_at = least(r.first_at, excluded.first_at),
        last_at = greatest(r.last_at, excluded.last_at),
        series_at = CASE WHEN excluded.first_at - r.last_at > make_interval(secs => $12)
            THEN excluded.first_at ELSE r.series_at END
    RETURNING cluster_id, kind, reason, code, client_id, username, ip, series_at";

const TRIM: &str = "DELETE FROM refusals r USING (
        SELECT last_at, id FROM refusals WHERE cluster_id = $1 ORDER BY last_at DESC, id DESC OFFSET $2 LIMIT 1
    ) AS l WHERE r.cluster_id = $1 AND (r.last_at, r.id) <= (l.last_at, l.id)";

const LIST: &str = "SELECT id, kind, reason, code, client_id, username, ip, detail, count, first_at, last_at \
     FROM refusals WHERE cluster_id = ";

const FORGET: &str =
    "DELETE FROM refusals WHERE id IN (SELECT id FROM refusals WHERE last_at <= $1 LIMIT $2)";

/// A row: refusals of one kind, to one client, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalRecord {
    /// Its place in the list, beside `last_at`.
    pub id: i64,
    /// What was refused. It names no session.
    pub refusal: Refusal,
}

/// Which refusals to list. What is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalFilter {
    /// To this client id.
    pub client_id: Option<ClientId>,
    /// To this user name.
    pub username: Option<String>,
    /// From this address, as it is written.
    pub ip: Option<String>,
    /// Of this kind.
    pub kind: Option<RefusalKind>,
    /// For this reason.
    pub reason: Option<RefusalReason>,
    /// With this v5 reason code.
    pub code: Option<u8>,
    /// Repeated at this time or later.
    pub since: Option<Timestamp>,
}

impl RefusalStore for Store {
    async fn record_refusals(&self, batch: &[(ClusterId, Refusal)]) -> Result<(), ports::StoreError> {
        let committed = tokio::time::timeout(COMMIT_MAX, self.put_refusals(batch)).await;
        Ok(committed.unwrap_or_else(|_| Err(Error::too_slow()))?)
    }
}

impl Store {
    async fn put_refusals(&self, batch: &[(ClusterId, Refusal)]) -> Result<()> {
        let mut transaction = self.pool.begin_with(BEGIN_CHANGE).await?;
        let clusters: BTreeSet<&str> = batch.iter().map(|(cluster, _)| cluster.as_str()).collect();
        let there: Vec<String> = sqlx::query_scalar(LOCK_CLUSTERS)
            .bind(Vec::from_iter(clusters))
            .fetch_all(&mut *transaction)
            .await?;
        let batch: Vec<&(ClusterId, Refusal)> =
            batch.iter().filter(|(cluster, _)| there.iter().any(|id| id == cluster.as_str())).collect();
        let begun = put(&mut transaction, &batch).await?;
        for cluster in &there {
            let trim = sqlx::query(TRIM).bind(cluster).bind(i64::from(REFUSALS_MAX));
            trim.execute(&mut *transaction).await?;
        }
        // Last: from here to the commit nobody else adds events.
        events::add(&mut transaction, &begun).await?;
        transaction.commit().await?;
        if !begun.is_empty() {
            self.tell_events();
        }
        Ok(())
    }

    /// The next `limit` refusals of a cluster that the filter lets through, the most recently repeated first,
    /// behind the one that `before` names.
    pub async fn list_refusals(
        &self,
        cluster: &ClusterId,
        filter: &RefusalFilter,
        before: Option<(Timestamp, i64)>,
        limit: u32,
    ) -> Result<Vec<RefusalRecord>> {
        // Postgres has no text with U+0000: nothing can match it.
        if [&filter.username, &filter.ip].into_iter().flatten().any(|text| text.contains('\0')) {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::<Postgres>::new(LIST);
        query.push_bind(cluster.as_str().to_owned());
        let texts = [
            ("client_id", filter.client_id.as_ref().map(ToString::to_string)),
            ("username", filter.username.clone()),
            ("ip", filter.ip.clone()),
            ("kind", filter.kind.map(|kind| kind.as_str().to_owned())),
            ("reason", filter.reason.map(|reason| reason.as_str().to_owned())),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                query.push(" AND ").push(column).push(" = ").push_bind(text);
            }
        }
        if let Some(code) = filter.code {
            query.push(" AND code = ").push_bind(i16::from(code));
        }
        if let Some(since) = filter.since {
            query.push(" AND last_at >= ").push_bind(OffsetDateTime::from(since));
        }
        if let Some((last_at, id)) = before {
            query.push(" AND (last_at, id) < (").push_bind(OffsetDateTime::from(last_at));
            query.push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY last_at DESC, id DESC LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<Columns> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(RefusalRecord::try_from).collect()
    }

    /// Forgets up to `limit` refusals that were not repeated since `until`, and says how many that were.
    pub async fn forget_refusals(&self, until: Timestamp, limit: u32) -> Result<u64> {
        let query = sqlx::query(FORGET).bind(OffsetDateTime::from(until)).bind(i64::from(limit));
        Ok(query.execute(&self.pool).await?.rows_affected())
    }
}

/// What makes a row: cluster, kind, reason, code, client id, user name, address.
type Key = (String, String, String, i16, Option<String>, Option<String>, Option<String>);

fn key_of(cluster: &ClusterId, refusal: &Refusal) -> Key {
    (
        cluster.to_string(),
        refusal.kind.as_str().to_owned(),
        refusal.reason.as_str().to_owned(),
        refusal.code.into(),
        refusal.client_id.clone(),
        refusal.username.clone(),
        refusal.ip.map(|ip| ip.to_string()),
    )
}

/// Writes the rows. Gives an event for each series that begins and whose session is known.
async fn put(connection: &mut PgConnection, batch: &[&(ClusterId, Refusal)]) -> Result<Vec<NewEvent>> {
    let keys: Vec<Key> = batch.iter().map(|(cluster, refusal)| key_of(cluster, refusal)).collect();
    let refusals = || batch.iter().map(|(_, refusal)| refusal);
    let rows: Vec<Began> = sqlx::query_as(PUT)
        .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.2.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.3).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.4.as_deref()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.5.as_deref()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.6.as_deref()).collect::<Vec<_>>())
        .bind(refusals().map(|refusal| refusal.detail.as_str()).collect::<Vec<_>>())
        .bind(refusals().map(|refusal| i64::try_from(refusal.count).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .bind(refusals().map(|refusal| OffsetDateTime::from(refusal.first_at)).collect::<Vec<_>>())
        .bind(refusals().map(|refusal| OffsetDateTime::from(refusal.last_at)).collect::<Vec<_>>())
        .bind(SERIES_PAUSE_MAX.as_secs_f64())
        .fetch_all(connection)
        .await?;
    let series: HashMap<Key, Timestamp> = rows.into_iter().map(Began::split).collect();
    let begins = |(key, (cluster, refusal)): (&Key, &&(ClusterId, Refusal))| {
        let begins = series.get(key) == Some(&refusal.first_at);
        begins.then(|| event(cluster, refusal)).flatten()
    };
    Ok(keys.iter().zip(batch).filter_map(begins).collect())
}

fn event(cluster: &ClusterId, refusal: &Refusal) -> Option<NewEvent> {
    let (session_id, epoch) = refusal.session?;
    Some(NewEvent {
        cluster: cluster.clone(),
        client_id: ClientId::new(refusal.client_id.as_deref()?).ok()?,
        session_id,
        epoch,
        at: refusal.first_at,
        kind: EventKind::Refused,
        detail: json!({
            "kind": refusal.kind, "code": refusal.code, "reason": refusal.reason, "detail": refusal.detail,
            "ip": refusal.ip,
        }),
        actor: None,
        request_id: None,
    })
}

/// A row that was written, and when its series began.
#[derive(sqlx::FromRow)]
struct Began {
    cluster_id: String,
    kind: String,
    reason: String,
    code: i16,
    client_id: Option<String>,
    username: Option<String>,
    ip: Option<String>,
    series_at: OffsetDateTime,
}

impl Began {
    fn split(self) -> (Key, Timestamp) {
        let Self { cluster_id, kind, reason, code, client_id, username, ip, series_at } = self;
        ((cluster_id, kind, reason, code, client_id, username, ip), series_at.into())
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct Columns {
    id: i64,
    kind: String,
    reason: String,
    #[sqlx(try_from = "i16")]
    code: u8,
    client_id: Option<String>,
    username: Option<String>,
    ip: Option<String>,
    detail: String,
    #[sqlx(try_from = "i64")]
    count: u64,
    first_at: OffsetDateTime,
    last_at: OffsetDateTime,
}

impl TryFrom<Columns> for RefusalRecord {
    type Error = Error;

    fn try_from(row: Columns) -> Result<Self> {
        let unknown = |what: &str, word: &str| Error::unreadable(format!("refusal {what} {word:?}"));
        let refusal = Refusal {
            kind: RefusalKind::parse(&row.kind).ok_or_else(|| unknown("kind", &row.kind))?,
            client_id: row.client_id,
            username: row.username,
            ip: row.ip.map(|ip| ip.parse()).transpose().map_err(Error::unreadable)?,
            code: row.code,
            reason: RefusalReason::parse(&row.reason).ok_or_else(|| unknown("reason", &row.reason))?,
            detail: row.detail,
            count: row.count,
            first_at: row.first_at.into(),
            last_at: row.last_at.into(),
            session: None,
        };
        Ok(Self { id: row.id, refusal })
    }
}
