//! Start and stop: signals, the two steps of a shutdown, and tasks that nobody may lose silently.
//!
//! A [`Shutdown`] has two steps. *Soft*: stop accepting, finish what was acknowledged, flush. *Hard*:
//! stop at once. The first SIGTERM or SIGINT asks for the soft one, the second for the hard one.
//!
//! [`Tasks`] holds the tasks the service cannot do without. One that fails, panics or ends before
//! anybody asked brings the whole service down with an error: a supervisor outside restarts it,
//! whereas half a service looks alive and serves nobody.
//!
//! Not here: in which order the parts stop. That is the composition root's to say.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// How long a soft shutdown may take before it becomes a hard one. The contract allows 10 s from the
/// signal to the end; what is left is for the hard one.
pub const SOFT_SHUTDOWN_MAX: Duration = Duration::from_secs(8);
/// How long tasks get to see a hard shutdown before they are left behind.
pub const HARD_SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// The two steps of a shutdown. Clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Shutdown {
    /// Nothing is asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the soft step.
    pub fn request(&self) {
        self.soft.cancel();
    }

    /// Asks for the hard step, and so for the soft one.
    pub fn force(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Whether the soft step is asked for.
    pub fn is_requested(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Ends when the soft step is asked for.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when it is dropped.
    pub async fn requested(&self) {
        self.soft.cancelled().await;
    }

    /// Ends when the hard step is asked for.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when it is dropped.
    pub async fn forced(&self) {
        self.hard.cancelled().await;
    }

    /// A token that is cancelled with the soft step, for libraries that take one.
    pub fn soft_token(&self) -> CancellationToken {
        self.soft.child_token()
    }

    /// From now on signals ask for the steps. Must be called within the runtime.
    ///
    /// # Errors
    /// What the system says when the handlers cannot be set.
    pub fn listen_for_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if shutdown.is_requested() {
                    warn!(signal = name, "stopping at once");
                    shutdown.force();
                    return;
                }
                info!(signal = name, "stopping; a second signal stops at once");
                shutdown.request();
            }
        });
        Ok(())
    }
}

/// Any error of a task.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the service had to stop, or did not stop cleanly.
#[derive(Debug, Error)]
pub enum TaskFailure {
    /// A task panicked: a defect of ours.
    #[error("the task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: &'static str,
        /// What the panic said.
        message: String,
    },
    /// A task gave up.
    #[error("the task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A task ended although nobody had asked for a shutdown.
    #[error("the task {task} ended before it was asked to")]
    EndedEarly {
        /// Its name.
        task: &'static str,
    },
    /// Tasks were still at work when a soft shutdown had taken [`SOFT_SHUTDOWN_MAX`].
    #[error("{tasks} tasks had not finished {} s after the stop was asked for", SOFT_SHUTDOWN_MAX.as_secs())]
    TooSlow {
        /// How many.
        tasks: usize,
    },
    /// A second signal cut the soft shutdown short.
    #[error("stopped at once by a second signal")]
    Forced,
}

/// The tasks the service cannot do without. Clones are the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    /// The first failure; written by the task that failed, taken by [`Tasks::finish`].
    failure: Arc<Mutex<Option<TaskFailure>>>,
}

impl Tasks {
    /// An empty set that a failure shuts down by `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, failure: Arc::default() }
    }

    /// The shutdown that ends these tasks.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The tracker behind these tasks, for parts that start tasks of their own.
    pub fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Starts a task that must run until a shutdown is asked for.
    pub fn spawn_essential<F, E>(&self, task: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            // The state behind a panicking task is never looked at again: the service goes down.
            let failure = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) if tasks.shutdown.is_requested() => return,
                Ok(Ok(())) => TaskFailure::EndedEarly { task },
                Ok(Err(source)) => TaskFailure::Failed { task, source: source.into() },
                Err(panic) => TaskFailure::Panicked { task, message: panic_message(&*panic).to_owned() },
            };
            tasks.fail(failure);
        });
    }

    /// Starts a task that may end when it likes, such as one connection. Its panic is logged by the
    /// panic hook and ends nothing but itself. A soft shutdown waits for it.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(future);
    }

    /// Waits for a shutdown to be asked for, then for every task to end.
    ///
    /// # Errors
    /// The first failure of an essential task; [`TaskFailure::TooSlow`] or [`TaskFailure::Forced`]
    /// when tasks had to be left behind.
    pub async fn finish(&self) -> Result<(), TaskFailure> {
        self.shutdown.requested().await;
        self.tracker.close();
        let end = tokio::select! {
            () = self.tracker.wait() => Ok(()),
            () = self.shutdown.forced() => Err(TaskFailure::Forced),
            () = tokio::time::sleep(SOFT_SHUTDOWN_MAX) => Err(TaskFailure::TooSlow { tasks: self.tracker.len() }),
        };
        if end.is_err() {
            self.shutdown.force();
            // Who does not end now is dropped with the runtime.
            drop(tokio::time::timeout(HARD_SHUTDOWN_MAX, self.tracker.wait()).await);
        }
        self.failure.lock().take().map_or(end, Err)
    }

    fn fail(&self, failure: TaskFailure) {
        let mut first = self.failure.lock();
        if first.is_none() {
            *first = Some(failure);
        } else {
            // The first one is told at the end of the program; this one would be lost.
            error!(
                error = &failure as &dyn std::error::Error,
                "another task failed while stopping: {failure}"
            );
        }
        drop(first);
        self.shutdown.request();
    }
}

/// Tells on standard output that the service serves, and where: `ready http=… mqtt=…`.
///
/// # Errors
/// What the system says; a closed standard output is not one.
pub fn announce_ready(listeners: &[(&str, SocketAddr)]) -> io::Result<()> {
    let mut line = "ready".to_owned();
    for (name, address) in listeners {
        line.extend([" ", name, "=", &address.to_string()]);
    }
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// What a panic said, where it said something.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> Tasks {
        Tasks::new(Shutdown::new())
    }

    async fn until_asked(shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.requested().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_shutdown_that_everybody_follows_is_clean() {
        let tasks = tasks();
        tasks.spawn_essential("one", until_asked(tasks.shutdown().clone()));
        tasks.shutdown().request();
        assert!(tasks.finish().await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_in_an_essential_task_ends_the_others() {
        let tasks = tasks();
        tasks.spawn_essential("other", until_asked(tasks.shutdown().clone()));
        tasks.spawn_essential("worker", async {
            assert!(std::hint::black_box(false), "broken invariant");
            Ok::<_, BoxError>(())
        });
        let failure = tasks.finish().await.expect_err("it panicked");
        assert_eq!(failure.to_string(), "the task worker panicked: broken invariant");
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_is_a_failure() {
        let tasks = tasks();
        tasks.spawn_essential("worker", async { Ok::<_, BoxError>(()) });
        let failure = tasks.finish().await.expect_err("it ended");
        assert!(matches!(failure, TaskFailure::EndedEarly { task: "worker" }));
    }

    #[tokio::test]
    async fn the_first_failure_is_the_one_told() {
        let tasks = tasks();
        let asked = tasks.shutdown().clone();
        tasks.spawn_essential("second", async move {
            asked.requested().await;
            Err::<(), BoxError>("late".into())
        });
        tasks.spawn_essential("first", async { Err::<(), BoxError>("disk".into()) });
        let failure = tasks.finish().await.expect_err("it failed");
        assert!(matches!(failure, TaskFailure::Failed { task: "first", .. }), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_left_behind() {
        let tasks = tasks();
        tasks.spawn(std::future::pending());
        tasks.shutdown().request();
        let failure = tasks.finish().await.expect_err("it never ends");
        assert!(matches!(failure, TaskFailure::TooSlow { tasks: 1 }));
        assert!(tasks.shutdown().soft_token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_does_not_wait() {
        let tasks = tasks();
        tasks.spawn(std::future::pending());
        tasks.shutdown().force();
        assert!(matches!(tasks.finish().await, Err(TaskFailure::Forced)));
    }
}
