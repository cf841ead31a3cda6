//! Authorisation policies and block rules of clusters.

mod block_rules;
mod policies;

use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::types::Uuid;

pub use self::block_rules::{BlockRuleRecord, NewBlockRule};
pub use self::policies::{NewPolicy, PolicyRecord};
use super::Result;
use super::cluster_items::all_items;
use crate::model::{AccessRules, ClusterId};

const BEGIN_REVISION: &str = "UPDATE clusters SET access_revision = gen_random_uuid() WHERE id = $1";

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
    let policies: Vec<PolicyRecord> = all_items(connection, cluster).await?;
    let block_rules: Vec<BlockRuleRecord> = all_items(connection, cluster).await?;
    Ok(Arc::new(AccessRules {
        revision,
        policies: policies.into_iter().map(|record| record.policy).collect(),
        block_rules: block_rules.into_iter().map(|record| record.rule).collect(),
    }))
}
