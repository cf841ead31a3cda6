//! Holds: client ids that an operator has refused for a while.
//!
//! Each mutation gives the cluster's holds another version and moves the desired revision, in its own
//! transaction. A hold whose time is over does not exist for a reader, whether or not it was removed yet.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{ClientHold, ClientHolds, ClientId, ClusterId, OperatorReason, Timestamp};

/// How many holds of a cluster may be in force.
pub const HOLDS_MAX: u64 = 100_000;

const LIST: &str = "SELECT * FROM client_holds WHERE cluster_id = $1 AND client_id > $2 AND until > $3 \
     ORDER BY client_id LIMIT $4";

const GET: &str = "SELECT * FROM client_holds WHERE cluster_id = $1 AND client_id = $2 AND until > $3";

const IN_FORCE: &str = "SELECT client_id, until, reason FROM client_holds WHERE cluster_id = $1";

const COUNT: &str = "SELECT count(*) FROM client_holds WHERE cluster_id = $1 AND until > $2";

const PUT: &str = "INSERT INTO client_holds (cluster_id, client_id, until, reason, actor, request_id, created_at) \
     SELECT $1, client_id, $3, $4, $5, $6, $7 FROM UNNEST($2::text[]) AS n (client_id) \
     ON CONFLICT (cluster_id, client_id) DO UPDATE SET until = excluded.until, reason = excluded.reason, \
     actor = excluded.actor, request_id = excluded.request_id, created_at = excluded.created_at";

const REMOVE: &str =
    "DELETE FROM client_holds WHERE cluster_id = $1 AND client_id = $2 AND until > $3 RETURNING *";

const RENEW: &str = "UPDATE clusters SET holds_version = gen_random_uuid() WHERE id = $1";

const FORGET: &str = "DELETE FROM client_holds WHERE (cluster_id, client_id) IN \
     (SELECT cluster_id, client_id FROM client_holds WHERE until <= $1 LIMIT $2)";

/// A hold on a client id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    /// The client that is refused.
    pub client_id: ClientId,
    /// How, and by whom.
    pub order: HoldOrder,
}

/// An operator's order to hold client ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldOrder {
    /// Until when, and why.
    pub hold: ClientHold,
    /// Who ordered it.
    pub actor: String,
    /// In which request.
    pub request_id: String,
    /// When.
    pub created_at: Timestamp,
}

impl Store {
    /// The next `limit` holds of a cluster with client ids above `after`, in their byte order.
    pub async fn list_holds(
        &self,
        cluster: &ClusterId,
        after: Option<&ClientId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<HoldRecord>> {
        let rows: Vec<HoldColumns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after.map_or("", ClientId::as_str))
            .bind(OffsetDateTime::from(now))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(HoldRecord::try_from).collect()
    }

    /// The hold on a client id, if one is in force.
    pub async fn get_hold(
        &self,
        cluster: &ClusterId,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<Option<HoldRecord>> {
        let row: Option<HoldColumns> = sqlx::query_as(GET)
            .bind(cluster.as_str())
            .bind(client_id.as_str())
            .bind(OffsetDateTime::from(now))
            .fetch_optional(&self.pool)
            .await?;
        row.map(HoldRecord::try_from).transpose()
    }

    /// Forgets up to `limit` holds that are over at `now`, and says how many that were.
    pub async fn forget_holds(&self, now: Timestamp, limit: u32) -> Result<u64> {
        let query = sqlx::query(FORGET).bind(OffsetDateTime::from(now)).bind(i64::from(limit));
        Ok(query.execute(&self.pool).await?.rows_affected())
    }
}

impl Tx {
    /// Holds these client ids, in place of holds that they have. Returns how many holds the cluster has then.
    pub async fn put_holds(
        &mut self,
        cluster: &ClusterId,
        clients: &[ClientId],
        order: &HoldOrder,
        now: Timestamp,
    ) -> Result<u64> {
        let clients: Vec<&str> = clients.iter().map(ClientId::as_str).collect();
        sqlx::query(PUT)
            .bind(cluster.as_str())
            .bind(clients)
            .bind(OffsetDateTime::from(order.hold.until))
            .bind(order.hold.reason.as_ref().map(OperatorReason::as_str))
            .bind(&order.actor)
            .bind(&order.request_id)
            .bind(OffsetDateTime::from(order.created_at))
            .execute(&mut *self.transaction)
            .await?;
        self.renew_holds(cluster).await?;
        let query = sqlx::query_scalar(COUNT).bind(cluster.as_str()).bind(OffsetDateTime::from(now));
        let count: i64 = query.fetch_one(&mut *self.transaction).await?;
        u64::try_from(count).map_err(Error::unreadable)
    }

    /// Takes the hold on a client id away, if one is in force.
    pub async fn remove_hold(
        &mut self,
        cluster: &ClusterId,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<Option<HoldRecord>> {
        let row: Option<HoldColumns> = sqlx::query_as(REMOVE)
            .bind(cluster.as_str())
            .bind(client_id.as_str())
            .bind(OffsetDateTime::from(now))
            .fetch_optional(&mut *self.transaction)
            .await?;
        if row.is_some() {
            self.renew_holds(cluster).await?;
        }
        row.map(HoldRecord::try_from).transpose()
    }

    async fn renew_holds(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(RENEW).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
    }
}

/// The holds of a cluster in this version; those that are `known` when they are of the same.
pub(super) async fn holds(
    connection: &mut PgConnection,
    cluster: &ClusterId,
    version: Uuid,
    known: Option<&Arc<ClientHolds>>,
) -> Result<Arc<ClientHolds>> {
    if let Some(known) = known.filter(|known| known.version == version) {
        return Ok(Arc::clone(known));
    }
    // Those that are over too: whoever asks compares the time.
    let rows: Vec<(String, OffsetDateTime, Option<String>)> =
        sqlx::query_as(IN_FORCE).bind(cluster.as_str()).fetch_all(connection).await?;
    let by_client: Result<HashMap<_, _>> = rows
        .into_iter()
        .map(|(client, until, reason)| Ok((client_id(&client)?, hold(until, reason)?)))
        .collect();
    Ok(Arc::new(ClientHolds { version, by_client: by_client? }))
}

fn client_id(text: &str) -> Result<ClientId> {
    ClientId::new(text).map_err(Error::unreadable)
}

fn hold(until: OffsetDateTime, reason: Option<String>) -> Result<ClientHold> {
    let reason = reason.map(|text| OperatorReason::new(&text)).transpose().map_err(Error::unreadable)?;
    Ok(ClientHold { until: until.into(), reason })
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct HoldColumns {
    client_id: String,
    until: OffsetDateTime,
    reason: Option<String>,
    actor: String,
    request_id: String,
    created_at: OffsetDateTime,
}

impl TryFrom<HoldColumns> for HoldRecord {
    type Error = Error;

    fn try_from(row: HoldColumns) -> Result<Self> {
        let order = HoldOrder {
            hold: hold(row.until, row.reason)?,
            actor: row.actor,
            request_id: row.request_id,
            created_at: row.created_at.into(),
        };
        Ok(Self { client_id: client_id(&row.client_id)?, order })
    }
}
