//! Operations and their targets as Postgres gives them.

use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{NewOperation, Operation, PendingTarget, PurgeAction};
use crate::model::{
    ClientId, ClusterId, EndOptions, Epoch, OperatorReason, SessionId, Timestamp, WillChoice,
};
use crate::store::{Error, Result};

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct OperationColumns {
    #[sqlx(flatten)]
    new: NewColumns,
    state: String,
    created_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    #[sqlx(try_from = "i64")]
    total: u64,
    #[sqlx(try_from = "i64")]
    pending: u64,
}

impl OperationColumns {
    pub(super) fn with_outcomes(self, counts: Vec<(String, i64)>) -> Result<Operation> {
        let count = |(word, n): (String, i64)| Ok((word, u64::try_from(n).map_err(Error::unreadable)?));
        Ok(Operation {
            new: self.new.try_into()?,
            state: self.state,
            created_at: self.created_at.into(),
            finished_at: self.finished_at.map(Timestamp::from),
            total: self.total,
            pending: self.pending,
            outcomes: counts.into_iter().map(count).collect::<Result<_>>()?,
        })
    }
}

/// What an operation was made of, as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct NewColumns {
    id: Uuid,
    cluster_id: String,
    action: String,
    rate: Option<i64>,
    actor: String,
    request_id: String,
    will: String,
    reason: Option<String>,
}

impl TryFrom<NewColumns> for NewOperation {
    type Error = Error;

    fn try_from(row: NewColumns) -> Result<Self> {
        let will = WillChoice::parse(&row.will);
        let will = will.ok_or_else(|| Error::unreadable(format!("choice of will {:?}", row.will)))?;
        let reason = row.reason.map(|text| OperatorReason::new(&text)).transpose();
        Ok(Self {
            id: row.id,
            cluster: ClusterId::new(&row.cluster_id).map_err(Error::unreadable)?,
            action: PurgeAction::parse(&row.action)?,
            rate: row.rate.map(u32::try_from).transpose().map_err(Error::unreadable)?,
            actor: row.actor,
            request_id: row.request_id,
            options: EndOptions { will, reason: reason.map_err(Error::unreadable)? },
        })
    }
}

/// A session of an operation, as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct TargetColumns {
    client_id: String,
    session_id: Uuid,
    epoch: Option<i64>,
}

impl TryFrom<TargetColumns> for PendingTarget {
    type Error = Error;

    fn try_from(row: TargetColumns) -> Result<Self> {
        let epoch = row.epoch.map(u32::try_from).transpose().map_err(Error::unreadable)?;
        Ok(Self {
            client_id: ClientId::new(&row.client_id).map_err(Error::unreadable)?,
            session_id: SessionId(row.session_id),
            epoch: epoch.map(Epoch),
        })
    }
}

/// An operation on one session, as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct CommandColumns {
    #[sqlx(flatten)]
    pub(super) operation: NewColumns,
    #[sqlx(flatten)]
    pub(super) target: TargetColumns,
}
