//! What the API asks for now.

use super::Worker;
use crate::data_plane::cluster::{Cluster, CommandId, Order};
use crate::model::{ClientId, ClusterId, Now};
use crate::seam::backlog::SessionTraffic;
use crate::seam::command::{Command, CommandError, Reply, SessionRef, Target};

impl Worker {
    pub(super) fn take_command(&mut self, command: Command) {
        match command {
            Command::Disconnect { target, options, reply } => {
                self.order(&target, Order::Disconnect(options), reply);
            }
            Command::Destroy { target, options, reply } => {
                self.order(&target, Order::Destroy(options), reply);
            }
            Command::Protect { target, protected, reply } => {
                self.order(&target, Order::Protect(protected), reply);
            }
            Command::Subscribe { target, subscription, reply } => {
                self.order(&target, Order::Subscribe(subscription), reply);
            }
            Command::Unsubscribe { target, filter, reply } => {
                self.order(&target, Order::Unsubscribe(filter), reply);
            }
            Command::Begin { cluster, session, reply } => {
                self.with_reply(&cluster, reply, |cluster, now, id| cluster.begin_offline(now, id, *session));
            }
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
            Command::Quota(command) => self.take_quota_command(command),
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
        self.with_reply(&target.cluster, reply, |cluster, now, id| {
            let fence = (target.if_session_id, target.if_epoch);
            cluster.order(now, id, &target.client_id, fence, order);
        });
    }

    /// Lets a cluster do something that it answers for under an id.
    fn with_reply(
        &mut self,
        cluster: &ClusterId,
        reply: Reply<SessionRef>,
        deed: impl FnOnce(&mut Cluster, Now, CommandId),
    ) {
        let Some((home, _)) = self.by_id.get(cluster) else {
            let _ = reply.send(Err(CommandError::NoSuchCluster));
            return;
        };
        let (home, now) = (*home, self.clock.now());
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.replies.insert(id, reply);
        self.act(home, |cluster| {
            cluster.time_passes(now);
            deed(cluster, now, id);
        });
    }
}
