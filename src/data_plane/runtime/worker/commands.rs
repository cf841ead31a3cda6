//! What the API asks for now.

use super::Worker;
use crate::data_plane::cluster::{CommandId, Order};
use crate::model::{ClientId, ClusterId};
use crate::seam::backlog::SessionTraffic;
use crate::seam::command::{Command, CommandError, Reply, SessionRef, Target};

impl Worker {
    pub(super) fn take_command(&mut self, command: Command) {
        match command {
            Command::Disconnect { target, reply } => self.order(&target, Order::Disconnect, reply),
            Command::Destroy { target, reply } => self.order(&target, Order::Destroy, reply),
            Command::ApplyExpiry { target, operator, reply } => {
                self.order(&target, Order::ApplyExpiry(operator), reply);
            }
            Command::Count { cluster, reply } => {
                let now = self.clock.now();
                let home = self.by_id.get(&cluster).map(|(home, _)| *home);
                let counts = home.and_then(|home| {
                    self.act(home, |cluster| {
                        cluster.time_passes(now);
                        cluster.counts()
                    })
                });
                // The caller may have given up; then nobody wants the answer.
                let _ = reply.send(counts.ok_or(CommandError::NoSuchCluster));
            }
            Command::Traffic { cluster, client_id, reply } => {
                self.tell_traffic(&cluster, &client_id, reply);
            }
            Command::LogFigures { reply } => {
                let clusters = self.by_id.iter().filter_map(|(id, (home, _))| {
                    Some((id, *home, self.clusters.get(home)?.lost_messages()))
                });
                let _ = reply.send(Ok(self.log.figures(clusters)));
            }
            Command::AwaitExpulsions { cluster, reply } => match self.by_id.get(&cluster) {
                Some((home, _)) => self.awaiting_expulsions.push((*home, reply)),
                None => drop(reply.send(Err(CommandError::NoSuchCluster))),
            },
            Command::AwaitRevision { revision, reply } => {
                self.awaiting_revision.push((revision, reply));
                self.answer_awaited_revisions();
            }
        }
    }

    /// Answers from memory, or has the disk answer.
    pub(super) fn tell_traffic(
        &mut self,
        cluster: &ClusterId,
        client_id: &ClientId,
        reply: Reply<SessionTraffic>,
    ) {
        let now = self.clock.now();
        let home = self.by_id.get(cluster).map(|(home, _)| *home);
        let known = home.and_then(|home| {
            self.act(home, |cluster| {
                cluster.time_passes(now);
                cluster.traffic_of(client_id)
            })
        });
        match known.unwrap_or(Err(CommandError::NoSuchCluster)) {
            Ok(traffic) => self.log.count(traffic, |answer| drop(reply.send(Ok(answer)))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn order(&mut self, target: &Target, order: Order, reply: Reply<SessionRef>) {
        let Some((home, _)) = self.by_id.get(&target.cluster) else {
            let _ = reply.send(Err(CommandError::NoSuchCluster));
            return;
        };
        let (home, now) = (*home, self.clock.now());
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.replies.insert(id, reply);
        self.act(home, |cluster| {
            cluster.time_passes(now);
            let fence = (target.if_session_id, target.if_epoch);
            cluster.order(now, id, &target.client_id, fence, order);
        });
    }
}
