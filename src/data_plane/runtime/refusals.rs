//! What was refused, on its way to the store: added up here, written down once a second.
//!
//! Whoever refuses ([`Worker`](super::Worker) and [`greeting`](super::greeting)) notes it and goes on; nobody waits
//! for the database. What is the same is one note with a count. A cluster has [`NOTES_MAX`] notes between two
//! writes; beyond that its further refusals are counted without saying whose they were. Totals, for the
//! metrics, are kept since the start of the process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::model::{ClusterId, Refusal, RefusalKind, RefusalReason};
use crate::seam::ports::{RefusalStore, StoreError};

/// How often it is written down.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How many notes a cluster has between two writes: at most a few hundred bytes each.
pub const NOTES_MAX: usize = 1_024;

/// How many notes are written at a time.
const BATCH_MAX: usize = 512;

/// What makes two refusals the same.
type Key = (RefusalKind, RefusalReason, u8, Option<String>, Option<String>, Option<IpAddr>);

type Notes = HashMap<Key, Refusal, foldhash::fast::RandomState>;

/// Refusals that wait to be written down, and how many there were. Shared by all who refuse.
#[derive(Debug, Default)]
pub struct RefusalBook(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<ClusterId, Notes>,
    totals: HashMap<ClusterId, HashMap<(RefusalKind, RefusalReason), u64>>,
}

impl RefusalBook {
    /// Notes refusals in a cluster.
    pub fn note(&self, cluster: &ClusterId, refusals: impl IntoIterator<Item = Refusal>) {
        let mut state = self.0.lock();
        for refusal in refusals {
            if !state.totals.contains_key(cluster) {
                state.totals.insert(cluster.clone(), HashMap::new());
            }
            if let Some(totals) = state.totals.get_mut(cluster) {
                *totals.entry((refusal.kind, refusal.reason)).or_default() += refusal.count;
            }
            state.add(cluster, refusal);
        }
    }

    /// How many refusals there were in a cluster since the process started.
    pub fn totals(&self, cluster: &ClusterId) -> Vec<(RefusalKind, RefusalReason, u64)> {
        let state = self.0.lock();
        let totals = state.totals.get(cluster).into_iter().flatten();
        let mut totals: Vec<_> = totals.map(|((kind, reason), count)| (*kind, *reason, *count)).collect();
        totals.sort_unstable();
        totals
    }

    /// Forgets a cluster that is no more.
    pub fn forget(&self, cluster: &ClusterId) {
        let mut state = self.0.lock();
        state.waiting.remove(cluster);
        state.totals.remove(cluster);
    }

    fn take(&self) -> Vec<(ClusterId, Refusal)> {
        let waiting = std::mem::take(&mut self.0.lock().waiting);
        let of = |(cluster, notes): (ClusterId, Notes)| {
            notes.into_values().map(move |refusal| (cluster.clone(), refusal))
        };
        waiting.into_iter().flat_map(of).collect()
    }

    fn put_back(&self, batch: Vec<(ClusterId, Refusal)>) {
        let mut state = self.0.lock();
        for (cluster, refusal) in batch {
            state.add(&cluster, refusal);
        }
    }
}

impl State {
    fn add(&mut self, cluster: &ClusterId, mut refusal: Refusal) {
        if !self.waiting.contains_key(cluster) {
            self.waiting.insert(cluster.clone(), Notes::default());
        }
        let Some(notes) = self.waiting.get_mut(cluster) else { return };
        let mut key = key_of(&refusal);
        // The notes that say nothing of whose they were are few: one for each kind, reason and code.
        if notes.len() >= NOTES_MAX && !notes.contains_key(&key) {
            refusal = Refusal { client_id: None, username: None, ip: None, session: None, ..refusal };
            key = key_of(&refusal);
        }
        match notes.get_mut(&key) {
            None => _ = notes.insert(key, refusal),
            Some(same) => {
                let first_at = same.first_at.min(refusal.first_at);
                let last_at = same.last_at.max(refusal.last_at);
                let count = same.count + refusal.count;
                *same = Refusal { count, first_at, last_at, ..refusal };
            }
        }
    }
}

fn key_of(refusal: &Refusal) -> Key {
    let Refusal { kind, reason, code, client_id, username, ip, .. } = refusal;
    (*kind, *reason, *code, client_id.clone(), username.clone(), *ip)
}

/// Writes down what is noted until `stop`, then what is left, once. While the database is away it stays, within
/// its bounds.
pub async fn write_until<S: RefusalStore>(book: Arc<RefusalBook>, store: S, stop: CancellationToken) {
    let mut tick = tokio::time::interval(WRITE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => {}
        }
        write(&book, &store).await;
        if stop.is_cancelled() {
            return;
        }
    }
}

async fn write<S: RefusalStore>(book: &RefusalBook, store: &S) {
    let mut all = book.take();
    while !all.is_empty() {
        let batch: Vec<_> = all.split_off(all.len().saturating_sub(BATCH_MAX));
        match store.record_refusals(&batch).await {
            Ok(()) => {}
            Err(error @ StoreError::Away(_)) => {
                tracing::debug!(%error, "refusals wait for the database");
                book.put_back(batch);
                book.put_back(all);
                return;
            }
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(cause, "the store refuses records of refusals; they are dropped: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn refusal(client_id: &str, at: i64) -> Refusal {
        Refusal {
            kind: RefusalKind::Connect,
            client_id: Some(client_id.to_owned()),
            username: None,
            ip: None,
            code: 0x97,
            reason: RefusalReason::Connections,
            detail: format!("at {at}"),
            count: 1,
            first_at: Timestamp::from_millis(at),
            last_at: Timestamp::from_millis(at),
            session: None,
        }
    }

    #[test]
    fn what_is_the_same_is_one_note_with_a_count() {
        let (book, cluster) = (RefusalBook::default(), ClusterId::default_cluster());
        book.note(&cluster, [refusal("a", 1), refusal("b", 2), refusal("a", 3)]);
        let mut taken = book.take();
        taken.sort_by_key(|(_, refusal)| refusal.last_at);
        assert_eq!(taken.len(), 2);
        let expected = Refusal { count: 2, first_at: Timestamp::from_millis(1), ..refusal("a", 3) };
        assert_eq!(taken[1].1, expected);
        assert_eq!(book.take(), []);
        let total = (RefusalKind::Connect, RefusalReason::Connections, 3);
        assert_eq!(book.totals(&cluster), [total], "what is written down counts on");
        // Put back, it is added to what has come since.
        book.note(&cluster, [refusal("a", 4)]);
        book.put_back(taken);
        let mut taken = book.take();
        taken.sort_by_key(|(_, refusal)| refusal.count);
        assert_eq!((taken[1].1.count, taken[1].1.last_at.as_millis()), (3, 4));
        assert_eq!(book.totals(&cluster), [total].map(|(kind, reason, _)| (kind, reason, 4)));
    }

    #[test]
    fn a_cluster_that_refuses_without_end_has_a_bound_of_its_own() {
        let (book, loud) = (RefusalBook::default(), ClusterId::default_cluster());
        let quiet = ClusterId::new("quiet").expect("an id");
        book.note(&loud, (0..10_000).map(|n| refusal(&n.to_string(), n)));
        book.note(&quiet, [refusal("a", 1)]);
        let taken = book.take();
        let (of_quiet, of_loud): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(id, _)| *id == quiet);
        assert_eq!(of_quiet.len(), 1);
        assert_eq!(of_loud.len(), NOTES_MAX + 1);
        let rest = of_loud.iter().find(|(_, refusal)| refusal.client_id.is_none()).expect("the rest");
        assert_eq!(rest.1.count, 10_000 - NOTES_MAX as u64);
        book.forget(&loud);
        assert_eq!(book.totals(&loud), []);
    }
}
