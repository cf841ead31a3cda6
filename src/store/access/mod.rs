//! Authorisation policies and block rules of clusters.
//!
//! Each mutation gives the cluster another `access_revision` and moves the desired revision on, in its own
//! transaction, which must have locked the cluster.

mod block_rules;
mod policies;

use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::types::Uuid;

pub use self::block_rules::{BlockRuleRecord, NewBlockRule};
pub use self::policies::{NewPolicy, PolicyRecord};
use super::{Error, Result, Tx};
use crate::model::{AccessRules, ClusterId};

const BEGIN_REVISION: &str = "UPDATE clusters SET access_revision = gen_random_uuid() WHERE id = $1";

impl Tx {
    async fn count_access(&mut self, statement: &'static str, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(statement).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    async fn delete_access(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<bool> {
        let done =
            sqlx::query(statement).bind(cluster.as_str()).bind(id).execute(&mut *self.transaction).await?;
        let existed = done.rows_affected() > 0;
        if existed {
            self.begin_access_revision(cluster).await?;
        }
        Ok(existed)
    }

    async fn begin_access_revision(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(BEGIN_REVISION).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
    }
}

/// The rules of a cluster whose `access_revision` is `revision`: those that are known when they are
/// still these.
pub(super) async fn access_rules(
    connection: &mut PgConnection,
    cluster: &ClusterId,
    revision: Uuid,
    known: Option<&Arc<AccessRules>>,
) -> Result<Arc<AccessRules>> {
    if let Some(known) = known.filter(|known| known.revision == revision) {
        return Ok(Arc::clone(known));
    }
    Ok(Arc::new(AccessRules {
        revision,
        policies: policies::all(connection, cluster).await?,
        block_rules: block_rules::all(connection, cluster).await?,
    }))
}
