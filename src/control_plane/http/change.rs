//! What surrounds every change: its idempotency key and its row in the audit log.
//!
//! [`carry_out`] is laid around each operation that is not a read, inside the check of its scope, by
//! [`Routes`](super::routes::Routes), so that none can be without it. Before the handler it claims the key and
//! writes the audit row; after it, it writes what became of both.
//!
//! A handler takes the [`Change`] and ends its transaction by [`Change::commit`], which puts the answer and the
//! record before and after into that same transaction: a crash leaves all of it or nothing. Where
//! the effect is the data plane's, the handler calls [`Change::dispatch`] first; a crash between that
//! and the answer leaves an audit row that says `started` and a key whose outcome is not known. The
//! service then repeats nothing by itself.
//!
//! An answer comes when the effect does, or when the caller has waited long enough: then it is 202, as
//! [`wait`](super::wait) says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tracing::warn;

use super::auth::Caller;
use super::envelope::RequestId;
use super::extract::{SessionPath, read};
use super::idempotency::{self, fingerprint, kept, read_out, sent_key};
use super::problem::{Problem, Result, command_failed};
use super::state::ApiState;
use super::wait::{Pending, Wait, pending};
use crate::model::{ClusterId, Epoch, Monotonic, SessionId};
use crate::seam::command::{CommandError, UnderWay};
use crate::store::{AuditEnd, AuditOutcome, AuditStart, EventKind, IdempotencyKey, KeptAnswer, NewEvent, Tx};

/// One change under way. As an extractor it is there in every operation that is not a read.
#[derive(Clone, Debug)]
pub(super) struct Change(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: ApiState,
    key: Option<IdempotencyKey>,
    audit: i64,
    actor: String,
    request_id: String,
    /// Whether the effect is committed, with its answer.
    committed: AtomicBool,
    /// Whether a command went to the data plane.
    dispatched: AtomicBool,
    /// Whether it was answered that nobody knows the outcome yet.
    is_open: AtomicBool,
    /// Whether the specification says that the data plane enforces it.
    is_enforced: bool,
    path: String,
    /// How long the caller waits, from when the request came.
    wait: Wait,
    asked_at: Monotonic,
}

impl Change {
    /// Commits the transaction together with the answer and, for the audit log, the record `before`; the
    /// answer is the record after. Gives the answer back when the data plane enforces the change, where it is
    /// one that it enforces: what is answered holds for the next packet. When that takes longer than the
    /// caller waits, the answer says so.
    pub(super) async fn commit(
        &self,
        tx: Tx,
        before: Option<&(impl Serialize + Sync)>,
        response: Response,
    ) -> Result<Response> {
        let is_enforced = tx.desired_revision().is_some();
        debug_assert!(!is_enforced || self.0.is_enforced, "register it by Routes::add_enforced");
        let (response, body) = read_out(response).await?;
        let after = serde_json::from_slice(&body).ok();
        self.commit_keeping(tx, before, after.as_ref(), kept(&response, &body, is_enforced)).await?;
        let holds = !is_enforced || self.0.state.enforces(self.remaining()).await;
        Ok(if holds { response } else { pending(response, self.0.wait) })
    }

    /// As [`Change::commit`], for a session's record: these orders bring it into force in the data plane. One that it
    /// does not confirm in time is carried out all the same, and the answer says so.
    pub(super) async fn commit_and_order(
        &self,
        tx: Tx,
        before: &(impl Serialize + Sync),
        response: Response,
        path: &SessionPath,
        orders: Vec<UnderWay>,
    ) -> Result<Response> {
        let (mut response, body) = read_out(response).await?;
        let after = serde_json::from_slice(&body).ok();
        // Orders are taken in turn: what comes behind these finds them carried out.
        let answer = kept(&response, &body, !orders.is_empty());
        self.commit_keeping(tx, Some(before), after.as_ref(), answer).await?;
        for mut order in orders {
            match order.answer_within(self.remaining()).await {
                Ok(_) => {}
                Err(CommandError::TimedOut) => {
                    self.0.state.see_through(order);
                    response = pending(response, self.0.wait);
                }
                // The next start reads the record.
                Err(CommandError::Stopped) => response = pending(response, self.0.wait),
                Err(error) => return Err(command_failed(&error, &path.cluster, &path.client_id)),
            }
        }
        Ok(response)
    }

    /// The answer, when also the connections are closed that the cluster's block rules have ended.
    pub(super) async fn when_expelled(&self, cluster: &ClusterId, response: Response) -> Response {
        let holds =
            response.status() == StatusCode::ACCEPTED || self.0.state.expels(cluster, self.remaining()).await;
        if holds { response } else { pending(response, self.0.wait) }
    }

    /// The answer when the data plane has not said in time whether it has made the change that it records itself.
    pub(super) fn under_way(&self, path: &str) -> Response {
        self.0.is_open.store(true, Ordering::Relaxed);
        Pending::answer(path, self.0.wait)
    }

    /// The path of the request, as it was sent.
    pub(super) fn path(&self) -> &str {
        &self.0.path
    }

    /// How much of the caller's wait is left.
    fn remaining(&self) -> Duration {
        self.0.wait.granted().saturating_sub(self.0.state.clock.mono().since(self.0.asked_at))
    }

    /// As [`Change::commit`], for an answer that holds a secret: `shown` is kept in its place.
    pub(super) async fn commit_secret(
        &self,
        tx: Tx,
        shown: &(impl Serialize + Sync),
        response: Response,
    ) -> Result<Response> {
        let shown = serde_json::to_value(shown).map_err(Problem::internal)?;
        let answer = kept(&response, shown.to_string().as_bytes(), false);
        self.commit_keeping(tx, None::<&()>, Some(&shown), answer).await?;
        Ok(response)
    }

    async fn commit_keeping(
        &self,
        mut tx: Tx,
        before: Option<&(impl Serialize + Sync)>,
        after: Option<&Value>,
        answer: KeptAnswer,
    ) -> Result<()> {
        let before = before.map(serde_json::to_value).transpose().map_err(Problem::internal)?;
        tx.note_audit(self.0.audit, before.as_ref(), after).await?;
        if let Some(key) = &self.0.key {
            tx.answer_key(key, &answer).await?;
        }
        tx.commit().await?;
        self.0.committed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Says that a command is about to go to the data plane.
    pub(super) async fn dispatch(&self) -> Result<()> {
        self.0.dispatched.store(true, Ordering::Relaxed);
        if let Some(key) = &self.0.key {
            self.0.state.store.mark_key_dispatched(key).await?;
        }
        Ok(())
    }

    /// Who asks for it, and in which request.
    pub(super) fn who(&self) -> (String, String) {
        (self.0.actor.clone(), self.0.request_id.clone())
    }

    /// An event that says who did it, in which request.
    pub(super) fn event(
        &self,
        path: &SessionPath,
        (session_id, epoch): (SessionId, Epoch),
        kind: EventKind,
        detail: Value,
    ) -> NewEvent {
        NewEvent {
            cluster: path.cluster.clone(),
            client_id: path.client_id.clone(),
            session_id,
            epoch,
            at: self.0.state.clock.wall(),
            kind,
            detail,
            actor: Some(self.0.actor.clone()),
            request_id: Some(self.0.request_id.clone()),
        }
    }

    /// What is to become of the key when the handler is done.
    async fn settle(&self, status: StatusCode, answer: KeptAnswer) {
        let Some(key) = &self.0.key else { return };
        if self.0.committed.load(Ordering::Relaxed) {
            return;
        }
        let store = &self.0.state.store;
        let is_open = self.0.is_open.load(Ordering::Relaxed) || status.is_server_error();
        let settled = if self.0.dispatched.load(Ordering::Relaxed) && is_open {
            store.lose_key(key).await
        } else if status.is_success() {
            store.answer_key(key, &answer).await
        } else {
            store.release_key(key).await
        };
        if let Err(error) = settled {
            warn!(%error, "what became of an idempotency key could not be recorded: {error}");
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Change {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let change = parts.extensions.get::<Self>().cloned();
        change.ok_or_else(|| Problem::internal("a change outside of an operation that changes"))
    }
}

/// The operation that a change is asked for by.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// Its id in the specification.
    pub(super) operation: Arc<str>,
    /// Whether the data plane enforces what it changes.
    pub(super) is_enforced: bool,
}

/// Lets a request pass as a change; see the module.
pub(super) async fn carry_out(named: Named, request: Request, next: Next) -> Response {
    match begin(&named, request).await {
        Ok(Begun::Work(change, request)) => finish(change, *request, next).await,
        Ok(Begun::Answered(response)) => response,
        Err(problem) => problem.into_response(),
    }
}

/// How a change begins.
enum Begun {
    Work(Change, Box<Request>),
    /// It was made before.
    Answered(Response),
}

async fn begin(named: &Named, request: Request) -> Result<Begun> {
    let (mut parts, body) = request.into_parts();
    let state: ApiState = parts
        .extensions
        .get()
        .cloned()
        .ok_or_else(|| Problem::internal("a change without the state of the API"))?;
    let (asked_at, wait) = (state.clock.mono(), Wait::preferred(&parts.headers));
    let caller = Caller::from_request_parts(&mut parts, &()).await?;
    let start = audit_start(&named.operation, &caller, &mut parts).await;
    let key = sent_key(&parts.headers)?.map(|key| IdempotencyKey {
        caller: caller.identity(),
        key,
        run: state.run,
    });
    let mut request = Request::from_parts(parts, body);
    if let Some(key) = &key {
        let (answered, rest) = claim(&state, key, request).await?;
        if let Some(answer) = answered {
            let cluster = start.cluster.as_deref().and_then(|id| ClusterId::new(id).ok());
            return again(&state, answer, cluster.as_ref(), wait).await.map(Begun::Answered);
        }
        request = rest;
    }
    let begun = state.store.start_audit(&start, state.clock.wall()).await;
    if let (Err(_), Some(key)) = (&begun, &key) {
        // Its own failure is that of the database, which is told to the caller already.
        let _ = state.store.release_key(key).await;
    }
    let (committed, dispatched) = (AtomicBool::new(false), AtomicBool::new(false));
    let AuditStart { actor, request_id, path, .. } = start;
    let change = Change(Arc::new(Inner {
        state,
        key,
        audit: begun?,
        actor,
        request_id,
        committed,
        dispatched,
        is_open: AtomicBool::new(false),
        is_enforced: named.is_enforced,
        path,
        wait,
        asked_at,
    }));
    request.extensions_mut().insert(change.clone());
    Ok(Begun::Work(change, Box::new(request)))
}

/// Reads the body, which is part of what the key stands for, and claims the key.
async fn claim(
    state: &ApiState,
    key: &IdempotencyKey,
    request: Request,
) -> Result<(Option<KeptAnswer>, Request)> {
    let (parts, body) = request.into_parts();
    let body = read(Request::from_parts(parts.clone(), body), state).await?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let hash = fingerprint(parts.method.as_str(), target, &body);
    let answered = idempotency::claim(state, key, &hash).await?;
    Ok((answered, Request::from_parts(parts, Body::from(body))))
}

/// The answer that was kept, when it holds: the first one may have been given, or lost, before that.
async fn again(
    state: &ApiState,
    answer: KeptAnswer,
    cluster: Option<&ClusterId>,
    wait: Wait,
) -> Result<Response> {
    let asked_at = state.clock.mono();
    let remaining = || wait.granted().saturating_sub(state.clock.mono().since(asked_at));
    let mut holds = !answer.enforced || state.enforces(remaining()).await;
    if let (true, true, Some(cluster)) = (holds, answer.enforced, cluster) {
        holds = state.expels(cluster, remaining()).await;
    }
    let response = idempotency::replay(answer)?;
    Ok(if holds { response } else { pending(response, wait) })
}

async fn audit_start(operation: &str, caller: &Caller, parts: &mut Parts) -> AuditStart {
    // The guard has read the path before.
    let path = RawPathParams::from_request_parts(parts, &()).await.ok();
    let named = |wanted: &str| {
        let value = path.as_ref()?.iter().find(|(name, _)| *name == wanted)?.1;
        // Such a name is nobody's, and no text of Postgres.
        (!value.contains('\0')).then(|| value.to_owned())
    };
    AuditStart {
        actor: caller.subject().to_owned(),
        key_id: caller.key_id().map(str::to_owned),
        ip: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_string()),
        request_id: parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        operation: operation.to_owned(),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        cluster: named("cluster"),
        client_id: named("client_id"),
    }
}

/// Runs the handler and writes down what became of it.
async fn finish(change: Change, request: Request, next: Next) -> Response {
    let state = change.0.state.clone();
    let response = next.run(request).await;
    let (response, body) = match read_out(response).await {
        Ok(read) => read,
        Err(problem) => return problem.into_response(),
    };
    let status = response.status();
    let code = response.extensions().get::<Problem>().map(|problem| problem.code().as_str());
    change.settle(status, kept(&response, &body, false)).await;
    let outcome = match status {
        status if status.is_success() => AuditOutcome::Succeeded,
        status if status.is_client_error() => AuditOutcome::Refused,
        _ => AuditOutcome::Failed,
    };
    let in_transaction = change.0.committed.load(Ordering::Relaxed);
    let end = AuditEnd {
        outcome,
        status: status.as_u16(),
        code,
        duration_millis: u64::try_from(state.clock.mono().since(change.0.asked_at).as_millis())
            .unwrap_or(u64::MAX),
        after: if in_transaction { None } else { serde_json::from_slice(&body).ok() },
    };
    if let Err(error) = state.store.finish_audit(change.0.audit, &end).await {
        warn!(%error, "a row of the audit log stays \"started\": {error}");
    }
    response
}
