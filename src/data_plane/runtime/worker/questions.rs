//! Questions of the API that memory alone may not answer: what is missing is read from disk on a reader's
//! thread, and the question asked again. The worker waits for none of it.
//!
//! Each open question has one read under way and a caller who waits, so there are never more than the API
//! lets in requests; one whose caller has given up is dropped with its next answer.

use std::collections::HashMap;
use std::io;

use super::Worker;
use crate::data_plane::cluster::{Answer, Browse, ColdRead, DiskQuestion, Reader};
use crate::data_plane::message_log::ClusterNo;
use crate::data_plane::message_log::journal::ReadBatch;
use crate::model::ClusterId;
use crate::seam::command::{CommandError, Reply};
use crate::seam::messages::{BrowseRequest, Browsed};

/// Questions that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u64,
    open: HashMap<u64, Question>,
}

#[derive(Debug)]
struct Question {
    cluster: ClusterId,
    browse: Browse,
    reply: Reply<Browsed>,
}

impl Worker {
    /// Shows some of a session's messages.
    pub(super) fn browse(&mut self, cluster: &ClusterId, request: BrowseRequest, reply: Reply<Browsed>) {
        self.go_on(Question { cluster: cluster.clone(), browse: Browse::new(request), reply });
    }

    /// What a question asked for was read.
    pub(super) fn question_read(&mut self, id: u64, result: io::Result<ReadBatch>) {
        let Some(mut question) = self.questions.open.remove(&id) else { return };
        match result {
            Ok(ReadBatch { messages, through, .. }) => {
                question.browse.take(messages, through);
                self.go_on(question);
            }
            Err(error) => {
                tracing::error!(%error, "the message log cannot be read");
                drop(question.reply.send(Err(CommandError::LogUnreadable)));
            }
        }
    }

    /// Answers, or has the disk asked first.
    fn go_on(&mut self, question: Question) {
        if question.reply.is_closed() {
            return;
        }
        match self.look(&question.cluster, |cluster| cluster.browse(&question.browse)) {
            Ok(Answer::Known(browsed)) => drop(question.reply.send(Ok(browsed))),
            Err(error) => drop(question.reply.send(Err(error))),
            Ok(Answer::OnDisk(missing)) => {
                let Some((home, _)) = self.by_id.get(&question.cluster) else { return };
                let home = *home;
                self.ask_disk(home, missing, question);
            }
        }
    }

    fn ask_disk(&mut self, home: ClusterNo, missing: DiskQuestion, question: Question) {
        self.questions.last += 1;
        let id = self.questions.last;
        self.questions.open.insert(id, question);
        let DiskQuestion { after, through, messages_max } = missing;
        self.log.read(home, ColdRead { reader: Reader::Asked { question: id }, after, through, messages_max });
    }
}
