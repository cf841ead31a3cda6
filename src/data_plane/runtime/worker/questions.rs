//! What the API asks for and memory alone may not know: what is missing is read from disk on a reader's
//! thread, and the question asked again. The worker waits for none of it.
//!
//! Each open question has one read under way and a caller who waits, so there are never more than the API
//! lets in requests; one whose caller has given up is dropped with its next answer.

use std::collections::HashMap;
use std::io;

use super::Worker;
use crate::data_plane::cluster::{Answer, Browse, ColdRead, DiskQuestion, GroupMove, Reader};
use crate::data_plane::message_log::journal::ReadBatch;
use crate::model::{ClusterId, Seq, TopicFilter};
use crate::seam::command::{CommandError, Reply};
use crate::seam::groups::GroupPlace;
use crate::seam::messages::{BrowseRequest, Browsed};

/// Questions that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u64,
    open: HashMap<u64, Question>,
}

/// A question of a cluster.
#[derive(Debug)]
struct Question {
    cluster: ClusterId,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    /// What messages a session has.
    Browse(Browse, Reply<Browsed>),
    /// Where a shared group is to go on, so that it does.
    Move(GroupMove, Reply<Seq>),
}

impl Worker {
    /// Shows some of a session's messages.
    pub(super) fn browse(&mut self, cluster: ClusterId, request: BrowseRequest, reply: Reply<Browsed>) {
        self.go_on(Question { cluster, asked: Asked::Browse(Browse::new(request), reply) });
    }

    /// Has a shared group go on elsewhere.
    pub(super) fn move_group(
        &mut self,
        cluster: ClusterId,
        share: TopicFilter,
        to: GroupPlace,
        reply: Reply<Seq>,
    ) {
        self.go_on(Question { cluster, asked: Asked::Move(GroupMove::new(share, to), reply) });
    }

    /// What a question asked for was read.
    pub(super) fn question_read(&mut self, id: u64, result: io::Result<ReadBatch>) {
        let Some(mut question) = self.questions.open.remove(&id) else { return };
        match result {
            Ok(ReadBatch { messages, through, .. }) => {
                match &mut question.asked {
                    Asked::Browse(browse, _) => browse.take(messages, through),
                    Asked::Move(order, _) => order.take(&messages),
                }
                self.go_on(question);
            }
            Err(error) => {
                tracing::error!(%error, "the message log cannot be read");
                question.asked.fail(CommandError::LogUnreadable);
            }
        }
    }

    /// Answers, or has the disk asked first.
    fn go_on(&mut self, question: Question) {
        let Question { cluster, asked } = question;
        match asked {
            asked if asked.is_given_up() => {}
            Asked::Browse(browse, reply) => match self.look(&cluster, |cluster| cluster.browse(&browse)) {
                Ok(Answer::Known(browsed)) => drop(reply.send(Ok(browsed))),
                Ok(Answer::OnDisk(missing)) => {
                    self.ask_disk(missing, Question { cluster, asked: Asked::Browse(browse, reply) });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Asked::Move(mut order, reply) => match self.try_move(&cluster, &mut order) {
                Ok(Answer::Known(place)) => self.log.tell_moved(reply, place),
                Ok(Answer::OnDisk(missing)) => {
                    self.ask_disk(missing, Question { cluster, asked: Asked::Move(order, reply) });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
        }
    }

    fn try_move(&mut self, cluster: &ClusterId, order: &mut GroupMove) -> Result<Answer<Seq>, CommandError> {
        let home = self.by_id.get(cluster).map(|(home, _)| *home);
        let now = self.clock.now();
        let moved = home.and_then(|home| {
            self.act(home, |cluster| {
                cluster.time_passes(now);
                cluster.move_group(now, order)
            })
        });
        moved.unwrap_or(Err(CommandError::NoSuchCluster))
    }

    fn ask_disk(&mut self, missing: DiskQuestion, question: Question) {
        let Some((home, _)) = self.by_id.get(&question.cluster) else {
            return question.asked.fail(CommandError::NoSuchCluster);
        };
        self.questions.last += 1;
        let id = self.questions.last;
        self.questions.open.insert(id, question);
        let DiskQuestion { after, through, messages_max } = missing;
        let read = ColdRead { reader: Reader::Asked { question: id }, after, through, messages_max };
        self.log.read(*home, read);
    }
}

impl Asked {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Browse(_, reply) => reply.is_closed(),
            Self::Move(_, reply) => reply.is_closed(),
        }
    }

    /// The caller may have given up; then nobody wants the answer.
    fn fail(self, error: CommandError) {
        match self {
            Self::Browse(_, reply) => drop(reply.send(Err(error))),
            Self::Move(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
