//! What the API asks for now.

use super::Worker;
use crate::data_plane::cluster::{Cluster, CommandId, Order};
use crate::model::{ClientId, ClusterId, Now, TopicFilter};
use crate::seam::backlog::SessionTraffic;
use crate::seam::command::{Command, CommandError, Reply, SessionRef, Target};
use crate::seam::figures::ClusterFigures;
use crate::seam::groups::GroupDetail;

/// Who is told when an order is proven.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Whoever ordered something of a session.
    Session(Reply<SessionRef>),
    /// Whoever ended a shared group with so many members.
    Group(u32, Reply<u32>),
}

impl Awaited {
    /// Tells. The caller may have given up; then nobody wants the answer.
    pub(super) fn answer(self, answer: Result<SessionRef, CommandError>) {
        match self {
            Self::Session(reply) => drop(reply.send(answer)),
            Self::Group(members, reply) => drop(reply.send(answer.map(|_| members))),
        }
    }
}

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
            Command::Behind { cluster, clients, at_least, reply } => {
                let each = |cluster: &Cluster| {
                    Ok(clients.iter().map(|client| cluster.behind(client, at_least.into())).collect())
                };
                match self.look(&cluster, each) {
                    Ok(behind) => self.log.count_behind(behind, reply),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Browse { cluster, request, reply } => self.browse(cluster, request, reply),
            Command::Will { cluster, client_id, reply } => {
                // The caller may have given up; then nobody wants the answer.
                drop(reply.send(self.look(&cluster, |cluster| cluster.will_of(&client_id))));
            }
            Command::Groups { cluster, after, groups_max, reply } => {
                match self.look(&cluster, |cluster| Ok(cluster.groups_told(&after, groups_max))) {
                    Ok(told) => self.log.count_groups(told, |answer| drop(reply.send(Ok(answer)))),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Group { cluster, share, reply } => self.tell_group(&cluster, &share, reply),
            Command::MoveGroup { cluster, share, to, reply } => self.move_group(cluster, share, to, reply),
            Command::EndGroup { cluster, share, force, reply } => {
                self.end_group(&cluster, &share, force, reply);
            }
            Command::CheckAdmission { cluster, question, reply } => {
                let now = self.clock.now();
                let home = self.by_id.get(&cluster).map(|(home, _)| *home);
                let verdict = home.and_then(|home| {
                    self.act(home, |cluster| {
                        cluster.time_passes(now);
                        cluster.check_admission(now, &question)
                    })
                });
                let _ = reply.send(verdict.ok_or(CommandError::NoSuchCluster));
            }
            Command::ClusterFigures { reply } => {
                let figures = self.by_id.iter().filter_map(|(id, (home, _))| {
                    Some(ClusterFigures {
                        cluster: id.clone(),
                        connects: self.clusters.get(home)?.connects(),
                        messages: self.clusters.get(home)?.message_counters(),
                        values_left_out: self.clusters.get(home)?.values_left_out(),
                        refusals: self.refusals.totals(id),
                    })
                });
                let _ = reply.send(Ok(figures.collect()));
            }
            Command::LogFigures { reply } => {
                let clusters = self.by_id.iter().filter_map(|(id, (home, _))| {
                    Some((id, *home, self.clusters.get(home)?.lost_messages()))
                });
                let _ = reply.send(Ok(self.log.figures(clusters)));
            }
            Command::Quota(command) => self.take_quota_command(command),
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

    /// Looks at a cluster as it is now.
    pub(super) fn look<T>(
        &mut self,
        cluster: &ClusterId,
        look: impl FnOnce(&Cluster) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let now = self.clock.now();
        let home = self.by_id.get(cluster).map(|(home, _)| *home);
        let seen = home.and_then(|home| {
            self.act(home, |cluster| {
                cluster.time_passes(now);
                look(cluster)
            })
        });
        seen.unwrap_or(Err(CommandError::NoSuchCluster))
    }

    /// Answers from memory, or has the disk answer.
    pub(super) fn tell_traffic(
        &mut self,
        cluster: &ClusterId,
        client_id: &ClientId,
        reply: Reply<SessionTraffic>,
    ) {
        match self.look(cluster, |cluster| cluster.traffic_of(client_id)) {
            Ok(traffic) => self.log.count(traffic, |answer| drop(reply.send(Ok(answer)))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn tell_group(&mut self, cluster: &ClusterId, share: &TopicFilter, reply: Reply<GroupDetail>) {
        match self.look(cluster, |cluster| cluster.group_told(share)) {
            Err(error) => drop(reply.send(Err(error))),
            Ok((told, members)) => self.log.count_groups(told, move |groups| {
                let group = groups.into_iter().next().ok_or(CommandError::NoSuchGroup);
                drop(reply.send(group.map(|group| GroupDetail { group, members })));
            }),
        }
    }

    fn end_group(&mut self, cluster: &ClusterId, share: &TopicFilter, force: bool, reply: Reply<u32>) {
        let home = self.by_id.get(cluster).map(|(home, _)| *home);
        let now = self.clock.now();
        self.last_command += 1;
        let id = CommandId(self.last_command);
        let ended = home.and_then(|home| {
            self.act(home, |cluster| {
                cluster.time_passes(now);
                cluster.end_group(now, id, share, force)
            })
        });
        match ended.unwrap_or(Err(CommandError::NoSuchCluster)) {
            Ok(members) => _ = self.replies.insert(id, Awaited::Group(members, reply)),
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
        self.replies.insert(id, Awaited::Session(reply));
        self.act(home, |cluster| {
            cluster.time_passes(now);
            deed(cluster, now, id);
        });
    }
}
