//! The data plane's tasks: the message log, the worker with its stored sessions, the records' committer,
//! listeners.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::listeners::MqttListeners;
use crate::clock::Clock;
use crate::config::{Config, Hygiene};
use crate::data_plane::message_log::journal::{Events, Fatal, Journal, Options, OsDisk, Recovered};
use crate::data_plane::runtime::authentication::Authenticator;
use crate::data_plane::runtime::authenticators::Links;
use crate::data_plane::runtime::journal::{Inherited, LogEvents, LogWriter};
use crate::data_plane::runtime::records::{self, RecordQueue};
use crate::data_plane::runtime::refusals::{self, RefusalBook};
use crate::data_plane::runtime::worker::Sources;
use crate::data_plane::runtime::{Context, MAILBOX_MAX, Worker};
use crate::lifecycle::{TaskFailure, Tasks};
use crate::model::KEY_BYTES;
use crate::seam::command::Command;
use crate::seam::desired::DesiredReceiver;
use crate::seam::ports::SessionStore;
use crate::store::Store;

/// How many stored sessions are read at a time.
const LOAD_AT_ONCE: u32 = 10_000;

/// What clients come in by.
pub(super) struct Arriving {
    pub(super) mqtt: MqttListeners,
    pub(super) hygiene: Hygiene,
    /// How authenticators are asked.
    pub(super) links: Links,
}

/// Brings stored sessions back and starts serving.
#[allow(clippy::too_many_arguments)] // each is a part of its own
pub(super) async fn start(
    tasks: &Tasks,
    clock: &Clock,
    store: &Store,
    log: Log,
    desired: DesiredReceiver,
    commands: mpsc::Receiver<Command>,
    arriving: Arriving,
) -> anyhow::Result<()> {
    let Log { journal, events, mut inherited, failure } = log;
    let log = LogWriter::new(Arc::clone(&journal), events, &inherited);
    let queue = Arc::new(RecordQueue::default());
    let state = Arc::clone(&desired.borrow());
    let refusals = Arc::new(RefusalBook::default());
    let mut worker =
        Worker::new(clock.clone(), Arc::clone(&queue), Arc::clone(&refusals), log, &state, &inherited);
    load(&mut worker, store, &mut inherited).await.context("cannot load the stored sessions")?;
    worker.restored_all(inherited);

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
    let writer = refusals::write_until(Arc::clone(&refusals), store.clone(), worker_ended.clone());
    tasks.spawn_essential("refusals", async move {
        writer.await;
        Ok::<_, TaskFailure>(())
    });
    let sources = Sources { inputs, commands, desired: desired.clone(), reports };
    let run = worker.run(sources, stop.clone());
    tasks.spawn_essential("worker", async move {
        let _ends_committer = worker_ended.drop_guard();
        run.await;
        // What the worker wrote down last reaches the disk before anything else ends.
        tokio::task::spawn_blocking(move || journal.close()).await??;
        Ok::<_, anyhow::Error>(())
    });
    tasks.spawn_essential("message log", async move {
        tokio::select! {
            // Nobody knows what is on the disk: stop at once rather than promise anything more.
            Ok(fatal) = failure => Err(fatal),
            () = stop.cancelled() => Ok(()),
        }
    });

    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).context("the system has no random numbers")?;
    let Arriving { mqtt, hygiene, links } = arriving;
    let authenticator = Arc::new(Authenticator::new(clock.clone(), key, links));
    mqtt.start(tasks, &Context::new(mailbox, desired, authenticator, refusals, hygiene, clock.clone()))
}

/// The message log, opened.
pub(super) struct Log {
    journal: Arc<Journal>,
    events: Arc<LogEvents>,
    inherited: Inherited,
    /// Tells why it cannot go on, should that happen.
    failure: oneshot::Receiver<Fatal>,
}

/// Opens the message log.
pub(super) async fn open_log(config: &Config) -> anyhow::Result<Log> {
    let path = config.data_dir.message_log_path();
    let segment_bytes = config.message_log.segment_bytes;
    // In proportion: acknowledgements always find room, also with small segments.
    let options = Options { segment_bytes, reserve_bytes: segment_bytes / 4, ..Options::default() };
    let opened = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let (fails, failure) = oneshot::channel();
            let fails = parking_lot::Mutex::new(Some(fails));
            let events = Arc::new(LogEvents::default());
            let told = Arc::clone(&events);
            let callbacks = Events {
                durable: Box::new(move |_| told.durable()),
                fatal: Box::new(move |fatal| {
                    if let Some(fails) = fails.lock().take() {
                        // Nobody listens any longer once the service stops.
                        let _ = fails.send(fatal);
                    }
                }),
            };
            let disk = Arc::new(OsDisk::new(path)?);
            let (journal, recovered) = Journal::open(disk, options, callbacks)?;
            let Recovered { report, .. } = &recovered;
            tracing::info!(?report, "the message log is open");
            let inherited = Inherited::read(recovered)?;
            anyhow::Ok(Log { journal: Arc::new(journal), events, inherited, failure })
        }
    });
    opened.await?.with_context(|| format!("cannot open the message log in {}", path.display()))
}

/// Reads the stored sessions; the next page is on its way while one is taken up.
async fn load(worker: &mut Worker, store: &Store, inherited: &mut Inherited) -> anyhow::Result<()> {
    let (sender, mut pages) = mpsc::channel(1);
    let store = store.clone();
    let reading = tokio::spawn(async move {
        let mut after = None;
        loop {
            let page = store.load(after, LOAD_AT_ONCE).await?;
            let Some(last) = page.last() else { return anyhow::Ok(()) };
            after = Some(last.row.session_id);
            if sender.send(page).await.is_err() {
                return Ok(());
            }
        }
    });
    while let Some(page) = pages.recv().await {
        for stored in page {
            worker.restore(stored, inherited);
        }
    }
    reading.await?
}
