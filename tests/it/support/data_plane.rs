//! A stand-in for the data plane: it answers commands from the session rows themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast::clock::Clock;
use holdfast::model::{DisconnectCause, EndedBy, MessageCounters, Seq, SessionState, TopicFilter};
use holdfast::seam::backlog::{Backlog, Oldest, SessionTraffic, SubscriptionTraffic};
use holdfast::seam::command::{Command, CommandError, Reply, SessionCounts, SessionRef, Target};
use holdfast::seam::desired::DesiredReceiver;
use holdfast::seam::figures::LogFigures;
use holdfast::seam::ports::{SessionRow, SessionStore, SessionWrite};
use holdfast::store::{SessionFilter, SessionRecord, Store};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// As it should.
    Works,
    /// Never.
    Silent,
    /// Every command to a session fails with this, and every count.
    Fails(CommandError),
}

/// The stand-in, shared with its task.
#[derive(Clone)]
pub(crate) struct FakeDataPlane {
    store: Store,
    clock: Clock,
    desired: DesiredReceiver,
    mood: Arc<Mutex<Mood>>,
    commands: Arc<AtomicUsize>,
}

impl FakeDataPlane {
    /// Takes commands until its task is dropped.
    pub(crate) fn start(
        store: Store,
        clock: Clock,
        desired: DesiredReceiver,
        mut commands: mpsc::Receiver<Command>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let mood = Arc::new(Mutex::new(Mood::Works));
        let fake = Self { store, clock, desired, mood, commands: Arc::default() };
        let worker = fake.clone();
        let task = tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(command) = commands.recv().await {
                worker.commands.fetch_add(1, Ordering::SeqCst);
                let mood = worker.mood.lock().clone();
                match mood {
                    Mood::Silent => unanswered.push(command),
                    Mood::Works => worker.clone().carry_out(command).await,
                    Mood::Fails(error) => refuse(command, error),
                }
            }
        });
        (fake, task)
    }

    /// Changes how it answers from now on.
    pub(crate) fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// How many commands it has been given.
    pub(crate) fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }

    async fn carry_out(mut self, command: Command) {
        match command {
            Command::Disconnect { target, reply } => {
                let met = self.meet(&target).await;
                if let Ok((_, row)) = &met
                    && row.disconnected_at.is_none()
                {
                    let cause =
                        DisconnectCause { reason: "administrative".to_owned(), by: EndedBy::Operator };
                    let disconnected_at = Some(self.clock.wall());
                    let row = SessionRow { disconnected_at, disconnect: Some(cause), ..row.clone() };
                    self.write(SessionWrite::Put(Box::new(row))).await;
                }
                answer(reply, met.map(|(met, _)| met));
            }
            Command::Destroy { target, reply } => {
                let met = self.meet(&target).await;
                if let Ok((met, _)) = &met {
                    self.write(SessionWrite::Remove(met.session_id)).await;
                }
                answer(reply, met.map(|(met, _)| met));
            }
            Command::ApplyExpiry { target, reply, .. } => {
                // The record may be past its new expiry and so not be there for readers.
                let met = self.meet(&target).await;
                let gone = SessionRef {
                    session_id: target.if_session_id.expect("an order names its session"),
                    epoch: holdfast::model::Epoch::FIRST,
                    was_online: false,
                };
                answer(reply, met.map(|(met, _)| met).or(Ok(gone)));
            }
            Command::Count { cluster, reply } => {
                let all = SessionFilter::default();
                let now = self.clock.wall();
                let rows = self.store.list_sessions(&cluster, &all, None, 1_000, now).await.expect("list");
                let online = rows.iter().filter(|row| row.state() == SessionState::Online).count();
                let online = u32::try_from(online).expect("few");
                let total = u32::try_from(rows.len()).expect("few");
                answer(reply, Ok(SessionCounts { online, offline_persistent: total - online }));
            }
            Command::Traffic { cluster, client_id, reply } => {
                let target = Target { cluster, client_id, if_session_id: None, if_epoch: None };
                let met = self.meet(&target).await;
                answer(reply, met.map(|(met, row)| traffic(&met, &row)));
            }
            Command::LogFigures { reply } => answer(reply, Ok(LogFigures::default())),
            Command::AwaitExpulsions { reply, .. } => answer(reply, Ok(())),
            Command::AwaitRevision { revision, reply } => {
                let seen = self.desired.wait_for(|state| state.revision >= revision).await.is_ok();
                answer(reply, if seen { Ok(()) } else { Err(CommandError::Stopped) });
            }
        }
    }

    async fn meet(&self, target: &Target) -> Result<(SessionRef, SessionRow), CommandError> {
        let found = self.store.get_session(&target.cluster, &target.client_id, self.clock.wall()).await;
        let record: SessionRecord =
            found.map_err(|_| CommandError::StoreAway)?.ok_or(CommandError::NoSuchSession)?;
        let was_online = record.state() == SessionState::Online;
        let SessionRow { session_id, epoch, .. } = record.row;
        let fenced = target.if_session_id.is_some_and(|id| id != session_id)
            || target.if_epoch.is_some_and(|wanted| wanted != epoch);
        if fenced {
            return Err(CommandError::Superseded { session_id, epoch });
        }
        Ok((SessionRef { session_id, epoch, was_online }, record.row))
    }

    async fn write(&self, write: SessionWrite) {
        self.store.commit(&[write]).await.expect("commit a session");
    }
}

fn refuse(command: Command, error: CommandError) {
    match command {
        Command::Disconnect { reply, .. }
        | Command::Destroy { reply, .. }
        | Command::ApplyExpiry { reply, .. } => answer(reply, Err(error)),
        Command::Count { reply, .. } => answer(reply, Err(error)),
        Command::Traffic { reply, .. } => answer(reply, Err(error)),
        Command::LogFigures { reply } => answer(reply, Err(error)),
        Command::AwaitRevision { reply, .. } | Command::AwaitExpulsions { reply, .. } => {
            answer(reply, Err(error));
        }
    }
}

/// Something that can be told apart from nothing; its subscriptions are `b/#`.
fn traffic(met: &SessionRef, row: &SessionRow) -> SessionTraffic {
    let oldest = Oldest { position: Some(Seq(9)), published_at: Some(row.created_at) };
    SessionTraffic {
        session_id: met.session_id,
        backlog: Backlog { messages: 3, bytes: 300, oldest: Some(oldest), is_complete: true },
        in_flight: 2,
        counters: MessageCounters { received: 4, sent: 5, dropped_slow: 6, dropped_queue_full: 7 },
        trimmed: 8,
        subscriptions: vec![SubscriptionTraffic {
            filter: TopicFilter::new("b/#").expect("a filter"),
            lag: 3,
            in_flight: Some(1),
        }],
    }
}

/// The caller may have hung up.
fn answer<T>(reply: Reply<T>, with: Result<T, CommandError>) {
    let _ = reply.send(with);
}
