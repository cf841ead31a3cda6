//! `/v1/plans`: named sets of quotas.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::page::Page;
use super::super::routes::Routes;
use super::quota_rates::PlanRatesView;
use crate::model::{Plan, Quota, QuotaOverrides};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.add(Scope::PlansRead, &[], routes!(list_plans))
}

/// A named set of quotas that a cluster refers to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
struct PlanView {
    /// Its name.
    #[schema(example = "basic")]
    name: &'static str,
    /// Online sessions and unexpired offline persistent sessions together; null for no limit.
    #[schema(example = 1000, minimum = 0, required)]
    connections: Option<u32>,
    /// Subscriptions of all sessions together; null for no limit.
    #[schema(example = 30000, minimum = 0, required)]
    subscriptions: Option<u32>,
    /// Filters of one client; null for no limit.
    #[schema(example = 30, minimum = 0, required)]
    filters_per_client: Option<u32>,
    /// Retained messages; null for no limit.
    #[schema(example = 10_000, minimum = 0, required)]
    retained_messages: Option<u32>,
    /// Bytes of all retained messages; null for no limit.
    #[schema(example = 67_108_864, minimum = 0, required)]
    retained_bytes: Option<u32>,
    /// Share names in the cluster, however many filters are shared under each; null for no limit.
    #[schema(example = 20, minimum = 0, required)]
    shared_groups: Option<u32>,
    /// Filters that are shared under one name; null for no limit.
    #[schema(example = 10, minimum = 0, required)]
    filters_per_shared_group: Option<u32>,
    /// Sessions that share something under one name; null for no limit.
    #[schema(example = 1024, minimum = 0, required)]
    members_per_shared_group: Option<u32>,
    /// What the cluster's messages may take in the message log, in MiB; null for no limit.
    #[schema(example = 16_384, minimum = 0, required)]
    log_mib: Option<u32>,
    /// The longest a session may outlive its connection, in seconds.
    #[schema(example = 259_200, minimum = 0)]
    session_expiry_max_seconds: u32,
    /// How often something may happen, each per second.
    rates: PlanRatesView,
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        let quota = Quota::resolve(plan, &QuotaOverrides::default());
        Self {
            name: plan.name,
            connections: quota.connections,
            subscriptions: quota.subscriptions,
            filters_per_client: quota.filters_per_client,
            retained_messages: quota.retained_messages,
            retained_bytes: quota.retained_bytes,
            shared_groups: quota.shared_groups,
            filters_per_shared_group: quota.filters_per_shared_group,
            members_per_shared_group: quota.members_per_shared_group,
            log_mib: quota.log_mib,
            session_expiry_max_seconds: quota.session_expiry_max_secs,
            rates: PlanRatesView::from(&quota),
        }
    }
}

/// List the plans
///
/// Smallest first. There are few: all of them are on one page.
#[utoipa::path(
    get,
    path = "/v1/plans",
    tag = "plans",
    responses((status = 200, description = "Every plan.", body = Page<PlanView>))
)]
async fn list_plans() -> Json<Page<PlanView>> {
    Json(Page { items: Plan::ALL.iter().map(PlanView::from).collect(), next_page_token: None })
}
