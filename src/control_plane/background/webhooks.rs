//! Delivers session events to webhooks, from the committed events of each cluster, in their order.
//!
//! Each webhook has a position in the store. An event is delivered when its receiver has answered 2xx, and only then the
//! position moves: at least once, over restarts too, and in order, because the next is not sent before. An event
//! that fails holds those behind it back, which costs nothing: they lie in the store anyway. It is given up, and kept as
//! a dead letter, after [`Pace::attempts_max`] attempts, or fewer when the receiver is there and refuses it. Dead letters
//! are tried again when somebody asks, out of order then.
//!
//! Webhooks do not wait for each other; of one there is one request at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::{Method, StatusCode};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::control_plane::webhooks;
use crate::model::{ClusterId, Monotonic, Timestamp};
use crate::outbound::{HttpClient, OutboundError, Outgoing};
use crate::store::{self, DueWebhook, GivenUp, SessionEvent, Store, WebhookRecord};

/// How many webhooks are delivered to at once.
const AT_ONCE: usize = 64;
/// How many events are read at a time.
const EVENTS_AT_ONCE: u32 = 100;
/// How long a webhook is delivered to before the next one that waits has its turn.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);
/// How much of an answer is read. It is not looked at.
const ANSWER_BYTES_MAX: usize = 16 * 1_024;

/// How patiently it delivers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a receiver may take to answer.
    pub answer_time_max: Duration,
    /// How long to wait after the first failure; twice as long after each further one.
    pub first_pause: Duration,
    /// The longest wait.
    pub longest_pause: Duration,
    /// After how many attempts an event is given up whose receiver does not answer, or answers 5xx, 408, 425 or 429.
    pub attempts_max: u32,
    /// The same when it answers otherwise: it is there, and refuses the event.
    pub refusals_max: u32,
    /// How often it looks for work that nobody told of.
    pub poll: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer_time_max: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(10),
            attempts_max: 12,
            refusals_max: 3,
            poll: Duration::from_secs(1),
        }
    }
}

/// Delivers.
#[derive(Debug)]
pub struct Deliverer {
    store: Store,
    clock: Clock,
    http: HttpClient,
    pace: Pace,
}

/// Why an event was not delivered.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Away(#[from] OutboundError),
    #[error("the receiver answered {0}")]
    Answered(StatusCode),
    #[error("the event cannot be written")]
    Unwritable,
}

impl Failure {
    /// Whether trying again may help although nothing is changed.
    fn may_pass(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Answered(status) => status.is_server_error() || [408, 425, 429].contains(&status.as_u16()),
            Self::Unwritable => false,
        }
    }

    /// In one line for the operator, with what the network said.
    fn told(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

/// Names a webhook.
type Name = (ClusterId, String);

impl Deliverer {
    /// One that has delivered nothing yet. `http` reaches whom webhooks may reach.
    pub fn new(store: Store, clock: Clock, http: HttpClient, pace: Pace) -> Self {
        Self { store, clock, http, pace }
    }

    /// Delivers until `stop` is cancelled. What is under way then is sent again by the next run.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut told = self.store.events_told();
        let (mut turns, mut busy) = (FuturesUnordered::new(), HashSet::<Name>::new());
        let mut failing = false;
        loop {
            told.mark_unchanged();
            match self.due(&busy).await {
                Ok(due) => {
                    failing = false;
                    for webhook in due {
                        let name =
                            (webhook.record.webhook.cluster.clone(), webhook.record.webhook.id.clone());
                        busy.insert(name.clone());
                        let deliverer = Arc::clone(&self);
                        turns.push(async move {
                            deliverer.turn(webhook).await;
                            name
                        });
                    }
                }
                Err(error) => {
                    if !failing {
                        warn!(%error, "webhooks wait for the database: {error}");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(name) = turns.next(), if !turns.is_empty() => {
                    busy.remove(&name);
                }
                // The sender lives as long as the store, which this holds.
                _ = told.changed(), if !failing && turns.len() < AT_ONCE => {}
                () = tokio::time::sleep(self.pace.poll) => {}
            }
        }
    }

    /// Webhooks whose turn it is, and that nobody is at.
    async fn due(&self, busy: &HashSet<Name>) -> store::Result<Vec<DueWebhook>> {
        let room = AT_ONCE.saturating_sub(busy.len());
        if room == 0 {
            return Ok(Vec::new());
        }
        // Those that are being delivered to are due as well.
        let limit = u32::try_from(AT_ONCE + busy.len()).unwrap_or(u32::MAX);
        let mut due = self.store.due_webhooks(self.clock.wall(), limit).await?;
        due.retain(|due| {
            let webhook = &due.record.webhook;
            !busy.contains(&(webhook.cluster.clone(), webhook.id.clone()))
        });
        due.truncate(room);
        Ok(due)
    }

    /// Delivers to one webhook what waits for it, for a while.
    async fn turn(&self, due: DueWebhook) {
        let until =
            self.clock.mono().plus_millis(u64::try_from(TURN_TIME_MAX.as_millis()).unwrap_or(u64::MAX));
        let mut turn = Turn { deliverer: self, position: due.record.delivery.position, due, until };
        if let Err(error) = turn.carry_out().await {
            // It stays due, and the runner tells of a database that is away.
            debug!(%error, "a webhook's turn ended early: {error}");
        }
    }

    /// Sends a body once.
    async fn send(&self, record: &WebhookRecord, seq: i64, body: &str) -> Result<(), Failure> {
        let webhook = &record.webhook;
        let name = (&webhook.cluster, webhook.id.as_str());
        let headers = webhooks::headers(name, seq, body, &webhook.secret, self.clock.wall());
        let asked = Outgoing {
            method: Method::POST,
            url: &webhook.url,
            headers: headers.map_err(|_| Failure::Unwritable)?,
            body: Bytes::copy_from_slice(body.as_bytes()),
            time_max: self.pace.answer_time_max,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        match self.http.send(asked).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(Failure::Answered(answer.status)),
            // It has answered; how long it went on is nobody's matter.
            Err(error) => Err(Failure::Away(error)),
        }
    }

    /// How long to wait after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.pace.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.pace.longest_pause)
    }
}

/// One webhook's turn.
struct Turn<'a> {
    deliverer: &'a Deliverer,
    due: DueWebhook,
    /// Up to here it is done with the events.
    position: i64,
    until: Monotonic,
}

impl Turn<'_> {
    async fn carry_out(&mut self) -> store::Result<()> {
        self.pass_over_what_is_gone().await?;
        if self.raise_the_dead().await?.is_break() {
            return Ok(());
        }
        loop {
            let store = &self.deliverer.store;
            let cluster = &self.due.record.webhook.cluster;
            let events = store.events_after(cluster, None, self.position, EVENTS_AT_ONCE).await?;
            let Some(last) = events.last().map(|event| event.seq) else { return Ok(()) };
            for event in events {
                let wanted = &self.due.record.webhook.kinds;
                if wanted.as_ref().is_none_or(|kinds| kinds.contains(&event.event.kind))
                    && self.deliver(event).await?.is_break()
                {
                    return Ok(());
                }
            }
            // Those that it does not want are behind it too.
            if self.position < last && self.advance(last, None, 0).await?.is_break() {
                return Ok(());
            }
        }
    }

    /// Events that were retired before their turn came are lost to it, and counted.
    async fn pass_over_what_is_gone(&mut self) -> store::Result<()> {
        let gone = self.due.span.first - 1 - self.position;
        if gone > 0 {
            self.advance(self.due.span.first - 1, None, gone).await?.is_break();
        }
        Ok(())
    }

    /// Tries dead letters again that somebody wants tried.
    async fn raise_the_dead(&self) -> store::Result<Flow> {
        let (store, record) = (&self.deliverer.store, &self.due.record);
        let name = (&record.webhook.cluster, record.webhook.id.as_str());
        for letter in store.retrying_dead_letters(name, EVENTS_AT_ONCE).await? {
            match self.deliverer.send(record, letter.seq, &letter.body).await {
                Ok(()) => store.dead_letter_delivered(name, letter.seq).await?,
                Err(failure) => store.dead_letter_failed(name, letter.seq, &failure.told()).await?,
            }
            if self.is_over() {
                return Ok(Flow::Break(()));
            }
        }
        Ok(Flow::Continue(()))
    }

    async fn deliver(&mut self, event: SessionEvent) -> store::Result<Flow> {
        let seq = event.seq;
        let body = webhooks::body(event).unwrap_or_default();
        match self.deliverer.send(&self.due.record, seq, &body).await {
            Ok(()) => {
                let now = self.deliverer.clock.wall();
                self.due.failures = 0;
                self.due.record.delivery.attempts = 0;
                self.advance(seq, Some(now), 0).await
            }
            Err(failure) => self.failed(seq, body, &failure).await,
        }
    }

    /// Moves the position; breaks the turn when it is over, or an operator has changed the webhook.
    async fn advance(
        &mut self,
        seq: i64,
        delivered_at: Option<Timestamp>,
        missed: i64,
    ) -> store::Result<Flow> {
        let webhook = &self.due.record.webhook;
        let name = (&webhook.cluster, webhook.id.as_str());
        let version = self.deliverer.store.webhook_advanced(name, seq, delivered_at, missed).await?;
        self.position = seq;
        let goes_on = version == Some(self.due.record.version) && !self.is_over();
        Ok(if goes_on { Flow::Continue(()) } else { Flow::Break(()) })
    }

    /// Writes a failure down; the event is tried again later, or given up.
    async fn failed(&mut self, seq: i64, body: String, failure: &Failure) -> store::Result<Flow> {
        let Deliverer { store, pace, clock, .. } = self.deliverer;
        let webhook = &self.due.record.webhook;
        let name = (&webhook.cluster, webhook.id.as_str());
        let attempts = self.due.record.delivery.attempts + 1;
        let failures = self.due.failures + 1;
        let error = failure.told();
        let now = clock.wall();
        let again_at = |failures| {
            let pause = i64::try_from(self.deliverer.pause(failures).as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_add(pause))
        };
        let most = if failure.may_pass() { pace.attempts_max } else { pace.refusals_max };
        if attempts < most {
            store.webhook_failed(name, (attempts, failures), again_at(failures), &error).await?;
            return Ok(Flow::Break(()));
        }
        warn!(cluster = %webhook.cluster, webhook = webhook.id, seq, error, "event {seq} of a webhook is given up");
        let event = GivenUp { seq, body, attempts, error };
        // A receiver that is there gets the next one at once; one that is not is not asked more often.
        let (failures, next) =
            if failure.may_pass() { (failures, Some(again_at(failures))) } else { (0, None) };
        store.webhook_gave_up(name, &event, failures, next, now).await?;
        Ok(Flow::Break(()))
    }

    fn is_over(&self) -> bool {
        self.deliverer.clock.mono() >= self.until
    }
}

/// Whether a turn goes on.
type Flow = std::ops::ControlFlow<()>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_is_refused() {
        let answered = |status| Failure::Answered(StatusCode::from_u16(status).expect("a status"));
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(answered(status).may_pass(), "{status}");
        }
        for status in [301, 400, 401, 404, 410, 413] {
            assert!(!answered(status).may_pass(), "{status}");
        }
        let away = Failure::Away(OutboundError::Connect(std::io::ErrorKind::ConnectionRefused.into()));
        assert!(away.may_pass());
        assert_eq!(away.told(), "the connection failed: connection refused");
    }
}
