//! Authorisation policies.

use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::model::{ClusterId, Policy, PolicySpec, Timestamp};
use crate::store::{Error, Result, Store, Tx};

macro_rules! policy_columns {
    () => {
        "policy_id, priority, description, spec, created_at, updated_at, version"
    };
}

// Every priority is above -1.
const LIST_POLICIES: &str = concat!(
    "SELECT ",
    policy_columns!(),
    " FROM authorization_policies WHERE cluster_id = $1 AND priority > $2 ORDER BY priority LIMIT $3"
);

const GET_POLICY: &str = concat!(
    "SELECT ",
    policy_columns!(),
    " FROM authorization_policies WHERE cluster_id = $1 AND policy_id = $2"
);

const COUNT_POLICIES: &str = "SELECT count(*) FROM authorization_policies WHERE cluster_id = $1";

const INSERT_POLICY: &str = concat!(
    "INSERT INTO authorization_policies (cluster_id, ",
    policy_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $6, 1) RETURNING ",
    policy_columns!()
);

const UPDATE_POLICY: &str = concat!(
    "UPDATE authorization_policies SET priority = $3, description = $4, spec = $5, updated_at = $6, \
     version = version + 1 WHERE cluster_id = $1 AND policy_id = $2 RETURNING ",
    policy_columns!()
);

const DELETE_POLICY: &str = "DELETE FROM authorization_policies WHERE cluster_id = $1 AND policy_id = $2";

/// A policy as it is kept.
#[derive(Clone, Debug)]
pub struct PolicyRecord {
    /// The policy.
    pub policy: Policy,
    /// What people say of it.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// A policy as it should be.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// When it is asked.
    pub priority: u32,
    /// What people say of it.
    pub description: Option<String>,
    /// What it says.
    pub spec: PolicySpec,
}

impl Store {
    /// The next `limit` policies of a cluster with priorities above `after`, in that order.
    pub async fn list_policies(
        &self,
        cluster: &ClusterId,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<PolicyRecord>> {
        let rows: Vec<PolicyColumns> = sqlx::query_as(LIST_POLICIES)
            .bind(cluster.as_str())
            .bind(after.map_or(Ok(-1), i32::try_from).map_err(Error::unreadable)?)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(PolicyRecord::try_from).collect()
    }

    /// A policy.
    pub async fn get_policy(&self, cluster: &ClusterId, id: Uuid) -> Result<Option<PolicyRecord>> {
        let row: Option<PolicyColumns> =
            sqlx::query_as(GET_POLICY).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        row.map(PolicyRecord::try_from).transpose()
    }
}

impl Tx {
    /// A policy, which nobody else changes while the cluster is locked.
    pub async fn get_policy(&mut self, cluster: &ClusterId, id: Uuid) -> Result<Option<PolicyRecord>> {
        let row: Option<PolicyColumns> = sqlx::query_as(GET_POLICY)
            .bind(cluster.as_str())
            .bind(id)
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(PolicyRecord::try_from).transpose()
    }

    /// How many policies a cluster has.
    pub async fn count_policies(&mut self, cluster: &ClusterId) -> Result<u32> {
        self.count_access(COUNT_POLICIES, cluster).await
    }

    /// Makes a policy in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another policy of the cluster has the priority.
    pub async fn insert_policy(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewPolicy,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        self.put_policy(INSERT_POLICY, cluster, id, new, now).await
    }

    /// Makes a policy that exists another, in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// As [`Tx::insert_policy`].
    pub async fn update_policy(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewPolicy,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        self.put_policy(UPDATE_POLICY, cluster, id, new, now).await
    }

    async fn put_policy(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewPolicy,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        let row: PolicyColumns = sqlx::query_as(statement)
            .bind(cluster.as_str())
            .bind(id)
            .bind(i32::try_from(new.priority).map_err(Error::unreadable)?)
            .bind(new.description.as_deref())
            .bind(Json(&new.spec))
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.begin_access_revision(cluster).await?;
        row.try_into()
    }

    /// Deletes a policy of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_policy(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        self.delete_access(DELETE_POLICY, cluster, id).await
    }
}

/// Every policy of a cluster, in the order in which they are asked.
pub(super) async fn all(connection: &mut PgConnection, cluster: &ClusterId) -> Result<Vec<Policy>> {
    let rows: Vec<PolicyColumns> = sqlx::query_as(LIST_POLICIES)
        .bind(cluster.as_str())
        .bind(-1)
        .bind(i64::MAX)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(|row| Ok(PolicyRecord::try_from(row)?.policy)).collect()
}

#[derive(FromRow)]
struct PolicyColumns {
    policy_id: Uuid,
    priority: i32,
    description: Option<String>,
    spec: Json<PolicySpec>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl TryFrom<PolicyColumns> for PolicyRecord {
    type Error = Error;

    fn try_from(row: PolicyColumns) -> Result<Self> {
        let priority = u32::try_from(row.priority).map_err(Error::unreadable)?;
        Ok(Self {
            policy: Policy { id: row.policy_id, priority, spec: row.spec.0 },
            description: row.description,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
        })
    }
}
