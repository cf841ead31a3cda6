//! `…/sessions/{client_id}/messages` and `…/will`: what a session is about to get, and what is said should it end
//! badly. Read from the data plane; nothing is changed by looking.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{Query, SessionPath};
use super::super::page::{Page, PageSize, Paging};
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::message_view::{MessageView, OriginView, PayloadForm};
use super::sessions::existing_session;
use crate::model::{QoS, SessionId, Timestamp};
use crate::seam::command::CommandError;
use crate::seam::messages::{
    BrowseOf, BrowsePlace, BrowseRequest, BrowsedMessage, Exchange, ExchangePhase, ShownWill,
};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::DataPlaneUnavailable, Code::PageTokenInvalid];
    let will = [Code::StoreUnavailable, Code::DataPlaneUnavailable, Code::WillNotFound];
    routes.add(Scope::MessagesRead, &list, routes!(list_session_messages)).add(
        Scope::MessagesRead,
        &will,
        routes!(get_will),
    )
}

/// A message of a session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionMessage, example = json!({
    "position": 48_211, "qos": 1, "retain": false, "subscription_identifiers": [], "exchange": null,
    "message": {
        "topic": "meters/17/cmd", "payload": "b24=", "payload_encoding": "base64", "payload_bytes": 2,
        "published_qos": 1, "published_retain": false,
        "mqtt_properties": {
            "payload_is_utf8": null, "content_type": null, "response_topic": null, "correlation_data": null,
            "user_properties": []
        }
    },
    "origin": {
        "published_at": "2026-01-31T14:31:00.000Z", "expires_at": null, "expires_in_seconds": null,
        "publisher": "backend"
    }
}))]
struct SessionMessageView {
    /// Where it lies in the cluster's message log. Null when it is not there: it waits in memory for a session that
    /// ends with its connection, is a retained message that was sent on a subscription, or is not needed any longer.
    #[schema(minimum = 1, required)]
    position: Option<u64>,
    /// The quality of service at which the session gets it.
    qos: QoS,
    /// The retain flag as the session sees it.
    retain: bool,
    /// Identifiers of the session's subscriptions that want it.
    subscription_identifiers: Vec<u32>,
    /// How far it is on its way; null while it waits.
    #[schema(required)]
    exchange: Option<ExchangeView>,
    /// What was said. Null when that is no longer kept: the client has it (phase `released`), or the message log
    /// let go of it.
    #[schema(required)]
    message: Option<MessageView>,
    /// When, by whom and until when; null as `message` is.
    #[schema(required)]
    origin: Option<OriginView>,
}

/// How far a message is on its way to the client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Exchange)]
struct ExchangeView {
    /// Its packet id.
    #[schema(minimum = 1, maximum = 65_535)]
    packet_id: u16,
    /// What the client has still to answer.
    phase: PhaseView,
    /// The shared subscription whose message it is; null for the session's own.
    #[schema(required)]
    shared_subscription: Option<String>,
}

/// `published`: PUBLISH was sent; PUBACK, or PUBREC at QoS 2, is awaited. `released`: PUBREL was sent, PUBCOMP is
/// awaited.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExchangePhase)]
#[serde(rename_all = "snake_case")]
enum PhaseView {
    Published,
    Released,
}

impl SessionMessageView {
    fn new(browsed: BrowsedMessage, form: PayloadForm, now: Timestamp) -> Self {
        let message = browsed.message.as_ref();
        Self {
            position: browsed.position.map(|position| position.0),
            qos: browsed.qos,
            retain: browsed.retain,
            subscription_identifiers: browsed.subscription_ids.iter().map(|id| id.get()).collect(),
            message: message.map(|message| MessageView::new(message, form)),
            origin: message.map(|message| OriginView::new(message, now)),
            exchange: browsed.exchange.map(ExchangeView::from),
        }
    }
}

impl From<Exchange> for ExchangeView {
    fn from(exchange: Exchange) -> Self {
        let Exchange { packet_id, phase, share } = exchange;
        let phase = match phase {
            ExchangePhase::Published => PhaseView::Published,
            ExchangePhase::Released => PhaseView::Released,
        };
        let shared_subscription = share.map(|share| share.as_str().to_owned());
        Self { packet_id: packet_id.get(), phase, shared_subscription }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Which messages: `backlog` waits, `in_flight` was sent at QoS 1 or 2 and is not acknowledged to the end.
    #[param(inline)]
    of: Of,
    /// How payloads are shown; `base64` when not sent.
    #[param(inline)]
    payload: Option<PayloadForm>,
    /// How many messages a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Of {
    Backlog,
    InFlight,
}

impl From<Of> for BrowseOf {
    fn from(of: Of) -> Self {
        match of {
            Of::Backlog => Self::Backlog,
            Of::InFlight => Self::InFlight,
        }
    }
}

/// Browse a session's messages
///
/// What waits for it, or is in flight, in the order in which it gets them. Looking changes nothing: the client
/// gets them all the same. Read from memory and disk at the moment of the request; what the session consumes between
/// two pages is not on the second. A page has at most 1 MiB of messages, or one message that is larger, and may so be
/// shorter than `page_size`, or empty, though there is a `next_page_token`. A page token is good for this session
/// alone, not for the client's next one.
///
/// Messages that have expired, and will be passed over, are shown until they are. Not shown are retained messages that
/// a new subscription is still owed, and messages that wait for a shared group: those are nobody's yet.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/messages",
    tag = "sessions",
    params(SessionPath, ListParams),
    responses((status = 200, description = "A page of messages.", body = Page<SessionMessageView>))
)]
async fn list_session_messages(
    State(state): State<ApiState>,
    path: SessionPath,
    Query(params): Query<ListParams>,
) -> Result<Json<Page<SessionMessageView>>> {
    let session = existing_session(&state, &path).await?.row.session_id;
    let of = BrowseOf::from(params.of);
    let bound = ("messages", session, of);
    let paging = Paging::<BrowsePlace>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let request = BrowseRequest {
        client_id: path.client_id.clone(),
        of,
        after: paging.after.unwrap_or_default(),
        messages_max: paging.size().into(),
    };
    let browsed = state.data_plane.browse(path.cluster.clone(), request, DATA_PLANE_WAIT).await;
    let browsed = browsed.map_err(|error| not_told(&error, &path))?;
    check_same(browsed.session_id, session)?;
    let (form, now) = (params.payload.unwrap_or_default(), state.clock.wall());
    let messages = browsed.messages.into_iter();
    let items = messages.map(|message| SessionMessageView::new(message, form, now)).collect();
    paging.page_until(items, browsed.next.as_ref()).map(Json)
}

/// A session's will.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Will, example = json!({
    "topic": "meters/17/state", "payload": "b2ZmbGluZQ==", "payload_encoding": "base64", "payload_bytes": 7,
    "published_qos": 1, "published_retain": true,
    "mqtt_properties": {
        "payload_is_utf8": null, "content_type": null, "response_topic": null, "correlation_data": null,
        "user_properties": []
    },
    "message_expiry_seconds": null, "delay_seconds": 30, "due_at": "2026-01-31T14:30:30.000Z"
}))]
struct WillView {
    #[serde(flatten)]
    message: MessageView,
    #[serde(flatten)]
    publication: PublicationView,
}

/// When a will is published.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WillPublication)]
struct PublicationView {
    /// How long the message is good once it is published; null for as long as it takes.
    #[schema(minimum = 0, required)]
    message_expiry_seconds: Option<u32>,
    /// How long after the end of the connection it is published.
    #[schema(minimum = 0)]
    delay_seconds: u32,
    /// When it is published if the client does not return before: after its delay, or with the session's end. Null
    /// while the client is connected.
    #[schema(required)]
    due_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WillParams {
    /// How the payload is shown; `base64` when not sent.
    #[param(inline)]
    payload: Option<PayloadForm>,
}

/// Get a session's will
///
/// What is published should its connection end badly, or its session end: `published_qos` and `published_retain` say
/// how. 404 when it has none, or when it was published already.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/will",
    tag = "sessions",
    params(SessionPath, WillParams),
    responses((status = 200, description = "The will.", body = WillView))
)]
async fn get_will(
    State(state): State<ApiState>,
    path: SessionPath,
    Query(params): Query<WillParams>,
) -> Result<Json<WillView>> {
    let session = existing_session(&state, &path).await?.row.session_id;
    let will = state.data_plane.will(path.cluster.clone(), path.client_id.clone(), DATA_PLANE_WAIT).await;
    let Some(will) = will.map_err(|error| not_told(&error, &path))? else {
        let detail = format!("the session of client \"{}\" has no will", path.client_id);
        return Err(Problem::new(Code::WillNotFound, detail));
    };
    check_same(will.session_id, session)?;
    let ShownWill { message, message_expiry_secs, delay_secs, due_at, .. } = will;
    Ok(Json(WillView {
        message: MessageView::new(&message, params.payload.unwrap_or_default()),
        publication: PublicationView {
            message_expiry_seconds: message_expiry_secs,
            delay_seconds: delay_secs,
            due_at,
        },
    }))
}

fn not_told(error: &CommandError, path: &SessionPath) -> Problem {
    match error {
        CommandError::NoSuchSession => Problem::session_not_found(&path.cluster, &path.client_id),
        _ => data_plane_away(error),
    }
}

/// The record and the data plane are of the same session, except for a moment when one ends and the next begins.
fn check_same(told: SessionId, recorded: SessionId) -> Result<()> {
    if told == recorded {
        return Ok(());
    }
    let detail = "the client's session has just ended and another one begun; its record is on its way";
    Err(Problem::new(Code::DataPlaneUnavailable, detail))
}
