//! What the control plane wants enforced: clusters come, change and go.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::{RECENT_BYTES_MAX, Worker};
use crate::data_plane::cluster::Cluster;
use crate::data_plane::message_log::{ClusterNo, RecentLog};
use crate::data_plane::runtime::journal::Inherited;
use crate::model::ClusterId;
use crate::seam::command::Reply;
use crate::seam::desired::DesiredState;

impl Worker {
    /// A connection may have been judged by a state that the worker has not been told of yet: it is
    /// then in force first, so that both see the same users.
    pub(super) fn enforce_if_newer(&mut self, desired: &DesiredState) {
        if desired.revision > self.revision {
            self.enforce(desired, &Inherited::default());
        }
    }

    /// Makes the clusters what they should be.
    pub(super) fn enforce(&mut self, desired: &DesiredState, inherited: &Inherited) {
        let now = self.clock.now();
        let gone: Vec<ClusterId> =
            self.by_id.keys().filter(|id| !desired.clusters.contains_key(*id)).cloned().collect();
        for id in gone {
            if let Some((home, _)) = self.by_id.remove(&id) {
                self.act(home, |cluster| cluster.dissolve(now));
                self.finish_turn();
                self.clusters.remove(&home);
                self.log.forget(&id);
                self.refusals.forget(&id);
                self.conns.retain(|_, conn| conn.home != home);
            }
        }
        for (id, rules) in &desired.clusters {
            match self.by_id.get_mut(id) {
                Some((_, known)) if known == rules => {}
                Some((home, known)) => {
                    *known = Arc::clone(rules);
                    let home = *home;
                    self.act(home, |cluster| cluster.set_rules(now, Arc::clone(rules)));
                }
                None => {
                    let home = self.log.number(id);
                    let log = RecentLog::new(inherited.tail(home), RECENT_BYTES_MAX);
                    let mut cluster = Cluster::new(Arc::clone(rules), home, log, seed());
                    cluster.set_room(!self.disk_full);
                    self.clusters.insert(home, cluster);
                    self.by_id.insert(id.clone(), (home, Arc::clone(rules)));
                }
            }
        }
        self.revision = desired.revision;
        self.answer_awaited_revisions();
    }

    /// The turn ends: tells those who wait for it that block rules have had their effect.
    pub(super) fn answer_awaited_expulsions(&mut self) {
        let Self { awaiting_expulsions, clusters, .. } = self;
        // A cluster that is no more has no connections.
        let proven = |home: &ClusterNo| clusters.get(home).is_none_or(Cluster::expulsions_are_proven);
        for (_, reply) in awaiting_expulsions.extract_if(.., |(home, _)| proven(home)) {
            let _ = reply.send(Ok(()));
        }
    }

    pub(super) fn answer_awaited_revisions(&mut self) {
        let in_force = self.revision;
        let (met, rest) = std::mem::take(&mut self.awaiting_revision)
            .into_iter()
            .partition(|(wanted, _)| *wanted <= in_force);
        self.awaiting_revision = rest;
        let met: Vec<(i64, Reply<()>)> = met;
        for (_, reply) in met {
            let _ = reply.send(Ok(()));
        }
    }
}

/// A seed that differs from start to start.
fn seed() -> u64 {
    foldhash::fast::RandomState::default().hash_one(0)
}
