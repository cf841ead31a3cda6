//! The control plane's end of the commands: typed calls that wait for the answer.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::admission::{AdmissionQuestion, AdmissionVerdict};
use super::backlog::SessionTraffic;
use super::command::{COMMANDS_QUEUED_MAX, Command, CommandError, NewSession, Reply, SessionRef, Target};
use super::figures::{ClusterFigures, LogFigures};
use super::groups::{GroupDetail, GroupPlace, GroupState};
use super::messages::{BrowseRequest, Browsed, ShownWill};
use crate::model::{
    ClientId, ClusterId, EndOptions, OperatorExpiry, Seq, SessionCounts, Subscription, TopicFilter,
};

/// The control plane's end: typed calls that wait for the answer.
#[derive(Clone, Debug)]
pub struct DataPlane {
    commands: mpsc::Sender<Command>,
}

/// A command whose answer may be waited for more than once: until it comes.
#[derive(Debug)]
pub struct UnderWay {
    commands: mpsc::Sender<Command>,
    /// Not handed over yet. It is, as soon as somebody waits and there is room.
    unsent: Option<Command>,
    answer: oneshot::Receiver<Result<SessionRef, CommandError>>,
}

impl UnderWay {
    /// Waits so long for the answer. After [`CommandError::TimedOut`] it may be waited for again; after any
    /// other answer it is over.
    ///
    /// # Cancel safety
    /// Dropping the future loses neither the command nor its answer.
    pub async fn answer_within(&mut self, deadline: Duration) -> Result<SessionRef, CommandError> {
        let exchange = async {
            if self.unsent.is_some() {
                let room = self.commands.reserve().await.map_err(|_| CommandError::Stopped)?;
                if let Some(command) = self.unsent.take() {
                    room.send(command);
                }
            }
            (&mut self.answer).await.map_err(|_| CommandError::Stopped)?
        };
        tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(CommandError::TimedOut))
    }
}

/// A new channel; the receiver belongs to the data plane.
pub fn channel() -> (DataPlane, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(COMMANDS_QUEUED_MAX);
    (DataPlane { commands }, receiver)
}

impl DataPlane {
    /// See [`Command::Disconnect`].
    pub fn disconnect(&self, target: Target, options: EndOptions) -> UnderWay {
        self.under_way(|reply| Command::Disconnect { target, options, reply })
    }

    /// See [`Command::Destroy`].
    pub fn destroy(&self, target: Target, options: EndOptions) -> UnderWay {
        self.under_way(|reply| Command::Destroy { target, options, reply })
    }

    /// See [`Command::ApplyExpiry`].
    pub fn apply_expiry(&self, target: Target, operator: Option<OperatorExpiry>) -> UnderWay {
        self.under_way(|reply| Command::ApplyExpiry { target, operator, reply })
    }

    /// See [`Command::Protect`].
    pub fn protect(&self, target: Target, protected: bool) -> UnderWay {
        self.under_way(|reply| Command::Protect { target, protected, reply })
    }

    fn under_way(&self, command: impl FnOnce(Reply<SessionRef>) -> Command) -> UnderWay {
        let (reply, answer) = oneshot::channel();
        UnderWay { commands: self.commands.clone(), unsent: Some(command(reply)), answer }
    }

    /// See [`Command::Begin`].
    pub async fn begin(
        &self,
        cluster: ClusterId,
        session: NewSession,
        deadline: Duration,
    ) -> Result<SessionRef, CommandError> {
        let session = Box::new(session);
        self.ask(deadline, |reply| Command::Begin { cluster, session, reply }).await
    }

    /// See [`Command::Subscribe`].
    pub async fn subscribe(
        &self,
        target: Target,
        subscription: Subscription,
        deadline: Duration,
    ) -> Result<SessionRef, CommandError> {
        let subscription = Box::new(subscription);
        self.ask(deadline, |reply| Command::Subscribe { target, subscription, reply }).await
    }

    /// See [`Command::Unsubscribe`].
    pub async fn unsubscribe(
        &self,
        target: Target,
        filter: TopicFilter,
        deadline: Duration,
    ) -> Result<SessionRef, CommandError> {
        self.ask(deadline, |reply| Command::Unsubscribe { target, filter, reply }).await
    }

    /// See [`Command::Count`].
    pub async fn count(&self, cluster: ClusterId, deadline: Duration) -> Result<SessionCounts, CommandError> {
        self.ask(deadline, |reply| Command::Count { cluster, reply }).await
    }

    /// See [`Command::Traffic`].
    pub async fn traffic(
        &self,
        cluster: ClusterId,
        client_id: ClientId,
        deadline: Duration,
    ) -> Result<SessionTraffic, CommandError> {
        self.ask(deadline, |reply| Command::Traffic { cluster, client_id, reply }).await
    }

    /// See [`Command::Behind`].
    pub async fn behind(
        &self,
        cluster: ClusterId,
        clients: Vec<ClientId>,
        at_least: u32,
        deadline: Duration,
    ) -> Result<Vec<bool>, CommandError> {
        self.ask(deadline, |reply| Command::Behind { cluster, clients, at_least, reply }).await
    }

    /// See [`Command::Browse`].
    pub async fn browse(
        &self,
        cluster: ClusterId,
        request: BrowseRequest,
        deadline: Duration,
    ) -> Result<Browsed, CommandError> {
        self.ask(deadline, |reply| Command::Browse { cluster, request, reply }).await
    }

    /// See [`Command::Will`].
    pub async fn will(
        &self,
        cluster: ClusterId,
        client_id: ClientId,
        deadline: Duration,
    ) -> Result<Option<ShownWill>, CommandError> {
        self.ask(deadline, |reply| Command::Will { cluster, client_id, reply }).await
    }

    /// See [`Command::Groups`].
    pub async fn groups(
        &self,
        cluster: ClusterId,
        after: String,
        groups_max: usize,
        deadline: Duration,
    ) -> Result<Vec<GroupState>, CommandError> {
        self.ask(deadline, |reply| Command::Groups { cluster, after, groups_max, reply }).await
    }

    /// See [`Command::Group`].
    pub async fn group(
        &self,
        cluster: ClusterId,
        share: TopicFilter,
        deadline: Duration,
    ) -> Result<GroupDetail, CommandError> {
        self.ask(deadline, |reply| Command::Group { cluster, share, reply }).await
    }

    /// See [`Command::MoveGroup`].
    pub async fn move_group(
        &self,
        cluster: ClusterId,
        share: TopicFilter,
        to: GroupPlace,
        deadline: Duration,
    ) -> Result<Seq, CommandError> {
        self.ask(deadline, |reply| Command::MoveGroup { cluster, share, to, reply }).await
    }

    /// See [`Command::EndGroup`].
    pub async fn end_group(
        &self,
        cluster: ClusterId,
        share: TopicFilter,
        force: bool,
        deadline: Duration,
    ) -> Result<u32, CommandError> {
        self.ask(deadline, |reply| Command::EndGroup { cluster, share, force, reply }).await
    }

    /// See [`Command::CheckAdmission`].
    pub async fn check_admission(
        &self,
        cluster: ClusterId,
        question: AdmissionQuestion,
        deadline: Duration,
    ) -> Result<AdmissionVerdict, CommandError> {
        let question = Box::new(question);
        self.ask(deadline, |reply| Command::CheckAdmission { cluster, question, reply }).await
    }

    /// See [`Command::ClusterFigures`].
    pub async fn cluster_figures(&self, deadline: Duration) -> Result<Vec<ClusterFigures>, CommandError> {
        self.ask(deadline, |reply| Command::ClusterFigures { reply }).await
    }

    /// See [`Command::LogFigures`].
    pub async fn log_figures(&self, deadline: Duration) -> Result<LogFigures, CommandError> {
        self.ask(deadline, |reply| Command::LogFigures { reply }).await
    }

    /// See [`Command::AwaitRevision`].
    pub async fn await_revision(&self, revision: i64, deadline: Duration) -> Result<(), CommandError> {
        self.ask(deadline, |reply| Command::AwaitRevision { revision, reply }).await
    }

    /// See [`Command::AwaitExpulsions`].
    pub async fn await_expulsions(&self, cluster: ClusterId, deadline: Duration) -> Result<(), CommandError> {
        self.ask(deadline, |reply| Command::AwaitExpulsions { cluster, reply }).await
    }

    pub(super) async fn ask<T>(
        &self,
        deadline: Duration,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(reply)).await.map_err(|_| CommandError::Stopped)?;
            answer.await.map_err(|_| CommandError::Stopped)?
        };
        tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(CommandError::TimedOut))
    }
}
