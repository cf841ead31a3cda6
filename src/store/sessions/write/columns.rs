//! Session rows as columns, and the statement that writes them.

use std::net::SocketAddr;

use sqlx::PgConnection;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::model::{ProtocolVersion, Transport};
use crate::seam::ports::SessionRow;
use crate::store::Result;

macro_rules! columns_of {
    ($of:literal: $first:ident $($column:ident)*) => {
        concat!($of, stringify!($first), $(", ", $of, stringify!($column)),*)
    };
}

/// The columns that a session's later writes may change: all of the data plane's but its names and
/// its beginning.
macro_rules! changing_columns {
    ($of:literal) => {
        columns_of!($of: epoch protocol clean_start username peer peer_ip listener transport keep_alive_secs
            receive_maximum packet_bytes_max expiry_client_secs expiry_bounded has_will connected_at
            disconnected_at disconnect_reason disconnect_by)
    };
}

macro_rules! put_columns {
    () => {
        concat!("session_id, cluster_id, client_id, created_at, ", changing_columns!(""))
    };
}

// A row that says nothing new is not written, so that a batch may be committed again without a new version.
const PUT: &str = concat!(
    "INSERT INTO sessions AS s (",
    put_columns!(),
    ", node, version) SELECT ",
    put_columns!(),
    ", $23, 1 FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::text[],
        $7::boolean[], $8::text[], $9::text[], $10::text[]::inet[], $11::text[], $12::text[],
        $13::integer[], $14::integer[], $15::bigint[], $16::bigint[], $17::boolean[], $18::boolean[],
        $19::timestamptz[], $20::timestamptz[], $21::text[], $22::text[]) AS n (",
    put_columns!(),
    ") ON CONFLICT (session_id) DO UPDATE SET (",
    changing_columns!(""),
    ", node, version) = (",
    changing_columns!("excluded."),
    ", excluded.node, s.version + 1) WHERE s.epoch <= excluded.epoch AND (",
    changing_columns!("s."),
    ") IS DISTINCT FROM (",
    changing_columns!("excluded."),
    ") RETURNING s.session_id"
);

/// Session rows turned into columns, as UNNEST takes them.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) session_id: Vec<Uuid>,
    pub(super) cluster_id: Vec<&'a str>,
    pub(super) client_id: Vec<&'a str>,
    epoch: Vec<i64>,
    protocol: Vec<Option<&'a str>>,
    clean_start: Vec<bool>,
    username: Vec<Option<&'a str>>,
    peer: Vec<Option<&'a str>>,
    peer_ip: Vec<Option<String>>,
    listener: Vec<Option<&'a str>>,
    transport: Vec<Option<&'a str>>,
    keep_alive_secs: Vec<i32>,
    receive_maximum: Vec<i32>,
    packet_bytes_max: Vec<Option<i64>>,
    expiry_client_secs: Vec<i64>,
    expiry_bounded: Vec<bool>,
    has_will: Vec<bool>,
    created_at: Vec<OffsetDateTime>,
    connected_at: Vec<Option<OffsetDateTime>>,
    disconnected_at: Vec<Option<OffsetDateTime>>,
    disconnect_reason: Vec<Option<&'a str>>,
    disconnect_by: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(rows: &[&'a SessionRow]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.push(row);
        }
        columns
    }

    fn push(&mut self, row: &'a SessionRow) {
        self.session_id.push(row.session_id.0);
        self.cluster_id.push(row.cluster.as_str());
        self.client_id.push(row.client_id.as_str());
        self.epoch.push(row.epoch.0.into());
        self.protocol.push(row.protocol.map(ProtocolVersion::as_str));
        self.clean_start.push(row.clean_start);
        self.username.push(row.username.as_deref());
        self.peer.push(row.peer.as_deref());
        self.peer_ip.push(row.peer.as_deref().and_then(ip_of));
        self.listener.push(row.listener.as_deref());
        self.transport.push(row.transport.map(Transport::as_str));
        self.keep_alive_secs.push(row.keep_alive_secs.into());
        self.receive_maximum.push(row.receive_maximum.into());
        self.packet_bytes_max.push(row.packet_bytes_max.map(i64::from));
        self.expiry_client_secs.push(row.expiry_client_secs.into());
        self.expiry_bounded.push(row.expiry_bounded);
        self.has_will.push(row.has_will);
        self.created_at.push(row.created_at.into());
        self.connected_at.push(row.connected_at.map(Into::into));
        self.disconnected_at.push(row.disconnected_at.map(Into::into));
        self.disconnect_reason.push(row.disconnect.as_ref().map(|cause| cause.reason.as_str()));
        self.disconnect_by.push(row.disconnect.as_ref().map(|cause| cause.by.as_str()));
    }

    /// Writes the rows and says which of them said something new.
    pub(super) async fn write(self, connection: &mut PgConnection, node: Option<&str>) -> Result<Vec<Uuid>> {
        let written = sqlx::query_scalar(PUT)
            .bind(self.session_id)
            .bind(self.cluster_id)
            .bind(self.client_id)
            .bind(self.created_at)
            .bind(self.epoch)
            .bind(self.protocol)
            .bind(self.clean_start)
            .bind(self.username)
            .bind(self.peer)
            .bind(self.peer_ip)
            .bind(self.listener)
            .bind(self.transport)
            .bind(self.keep_alive_secs)
            .bind(self.receive_maximum)
            .bind(self.packet_bytes_max)
            .bind(self.expiry_client_secs)
            .bind(self.expiry_bounded)
            .bind(self.has_will)
            .bind(self.connected_at)
            .bind(self.disconnected_at)
            .bind(self.disconnect_reason)
            .bind(self.disconnect_by)
            .bind(node)
            .fetch_all(connection)
            .await?;
        Ok(written)
    }
}

/// The address of a client's address and port, as Postgres reads it.
fn ip_of(peer: &str) -> Option<String> {
    peer.parse().ok().map(|peer: SocketAddr| peer.ip().to_string())
}
