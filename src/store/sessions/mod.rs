//! Session records: one row for each session, one session for each client of a cluster.
//!
//! Two writers share a row and never a column: the data plane writes by batches ([`mod@write`]), an
//! operator's order comes through [`Tx`](super::Tx) ([`records`]). What follows from both,
//! `expires_at`, is a generated column.

mod filter;
mod load;
mod records;
mod write;

use std::collections::BTreeMap;

use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use super::{Error, Result};
use crate::model::{
    ClientId, ClusterId, DisconnectCause, EndedBy, Epoch, OperatorExpiry, ProtocolVersion, SessionExpiry,
    SessionId, SessionState, Timestamp, Transport,
};
use crate::seam::ports::SessionRow;

pub use filter::{Network, SessionFilter};
pub use records::{CountBy, SessionCount, SessionCounted};

/// A session as an operator sees it, as far as its row tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// The data plane's part.
    pub row: SessionRow,
    /// The operator's order about its expiry.
    pub operator_expiry: Option<OperatorExpiry>,
    /// The operator's own marks.
    pub labels: BTreeMap<String, String>,
    /// Whether deleting it is refused.
    pub protected: bool,
    /// When it expires; `None` while online.
    pub expires_at: Option<Timestamp>,
    /// How many subscriptions it has.
    pub subscription_count: u32,
    /// The node that has its connection, or had the last one.
    pub node: Option<String>,
    /// Counts the writes to the row; the record's `ETag`. Subscriptions do not count.
    pub version: i64,
}

impl SessionRecord {
    /// Whether a connection is attached.
    pub fn state(&self) -> SessionState {
        match self.row.disconnected_at {
            None => SessionState::Online,
            Some(_) => SessionState::Offline,
        }
    }

    /// How long it outlives its connection, and who decided that.
    pub fn expiry(&self) -> SessionExpiry {
        SessionExpiry {
            client_secs: self.row.expiry_client_secs,
            bounded_by_cluster: self.row.expiry_bounded,
            operator: self.operator_expiry,
        }
    }
}

/// The columns of [`SessionColumns`], of a table called `s`.
macro_rules! session_columns {
    () => {
        "s.session_id, s.cluster_id, s.client_id, s.epoch, s.protocol, s.clean_start, s.username, s.peer, \
         s.listener, s.transport, s.keep_alive_secs, s.receive_maximum, s.packet_bytes_max, \
         s.expiry_client_secs, s.expiry_bounded, s.has_will, s.created_at, s.connected_at, \
         s.disconnected_at, s.disconnect_reason, s.disconnect_by, s.expiry_override_secs, \
         s.expiry_override_at, s.labels, s.protected, s.expires_at, s.version, s.node"
    };
}
use session_columns;

/// A row as Postgres gives it.
#[allow(clippy::struct_excessive_bools)] // the table's columns
#[derive(sqlx::FromRow)]
struct SessionColumns {
    session_id: Uuid,
    cluster_id: String,
    client_id: String,
    #[sqlx(try_from = "i64")]
    epoch: u32,
    protocol: Option<String>,
    clean_start: bool,
    username: Option<String>,
    peer: Option<String>,
    listener: Option<String>,
    transport: Option<String>,
    #[sqlx(try_from = "i32")]
    keep_alive_secs: u16,
    #[sqlx(try_from = "i32")]
    receive_maximum: u16,
    packet_bytes_max: Option<i64>,
    #[sqlx(try_from = "i64")]
    expiry_client_secs: u32,
    expiry_bounded: bool,
    has_will: bool,
    created_at: OffsetDateTime,
    connected_at: Option<OffsetDateTime>,
    disconnected_at: Option<OffsetDateTime>,
    disconnect_reason: Option<String>,
    disconnect_by: Option<String>,
    expiry_override_secs: Option<i64>,
    expiry_override_at: Option<OffsetDateTime>,
    labels: Json<BTreeMap<String, String>>,
    protected: bool,
    expires_at: Option<OffsetDateTime>,
    version: i64,
    node: Option<String>,
}

impl SessionColumns {
    fn operator_expiry(&self) -> Result<Option<OperatorExpiry>> {
        let at = self.expiry_override_at.map(|at| OperatorExpiry::At(at.into()));
        let interval = self.expiry_override_secs.map(u32::try_from).transpose().map_err(Error::unreadable)?;
        Ok(at.or(interval.map(OperatorExpiry::Interval)))
    }

    fn into_row(self) -> Result<SessionRow> {
        let disconnect = match self.disconnect_reason.zip(self.disconnect_by) {
            Some((reason, by)) => {
                let by = EndedBy::parse(&by).ok_or_else(|| unknown_word("disconnect_by", &by))?;
                Some(DisconnectCause { reason, by })
            }
            None => None,
        };
        Ok(SessionRow {
            cluster: ClusterId::new(&self.cluster_id).map_err(Error::unreadable)?,
            client_id: ClientId::new(&self.client_id).map_err(Error::unreadable)?,
            session_id: SessionId(self.session_id),
            epoch: Epoch(self.epoch),
            protocol: parsed("protocol", self.protocol, ProtocolVersion::parse)?,
            clean_start: self.clean_start,
            username: self.username,
            peer: self.peer,
            listener: self.listener,
            transport: parsed("transport", self.transport, Transport::parse)?,
            keep_alive_secs: self.keep_alive_secs,
            receive_maximum: self.receive_maximum,
            packet_bytes_max: self
                .packet_bytes_max
                .map(u32::try_from)
                .transpose()
                .map_err(Error::unreadable)?,
            expiry_client_secs: self.expiry_client_secs,
            expiry_bounded: self.expiry_bounded,
            has_will: self.has_will,
            created_at: self.created_at.into(),
            connected_at: self.connected_at.map(Into::into),
            disconnected_at: self.disconnected_at.map(Into::into),
            disconnect,
        })
    }
}

/// A word of a column that may be null.
fn parsed<T>(column: &str, text: Option<String>, parse: fn(&str) -> Option<T>) -> Result<Option<T>> {
    text.map(|text| parse(&text).ok_or_else(|| unknown_word(column, &text))).transpose()
}

fn unknown_word(column: &str, text: &str) -> Error {
    Error::unreadable(format!("session column {column}: {text:?}"))
}
