use std::collections::HashSet;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::model::{ClientId, ClusterId, Epoch, SessionEnd, Timestamp};
use crate::seam::ports::{SessionRow, StoredSession};

/// A store that keeps the batches it is given.
#[derive(Clone, Default)]
struct Fake(Arc<FakeState>);

#[derive(Default)]
struct FakeState {
    batches: watch::Sender<Vec<Vec<SessionWrite>>>,
    /// Sessions that it refuses.
    refused: HashSet<SessionId>,
    /// A session at which it goes away, once.
    away_at: Mutex<Option<SessionId>>,
}

impl SessionStore for Fake {
    async fn commit(&self, batch: &[SessionWrite]) -> Result<(), StoreError> {
        let sessions: Vec<SessionId> = batch.iter().map(session).collect();
        if sessions.iter().any(|id| self.0.refused.contains(id)) {
            return Err(StoreError::Refused("refused".into()));
        }
        if self.0.away_at.lock().take_if(|id| sessions.contains(id)).is_some() {
            return Err(StoreError::Away("away".into()));
        }
        self.0.batches.send_modify(|batches| batches.push(batch.to_vec()));
        Ok(())
    }

    async fn load(&self, _: Option<SessionId>, _: u32) -> Result<Vec<StoredSession>, StoreError> {
        Ok(Vec::new())
    }
}

fn id(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn put(n: u128) -> SessionWrite {
    SessionWrite::Put(Box::new(SessionRow {
        cluster: ClusterId::new("default").expect("an id"),
        client_id: ClientId::new(&format!("c{n}")).expect("an id"),
        session_id: id(n),
        epoch: Epoch(1),
        protocol: None,
        clean_start: true,
        username: None,
        peer: None,
        listener: None,
        transport: None,
        keep_alive_secs: 0,
        receive_maximum: 1,
        packet_bytes_max: None,
        expiry_client_secs: 0,
        expiry_bounded: false,
        has_will: false,
        created_at: Timestamp::EPOCH,
        connected_at: Some(Timestamp::EPOCH),
        disconnected_at: None,
        disconnect: None,
    }))
}

fn passed(n: u128) -> SessionWrite {
    let SessionWrite::Put(row) = put(n) else { unreachable!("it puts") };
    SessionWrite::Pass(row, SessionEnd::WithConnection)
}

fn remove(n: u128) -> SessionWrite {
    SessionWrite::Remove(id(n), SessionEnd::WithConnection)
}

fn ticket(n: u64) -> Waiter {
    (ClusterNo(0), WriteTicket(n))
}

/// A committer at work.
struct AtWork {
    queue: Arc<RecordQueue>,
    store: Fake,
    reports: mpsc::Receiver<Report>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn at_work(store: Fake) -> AtWork {
    let queue = Arc::new(RecordQueue::default());
    let (reporter, reports) = mpsc::channel(REPORTS_MAX);
    let stop = CancellationToken::new();
    let task = tokio::spawn(commit_until(Arc::clone(&queue), store.clone(), reporter, stop.clone()));
    AtWork { queue, store, reports, stop, task }
}

impl AtWork {
    async fn batches(&self, count: usize) -> Vec<Vec<SessionWrite>> {
        let mut seen = self.store.0.batches.subscribe();
        seen.wait_for(|batches| batches.len() >= count).await.expect("the store lives").clone()
    }

    async fn outcomes(&mut self) -> Vec<(u64, RecordOutcome)> {
        let report = self.reports.recv().await.expect("a report");
        report.outcomes.into_iter().map(|(_, ticket, outcome)| (ticket.0, outcome)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_gathers_and_a_session_that_came_and_went_is_one_write() {
    let work = at_work(Fake::default());
    work.queue.submit([(put(1), None)].into_iter());
    tokio::time::advance(GATHER_MAX / 2).await;
    work.queue.submit([(remove(1), None), (remove(2), None)].into_iter());
    assert_eq!(work.batches(1).await, [vec![passed(1), remove(2)]]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_just_begun_is_left_for_the_next_batch_and_not_longer() {
    let work = at_work(Fake::default());
    work.queue.submit([(remove(1), None), (put(2), None), (put(3), None)].into_iter());
    assert_eq!(work.batches(1).await, [vec![remove(1)]]);
    tokio::time::advance(GATHER_MAX / 2).await;
    work.queue.submit([(put(4), None), (remove(2), None)].into_iter());
    assert_eq!(work.batches(2).await[1], [passed(2), put(3)]);
    assert_eq!(work.batches(3).await[2], [put(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_record_follows_soon_though_it_was_left_once() {
    let work = at_work(Fake::default());
    let began = tokio::time::Instant::now();
    work.queue.submit([(put(1), None)].into_iter());
    assert_eq!(work.batches(1).await, [vec![put(1)]]);
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_before_what_somebody_waits_for() {
    let mut work = at_work(Fake::default());
    let many = BATCH_MAX as u128;
    let records = (0..=many).map(|n| (put(n), (n == many).then(|| ticket(1))));
    work.queue.submit(records);
    assert_eq!(work.outcomes().await, [], "nobody waits for the first ones");
    assert_eq!(work.outcomes().await, [(1, RecordOutcome::Committed)]);
    let sizes: Vec<usize> = work.batches(2).await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCH_MAX, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_session_stays_together() {
    let work = at_work(Fake::default());
    let unsubscribe = |n| SessionWrite::Unsubscribe(id(n), TopicFilter::new("t").expect("a filter"));
    work.queue.submit([(put(1), None), (unsubscribe(1), None), (unsubscribe(2), None)].into_iter());
    assert_eq!(work.batches(2).await, [vec![unsubscribe(2)], vec![put(1), unsubscribe(1)]]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_is_committed_at_once_with_all_before_it() {
    let mut work = at_work(Fake::default());
    let began = tokio::time::Instant::now();
    work.queue.submit([(put(1), None)].into_iter());
    tokio::task::yield_now().await;
    work.queue.submit([(put(2), Some(ticket(7)))].into_iter());
    assert_eq!(work.outcomes().await, [(7, RecordOutcome::Committed)]);
    assert_eq!(work.batches(1).await, [vec![put(1), put(2)]]);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_gather() {
    let work = at_work(Fake::default());
    let began = tokio::time::Instant::now();
    work.queue.submit((0..GATHERED_MAX as u128).map(|n| (put(n), None)));
    assert_eq!(work.batches(1).await[0].len(), GATHERED_MAX);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn each_who_waits_for_a_write_that_was_replaced_hears_of_the_one_in_its_place() {
    let mut work = at_work(Fake::default());
    work.queue.submit(
        [(put(1), Some(ticket(1))), (put(2), Some(ticket(2))), (remove(1), Some(ticket(3)))].into_iter(),
    );
    let committed = RecordOutcome::Committed;
    assert_eq!(work.outcomes().await, [(1, committed), (2, committed), (3, committed)]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_is_dropped_and_those_before_an_absence_are_told_their_fate() {
    let state =
        FakeState { refused: [id(1)].into(), away_at: Mutex::new(Some(id(3))), ..FakeState::default() };
    let mut work = at_work(Fake(Arc::new(state)));
    let records = (0..5).map(|n| (put(n.into()), Some(ticket(n))));
    work.queue.submit(records);
    // The batch is refused for 1; then, one by one, the store is away at 3.
    let (committed, away) = (RecordOutcome::Committed, RecordOutcome::StoreAway);
    let expected = [(0, committed), (1, RecordOutcome::Refused), (2, committed), (3, away), (4, away)];
    assert_eq!(work.outcomes().await, expected);
    // Caught up without being asked; nobody waits any longer.
    assert_eq!(work.outcomes().await, []);
    assert_eq!(work.batches(3).await, [vec![put(0)], vec![put(2)], vec![put(3), put(4)]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_stop_is_committed() {
    let mut work = at_work(Fake::default());
    work.queue.submit([(put(1), None)].into_iter());
    work.stop.cancel();
    (&mut work.task).await.expect("it ends");
    assert_eq!(work.batches(1).await, [vec![put(1)]]);
    assert!(work.queue.is_empty());
}
