//! Session records on their way to the store: committed in groups, in order, again until it worked.
//!
//! While one commit runs the next batch gathers; nobody waits for a timer. When the database is away,
//! everything that waits for a record is told so, and the writes stay: what has become superfluous
//! among them is dropped, so that their number is bounded by the number of sessions and
//! subscriptions, not by how long the absence lasts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::data_plane::cluster::{RecordOutcome, WriteTicket};
use crate::data_plane::message_log::ClusterNo;
use crate::model::{SessionId, TopicFilter};
use crate::seam::ports::{SessionStore, SessionWrite, StoreError};

/// How many writes go into one transaction.
const BATCH_MAX: usize = 512;

/// How long to wait before a failed commit is tried again; doubled each time up to the maximum.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How many reports may wait for the worker.
pub const REPORTS_MAX: usize = 64;

/// A write and who waits for it: which of the worker's clusters, under which ticket.
pub type Record = (SessionWrite, Option<(ClusterNo, WriteTicket)>);

/// What the worker is told.
#[derive(Debug)]
pub struct Report {
    /// Fates, in order of submission.
    pub outcomes: Vec<(ClusterNo, WriteTicket, RecordOutcome)>,
    /// Whether the database is away.
    pub store_away: bool,
}

/// Writes that wait to be committed. Filled by the worker, emptied by [`commit_until`].
#[derive(Debug, Default)]
pub struct RecordQueue {
    waiting: Mutex<VecDeque<Record>>,
    filled: Notify,
}

impl RecordQueue {
    /// Adds writes, in order.
    pub fn submit(&self, records: impl Iterator<Item = Record>) {
        self.waiting.lock().extend(records);
        self.filled.notify_one();
    }

    /// Whether everything was committed.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    fn take(&self) -> Vec<Record> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }

    /// Puts a batch back in front, drops what later writes have made superfluous, and gives every
    /// ticket that waits.
    fn put_back(&self, batch: Vec<Record>) -> Vec<(ClusterNo, WriteTicket)> {
        let mut waiting = self.waiting.lock();
        let all: Vec<Record> = batch.into_iter().chain(waiting.drain(..)).collect();
        let tickets = all.iter().filter_map(|(_, ticket)| *ticket).collect();
        let writes = all.into_iter().map(|(write, _)| write).collect();
        waiting.extend(latest(writes).into_iter().map(|write| (write, None)));
        tickets
    }
}

/// Commits what the queue holds until `stop`, then what is left, once.
pub async fn commit_until<S: SessionStore>(
    queue: Arc<RecordQueue>,
    store: S,
    reports: mpsc::Sender<Report>,
    stop: CancellationToken,
) {
    let mut retry_after = RETRY_FIRST;
    loop {
        let batch = queue.take();
        if batch.is_empty() {
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = queue.filled.notified() => {}
                () = stop.cancelled() => {}
            }
            continue;
        }
        match commit(&store, batch).await {
            Ok(outcomes) => {
                if retry_after != RETRY_FIRST {
                    tracing::info!("the session store answers again; records are being caught up");
                    retry_after = RETRY_FIRST;
                }
                // A worker that has ended waits for nothing; what it left is committed all the same.
                let _ = reports.send(Report { outcomes, store_away: false }).await;
            }
            Err((batch, error)) => {
                let tickets = queue.put_back(batch);
                let away = |(cluster, ticket)| (cluster, ticket, RecordOutcome::StoreAway);
                let report = Report { outcomes: tickets.into_iter().map(away).collect(), store_away: true };
                tracing::warn!(error = %Chain(&error), ?retry_after, "records are kept until the store is back");
                let _ = reports.send(report).await;
                if stop.is_cancelled() {
                    tracing::error!("stopping with records that could not be committed");
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(retry_after) => {}
                    () = stop.cancelled() => {}
                }
                retry_after = (retry_after * 2).min(RETRY_MAX);
            }
        }
    }
}

type Outcomes = Vec<(ClusterNo, WriteTicket, RecordOutcome)>;

/// Commits a batch. One that the database refuses is committed write by write, so that a single bad
/// record cannot hold up the rest.
async fn commit<S: SessionStore>(
    store: &S,
    batch: Vec<Record>,
) -> Result<Outcomes, (Vec<Record>, StoreError)> {
    let writes = latest(batch.iter().map(|(write, _)| write.clone()).collect());
    match store.commit(&writes).await {
        Ok(()) => {
            let done = |(_, ticket): &Record| ticket.map(|(c, t)| (c, t, RecordOutcome::Committed));
            Ok(batch.iter().filter_map(done).collect())
        }
        Err(error @ StoreError::Away(_)) => Err((batch, error)),
        Err(StoreError::Refused(_)) => commit_singly(store, batch).await,
    }
}

async fn commit_singly<S: SessionStore>(
    store: &S,
    batch: Vec<Record>,
) -> Result<Outcomes, (Vec<Record>, StoreError)> {
    let mut outcomes = Vec::new();
    let mut rest: VecDeque<Record> = batch.into();
    while let Some((write, ticket)) = rest.pop_front() {
        let outcome = match store.commit(std::slice::from_ref(&write)).await {
            Ok(()) => RecordOutcome::Committed,
            Err(error @ StoreError::Away(_)) => {
                rest.push_front((write, ticket));
                return Err((rest.into(), error));
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the store refuses a session record; it is dropped");
                RecordOutcome::Refused
            }
        };
        outcomes.extend(ticket.map(|(cluster, ticket)| (cluster, ticket, outcome)));
    }
    Ok(outcomes)
}

/// What a write is about; of several about the same thing only the last counts.
#[derive(PartialEq, Eq, Hash)]
enum Subject {
    Session(SessionId),
    Part(SessionId),
    Subscription(SessionId, TopicFilter),
}

fn subject(write: &SessionWrite) -> Subject {
    match write {
        SessionWrite::Put(row) => Subject::Session(row.session_id),
        SessionWrite::Begin(id, _) => Subject::Part(*id),
        SessionWrite::Remove(id, _) => Subject::Session(*id),
        SessionWrite::Subscribe(id, subscription) => Subject::Subscription(*id, subscription.filter.clone()),
        SessionWrite::Unsubscribe(id, filter) => Subject::Subscription(*id, filter.clone()),
    }
}

/// Each subject once: in the place of its first write, with the content of its last.
fn latest(writes: Vec<SessionWrite>) -> Vec<SessionWrite> {
    let mut places: HashMap<Subject, usize, foldhash::fast::RandomState> = HashMap::default();
    let mut kept: Vec<SessionWrite> = Vec::with_capacity(writes.len());
    for write in writes {
        let place = *places.entry(subject(&write)).or_insert(kept.len());
        if place == kept.len() {
            kept.push(write);
        } else {
            kept[place] = write;
        }
    }
    kept
}

/// Shows an error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
