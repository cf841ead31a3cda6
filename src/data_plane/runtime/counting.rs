//! How far behind somebody is: what memory does not tell is counted on a reader's thread, for which the worker does not
//! wait.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::journal::LogWriter;
use crate::data_plane::cluster::{Behind, GroupsTold, Traffic};
use crate::data_plane::message_log::{CountRequest, Counted};
use crate::seam::backlog::SessionTraffic;
use crate::seam::command::{CommandError, Reply};
use crate::seam::groups::GroupState;

impl LogWriter {
    /// Completes what is known of a session's messages with what lies on disk, and gives it to `reply`: here,
    /// or on a reader's thread, which the worker does not wait for.
    pub fn count(&self, traffic: Traffic, reply: impl FnOnce(SessionTraffic) + Send + 'static) {
        let request = traffic.on_disk().cloned();
        self.count_on_disk(request, move |counted| reply(traffic.complete(counted)));
    }

    /// The same of shared groups.
    pub fn count_groups(&self, told: GroupsTold, reply: impl FnOnce(Vec<GroupState>) + Send + 'static) {
        let request = told.on_disk().cloned();
        self.count_on_disk(request, move |counted| reply(told.complete(counted)));
    }

    /// Tells for each whether so many messages wait, with what lies on disk.
    pub fn count_behind(&self, behind: Vec<Behind>, reply: Reply<Vec<bool>>) {
        let open = behind.iter().filter(|it| matches!(it, Behind::OnDisk(_))).count();
        let known = behind.iter().map(|it| matches!(it, Behind::Known(true))).collect();
        if open == 0 {
            return drop(reply.send(Ok(known)));
        }
        let tally = Arc::new(Mutex::new(Tally { known, open, reply: Some(reply) }));
        for (at, behind) in behind.into_iter().enumerate() {
            let Behind::OnDisk(request) = behind else { continue };
            let (tally, wanted) = (Arc::clone(&tally), request.messages_max);
            self.count_on_disk(Some(request), move |counted| {
                tally.lock().take(at, counted.map(|counted| counted.messages >= wanted));
            });
        }
    }

    /// Gives `complete` what was counted; `None` when there is nothing to count, or that could not be done.
    fn count_on_disk(
        &self,
        request: Option<CountRequest>,
        complete: impl FnOnce(Option<Counted>) + Send + 'static,
    ) {
        let Some(request) = request else { return complete(None) };
        let work = Arc::new(Mutex::new(Some(complete)));
        let complete = move |counted| {
            if let Some(complete) = work.lock().take() {
                complete(counted);
            }
        };
        let when_counted = complete.clone();
        let asked = self.journal().count(request, move |counted| {
            let tell = |error: &io::Error| tracing::error!(%error, "the message log cannot be counted");
            when_counted(counted.inspect_err(tell).ok());
        });
        if asked.is_err() {
            // Too many wait for the disk: better what is known than nothing.
            complete(None);
        }
    }
}

/// Answers that come one by one, and whom to tell them all.
#[derive(Debug)]
struct Tally {
    known: Vec<bool>,
    /// How many are still to come.
    open: usize,
    /// `None` once told.
    reply: Option<Reply<Vec<bool>>>,
}

impl Tally {
    /// Takes one; `None` when it could not be found out.
    fn take(&mut self, at: usize, answer: Option<bool>) {
        self.open -= 1;
        match answer {
            Some(answer) => self.known[at] = answer,
            None => self.tell(Err(CommandError::LogUnreadable)),
        }
        if self.open == 0 {
            let known = std::mem::take(&mut self.known);
            self.tell(Ok(known));
        }
    }

    /// The caller may have given up; then nobody wants the answer.
    fn tell(&mut self, answer: Result<Vec<bool>, CommandError>) {
        if let Some(reply) = self.reply.take() {
            drop(reply.send(answer));
        }
    }
}
