//! The desired state as the data plane is to enforce it, and its revision.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};

use super::access::access_rules;
use super::authenticators::authenticators;
use super::auto_subscriptions::auto_subscriptions;
use super::clusters::{ClusterColumns, cluster_columns};
use super::holds::holds;
use super::message_rules::message_rules;
use super::users::{UsersColumns, users_columns};
use super::{Error, Result, Store, Tx};
use crate::model::{Cluster, Plan, Quota, SharedStrategy, TopicFilter};
use crate::seam::desired::{DesiredCluster, DesiredState};

// One transaction that sees one moment: revision, clusters and users belong together.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
// The outer join gives the revision even when there is no cluster.
const READ: &str = concat!(
    "SELECT revision, ",
    cluster_columns!(),
    ", ",
    users_columns!(),
    ", holds_version, access_revision, authenticators_revision, auto_subscriptions_revision,
        message_rules_revision,
        (SELECT jsonb_object_agg(g.filter, g.strategy) FROM shared_group_settings g
        WHERE g.cluster_id = clusters.id) AS group_strategies
    FROM desired_revision LEFT JOIN clusters ON true"
);
const REVISION: &str = "SELECT revision FROM desired_revision";
const BUMP: &str = "UPDATE desired_revision SET revision = revision + 1 RETURNING revision";

impl Store {
    /// Every cluster with its limits in force, its users, holds, rules of access and of messages and authenticators, as
    /// of one revision. What is as in `known` is not read again, and shared with it.
    pub async fn desired_state(&self, known: &DesiredState) -> Result<DesiredState> {
        let mut tx = self.pool.begin_with(BEGIN).await?;
        let rows = sqlx::query(READ).fetch_all(&mut *tx).await?;
        let mut state = DesiredState::default();
        for row in &rows {
            state.revision = row.try_get("revision")?;
            if row.try_get::<Option<&str>, _>("id")?.is_some() {
                let cluster = Cluster::try_from(ClusterColumns::from_row(row)?)?;
                let known = known.clusters.get(&cluster.id).map(Arc::as_ref);
                let desired = desired_cluster(&mut tx, row, &cluster, known).await?;
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

/// By the whole filter of the group.
type GroupStrategies = HashMap<TopicFilter, SharedStrategy>;

fn group_strategies(read: Option<Json<HashMap<String, SharedStrategy>>>) -> Result<GroupStrategies> {
    let strategies = read.map(|Json(strategies)| strategies).unwrap_or_default().into_iter();
    let by_filter = |(filter, strategy): (String, SharedStrategy)| {
        Ok((TopicFilter::new(&filter).map_err(Error::unreadable)?, strategy))
    };
    strategies.map(by_filter).collect()
}

/// One cluster. What is as in `known` is shared with it.
async fn desired_cluster(
    tx: &mut PgConnection,
    row: &PgRow,
    cluster: &Cluster,
    known: Option<&DesiredCluster>,
) -> Result<DesiredCluster> {
    let id = &cluster.id;
    let plan = Plan::by_name(&cluster.plan)
        .ok_or_else(|| Error::unreadable(format!("cluster {id} has the unknown plan {:?}", cluster.plan)))?;
    let users = UsersColumns::from_row(row)?.users(tx, id, known.map(|known| &known.users)).await?;
    let version = row.try_get("holds_version")?;
    let holds = holds(tx, id, version, known.map(|known| &known.holds)).await?;
    let revision = row.try_get("access_revision")?;
    let access = access_rules(tx, id, revision, known.map(|known| &known.access)).await?;
    let revision = row.try_get("message_rules_revision")?;
    let message_rules = message_rules(tx, id, revision, known.map(|known| &known.message_rules)).await?;
    let revision = row.try_get("authenticators_revision")?;
    let authenticators = authenticators(tx, id, revision, known.map(|known| &known.authenticators)).await?;
    let revision = row.try_get("auto_subscriptions_revision")?;
    let automatic = auto_subscriptions(tx, id, revision, known.map(|known| &known.automatic)).await?;
    Ok(DesiredCluster {
        id: cluster.id.clone(),
        status: cluster.status,
        allow_anonymous: cluster.allow_anonymous,
        quota: Quota::resolve(plan, &cluster.overrides),
        shared_strategy: cluster.shared_strategy,
        group_strategies: group_strategies(row.try_get("group_strategies")?)?,
        server_keep_alive_secs: cluster.server_keep_alive_secs,
        resend_after_secs: cluster.resend_after_secs,
        users,
        holds,
        access,
        message_rules,
        authenticators,
        automatic,
    })
}
