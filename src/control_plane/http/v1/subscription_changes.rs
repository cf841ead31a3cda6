//! `…/sessions/{client_id}/subscriptions/{filter}`: subscribing and unsubscribing in a client's place.

use std::num::NonZeroU32;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{self, NO_BODY, NoBody, Query, SubscriptionPath, present};
use super::super::number::{Within, numbered, present_numbered};
use super::super::problem::{Problem, Result, command_failed};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::super::wait::{Pending, Wait};
use super::session_commands::Fence;
use super::session_traffic::traffic_of;
use super::sessions::existing_session;
use super::subscriptions::SubscriptionView;
use crate::model::{QoS, RetainHandling, Subscription, SubscriptionOrigin, TopicFilter};
use crate::seam::command::{CommandError, Target};
use crate::store::{SessionRecord, SubscriptionRecord};

/// The greatest subscription identifier (MQTT 5.0, 3.8.2.1.2).
const IDENTIFIER_MAX: u32 = 268_435_455;

pub(super) fn routes(routes: Routes) -> Routes {
    let change = [Code::DataPlaneUnavailable, Code::SessionSuperseded, Code::SubscriptionNotFound];
    let put = [&change[..], &[Code::QuotaExceeded, Code::TopicFilterRefused]].concat();
    let delete = [&change[..], &NO_BODY].concat();
    routes.add(Scope::SessionsWrite, &put, routes!(put_subscription)).add(
        Scope::SessionsWrite,
        &delete,
        routes!(delete_subscription),
    )
}

/// How a session subscribes to a filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"qos": 1, "retain_handling": 2}))]
pub(super) struct SubscriptionOptions {
    /// The greatest quality of service at which messages are sent.
    #[serde(deserialize_with = "numbered")]
    qos: QoS,
    /// Whether the client is not sent what it published itself; not for a shared subscription.
    #[serde(default)]
    #[schema(nullable = false)]
    no_local: bool,
    /// Whether messages keep the retain flag that their publisher set.
    #[serde(default)]
    #[schema(nullable = false)]
    retain_as_published: bool,
    /// When retained messages are sent: 0 now, 1 now if the filter is new to the session, 2 never; 0 when not sent.
    #[serde(default, deserialize_with = "present_numbered")]
    #[schema(nullable = false)]
    retain_handling: Option<RetainHandling>,
    /// The identifier that a v5 client is told with each message; none when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, nullable = false, minimum = 1, maximum = 268_435_455)]
    subscription_identifier: Option<Within<1, IDENTIFIER_MAX>>,
}

impl SubscriptionOptions {
    /// The subscription to this filter; the error says what does not fit.
    pub(super) fn of(self, filter: TopicFilter) -> Result<Subscription, &'static str> {
        if self.no_local && filter.shared().is_some() {
            return Err("a shared subscription cannot have no_local [MQTT-3.8.3-4]");
        }
        Ok(Subscription {
            filter,
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling.unwrap_or(RetainHandling::Send),
            identifier: self.subscription_identifier.and_then(|id| NonZeroU32::new(id.0)),
            origin: SubscriptionOrigin::Operator,
        })
    }
}

/// The session that is meant, in whatever attachment unless the fence says which.
fn target(path: &SubscriptionPath, current: &SessionRecord, fence: Fence) -> Target {
    Target {
        cluster: path.cluster.clone(),
        client_id: path.client_id.clone(),
        if_session_id: Some(current.row.session_id),
        if_epoch: fence.epoch(),
    }
}

/// The path of the session's subscriptions, as the request has it.
fn list_of(change: &Change) -> &str {
    change.path().rsplit_once('/').map_or("", |(list, _)| list)
}

fn not_subscribed(path: &SubscriptionPath) -> Problem {
    command_failed(&CommandError::NoSuchSubscription, &path.cluster, &path.client_id)
}

/// The session's subscription to the filter, as the API shows it.
async fn view(
    state: &ApiState,
    path: &SubscriptionPath,
    current: &SessionRecord,
) -> Result<Option<SubscriptionView>> {
    let found: Option<SubscriptionRecord> =
        state.store.get_subscription(current.row.session_id, &path.filter).await?;
    let traffic = traffic_of(state, current).await.ok();
    Ok(found.map(|record| SubscriptionView::new(record, traffic.as_ref())))
}

/// Subscribe on a client's behalf
///
/// For the next message, whether the client is connected or not, over restarts. It counts for the same quotas as the
/// client's own. Retained messages are sent as for a SUBSCRIBE, to an offline client when it comes. A
/// filter has one subscription, whoever asked for it: this replaces the client's own, a SUBSCRIBE of the client
/// replaces this, and an UNSUBSCRIBE of the client ends it. It ends with the session.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/subscriptions/{filter}",
    tag = "sessions",
    params(SubscriptionPath, Fence, Wait),
    request_body = SubscriptionOptions,
    responses(
        (status = 200, description = "The subscription, which was there before.", body = SubscriptionView),
        (status = 201, description = "The new subscription.", body = SubscriptionView),
        (
            status = 202,
            description = "Nobody knows yet whether it is made: the session's list of subscriptions tells.",
            body = Pending,
            headers(("Location" = String, description = "The path of the list."))
        )
    )
)]
async fn put_subscription(
    State(state): State<ApiState>,
    change: Change,
    path: SubscriptionPath,
    Query(fence): Query<Fence>,
    wait: Wait,
    extract::Json(body): extract::Json<SubscriptionOptions>,
) -> Result<Response> {
    let subscription = body.of(path.filter.clone());
    let subscription = subscription.map_err(|why| Problem::field(Code::InvalidBody, "/no_local", why))?;
    let current = existing_session(&state, &path.session()).await?;
    fence.check(&current)?;
    let before = view(&state, &path, &current).await?;
    change.dispatch().await?;
    let met = state.data_plane.subscribe(target(&path, &current, fence), subscription, wait.granted()).await;
    let met = match met {
        Err(CommandError::TimedOut) => return Ok(change.under_way(list_of(&change))),
        met => met.map_err(|error| command_failed(&error, &path.cluster, &path.client_id))?,
    };
    // The client may have unsubscribed meanwhile.
    let made = view(&state, &path, &current).await?.ok_or_else(|| not_subscribed(&path))?;
    let status = if met.was_subscribed { StatusCode::OK } else { StatusCode::CREATED };
    let tx = state.store.begin().await?;
    change.commit(tx, before.as_ref(), (status, axum::Json(made)).into_response()).await
}

/// Unsubscribe on a client's behalf
///
/// From the next message on, also from what the client itself subscribed to. Messages that wait under this filter alone
/// are not sent any more.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/subscriptions/{filter}",
    tag = "sessions",
    params(SubscriptionPath, Fence, Wait),
    responses(
        (status = 204, description = "The session does not subscribe to the filter any more."),
        (
            status = 202,
            description = "Nobody knows yet whether it is done: the session's list of subscriptions tells.",
            body = Pending,
            headers(("Location" = String, description = "The path of the list."))
        )
    )
)]
async fn delete_subscription(
    State(state): State<ApiState>,
    change: Change,
    path: SubscriptionPath,
    Query(fence): Query<Fence>,
    wait: Wait,
    _: NoBody,
) -> Result<Response> {
    let current = existing_session(&state, &path.session()).await?;
    fence.check(&current)?;
    let before = view(&state, &path, &current).await?;
    change.dispatch().await?;
    let target = target(&path, &current, fence);
    match state.data_plane.unsubscribe(target, path.filter.clone(), wait.granted()).await {
        Err(CommandError::TimedOut) => return Ok(change.under_way(list_of(&change))),
        done => done.map_err(|error| command_failed(&error, &path.cluster, &path.client_id))?,
    };
    let tx = state.store.begin().await?;
    change.commit(tx, before.as_ref(), StatusCode::NO_CONTENT.into_response()).await
}
