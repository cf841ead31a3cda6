//! The desired state as the data plane is to enforce it, and its revision.

use std::sync::Arc;

use sqlx::{FromRow, Row};

use super::access::access_rules;
use super::clusters::{ClusterColumns, cluster_columns};
use super::users::{UsersColumns, users_columns};
use super::{Error, Result, Store, Tx};
use crate::model::{AccessRules, Cluster, Plan, Quota, Users};
use crate::seam::desired::{DesiredCluster, DesiredState};

// One transaction that sees one moment: revision, clusters and users belong together.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
// The outer join gives the revision even when there is no cluster.
const READ: &str = concat!(
    "SELECT revision, ",
    cluster_columns!(),
    ", ",
    users_columns!(),
    ", access_revision FROM desired_revision LEFT JOIN clusters ON true"
);
const REVISION: &str = "SELECT revision FROM desired_revision";
const BUMP: &str = "UPDATE desired_revision SET revision = revision + 1 RETURNING revision";

impl Store {
    /// Every cluster with its limits in force, its users and its rules of access, as of one revision. What
    /// is as in `known` is not read again, and shared with it.
    pub async fn desired_state(&self, known: &DesiredState) -> Result<DesiredState> {
        let mut tx = self.pool.begin_with(BEGIN).await?;
        let rows = sqlx::query(READ).fetch_all(&mut *tx).await?;
        let mut state = DesiredState::default();
        for row in &rows {
            state.revision = row.try_get("revision")?;
            if row.try_get::<Option<&str>, _>("id")?.is_some() {
                let cluster = Cluster::try_from(ClusterColumns::from_row(row)?)?;
                let known = known.clusters.get(&cluster.id);
                let users = UsersColumns::from_row(row)?;
                let users = users.users(&mut tx, &cluster.id, known.map(|known| &known.users)).await?;
                let revision = row.try_get("access_revision")?;
                let access = known.map(|known| &known.access);
                let access = access_rules(&mut tx, &cluster.id, revision, access).await?;
                let desired = desired_cluster(&cluster, users, access)?;
                state.clusters.insert(cluster.id, Arc::new(desired));
            }
        }
        tx.commit().await?;
        Ok(state)
    }

    /// The revision alone, to learn whether reading the whole is worth it.
    pub async fn desired_revision(&self) -> Result<i64> {
        Ok(sqlx::query_scalar(REVISION).fetch_one(&self.pool).await?)
    }
}

impl Tx {
    /// The revision that this transaction's changes will have once committed; `None` when it
    /// changes nothing that the data plane enforces.
    pub fn desired_revision(&self) -> Option<i64> {
        self.desired_revision
    }

    /// Tells that this transaction changes what the data plane should enforce. Holds the row until
    /// the transaction ends, so revisions become visible in order.
    pub(super) async fn bump_desired_revision(&mut self) -> Result<()> {
        let revision = sqlx::query_scalar(BUMP).fetch_one(&mut *self.transaction).await?;
        self.desired_revision = Some(revision);
        Ok(())
    }
}

fn desired_cluster(cluster: &Cluster, users: Arc<Users>, access: Arc<AccessRules>) -> Result<DesiredCluster> {
    let plan = Plan::by_name(&cluster.plan).ok_or_else(|| {
        Error::unreadable(format!("cluster {} has the unknown plan {:?}", cluster.id, cluster.plan))
    })?;
    Ok(DesiredCluster {
        id: cluster.id.clone(),
        status: cluster.status,
        allow_anonymous: cluster.allow_anonymous,
        quota: Quota::resolve(plan, &cluster.overrides),
        shared_strategy: cluster.shared_strategy,
        server_keep_alive_secs: cluster.server_keep_alive_secs,
        resend_after_secs: cluster.resend_after_secs,
        users,
        access,
    })
}
