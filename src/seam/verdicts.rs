//! What came of asking the links of authentication chains, since the start of the process.
//!
//! The data plane writes it, the control plane shows it with the link and in the metrics. It is no proof of
//! anything and is lost with the process.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::model::{ClusterId, Timestamp};

/// What a link said of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It lets it in.
    Allowed,
    /// It turns it away.
    Denied,
    /// It knows nothing of it.
    Ignored,
}

/// What came of asking one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTally {
    /// Whose it is.
    pub cluster: ClusterId,
    /// Its kind.
    pub kind: &'static str,
    /// How often it let a client in.
    pub allowed: u64,
    /// How often it turned one away.
    pub denied: u64,
    /// How often it knew nothing, failures included.
    pub ignored: u64,
    /// How often it could not be asked, or gave no answer that can be understood.
    pub failures: u64,
    /// What was wrong the last time, and when that was.
    pub last_failure: Option<(Timestamp, String)>,
}

/// Shared by both planes.
#[derive(Debug, Default)]
pub struct Verdicts {
    links: Mutex<HashMap<Uuid, LinkTally>>,
    password_checks: AtomicU64,
}

impl Verdicts {
    /// A link was asked.
    pub fn said(&self, link: Uuid, of: (&ClusterId, &'static str), said: Said) {
        self.count(link, of, |tally| match said {
            Said::Allowed => tally.allowed += 1,
            Said::Denied => tally.denied += 1,
            Said::Ignored => tally.ignored += 1,
        });
    }

    /// A link could not be asked, or gave no answer. `why` says nothing of the client.
    pub fn failed(&self, link: Uuid, of: (&ClusterId, &'static str), now: Timestamp, why: String) {
        self.count(link, of, |tally| {
            tally.failures += 1;
            tally.last_failure = Some((now, why));
        });
    }

    fn count(
        &self,
        link: Uuid,
        (cluster, kind): (&ClusterId, &'static str),
        deed: impl FnOnce(&mut LinkTally),
    ) {
        let mut links = self.links.lock();
        deed(links.entry(link).or_insert_with(|| LinkTally {
            cluster: cluster.clone(),
            kind,
            allowed: 0,
            denied: 0,
            ignored: 0,
            failures: 0,
            last_failure: None,
        }));
    }

    /// A password is held against its hash: what costs.
    pub fn password_checked(&self) {
        self.password_checks.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was done.
    pub fn password_checks(&self) -> u64 {
        self.password_checks.load(Ordering::Relaxed)
    }

    /// What came of asking a link; `None` when nobody has asked it.
    pub fn of(&self, link: Uuid) -> Option<LinkTally> {
        self.links.lock().get(&link).cloned()
    }

    /// What came of asking each.
    pub fn all(&self) -> Vec<LinkTally> {
        self.links.lock().values().cloned().collect()
    }

    /// Forgets the links that are no more.
    pub fn keep_only(&self, known: &HashSet<Uuid>) {
        self.links.lock().retain(|link, _| known.contains(link));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_until_the_link_is_no_more() {
        let (verdicts, cluster, link) =
            (Verdicts::default(), ClusterId::default_cluster(), Uuid::from_u128(1));
        assert_eq!(verdicts.of(link), None);
        for said in [Said::Allowed, Said::Denied, Said::Ignored, Said::Ignored] {
            verdicts.said(link, (&cluster, "http"), said);
        }
        verdicts.failed(link, (&cluster, "http"), Timestamp::EPOCH, "away".to_owned());
        let tally = verdicts.of(link).expect("a tally");
        assert_eq!((tally.allowed, tally.denied, tally.ignored, tally.failures), (1, 1, 2, 1));
        assert_eq!(tally.last_failure, Some((Timestamp::EPOCH, "away".to_owned())));
        verdicts.keep_only(&HashSet::new());
        assert!(verdicts.all().is_empty());
    }
}
