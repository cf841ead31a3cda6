//! Operations: what they are to do to which sessions, and how far they are.
//!
//! The targets are written down when an operation is made, each with the id of its session, and each gets its outcome
//! when it is done. So a restart goes on where it ended; what was done in the moment of the crash is
//! tried again and, the session being gone, noted as `gone`.

mod rows;

use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::events::NewEvent;
use super::sessions::SessionFilter;
use super::{Error, Result, Store, Tx};
use crate::model::{ClientId, ClusterId, EndOptions, Epoch, OperatorReason, SessionId, Timestamp};
use rows::{CommandColumns, NewColumns, OperationColumns, TargetColumns};

const INSERT: &str = "INSERT INTO operations (id, cluster_id, action, state, rate, actor, request_id, created_at, \
     will, reason, kind) VALUES ($1, $2, $3, 'running', $4, $5, $6, $7, $8, $9, $10)";

const GET: &str = "SELECT o.*, count(t.*) AS total, \
     count(*) FILTER (WHERE t.outcome IS NULL AND t.client_id IS NOT NULL) AS pending \
     FROM operations o LEFT JOIN operation_targets t ON t.operation_id = o.id WHERE o.id = $1 GROUP BY o.id";

const COUNTS: &str = "SELECT outcome, count(*) FROM operation_targets \
     WHERE operation_id = $1 AND outcome IS NOT NULL GROUP BY outcome ORDER BY outcome";

const RUNNING: &str = "SELECT id, cluster_id, action, rate, actor, request_id, will, reason FROM operations \
     WHERE state = 'running' AND kind = 'purge' ORDER BY created_at LIMIT 1";

const PENDING: &str = "SELECT client_id, session_id, epoch FROM operation_targets \
     WHERE operation_id = $1 AND outcome IS NULL ORDER BY client_id LIMIT $2";

const COMMANDS: &str = "SELECT o.id, o.cluster_id, o.action, o.rate, o.actor, o.request_id, o.will, o.reason, \
     t.client_id, t.session_id, t.epoch FROM operations o JOIN operation_targets t ON t.operation_id = o.id \
     WHERE o.state = 'running' AND o.kind = 'command' AND t.outcome IS NULL ORDER BY o.created_at LIMIT $1";

// What the data plane and the operator's own commands have written of the session, or of its attachment $5.
const ENDED_BY_OPERATOR: &str = "SELECT EXISTS (SELECT FROM session_events
    CROSS JOIN LATERAL (SELECT jsonb_build_object('kind', kind, 'detail', detail) AS said
        UNION ALL SELECT jsonb_array_elements(earlier)) e
    WHERE cluster_id = $1 AND client_id = $2 AND session_id = $3 AND CASE WHEN $4
        THEN said @> '{\"kind\": \"ended\", \"detail\": {\"reason\": \"deleted\"}}'
        ELSE said @> '{\"kind\": \"detached\", \"detail\": {\"by\": \"operator\"}}'
            AND ($5::bigint IS NULL OR epoch = $5)
    END)";

// One that has an outcome keeps it: it was cancelled meanwhile.
const DONE: &str = "UPDATE operation_targets t SET outcome = n.outcome \
     FROM UNNEST($2::text[], $3::text[]) AS n (client_id, outcome) \
     WHERE t.operation_id = $1 AND t.client_id = n.client_id AND t.outcome IS NULL";

const FINISH: &str =
    "UPDATE operations SET state = 'succeeded', finished_at = $2 WHERE id = $1 AND state = 'running'";

const CANCEL: &str =
    "UPDATE operations SET state = 'cancelled', finished_at = $2 WHERE id = $1 AND state = 'running'";

const CANCEL_TARGETS: &str =
    "UPDATE operation_targets SET outcome = 'cancelled' WHERE operation_id = $1 AND outcome IS NULL";

const TARGETS: &str = "SELECT client_id, session_id, outcome FROM operation_targets \
     WHERE operation_id = $1 AND client_id > $2 ORDER BY client_id LIMIT $3";

// Groups whose every session in the cluster is among those that go.
const ORPHANED: &str = "
    WITH going AS (SELECT unnest($2::uuid[]) AS session_id)
    SELECT DISTINCT b.filter FROM subscriptions b JOIN going USING (session_id)
    WHERE starts_with(b.filter, '$share/') AND NOT EXISTS (
        SELECT FROM subscriptions o JOIN sessions s ON s.session_id = o.session_id
        WHERE o.topic_filter = b.topic_filter AND o.filter = b.filter AND s.cluster_id = $1
            AND (s.expires_at IS NULL OR s.expires_at > $3)
            AND o.session_id NOT IN (SELECT session_id FROM going))
    ORDER BY b.filter LIMIT 100";

const FORGET: &str = "DELETE FROM operations WHERE id IN \
     (SELECT id FROM operations WHERE finished_at <= $1 LIMIT $2)";

/// What an operation does to each of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeAction {
    /// Ends the connection, keeps the session.
    Disconnect,
    /// Ends the session.
    Delete,
}

impl PurgeAction {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Delete => "delete",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let found = [Self::Disconnect, Self::Delete].into_iter().find(|action| action.as_str() == text);
        found.ok_or_else(|| Error::unreadable(format!("action {text:?}")))
    }
}

/// An operation that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOperation {
    /// Its id.
    pub id: Uuid,
    /// The cluster.
    pub cluster: ClusterId,
    /// What it does.
    pub action: PurgeAction,
    /// Sessions a second at most.
    pub rate: Option<u32>,
    /// Who ordered it.
    pub actor: String,
    /// In which request.
    pub request_id: String,
    /// What becomes of the wills, and why it is done.
    pub options: EndOptions,
}

/// An operation on one session that a request did not wait out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningCommand {
    /// The operation.
    pub operation: NewOperation,
    /// The session.
    pub target: PendingTarget,
}

/// An operation, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it was made of.
    pub new: NewOperation,
    /// `running`, `succeeded` or `cancelled`.
    pub state: String,
    /// When it was ordered.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How many sessions it is about.
    pub total: u64,
    /// How many are still to be done.
    pub pending: u64,
    /// How many have which outcome.
    pub outcomes: Vec<(String, u64)>,
}

/// One session of an operation that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingTarget {
    /// The client.
    pub client_id: ClientId,
    /// The session, if it is still that.
    pub session_id: SessionId,
    /// The attachment that is meant; `None` for any.
    pub epoch: Option<Epoch>,
}

/// One session of an operation: the client, the session, and its outcome once it is done.
pub type TargetOutcome = (ClientId, SessionId, Option<String>);

impl Store {
    /// Sessions that the filter lets through, or those of these clients: at most `limit`.
    pub async fn purge_targets(
        &self,
        cluster: &ClusterId,
        filter: &SessionFilter,
        clients: Option<&[ClientId]>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionId>> {
        let matching = self.matching_filters(filter).await?;
        let mut query = QueryBuilder::new("SELECT s.session_id FROM sessions s WHERE ");
        filter.narrow(&mut query, cluster, matching, now);
        if let Some(clients) = clients {
            let clients: Vec<String> = clients.iter().map(ToString::to_string).collect();
            query.push(" AND s.client_id = ANY(").push_bind(clients).push(")");
        }
        query.push(" ORDER BY s.client_id LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<Uuid> = query.build_query_scalar().fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(SessionId).collect())
    }

    /// Shared subscriptions that would lose their last session with these.
    pub async fn orphaned_groups(
        &self,
        cluster: &ClusterId,
        sessions: &[SessionId],
        now: Timestamp,
    ) -> Result<Vec<String>> {
        let sessions: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let query = sqlx::query_scalar(ORPHANED).bind(cluster.as_str()).bind(sessions);
        Ok(query.bind(OffsetDateTime::from(now)).fetch_all(&self.pool).await?)
    }

    /// An operation, and how far it is.
    pub async fn get_operation(&self, id: Uuid) -> Result<Option<Operation>> {
        self.begin().await?.get_operation(id).await
    }

    /// The sessions of an operation with client ids above `after`, in their order.
    pub async fn operation_targets(
        &self,
        id: Uuid,
        after: Option<&ClientId>,
        limit: u32,
    ) -> Result<Vec<TargetOutcome>> {
        let query = sqlx::query_as(TARGETS).bind(id).bind(after.map_or("", ClientId::as_str));
        let rows: Vec<(String, Uuid, Option<String>)> =
            query.bind(i64::from(limit)).fetch_all(&self.pool).await?;
        let target = |(client, session, outcome): (String, Uuid, Option<String>)| {
            Ok((ClientId::new(&client).map_err(Error::unreadable)?, SessionId(session), outcome))
        };
        rows.into_iter().map(target).collect()
    }

    /// The oldest operation that runs.
    pub async fn running_operation(&self) -> Result<Option<NewOperation>> {
        let row: Option<NewColumns> = sqlx::query_as(RUNNING).fetch_optional(&self.pool).await?;
        row.map(NewOperation::try_from).transpose()
    }

    /// The oldest `limit` operations on one session that have no outcome yet.
    pub async fn running_commands(&self, limit: u32) -> Result<Vec<RunningCommand>> {
        let rows: Vec<CommandColumns> =
            sqlx::query_as(COMMANDS).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        let command = |row: CommandColumns| {
            Ok(RunningCommand { operation: row.operation.try_into()?, target: row.target.try_into()? })
        };
        rows.into_iter().map(command).collect()
    }

    /// Whether an operator has ended this session (`delete`), or its connection of that epoch, as its history
    /// has it.
    pub async fn ended_by_operator(&self, operation: &NewOperation, target: &PendingTarget) -> Result<bool> {
        let ended = sqlx::query_scalar(ENDED_BY_OPERATOR)
            .bind(operation.cluster.as_str())
            .bind(target.client_id.as_str())
            .bind(target.session_id.0)
            .bind(operation.action == PurgeAction::Delete)
            .bind(target.epoch.map(|epoch| i64::from(epoch.0)))
            .fetch_one(&self.pool)
            .await?;
        Ok(ended)
    }

    /// The next `limit` sessions that are to be done.
    pub async fn pending_targets(&self, id: Uuid, limit: u32) -> Result<Vec<PendingTarget>> {
        let rows: Vec<TargetColumns> =
            sqlx::query_as(PENDING).bind(id).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        rows.into_iter().map(PendingTarget::try_from).collect()
    }

    /// Notes what became of sessions, and the events that tell who did it; and at `finished` that the operation
    /// is through.
    pub async fn targets_done(
        &self,
        id: Uuid,
        outcomes: &[(ClientId, &str)],
        events: &[NewEvent],
        finished: Option<Timestamp>,
    ) -> Result<()> {
        let (clients, words): (Vec<&str>, Vec<&str>) =
            outcomes.iter().map(|(client, word)| (client.as_str(), *word)).unzip();
        let mut tx = self.begin().await?;
        sqlx::query(DONE).bind(id).bind(clients).bind(words).execute(&mut *tx.transaction).await?;
        if let Some(at) = finished {
            let query = sqlx::query(FINISH).bind(id).bind(OffsetDateTime::from(at));
            query.execute(&mut *tx.transaction).await?;
        }
        tx.add_events(events).await?;
        tx.commit().await
    }

    /// Says that an operation is through.
    pub async fn finish_operation(&self, id: Uuid, now: Timestamp) -> Result<()> {
        sqlx::query(FINISH).bind(id).bind(OffsetDateTime::from(now)).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets up to `limit` operations that ended before `until`, and says how many that were.
    pub async fn forget_operations(&self, until: Timestamp, limit: u32) -> Result<u64> {
        let until = OffsetDateTime::from(until);
        let done = sqlx::query(FORGET).bind(until).bind(i64::from(limit)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

impl Tx {
    /// An operation, and how far it is, as this transaction has made it.
    pub async fn get_operation(&mut self, id: Uuid) -> Result<Option<Operation>> {
        let connection = &mut *self.transaction;
        let row: Option<OperationColumns> =
            sqlx::query_as(GET).bind(id).fetch_optional(&mut *connection).await?;
        let Some(row) = row else { return Ok(None) };
        let counts: Vec<(String, i64)> = sqlx::query_as(COUNTS).bind(id).fetch_all(connection).await?;
        row.with_outcomes(counts).map(Some)
    }

    /// Makes an operation on these sessions, as far as they still exist, and says on how many.
    pub async fn insert_operation(
        &mut self,
        new: &NewOperation,
        sessions: &[SessionId],
        now: Timestamp,
    ) -> Result<u64> {
        const TARGETS: &str = "INSERT INTO operation_targets (operation_id, client_id, session_id) \
             SELECT $1, client_id, session_id FROM sessions WHERE session_id = ANY($2)";
        self.insert(new, "purge", now).await?;
        let sessions: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let query = sqlx::query(TARGETS).persistent(false).bind(new.id).bind(sessions);
        Ok(query.execute(&mut *self.transaction).await?.rows_affected())
    }

    /// The clients whose sessions an operation is about.
    pub async fn operation_clients(&mut self, id: Uuid) -> Result<Vec<ClientId>> {
        const CLIENTS: &str = "SELECT client_id FROM operation_targets WHERE operation_id = $1";
        let rows: Vec<String> =
            sqlx::query_scalar(CLIENTS).bind(id).fetch_all(&mut *self.transaction).await?;
        rows.iter().map(|client| ClientId::new(client).map_err(Error::unreadable)).collect()
    }

    /// Makes an operation on this one session, whether or not it still exists.
    pub async fn insert_command(
        &mut self,
        new: &NewOperation,
        target: &PendingTarget,
        now: Timestamp,
    ) -> Result<()> {
        const TARGET: &str = "INSERT INTO operation_targets (operation_id, client_id, session_id, epoch) \
             VALUES ($1, $2, $3, $4)";
        self.insert(new, "command", now).await?;
        let query = sqlx::query(TARGET).bind(new.id).bind(target.client_id.as_str());
        let epoch = target.epoch.map(|epoch| i64::from(epoch.0));
        query.bind(target.session_id.0).bind(epoch).execute(&mut *self.transaction).await?;
        Ok(())
    }

    async fn insert(&mut self, new: &NewOperation, kind: &'static str, now: Timestamp) -> Result<()> {
        sqlx::query(INSERT)
            .bind(new.id)
            .bind(new.cluster.as_str())
            .bind(new.action.as_str())
            .bind(new.rate.map(i64::from))
            .bind(&new.actor)
            .bind(&new.request_id)
            .bind(OffsetDateTime::from(now))
            .bind(new.options.will.as_str())
            .bind(new.options.reason.as_ref().map(OperatorReason::as_str))
            .bind(kind)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Ends an operation that runs; what is not done yet is not done. Says whether it ran.
    pub async fn cancel_operation(&mut self, id: Uuid, now: Timestamp) -> Result<bool> {
        let query = sqlx::query(CANCEL).bind(id).bind(OffsetDateTime::from(now));
        let ran = query.execute(&mut *self.transaction).await?.rows_affected() > 0;
        if ran {
            sqlx::query(CANCEL_TARGETS).bind(id).execute(&mut *self.transaction).await?;
        }
        Ok(ran)
    }
}
