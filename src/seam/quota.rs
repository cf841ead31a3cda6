//! What the control plane asks of the data plane when a quota is lowered below what is used.
//!
//! Only the data plane knows exactly how much is used, and only it can decide without a CONNECT slipping in between.

use std::time::Duration;

use super::command::{Command, CommandError, DataPlane, Reply, SessionRef};
use crate::model::{ClientId, ClusterId, Quota, SessionCounts};

/// One command about a cluster's quota.
#[derive(Debug)]
pub enum QuotaCommand {
    /// Say how much is used, exactly, by the clock.
    Measure {
        /// Which cluster.
        cluster: ClusterId,
        /// Where the answer goes.
        reply: Reply<QuotaUse>,
    },
    /// Enforce these limits if what is used fits them, and nothing otherwise. They hold until the next desired
    /// state of the cluster, or [`QuotaCommand::Leave`].
    Try {
        /// Which cluster.
        cluster: ClusterId,
        /// The limits.
        quota: Box<Quota>,
        /// Where the answer goes.
        reply: Reply<Fit>,
    },
    /// What was tried is not to be: the desired state holds again.
    Leave {
        /// Which cluster.
        cluster: ClusterId,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Say which sessions would end, and end none.
    Foresee {
        /// Which cluster.
        cluster: ClusterId,
        /// Which sessions.
        order: ShedOrder,
        /// Where the answer goes.
        reply: Reply<Shed>,
    },
    /// End sessions until no more than the limit are left. Answered when their sockets are closed and their
    /// records gone.
    Shed {
        /// Which cluster.
        cluster: ClusterId,
        /// Which sessions.
        order: ShedOrder,
        /// Where the answer goes.
        reply: Reply<Shed>,
    },
}

/// How much is used of what a quota limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUse {
    /// Sessions.
    pub sessions: SessionCounts,
    /// Share names.
    pub shared_groups: u32,
    /// What messages take in the message log, in bytes.
    pub log_bytes: u64,
}

/// How much is used of what a quota limits, and whether that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Sessions.
    pub sessions: SessionCounts,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Share names.
    pub shared_groups: u32,
    /// Whether all are within the limits.
    pub fits: bool,
}

/// Which sessions end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedFirst {
    /// Those that began last, with or without a connection.
    Newest,
    /// Of those without a connection the ones that have been so longest; none that has one.
    OldestOffline,
}

/// Which sessions are to end. Those that are protected never do.
#[derive(Clone, Copy, Debug)]
pub struct ShedOrder {
    /// How many may be left.
    pub limit: u32,
    /// Which end first.
    pub first: ShedFirst,
    /// How many end at most by this one command.
    pub most: usize,
}

/// What became, or would become, of the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// How many sessions there were above the limit.
    pub over: u32,
    /// The sessions that end, first ones first.
    pub sessions: Vec<(ClientId, SessionRef)>,
}

impl DataPlane {
    /// See [`QuotaCommand::Measure`].
    pub async fn quota_use(&self, cluster: ClusterId, deadline: Duration) -> Result<QuotaUse, CommandError> {
        self.ask(deadline, |reply| Command::Quota(QuotaCommand::Measure { cluster, reply })).await
    }

    /// See [`QuotaCommand::Try`].
    pub async fn try_quota(
        &self,
        cluster: ClusterId,
        quota: Quota,
        deadline: Duration,
    ) -> Result<Fit, CommandError> {
        let quota = Box::new(quota);
        self.ask(deadline, |reply| Command::Quota(QuotaCommand::Try { cluster, quota, reply })).await
    }

    /// See [`QuotaCommand::Leave`].
    pub async fn leave_quota(&self, cluster: ClusterId, deadline: Duration) -> Result<(), CommandError> {
        self.ask(deadline, |reply| Command::Quota(QuotaCommand::Leave { cluster, reply })).await
    }

    /// See [`QuotaCommand::Foresee`].
    pub async fn foresee_shed(
        &self,
        cluster: ClusterId,
        order: ShedOrder,
        deadline: Duration,
    ) -> Result<Shed, CommandError> {
        self.ask(deadline, |reply| Command::Quota(QuotaCommand::Foresee { cluster, order, reply })).await
    }

    /// See [`QuotaCommand::Shed`].
    pub async fn shed(
        &self,
        cluster: ClusterId,
        order: ShedOrder,
        deadline: Duration,
    ) -> Result<Shed, CommandError> {
        self.ask(deadline, |reply| Command::Quota(QuotaCommand::Shed { cluster, order, reply })).await
    }
}
