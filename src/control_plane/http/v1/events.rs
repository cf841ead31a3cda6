//! `…/sessions/{client_id}/history` and `…/events`: what happened to sessions, to look back and to follow.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::etag::optional_header;
use super::super::extract::{ClusterPath, Query, SessionPath};
use super::super::page::{Page, PageSize, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::{ApiState, STREAMS_MAX};
use super::existing_cluster;
use crate::model::{ClientId, ClusterId, Epoch, Monotonic, SessionId, Timestamp};
use crate::store::{EventKind, EventSpan, SessionEvent, Store};

/// How often a line is sent while nothing happens, so that a dead connection is noticed on both sides.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the database is asked although nobody told of an event: for a moment's absence of it.
const POLL: Duration = Duration::from_secs(2);
/// How long a stream lasts: then its caller comes again, with a token that is still good.
const STREAM_TIME_MAX: Duration = Duration::from_mins(15);
/// How many events are read at a time.
const EVENTS_AT_ONCE: u32 = 500;

pub(super) fn routes(routes: Routes) -> Routes {
    let history = [Code::PageTokenInvalid];
    let follow = [Code::EventsGone, Code::InvalidHeader];
    routes.add(Scope::SessionsRead, &history, routes!(list_session_history)).add(
        Scope::SessionsRead,
        &follow,
        routes!(follow_events),
    )
}

/// Something that happened to a session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionEvent, example = json!({
    "seq": 4711, "at": "2026-01-31T14:30:00.000Z", "cluster": "default", "client_id": "meter-17",
    "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "epoch": 3, "kind": "detached",
    "detail": {"reason": "keep_alive_timeout", "by": "server"}, "actor": null, "request_id": null
}))]
pub(in crate::control_plane) struct EventView {
    /// Its number in the cluster: without gaps, in the order in which the events were committed.
    #[schema(minimum = 1)]
    seq: i64,
    /// When it happened.
    at: Timestamp,
    /// The cluster.
    cluster: ClusterId,
    /// The client.
    client_id: ClientId,
    /// The session.
    session_id: SessionId,
    /// The session's attachment.
    epoch: Epoch,
    /// What happened.
    kind: EventKind,
    /// What belongs to that kind: `attached {peer, transport, resumed}`, `taken_over {from_peer,
    /// from_epoch, peer, transport}`, `detached {reason, by}`, `subscribed {filter, qos}`,
    /// `unsubscribed {filter}`, `expiry_changed {from, to}`, `kicked {operation, was_online, operation_id}`,
    /// `created {protocol, clean_start}`, `ended {reason}`, `refused {kind, code, reason, detail, ip}` (told when it
    /// begins, and again after a minute without one; the list of refusals counts them).
    #[schema(value_type = Object)]
    detail: Value,
    /// Who did it, where it was an operator; else null.
    #[schema(required, example = "ada")]
    actor: Option<String>,
    /// In which request, as the audit log has it; else null.
    #[schema(required)]
    request_id: Option<String>,
}

impl From<SessionEvent> for EventView {
    fn from(SessionEvent { seq, event }: SessionEvent) -> Self {
        Self {
            seq,
            at: event.at,
            cluster: event.cluster,
            client_id: event.client_id,
            session_id: event.session_id,
            epoch: event.epoch,
            kind: event.kind,
            detail: event.detail,
            actor: event.actor,
            request_id: event.request_id,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryParams {
    /// How many events a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
}

/// List what happened to a client's sessions
///
/// Newest first, of all sessions that the client had: the history survives them. Kept for 30 days, and at most
/// the newest 1,000,000 events of the cluster. What happened between two commits of the data plane
/// shows as one step: a connection that came and went within milliseconds may show its end alone.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/history",
    tag = "sessions",
    params(SessionPath, HistoryParams),
    responses((status = 200, description = "A page of events; empty for a client that nothing is known of.", body = Page<EventView>))
)]
async fn list_session_history(
    State(state): State<ApiState>,
    path: SessionPath,
    Query(params): Query<HistoryParams>,
) -> Result<Json<Page<EventView>>> {
    existing_cluster(&state, &path.cluster).await?;
    let bound = ("history", &path.cluster, &path.client_id);
    let paging = Paging::<i64>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let store = &state.store;
    let events = store.client_history(&path.cluster, &path.client_id, paging.after, paging.limit()).await?;
    paging.page(events, |event| event.seq, EventView::from).map(Json)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FollowParams {
    /// The `seq` of the last event that was seen; the stream goes on behind it. 0 for all that is kept. When not
    /// sent, the stream begins with what happens from now on.
    #[param(minimum = 0, example = 4711)]
    since: Option<u64>,
    /// Only what happens to the sessions of this client.
    client_id: Option<ClientId>,
}

/// `Last-Event-ID`, which a browser's `EventSource` sends when it comes again.
struct LastEventId(Option<u64>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let Some(sent) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        let seq = sent.to_str().ok().and_then(|text| text.trim().parse().ok());
        let refused = || Problem::new(Code::InvalidHeader, "Last-Event-ID is the number of an event");
        seq.map(|seq| Self(Some(seq))).ok_or_else(refused)
    }
}

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "As `since`, which it beats: what an `EventSource` sends when it comes again.";
        vec![optional_header("Last-Event-ID", about, "4711")]
    }
}

/// Follow what happens to the sessions of a cluster
///
/// Server-Sent Events: `id` is the event's `seq`, `event` its `kind`, `data` the event as JSON in one line. The
/// numbers have no gaps (unless narrowed to a client) and are in the order of the commits, so whoever
/// comes again with the last number misses nothing and sees nothing twice, over restarts too. A
/// comment comes every 15 seconds. A stream ends after 15 minutes, when the service stops, and when its
/// reader is so slow that what it has not seen is gone: come again with `Last-Event-ID`.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/events",
    tag = "sessions",
    params(ClusterPath, FollowParams, LastEventId),
    responses((
        status = 200,
        description = "The stream.",
        body = String,
        content_type = "text/event-stream",
        example = "id: 4711\nevent: detached\ndata: {\"seq\":4711,\"kind\":\"detached\"}\n\n"
    ))
)]
async fn follow_events(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<FollowParams>,
    LastEventId(last): LastEventId,
) -> Result<impl IntoResponse> {
    existing_cluster(&state, &path.cluster).await?;
    let permit =
        state.streams.clone().try_acquire_owned().map_err(|_| {
            Problem::new(Code::Overloaded, format!("{STREAMS_MAX} streams are being followed"))
        })?;
    // Before the position is looked up: what is committed from here on wakes the stream.
    let told = state.store.events_told();
    let span = state.store.event_span(&path.cluster).await?;
    let position = match last.or(params.since) {
        None => span.last,
        Some(0) => span.first - 1,
        Some(seen) => seen_until(seen, span)?,
    };
    let until =
        state.clock.mono().plus_millis(u64::try_from(STREAM_TIME_MAX.as_millis()).unwrap_or(u64::MAX));
    let follower = Follower {
        state,
        cluster: path.cluster,
        client_id: params.client_id,
        position,
        read: VecDeque::new(),
        told,
        until,
        _permit: permit,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(sse(event)), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")))
}

/// The position behind what was seen, if all that follows is still there.
fn seen_until(seen: u64, span: EventSpan) -> Result<i64> {
    let seen = i64::try_from(seen).unwrap_or(i64::MAX);
    if (span.first - 1..=span.last).contains(&seen) {
        return Ok(seen);
    }
    let detail = format!("the events that are kept are {} to {}", span.first, span.last);
    Err(Problem::new(Code::EventsGone, detail))
}

fn sse(event: SessionEvent) -> Event {
    let (id, kind) = (event.seq.to_string(), event.event.kind.as_str());
    // JSON writes line breaks as \n, so the data is one line; it cannot fail for a value of our own.
    let data = serde_json::to_string(&EventView::from(event)).unwrap_or_default();
    Event::default().id(id).event(kind).data(data)
}

/// Where one stream stands.
struct Follower {
    state: ApiState,
    cluster: ClusterId,
    client_id: Option<ClientId>,
    /// Up to here everything was sent, or does not concern the caller.
    position: i64,
    read: VecDeque<SessionEvent>,
    told: watch::Receiver<u64>,
    until: Monotonic,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<SessionEvent> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.position = event.seq;
                return Some(event);
            }
            if self.state.stopping.is_cancelled() || self.state.clock.mono() >= self.until {
                return None;
            }
            self.told.mark_unchanged();
            match self.read_on().await {
                Ok(true) => {}
                Ok(false) => return None,
                // The database is away: the stream stays, and goes on when it returns.
                Err(error) => tracing::debug!(%error, "a stream of events waits for the database"),
            }
            if self.read.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Reads what there is; false when something is gone that was not read.
    async fn read_on(&mut self) -> crate::store::Result<bool> {
        let store: &Store = &self.state.store;
        let span = store.event_span(&self.cluster).await?;
        if span.first > self.position + 1 {
            return Ok(false);
        }
        let client_id = self.client_id.as_ref();
        let read = store.events_after(&self.cluster, client_id, self.position, EVENTS_AT_ONCE).await?;
        if read.is_empty() {
            self.position = self.position.max(span.last);
        }
        self.read = read.into();
        Ok(true)
    }

    async fn wait(&mut self) {
        tokio::select! {
            // The sender lives as long as the store, which this holds.
            _ = self.told.changed() => {}
            () = tokio::time::sleep(POLL) => {}
            () = self.state.stopping.cancelled() => {}
        }
    }
}
