//! Version 1 of the API: one file for each resource.

mod access_paths;
mod admission_checks;
mod api_keys;
mod audit_log;
mod authenticator_settings;
mod authenticators;
mod authorization_policies;
mod auto_subscriptions;
mod block_rules;
mod cluster_view;
mod clusters;
mod dead_letters;
mod events;
mod holds;
mod labels;
mod message_rule_body;
mod message_rules;
mod message_view;
mod metrics;
mod nodes;
mod operations;
mod plans;
mod quota;
mod quota_put;
mod quota_rates;
mod refusals;
mod session_begin;
mod session_commands;
mod session_count;
mod session_expiry;
mod session_filter;
mod session_messages;
mod session_patch;
mod session_purges;
mod session_traffic;
mod session_view;
mod sessions;
mod shared_group_orders;
mod shared_group_view;
mod shared_groups;
mod subscription_changes;
mod subscriptions;
mod usage;
mod usage_history;
mod users;
mod webhook_view;
mod webhooks;

pub(in crate::control_plane) use events::EventView;

use super::problem::{Problem, Result};
use super::routes::Routes;
use super::state::ApiState;
use crate::model::{Cluster, ClusterId, Plan, Quota};
use crate::store::Tx;

/// Every route, with its scope and its problems.
pub(super) fn routes() -> Routes {
    let routes = Routes::default();
    let routes = plans::routes(routes);
    let routes = clusters::routes(routes);
    let routes = quota::routes(routes);
    let routes = quota_put::routes(routes);
    let routes = usage::routes(routes);
    let routes = usage_history::routes(routes);
    let routes = sessions::routes(routes);
    let routes = session_count::routes(routes);
    let routes = session_patch::routes(routes);
    let routes = session_commands::routes(routes);
    let routes = holds::routes(routes);
    let routes = session_begin::routes(routes);
    let routes = subscriptions::routes(routes);
    let routes = subscription_changes::routes(routes);
    let routes = session_messages::routes(routes);
    let routes = shared_groups::routes(routes);
    let routes = shared_group_orders::routes(routes);
    let routes = users::routes(routes);
    let routes = authorization_policies::routes(routes);
    let routes = block_rules::routes(routes);
    let routes = message_rules::routes(routes);
    let routes = authenticators::routes(routes);
    let routes = auto_subscriptions::routes(routes);
    let routes = events::routes(routes);
    let routes = webhooks::routes(routes);
    let routes = dead_letters::routes(routes);
    let routes = refusals::routes(routes);
    let routes = admission_checks::routes(routes);
    let routes = session_purges::routes(routes);
    let routes = operations::routes(routes);
    let routes = metrics::routes(routes);
    let routes = nodes::routes(routes);
    let routes = audit_log::routes(routes);
    api_keys::routes(routes)
}

/// The cluster, or 404.
async fn existing_cluster(state: &ApiState, id: &ClusterId) -> Result<Cluster> {
    state.store.get_cluster(id).await?.ok_or_else(|| Problem::cluster_not_found(id))
}

/// The cluster of that id, which nobody else changes until the transaction ends.
async fn locked_cluster(tx: &mut Tx, id: &ClusterId) -> Result<Cluster> {
    tx.lock_cluster(id).await?.ok_or_else(|| Problem::cluster_not_found(id))
}

/// The plan of a cluster.
fn plan_of(cluster: &Cluster) -> Result<&'static Plan> {
    Plan::by_name(&cluster.plan).ok_or_else(|| {
        Problem::internal(format!("cluster {} has the unknown plan {:?}", cluster.id, cluster.plan))
    })
}

/// The limits in force for a cluster.
fn quota_of(cluster: &Cluster) -> Result<Quota> {
    Ok(Quota::resolve(plan_of(cluster)?, &cluster.overrides))
}
