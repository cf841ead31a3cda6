//! `…/sessions/{client_id}/subscriptions`: what a session subscribes to.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{Query, SessionPath};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::Result;
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::session_traffic::traffic_of;
use super::sessions::existing_session;
use crate::model::{QoS, RetainHandling, SubscriptionOrigin, Timestamp, TopicFilter};
use crate::seam::backlog::SessionTraffic;
use crate::store::SubscriptionRecord;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::StoreUnavailable, Code::PageTokenInvalid];
    routes.add(Scope::SessionsRead, &codes, routes!(list_subscriptions))
}

/// A subscription of a session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription, example = json!({
    "filter": "$share/readers/meters/+/power", "share_group": "readers", "qos": 1, "no_local": false,
    "retain_as_published": false, "retain_handling": 0, "subscription_identifier": null,
    "origin": "client", "created_at": "2026-01-31T12:00:00.000Z", "lag": 12, "in_flight": 1
}))]
pub(super) struct SubscriptionView {
    /// The topic filter, with `$share/{group}/` where the subscription is shared.
    #[schema(max_length = 2048)]
    filter: String,
    /// The group that shares the subscription; null when it is the session's own.
    #[schema(required)]
    share_group: Option<String>,
    /// The greatest quality of service at which messages are sent.
    qos: QoS,
    /// Whether the client is not sent what it published itself.
    no_local: bool,
    /// Whether messages keep the retain flag that their publisher set.
    retain_as_published: bool,
    /// When retained messages are sent: 0 at every SUBSCRIBE, 1 only at the first, 2 never.
    retain_handling: RetainHandling,
    /// The identifier that it was given; null for none.
    #[schema(minimum = 1, maximum = 268_435_455, required)]
    subscription_identifier: Option<u32>,
    /// Who asked for it last. A filter has one subscription, whoever asked for it.
    origin: SubscriptionOrigin,
    /// When the session first subscribed to this filter.
    created_at: Timestamp,
    /// How many messages wait under this filter, for the session or for the shared group; at least so many when
    /// the session's `backlog` is not complete. Null when the data plane does not tell.
    #[schema(minimum = 0, required)]
    lag: Option<u64>,
    /// How many QoS 1 and 2 messages under this filter were sent to the client and are not acknowledged. Null
    /// when that cannot be told: of an offline session that has unfinished exchanges, and when the data plane
    /// does not tell.
    #[schema(minimum = 0, required)]
    in_flight: Option<u64>,
}

impl SubscriptionView {
    pub(super) fn new(record: SubscriptionRecord, traffic: Option<&SessionTraffic>) -> Self {
        let subscription = record.subscription;
        let told = traffic
            .and_then(|traffic| traffic.subscriptions.iter().find(|told| told.filter == subscription.filter));
        Self {
            share_group: subscription.filter.shared().map(|shared| shared.group.to_owned()),
            filter: subscription.filter.as_str().to_owned(),
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            retain_handling: subscription.retain_handling,
            subscription_identifier: subscription.identifier.map(u32::from),
            origin: subscription.origin,
            created_at: record.created_at,
            lag: told.map(|told| told.lag),
            in_flight: told.and_then(|told| told.in_flight),
        }
    }
}

/// List a session's subscriptions
///
/// In the byte order of their filters. A page token is good for this session alone, not for the
/// client's next one.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/subscriptions",
    tag = "sessions",
    params(SessionPath, PageParams),
    responses((status = 200, description = "A page of subscriptions.", body = Page<SubscriptionView>))
)]
async fn list_subscriptions(
    State(state): State<ApiState>,
    path: SessionPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<SubscriptionView>>> {
    let record = existing_session(&state, &path).await?;
    let session = record.row.session_id;
    let paging = Paging::<Filter>::of(&params, &("subscriptions", session))?;
    let after = paging.after.as_ref().map(|filter| &filter.0);
    let records = state.store.list_subscriptions(session, after, paging.limit()).await?;
    let key = |record: &SubscriptionRecord| Filter(record.subscription.filter.clone());
    let traffic = traffic_of(&state, &record).await.ok();
    paging.page(records, key, |record| SubscriptionView::new(record, traffic.as_ref())).map(Json)
}

/// A filter as the key in a page token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Filter(pub(super) TopicFilter);

impl TryFrom<String> for Filter {
    type Error = crate::model::TopicError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        TopicFilter::new(&text).map(Self)
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.0.as_str().to_owned()
    }
}
