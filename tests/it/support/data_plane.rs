//! A stand-in for the data plane: it answers commands from the session rows themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast::clock::Clock;
use holdfast::model::{
    ClientId, ClusterId, DisconnectCause, EndedBy, Epoch, MessageCounters, RefusalReason, Seq, SessionEnd,
    SessionState, TopicFilter,
};
use holdfast::seam::admission::{AdmissionQuestion, AdmissionVerdict, Admitted, Measure, NotAdmitted};
use holdfast::seam::backlog::{Backlog, Oldest, SessionTraffic, SubscriptionTraffic};
use holdfast::seam::command::{Command, CommandError, NewSession, Reply, SessionCounts, SessionRef, Target};
use holdfast::seam::desired::DesiredReceiver;
use holdfast::seam::figures::LogFigures;
use holdfast::seam::ports::{SessionRow, SessionStore, SessionWrite};
use holdfast::seam::quota::{Fit, QuotaCommand, QuotaUse, Shed, ShedFirst, ShedOrder};
use holdfast::store::{SessionFilter, SessionRecord, Store};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::looked_at;
use super::sessions::row;

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// As it should.
    Works,
    /// Never.
    Silent,
    /// As it should, but it does not say that it enforces what was changed.
    Lags,
    /// As it should, when [`FakeDataPlane::release`] says so.
    Delayed,
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
    delayed: Arc<Mutex<Vec<Command>>>,
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
        let (delayed, commands_taken) = (Arc::default(), Arc::default());
        let fake = Self { store, clock, desired, mood, delayed, commands: commands_taken };
        let worker = fake.clone();
        let task = tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(command) = commands.recv().await {
                worker.commands.fetch_add(1, Ordering::SeqCst);
                let mood = worker.mood.lock().clone();
                match mood {
                    Mood::Silent => unanswered.push(command),
                    Mood::Lags if is_enforcement(&command) => unanswered.push(command),
                    Mood::Delayed => worker.delayed.lock().push(command),
                    Mood::Works | Mood::Lags => worker.clone().carry_out(command).await,
                    Mood::Fails(error) => refuse(command, error),
                }
            }
        });
        (fake, task)
    }

    /// Does what was put off, and works from now on.
    pub(crate) async fn release(&self) {
        self.be(Mood::Works);
        let delayed = std::mem::take(&mut *self.delayed.lock());
        for command in delayed {
            self.clone().carry_out(command).await;
        }
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
            Command::Disconnect { target, reply, .. } => {
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
            Command::Destroy { target, reply, .. } => {
                let met = self.meet_unprotected(&target).await;
                if let Ok((met, _)) = &met {
                    self.write(SessionWrite::Remove(met.session_id, SessionEnd::Deleted)).await;
                }
                answer(reply, met.map(|(met, _)| met));
            }
            Command::Protect { target, reply, .. } => {
                let met = self.meet(&target).await;
                answer(reply, met.map(|(met, _)| met));
            }
            Command::Begin { cluster, session, reply } => {
                let answered = self.begin(cluster, *session).await;
                answer(reply, answered);
            }
            Command::Subscribe { target, subscription, reply } => {
                let met = self.meet(&target).await;
                if let Ok((met, _)) = &met {
                    self.write(SessionWrite::Subscribe(met.session_id, subscription)).await;
                }
                answer(reply, met.map(|(met, _)| met));
            }
            Command::Unsubscribe { target, filter, reply } => {
                let met = self.meet(&target).await;
                let answered = match met {
                    Ok((met, _)) => self.unsubscribe(met, filter).await,
                    Err(error) => Err(error),
                };
                answer(reply, answered);
            }
            Command::ApplyExpiry { target, reply, .. } => {
                // The record may be past its new expiry and so not be there for readers.
                let met = self.meet(&target).await;
                let gone = SessionRef {
                    session_id: target.if_session_id.expect("an order names its session"),
                    epoch: Epoch::FIRST,
                    was_online: false,
                    was_subscribed: false,
                };
                answer(reply, met.map(|(met, _)| met).or(Ok(gone)));
            }
            Command::Count { cluster, reply } => {
                let rows = self.sessions(&cluster).await;
                answer(reply, Ok(counts(&rows)));
            }
            Command::LogFigures { reply } => answer(reply, Ok(LogFigures::default())),
            Command::Quota(command) => self.carry_out_quota(command).await,
            Command::AwaitExpulsions { reply, .. } => answer(reply, Ok(())),
            Command::AwaitRevision { revision, reply } => {
                let seen = self.desired.wait_for(|state| state.revision >= revision).await.is_ok();
                answer(reply, if seen { Ok(()) } else { Err(CommandError::Stopped) });
            }
            other => self.tell(other).await,
        }
    }

    /// Answers what is only asked.
    async fn tell(&self, command: Command) {
        match command {
            Command::Traffic { cluster, client_id, reply } => {
                let target = Target { cluster, client_id, if_session_id: None, if_epoch: None };
                let met = self.meet(&target).await;
                answer(reply, met.map(|(met, row)| traffic(&met, &row)));
            }
            Command::Behind { clients, at_least, reply, .. } => {
                // Three messages wait for each whose name says so.
                let behind = |client: &ClientId| at_least <= 3 && client.as_str().starts_with("behind");
                answer(reply, Ok(clients.iter().map(behind).collect()));
            }
            Command::Browse { cluster, request, reply } => {
                let target = Target {
                    cluster,
                    client_id: request.client_id.clone(),
                    if_session_id: None,
                    if_epoch: None,
                };
                let met = self.meet(&target).await;
                answer(reply, met.map(|(met, _)| looked_at::messages(met.session_id, &request)));
            }
            Command::Will { cluster, client_id, reply } => {
                let target = Target { cluster, client_id, if_session_id: None, if_epoch: None };
                let met = self.meet(&target).await;
                answer(reply, met.map(|(met, row)| row.has_will.then(|| looked_at::will(met.session_id))));
            }
            Command::Groups { after, groups_max, reply, .. } => {
                answer(reply, Ok(looked_at::groups(&after, groups_max)));
            }
            Command::Group { share, reply, .. } => answer(reply, looked_at::group(&share)),
            Command::MoveGroup { share, reply, .. } => {
                answer(reply, looked_at::group(&share).map(|_| Seq(7)));
            }
            Command::EndGroup { share, force, reply, .. } => answer(reply, looked_at::end(&share, force)),
            Command::CheckAdmission { question, reply, .. } => answer(reply, Ok(verdict(&question))),
            Command::ClusterFigures { reply } => answer(reply, Ok(Vec::new())),
            other => unreachable!("{other:?} is an order"),
        }
    }

    async fn carry_out_quota(&self, command: QuotaCommand) {
        match command {
            QuotaCommand::Measure { cluster, reply } => {
                let sessions = counts(&self.sessions(&cluster).await);
                answer(reply, Ok(QuotaUse { sessions, shared_groups: 2, log_bytes: 3 << 20 }));
            }
            QuotaCommand::Try { cluster, quota, reply } => {
                let sessions = counts(&self.sessions(&cluster).await);
                let subscriptions = self.store.count_subscriptions(&cluster, self.clock.wall()).await;
                let subscriptions = u32::try_from(subscriptions.expect("a count")).expect("few");
                let within = |limit: Option<u32>, used| limit.is_none_or(|limit| used <= limit);
                let fits =
                    within(quota.connections, sessions.total()) && within(quota.subscriptions, subscriptions);
                let shared_groups = 2;
                let fits = fits && within(quota.shared_groups, shared_groups);
                answer(reply, Ok(Fit { sessions, subscriptions, shared_groups, fits }));
            }
            QuotaCommand::Leave { reply, .. } => answer(reply, Ok(())),
            QuotaCommand::Foresee { cluster, order, reply } => {
                answer(reply, Ok(self.to_be_shed(&cluster, &order).await));
            }
            QuotaCommand::Shed { cluster, order, reply } => {
                let shed = self.to_be_shed(&cluster, &order).await;
                for (_, met) in &shed.sessions {
                    self.write(SessionWrite::Remove(met.session_id, SessionEnd::QuotaLowered)).await;
                }
                answer(reply, Ok(shed));
            }
        }
    }

    async fn to_be_shed(&self, cluster: &ClusterId, order: &ShedOrder) -> Shed {
        let mut rows = self.sessions(cluster).await;
        let over = counts(&rows).total().saturating_sub(order.limit);
        match order.first {
            ShedFirst::Newest => rows.sort_by_key(|record| std::cmp::Reverse(record.row.created_at)),
            ShedFirst::OldestOffline => {
                rows.retain(|record| record.row.disconnected_at.is_some());
                rows.sort_by_key(|record| record.row.disconnected_at);
            }
        }
        rows.retain(|record| !record.protected);
        rows.truncate(order.most.min(over as usize));
        let sessions = rows.into_iter().map(|record| {
            let was_online = record.state() == SessionState::Online;
            let SessionRow { client_id, session_id, epoch, .. } = record.row;
            (client_id, SessionRef { session_id, epoch, was_online, was_subscribed: false })
        });
        Shed { over, sessions: sessions.collect() }
    }

    async fn sessions(&self, cluster: &ClusterId) -> Vec<SessionRecord> {
        let all = SessionFilter::default();
        self.store.list_sessions(cluster, &all, None, 1_000, self.clock.wall()).await.expect("list")
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
        Ok((SessionRef { session_id, epoch, was_online, was_subscribed: false }, record.row))
    }

    async fn meet_unprotected(&self, target: &Target) -> Result<(SessionRef, SessionRow), CommandError> {
        let met = self.meet(target).await?;
        let records = self.store.sessions_by_id(&[met.0.session_id]).await.expect("read");
        if records.iter().any(|record| record.protected) { Err(CommandError::Protected) } else { Ok(met) }
    }

    async fn begin(&self, cluster: ClusterId, new: NewSession) -> Result<SessionRef, CommandError> {
        let NewSession { session_id, client_id, part, subscriptions } = new;
        let target = Target {
            cluster: cluster.clone(),
            client_id: client_id.clone(),
            if_session_id: None,
            if_epoch: None,
        };
        if self.meet(&target).await.is_ok() {
            return Err(CommandError::SessionExists);
        }
        let now = self.clock.wall();
        let row = SessionRow {
            cluster,
            session_id,
            epoch: Epoch(0),
            protocol: None,
            peer: None,
            listener: None,
            transport: None,
            created_at: now,
            connected_at: None,
            disconnected_at: Some(now),
            ..row(0, client_id.as_str())
        };
        let mut batch =
            vec![SessionWrite::Put(Box::new(row)), SessionWrite::Begin(session_id, Box::new(part))];
        batch.extend(subscriptions.into_iter().map(|s| SessionWrite::Subscribe(session_id, Box::new(s))));
        self.store.commit(&batch).await.expect("commit a session");
        Ok(SessionRef { session_id, epoch: Epoch(0), was_online: false, was_subscribed: false })
    }

    async fn unsubscribe(&self, met: SessionRef, filter: TopicFilter) -> Result<SessionRef, CommandError> {
        let held = self.store.get_subscription(met.session_id, &filter).await.expect("read");
        held.ok_or(CommandError::NoSuchSubscription)?;
        self.write(SessionWrite::Unsubscribe(met.session_id, filter)).await;
        Ok(SessionRef { was_subscribed: true, ..met })
    }

    async fn write(&self, write: SessionWrite) {
        self.store.commit(&[write]).await.expect("commit a session");
    }
}

fn counts(rows: &[SessionRecord]) -> SessionCounts {
    let online = rows.iter().filter(|row| row.state() == SessionState::Online).count();
    let online = u32::try_from(online).expect("few");
    let total = u32::try_from(rows.len()).expect("few");
    SessionCounts { online, offline_persistent: total - online }
}

/// Whether it brings into force what is committed, or asks whether that is.
fn is_enforcement(command: &Command) -> bool {
    matches!(
        command,
        Command::AwaitRevision { .. }
            | Command::AwaitExpulsions { .. }
            | Command::ApplyExpiry { .. }
            | Command::Protect { .. }
    )
}

fn refuse(command: Command, error: CommandError) {
    match command {
        Command::Quota(QuotaCommand::Measure { reply, .. }) => answer(reply, Err(error)),
        Command::Quota(QuotaCommand::Try { reply, .. }) => answer(reply, Err(error)),
        Command::Quota(QuotaCommand::Foresee { reply, .. } | QuotaCommand::Shed { reply, .. }) => {
            answer(reply, Err(error));
        }
        Command::Disconnect { reply, .. }
        | Command::Destroy { reply, .. }
        | Command::Protect { reply, .. }
        | Command::Begin { reply, .. }
        | Command::Subscribe { reply, .. }
        | Command::Unsubscribe { reply, .. }
        | Command::ApplyExpiry { reply, .. } => answer(reply, Err(error)),
        Command::Count { reply, .. } => answer(reply, Err(error)),
        Command::Traffic { reply, .. } => answer(reply, Err(error)),
        Command::Behind { reply, .. } => answer(reply, Err(error)),
        Command::Browse { reply, .. } => answer(reply, Err(error)),
        Command::Will { reply, .. } => answer(reply, Err(error)),
        Command::Groups { reply, .. } => answer(reply, Err(error)),
        Command::Group { reply, .. } => answer(reply, Err(error)),
        Command::MoveGroup { reply, .. } => answer(reply, Err(error)),
        Command::EndGroup { reply, .. } => answer(reply, Err(error)),
        Command::CheckAdmission { reply, .. } => answer(reply, Err(error)),
        Command::ClusterFigures { reply } => answer(reply, Err(error)),
        Command::LogFigures { reply } => answer(reply, Err(error)),
        Command::AwaitRevision { reply, .. }
        | Command::AwaitExpulsions { reply, .. }
        | Command::Quota(QuotaCommand::Leave { reply, .. }) => {
            answer(reply, Err(error));
        }
    }
}

/// Lets everybody in who brings no will.
fn verdict(question: &AdmissionQuestion) -> AdmissionVerdict {
    let outcome = if question.has_will {
        Err(NotAdmitted {
            reason: RefusalReason::ConnectsWithWillPerSecond,
            code_v5: 0x9F,
            code_v3: 3,
            detail: "quota connects_with_will_per_second: limit 1, in use 1".to_owned(),
            measure: Some(Measure { limit: 1, in_use: 1 }),
        })
    } else {
        Ok(Admitted { session_present: false, session_expiry_secs: 0 })
    };
    AdmissionVerdict { outcome, session: None }
}

/// Something that can be told apart from nothing; its subscriptions are `b/#`.
fn traffic(met: &SessionRef, row: &SessionRow) -> SessionTraffic {
    let oldest = Oldest { position: Some(Seq(9)), published_at: Some(row.created_at) };
    SessionTraffic {
        session_id: met.session_id,
        backlog: Backlog { messages: 3, bytes: 300, oldest: Some(oldest), is_complete: true },
        in_flight: 2,
        counters: MessageCounters {
            received: 4,
            sent: 5,
            dropped_slow: 6,
            dropped_queue_full: 7,
            dropped_over_rate: 9,
        },
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
