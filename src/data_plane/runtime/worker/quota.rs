//! What the API asks when it changes a quota.

use std::sync::Arc;

use super::Worker;
use crate::data_plane::cluster::{Cluster, CommandId};
use crate::model::{ClusterId, DesiredCluster, Now, Quota};
use crate::seam::command::{CommandError, Reply};
use crate::seam::quota::{Fit, QuotaCommand, QuotaUse, Shed, ShedOrder};

impl Worker {
    pub(super) fn take_quota_command(&mut self, command: QuotaCommand) {
        // Where nobody waits for the answer any longer it is dropped.
        match command {
            QuotaCommand::Measure { cluster, reply } => {
                let _ = reply.send(self.measure(&cluster).ok_or(CommandError::NoSuchCluster));
            }
            QuotaCommand::Try { cluster, quota, reply } => {
                let fit = self.try_quota(&cluster, *quota);
                let _ = reply.send(fit.ok_or(CommandError::NoSuchCluster));
            }
            QuotaCommand::Leave { cluster, reply } => {
                let _ = reply.send(self.leave_quota(&cluster).ok_or(CommandError::NoSuchCluster));
            }
            QuotaCommand::Foresee { cluster, order, reply } => {
                let shed = self.in_cluster(&cluster, |cluster, _| cluster.foresee_shed(&order));
                let _ = reply.send(shed.ok_or(CommandError::NoSuchCluster));
            }
            QuotaCommand::Shed { cluster, order, reply } => self.shed(&cluster, &order, reply),
        }
    }

    fn measure(&mut self, id: &ClusterId) -> Option<QuotaUse> {
        let log_bytes = self.log.bytes_of(self.by_id.get(id)?.0);
        self.in_cluster(id, |cluster, _| QuotaUse {
            sessions: cluster.counts(),
            shared_groups: cluster.share_name_count(),
            log_bytes,
        })
    }

    /// Enforces the limits if what is used fits. The desired state stays what it is: its next revision puts
    /// them in force for good, or takes them back.
    fn try_quota(&mut self, id: &ClusterId, quota: Quota) -> Option<Fit> {
        let rules = Arc::clone(&self.by_id.get(id)?.1);
        self.in_cluster(id, |cluster, now| {
            let fit = cluster.fit(&quota);
            if fit.fits {
                cluster.set_rules(now, Arc::new(DesiredCluster { quota, ..DesiredCluster::clone(&rules) }));
            }
            fit
        })
    }

    fn leave_quota(&mut self, id: &ClusterId) -> Option<()> {
        let rules = Arc::clone(&self.by_id.get(id)?.1);
        self.in_cluster(id, |cluster, now| cluster.set_rules(now, rules))
    }

    fn shed(&mut self, id: &ClusterId, order: &ShedOrder, reply: Reply<Shed>) {
        self.last_command += 1;
        let command = CommandId(self.last_command);
        match self.in_cluster(id, |cluster, now| cluster.shed(now, command, order)) {
            Some(shed) if !shed.sessions.is_empty() => {
                self.sheds.insert(command, (shed, reply));
            }
            shed => drop(reply.send(shed.ok_or(CommandError::NoSuchCluster))),
        }
    }

    /// Lets the cluster act once everything that fell due before is done.
    fn in_cluster<T>(&mut self, id: &ClusterId, deed: impl FnOnce(&mut Cluster, Now) -> T) -> Option<T> {
        let (home, now) = (self.by_id.get(id)?.0, self.clock.now());
        self.act(home, |cluster| {
            cluster.time_passes(now);
            deed(cluster, now)
        })
    }
}
