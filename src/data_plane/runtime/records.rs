//! Session records on their way to the store: committed in groups, in order, again until it worked.
//!
//! While one commit runs the next batch gathers. A write that somebody waits for is committed at once, with all
//! that came before it; what nobody waits for may gather for a moment, so that a connection that comes and
//! goes meanwhile costs the database little, and a session that has only just begun is left for the next batch.
//! When the database is away, everything that waits for a record is told so, and the writes stay: what has become
//! superfluous among them is dropped, so that their number is bounded by the number of sessions and
//! subscriptions, not by how long the absence lasts.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::data_plane::cluster::{RecordOutcome, WriteTicket};
use crate::data_plane::message_log::ClusterNo;
use crate::model::{SessionId, TopicFilter};
use crate::seam::ports::{SessionStore, SessionWrite, StoreError};

/// How many writes go into one transaction if somebody waits for one of them.
const BATCH_MAX: usize = 512;

/// How many writes may gather that nobody waits for, and how long. They go into one transaction, too.
const GATHERED_MAX: usize = 1_024;
const GATHER_MAX: Duration = Duration::from_millis(50);

/// How long they gather when some were left by the batch before. Together with [`GATHER_MAX`] below the 100 ms within
/// which a record follows that nobody waits for (DESIGN 1).
const GATHER_AGAIN_MAX: Duration = Duration::from_millis(25);

/// How long to wait before a failed commit is tried again; doubled each time up to the maximum.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How many reports may wait for the worker.
pub const REPORTS_MAX: usize = 64;

/// Who waits for a write: which of the worker's clusters, under which ticket.
type Waiter = (ClusterNo, WriteTicket);

/// A write and who waits for it.
pub type Record = (SessionWrite, Option<Waiter>);

/// What became of writes that somebody waits for.
type Outcomes = Vec<(ClusterNo, WriteTicket, RecordOutcome)>;

/// What the worker is told.
#[derive(Debug)]
pub struct Report {
    /// Fates, in order of submission.
    pub outcomes: Outcomes,
    /// Whether the database is away.
    pub store_away: bool,
}

/// Writes that wait to be committed. Filled by the worker, emptied by [`commit_until`].
#[derive(Debug, Default)]
pub struct RecordQueue {
    waiting: Mutex<Waiting>,
    /// There is something where nothing was, or what there is has become due.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Record>,
    /// How many of them, the first, were left by a batch before.
    left: usize,
    /// How many of them somebody waits for.
    awaited: usize,
}

impl Waiting {
    fn is_due(&self) -> bool {
        self.awaited > 0 || self.records.len() >= GATHERED_MAX
    }
}

impl RecordQueue {
    /// Adds writes, in order.
    pub fn submit(&self, records: impl Iterator<Item = Record>) {
        let mut waiting = self.waiting.lock();
        let (was_empty, was_due) = (waiting.records.is_empty(), waiting.is_due());
        for record in records {
            waiting.awaited += usize::from(record.1.is_some());
            waiting.records.push_back(record);
        }
        let tells = (was_empty && !waiting.records.is_empty()) || (!was_due && waiting.is_due());
        drop(waiting);
        if tells {
            self.changed.notify_one();
        }
    }

    /// Whether everything was committed.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().records.is_empty()
    }

    /// Returns when there is a batch to take: somebody waits for it, there is enough for one, or it has
    /// gathered for long enough.
    async fn until_due(&self) {
        while self.is_empty() {
            self.changed.notified().await;
        }
        let due = async {
            while !self.waiting.lock().is_due() {
                self.changed.notified().await;
            }
        };
        let gathers = if self.waiting.lock().left > 0 { GATHER_AGAIN_MAX } else { GATHER_MAX };
        // Due or not: it has gathered.
        let _ = tokio::time::timeout(gathers, due).await;
    }

    /// Takes the next batch; `to_the_last` leaves nothing for another one but what this one has no room for.
    fn take(&self, to_the_last: bool) -> Batch {
        let mut waiting = self.waiting.lock();
        let is_awaited = waiting.awaited > 0;
        let count = waiting.records.len().min(if is_awaited { BATCH_MAX } else { GATHERED_MAX });
        let left_before = waiting.left.min(count);
        let mut batch = Batch::of(waiting.records.drain(..count));
        waiting.awaited -= batch.waiters.len();
        let leaves_none = is_awaited || to_the_last;
        let young = if leaves_none { Vec::new() } else { batch.split_off_young(left_before) };
        waiting.left = waiting.left - left_before + young.len();
        for write in young.into_iter().rev() {
            waiting.records.push_front((write, None));
        }
        batch
    }

    /// Puts a batch back in front, drops what later writes have made superfluous, and gives everybody who waits.
    fn put_back(&self, batch: Batch) -> Vec<Waiter> {
        let mut waiting = self.waiting.lock();
        let Waiting { records, awaited, left } = &mut *waiting;
        let first = batch.waiters.into_iter().map(|(waiter, _)| waiter);
        let waiters = first.chain(records.iter().filter_map(|(_, waiter)| *waiter)).collect();
        let first = batch.writes.into_iter().map(|write| (write, None));
        let all = Batch::of(first.chain(records.drain(..)));
        records.extend(all.writes.into_iter().map(|write| (write, None)));
        // All of it has waited long enough.
        (*awaited, *left) = (0, records.len());
        waiters
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
        tokio::select! {
            () = queue.until_due() => {}
            () = stop.cancelled() => {}
        }
        let is_stopping = stop.is_cancelled();
        let batch = queue.take(is_stopping);
        if batch.writes.is_empty() {
            if is_stopping {
                return;
            }
            continue;
        }
        let (mut outcomes, left) = commit(&store, batch).await;
        let Some((batch, error)) = left else {
            if retry_after != RETRY_FIRST {
                tracing::info!("the session store answers again; records are being caught up");
                retry_after = RETRY_FIRST;
            }
            // A worker that has ended waits for nothing; what it left is committed all the same.
            let _ = reports.send(Report { outcomes, store_away: false }).await;
            continue;
        };
        let away = |(cluster, ticket)| (cluster, ticket, RecordOutcome::StoreAway);
        outcomes.extend(queue.put_back(batch).into_iter().map(away));
        tracing::warn!(error = %Chain(&error), ?retry_after, "records are kept until the store is back");
        let _ = reports.send(Report { outcomes, store_away: true }).await;
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

/// Commits a batch, and gives back what is left of it when the database is away. One that the database refuses
/// is committed write by write, so that a single bad record cannot hold up the rest.
async fn commit<S: SessionStore>(store: &S, batch: Batch) -> (Outcomes, Option<(Batch, StoreError)>) {
    match store.commit(&batch.writes).await {
        Ok(()) => (batch.all_are(RecordOutcome::Committed), None),
        Err(error @ StoreError::Away(_)) => (Vec::new(), Some((batch, error))),
        Err(StoreError::Refused(_)) => commit_singly(store, batch).await,
    }
}

async fn commit_singly<S: SessionStore>(
    store: &S,
    mut batch: Batch,
) -> (Outcomes, Option<(Batch, StoreError)>) {
    let mut fates = Vec::with_capacity(batch.writes.len());
    for write in &batch.writes {
        fates.push(match store.commit(std::slice::from_ref(write)).await {
            Ok(()) => RecordOutcome::Committed,
            Err(error @ StoreError::Away(_)) => {
                let outcomes = batch.split_off_done(&fates);
                return (outcomes, Some((batch, error)));
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the store refuses a session record; it is dropped");
                RecordOutcome::Refused
            }
        });
    }
    (batch.split_off_done(&fates), None)
}

/// Writes that go into one transaction, each subject once: in the place of its first write, with the last
/// word about it.
#[derive(Debug, Default)]
struct Batch {
    writes: Vec<SessionWrite>,
    /// Who waits, in order of submission, and for which of the writes.
    waiters: Vec<(Waiter, usize)>,
}

impl Batch {
    fn of(records: impl Iterator<Item = Record>) -> Self {
        let mut batch = Self::default();
        let mut places: HashMap<Subject, usize, foldhash::fast::RandomState> = HashMap::default();
        for (write, waiter) in records {
            let place = *places.entry(subject(&write)).or_insert(batch.writes.len());
            match batch.writes.get_mut(place) {
                Some(earlier) => replace(earlier, write),
                None => batch.writes.push(write),
            }
            batch.waiters.extend(waiter.map(|waiter| (waiter, place)));
        }
        batch
    }

    /// Takes out what is said of sessions whose rows say that they are connected: they may be over in a moment. Nobody
    /// waits for it. The first `left_before` writes have been left once, and are not again.
    fn split_off_young(&mut self, left_before: usize) -> Vec<SessionWrite> {
        let connected = |write: &SessionWrite| match write {
            SessionWrite::Put(row) if row.disconnected_at.is_none() => Some(row.session_id),
            _ => None,
        };
        let (left, new) = self.writes.split_at(left_before);
        let mut young: HashSet<SessionId, foldhash::fast::RandomState> =
            new.iter().filter_map(connected).collect();
        for write in left {
            young.remove(&session(write));
        }
        self.writes.extract_if(.., |write| young.contains(&session(write))).collect()
    }

    fn all_are(&self, outcome: RecordOutcome) -> Outcomes {
        self.waiters.iter().map(|((cluster, ticket), _)| (*cluster, *ticket, outcome)).collect()
    }

    /// Lets go of the writes at the beginning that have met their fates, and tells those to whom waits for them.
    fn split_off_done(&mut self, fates: &[RecordOutcome]) -> Outcomes {
        let mut outcomes = Outcomes::new();
        self.writes.drain(..fates.len());
        self.waiters.retain_mut(|((cluster, ticket), place)| {
            outcomes.extend(fates.get(*place).map(|fate| (*cluster, *ticket, *fate)));
            place.checked_sub(fates.len()).inspect(|left| *place = *left).is_some()
        });
        outcomes
    }
}

/// What a write is about; of several about the same thing only the last counts.
#[derive(PartialEq, Eq, Hash)]
enum Subject {
    Session(SessionId),
    Part(SessionId),
    Subscription(SessionId, TopicFilter),
}

fn session(write: &SessionWrite) -> SessionId {
    match write {
        SessionWrite::Put(row) | SessionWrite::Pass(row, _) => row.session_id,
        SessionWrite::Begin(id, _)
        | SessionWrite::Remove(id, _)
        | SessionWrite::Subscribe(id, _)
        | SessionWrite::Unsubscribe(id, _) => *id,
    }
}

fn subject(write: &SessionWrite) -> Subject {
    match write {
        SessionWrite::Put(row) | SessionWrite::Pass(row, _) => Subject::Session(row.session_id),
        SessionWrite::Begin(id, _) => Subject::Part(*id),
        SessionWrite::Remove(id, _) => Subject::Session(*id),
        SessionWrite::Subscribe(id, subscription) => Subject::Subscription(*id, subscription.filter.clone()),
        SessionWrite::Unsubscribe(id, filter) => Subject::Subscription(*id, filter.clone()),
    }
}

/// Puts the later of two writes about one subject in the place of the earlier. Of a session that came and went
/// its row stays with the news of its end.
fn replace(earlier: &mut SessionWrite, later: SessionWrite) {
    let before = std::mem::replace(earlier, later);
    if let (SessionWrite::Put(row), SessionWrite::Remove(_, end)) = (before, &*earlier) {
        *earlier = SessionWrite::Pass(row, *end);
    }
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
