//! The data plane's tasks: the worker with its stored sessions, the records' committer, listeners.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::listeners::MqttListeners;
use crate::clock::Clock;
use crate::data_plane::runtime::records::{self, RecordQueue};
use crate::data_plane::runtime::worker::Sources;
use crate::data_plane::runtime::{Context, MAILBOX_MAX, Worker};
use crate::lifecycle::{TaskFailure, Tasks};
use crate::seam::command::Command;
use crate::seam::desired::DesiredReceiver;
use crate::seam::ports::SessionStore;
use crate::store::Store;

/// How many stored sessions are read at a time.
const LOAD_AT_ONCE: u32 = 10_000;

/// Brings stored sessions back and starts serving.
pub(super) async fn start(
    tasks: &Tasks,
    clock: &Clock,
    store: &Store,
    desired: DesiredReceiver,
    commands: mpsc::Receiver<Command>,
    mqtt: MqttListeners,
) -> anyhow::Result<()> {
    let queue = Arc::new(RecordQueue::default());
    let state = Arc::clone(&desired.borrow());
    let mut worker = Worker::new(clock.clone(), Arc::clone(&queue), &state);
    load(&mut worker, store).await.context("cannot load the stored sessions")?;

    let (mailbox, inputs) = mpsc::channel(MAILBOX_MAX);
    let (reporter, reports) = mpsc::channel(records::REPORTS_MAX);
    let stop = tasks.shutdown().soft_token();

    // The last records come from connections that end: the committer outlives the worker.
    let worker_ended = CancellationToken::new();
    let committer = records::commit_until(queue, store.clone(), reporter, worker_ended.clone());
    tasks.spawn_essential("records", async move {
        committer.await;
        Ok::<_, TaskFailure>(())
    });
    let sources = Sources { inputs, commands, desired, reports };
    let run = worker.run(sources, stop.clone());
    tasks.spawn_essential("worker", async move {
        let _ends_committer = worker_ended.drop_guard();
        run.await;
        Ok::<_, TaskFailure>(())
    });

    mqtt.start(tasks, &Context::new(mailbox, clock.clone()))
}

async fn load(worker: &mut Worker, store: &Store) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = store.load(after, LOAD_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.row.session_id);
        for stored in page {
            worker.restore(stored);
        }
    }
}
