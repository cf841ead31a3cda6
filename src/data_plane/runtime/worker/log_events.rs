//! What the message log tells the worker: durable turns, messages read, a full disk, segments to let go of.

use super::Worker;
use crate::data_plane::cluster::Reader;
use crate::data_plane::message_log::journal::ReadBatch;
use crate::data_plane::runtime::journal::ReadDone;

impl Worker {
    /// Something became durable, or was read.
    pub(super) fn take_log_events(&mut self) {
        let now = self.clock.now();
        for (home, turn) in self.log.take_durable(self.clock.micros()) {
            self.act(home, |cluster| cluster.durable(turn));
        }
        for ReadDone { cluster: home, reader, result } in self.log.take_reads() {
            if let Reader::Asked { question } = reader {
                self.question_read(question, result);
                continue;
            }
            self.act(home, |cluster| match result {
                Ok(ReadBatch { messages, through, damaged }) => {
                    if damaged > 0 {
                        tracing::error!(damaged, "messages in the log cannot be read and are passed over");
                    }
                    cluster.read_from_disk(now, reader, messages, through);
                }
                Err(error) => {
                    tracing::error!(%error, "the message log cannot be read");
                    cluster.reading_failed(reader);
                }
            });
        }
    }

    /// Lets go of what nobody needs any longer.
    pub(super) fn tidy_up(&mut self) {
        let now = self.clock.now();
        let Self { retention, log, clusters, .. } = self;
        match log.take_filters() {
            Some(read) => retention.take(now, read, log, clusters),
            None => retention.look(now, log, clusters),
        }
    }

    /// Tells the clusters when the disk is full, and when it is no longer.
    pub(super) fn look_at_the_disk(&mut self) {
        let is_full = self.log.is_full();
        if is_full != self.disk_full {
            self.disk_full = is_full;
            for cluster in self.clusters.values_mut() {
                cluster.set_room(!is_full);
            }
            if is_full {
                tracing::error!("the disk is full: messages that would have to be kept are refused");
            } else {
                tracing::info!("the disk has room again");
            }
        }
    }
}
