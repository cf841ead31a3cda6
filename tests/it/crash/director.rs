//! Directs a run: begins rounds, kills the service at chosen moments, starts it again, has everything
//! finished, and has it checked.

#![allow(clippy::print_stdout)] // a person reads how an hour goes

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cast::{self, Role};
use super::check::{Findings, Violation, check, missing};
use super::client::collect;
use super::client::{Client, Phase, Stage};
use super::history::{History, Record, Subscriber};
use super::random::Random;
use super::service::Service;
use super::{mortals, retained};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// In a round, until everything is checked.
    pub(super) kills: u32,
    /// Between two messages of a publisher.
    pub(super) pause: Duration,
}

/// When and how the service is ended.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Under load.
    Any,
    /// Just after it got ready, while all return.
    Return,
    /// Just after a SUBSCRIBE or UNSUBSCRIBE.
    Subscribe,
    /// While the message log begins another file.
    Segment,
    /// Asked to stop.
    Term,
    /// With its Postgres at the same moment.
    WithPostgres,
    /// Some time after its Postgres.
    AfterPostgres,
}

const MOMENTS: [Moment; 10] = [
    Moment::Any,
    Moment::Segment,
    Moment::Subscribe,
    Moment::Return,
    Moment::Any,
    Moment::Term,
    Moment::Subscribe,
    Moment::WithPostgres,
    Moment::Segment,
    Moment::AfterPostgres,
];

/// How long nothing may come before what is missing is lost.
const STANDSTILL: Duration = Duration::from_secs(20);
/// With nothing missing: how long to wait for what should not come.
const AFTERMATH: Duration = Duration::from_millis(500);
const VIOLATIONS_SHOWN: usize = 40;

pub(super) struct Director {
    seed: u64,
    pace: Pace,
    random: Random,
    service: Service,
    /// Kept when something is found.
    folder: Option<TempDir>,
    stage: Stage,
    address: watch::Sender<Option<SocketAddr>>,
    phase: watch::Sender<Phase>,
    actors: JoinSet<()>,
    began: Instant,
    rounds: u32,
    kills: u32,
    total: Findings,
}

impl Director {
    /// Begins a run: everybody is there, the service does not run yet.
    pub(super) async fn begin(seed: u64, pace: Pace) -> Self {
        println!("crash harness: seed {seed}");
        let mut random = Random::new(seed);
        let folder = tempfile::Builder::new()
            .prefix("hf-crash-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a folder");
        let cast = cast::cast();
        let (address, address_seen) = watch::channel(None);
        let (phase, phase_seen) = watch::channel(Phase::Load);
        let stage = Stage {
            record: Arc::new(Record::new(opening(&cast))),
            address: address_seen,
            phase: phase_seen,
            subscribing: Arc::new(Notify::new()),
            pause: pace.pause,
        };
        let mut actors = JoinSet::new();
        for (at, role) in cast.into_iter().enumerate() {
            actors.spawn(Client::new(role, at, stage.clone(), random.fork()).live());
        }
        actors.spawn(mortals::live_and_die(stage.clone(), random.fork()));
        actors.spawn(look_at_retained(stage.clone()));
        for at in 0..collect::KINDS.len() {
            actors.spawn(collect::collect(at, stage.clone(), random.fork()));
        }
        let service = Service::new(folder.path().to_owned());
        let mut director = Self {
            seed,
            pace,
            random,
            service,
            folder: Some(folder),
            stage,
            address,
            phase,
            actors,
            began: Instant::now(),
            rounds: 0,
            kills: 0,
            total: Findings::default(),
        };
        director.start().await;
        director
    }

    /// Load and kills; then all is finished and checked.
    pub(super) async fn round(&mut self) {
        self.phase.send_replace(Phase::Load);
        for _ in 0..self.pace.kills {
            let moment = MOMENTS[self.kills as usize % MOMENTS.len()];
            self.kills += 1;
            self.kill_at(moment).await;
            self.start().await;
            if self.stage.record.with(|history, _| !history.faults.is_empty()) {
                break;
            }
        }
        let load = self.random.millis(100, 600);
        tokio::time::sleep(load).await;
        self.phase.send_replace(Phase::Drain);
        self.finish().await;
        self.phase.send_replace(Phase::Mark);
        self.finish().await;
        self.rounds += 1;
        self.sum_up();
        self.stage.record.with(|history, _| history.next_round());
    }

    /// All leave, and the service stops.
    pub(super) async fn end(mut self) {
        self.phase.send_replace(Phase::Over);
        while let Some(ended) = self.actors.join_next().await {
            ended.expect("a client of the harness fails by its own fault");
        }
        self.service.end(Signal::TERM).await.expect("it stops when asked to");
        println!("crash harness: over after {} s", self.began.elapsed().as_secs());
    }

    /// Waits for the moment and ends the service.
    async fn kill_at(&mut self, moment: Moment) {
        let while_under_load = self.random.millis(200, 1_500);
        match moment {
            Moment::Return => {
                let soon = self.random.millis(0, 80);
                tokio::time::sleep(soon).await;
            }
            Moment::Subscribe => {
                let subscribing = Arc::clone(&self.stage.subscribing);
                tokio::time::sleep(while_under_load / 2).await;
                let _ = tokio::time::timeout(while_under_load, subscribing.notified()).await;
                let soon = Duration::from_micros(self.random.below(3_000));
                tokio::time::sleep(soon).await;
            }
            Moment::Segment => self.next_segment().await,
            Moment::AfterPostgres => {
                tokio::time::sleep(while_under_load).await;
                self.kill_postgres();
                let soon = self.random.millis(0, 1_000);
                tokio::time::sleep(soon).await;
            }
            Moment::Any | Moment::Term | Moment::WithPostgres => tokio::time::sleep(while_under_load).await,
        }
        let signal = if matches!(moment, Moment::Term) { Signal::TERM } else { Signal::KILL };
        self.service.note(&format!("kill {}: {moment:?}", self.kills));
        self.stage.record.with(|history, now| history.deaths.push(now));
        self.address.send_replace(None);
        if let Err(what) = self.service.end(signal).await {
            self.stage.record.fault("service", &what);
        }
        if matches!(moment, Moment::WithPostgres) {
            self.kill_postgres();
        }
        // Errors are to be expected while its database is away.
        let errors = self.service.new_errors();
        if !matches!(moment, Moment::WithPostgres | Moment::AfterPostgres) {
            for error in errors {
                self.stage.record.fault("service", &error);
            }
        }
    }

    fn kill_postgres(&self) {
        self.service.note("kill Postgres");
        if let Err(what) = self.service.signal_postgres(Signal::KILL) {
            self.service.note(&what);
        }
    }

    /// Waits until the message log has another file, or for a while.
    async fn next_segment(&self) {
        let folder = self.service.message_log();
        let names = || {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name()).collect::<std::collections::BTreeSet<_>>()
        };
        let before = names();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) && names() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Starts the service; now and then it is killed again before it is ready.
    async fn start(&mut self) {
        let mut kill_in_start = if self.kills > 0 { 40 } else { 0 };
        loop {
            let patience = self.random.percent(kill_in_start).then(|| self.random.millis(0, 400));
            kill_in_start /= 2;
            match self.service.start(patience).await {
                Ok(Some(address)) => {
                    self.address.send_replace(Some(address));
                    return;
                }
                Ok(None) => {}
                Err(what) => {
                    self.stage.record.fault("service", &what);
                    self.fail();
                }
            }
        }
    }

    /// Waits until nothing is missing and nothing more comes.
    async fn finish(&mut self) {
        let (mut state, mut since) = (None, Instant::now());
        loop {
            let (missing, come, has_failed) = self.stage.record.with(|history, _| {
                let come: usize = history.subscribers.iter().map(|s| s.deliveries.len()).sum();
                let come = come + history.collectors.iter().map(|c| c.deliveries.len()).sum::<usize>();
                (missing(history).len(), come, !history.faults.is_empty())
            });
            if has_failed {
                return;
            }
            if state != Some((missing, come)) {
                (state, since) = (Some((missing, come)), Instant::now());
            }
            let enough = if missing == 0 { AFTERMATH } else { STANDSTILL };
            if since.elapsed() > enough {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Checks the round, tells, and fails when something is wrong.
    fn sum_up(&mut self) {
        for error in self.service.new_errors() {
            self.stage.record.fault("service", &error);
        }
        let (mut findings, has_failed) =
            self.stage.record.with(|history, _| (check(history), !history.faults.is_empty()));
        if has_failed {
            // The round was not finished: that something has not come says nothing.
            findings
                .violations
                .retain(|found| !matches!(found, Violation::Lost { .. } | Violation::Stuck { .. }));
        }
        self.total.add(findings);
        let Findings { violations, sent, acknowledged, delivered, repeated, owed } = &self.total;
        println!(
            "cycle {}: {} s, kills {}, published {sent}, acknowledged {acknowledged}, received {delivered}, \
             repeated at QoS 1 {repeated}, retained messages owed {owed} times, violations {}",
            self.rounds,
            self.began.elapsed().as_secs(),
            self.kills,
            violations.len(),
        );
        if !violations.is_empty() {
            self.fail();
        }
    }

    /// Ends the run, and keeps what explains it.
    fn fail(&mut self) -> ! {
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
        let violations = &self.total.violations;
        for violation in violations.iter().take(VIOLATIONS_SHOWN) {
            println!("violation: {violation}");
        }
        let history = self.service.folder().join("history.txt");
        self.stage.record.with(|known, _| {
            for fault in known.faults.iter().filter(|_| violations.is_empty()) {
                println!("fault: {fault}");
            }
            std::fs::write(&history, format!("{known:#?}")).expect("write the history");
        });
        panic!(
            "{} violations, seed {}; data, log and history in {}",
            violations.len(),
            self.seed,
            self.service.folder().display()
        );
    }
}

/// Everybody before anything has happened.
fn opening(cast: &[Role]) -> History {
    let subscriber = |role: &Role| Subscriber {
        name: role.name.to_owned(),
        group: role.filters.first().and_then(|(filter, _)| Role::shared(filter).0),
        ..Subscriber::default()
    };
    History {
        streams: cast::streams(cast),
        subscribers: cast.iter().map(subscriber).collect(),
        collectors: collect::collectors(),
        ..History::default()
    }
}

async fn look_at_retained(mut stage: Stage) {
    while let Some(address) = stage.address().await {
        retained::visit(&stage, address).await;
        stage.rest(Duration::from_millis(150)).await;
    }
}
