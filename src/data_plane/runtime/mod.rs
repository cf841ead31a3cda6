//! IO. Sockets meet the state machines.
//!
//! - [`listener`] accepts, over TCP; each connection becomes a task.
//! - [`address_guard`] counts connections from one address.
//! - [`arrival`] is what is known of a connection before its CONNECT; [`proxy_protocol`], [`tls`],
//!   [`websocket`] and [`quic`] are what comes before that.
//! - [`greeting`] is the rest of what comes before a client is attached: its CONNECT is read, its cluster
//!   found ([`selection`]), its AUTH checked, or its chain asked who it is ([`authenticators`], [`authentication`]).
//! - [`connection`] moves bytes between a [`carrier`] and the worker: reads and decodes, and writes what the worker
//!   made; [`goodbye`] is how it ends.
//! - [`worker`] is the one task that owns every cluster: it alone decides.
//! - [`outbox`] holds a connection's bytes between the worker and the socket. Where there are few the worker writes
//!   them by itself.
//! - [`journal`] is the worker's end of the message log on disk; [`counting`] asks it how far behind somebody is.
//! - [`retention`] lets go of what nobody needs any longer there.
//! - [`refusals`] adds up what was refused and has it written down.
//! - [`records`] commits session records in groups and tells the worker.
//!
//! Everything that crosses between tasks has a bound: the worker's mailbox ([`MAILBOX_MAX`]
//! batches), an outbox (see [`outbox`]), a read buffer (see [`connection`]).

pub mod address_guard;
mod any_certificate;
pub mod arrival;
pub mod authentication;
pub mod authenticators;
mod carrier;
pub mod connection;
mod counting;
pub mod goodbye;
pub mod greeting;
pub mod journal;
pub mod listener;
pub mod outbox;
pub mod proxy_protocol;
pub mod quic;
pub mod records;
pub mod refusals;
pub mod retention;
pub mod selection;
pub mod tally;
pub mod tls;
pub mod websocket;
pub mod worker;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use address_guard::AddressGuard;
use arrival::OpenError;
use authentication::Authenticator;
use refusals::RefusalBook;
use tokio::sync::mpsc;
pub use worker::{Input, Worker};

use super::session::link::ConnId;
use crate::clock::Clock;
use crate::config::Hygiene;
use crate::seam::desired::DesiredReceiver;

/// How many batches may wait for the worker; connections then wait with reading.
pub const MAILBOX_MAX: usize = 4_096;

/// What every connection task needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where batches go.
    pub mailbox: mpsc::Sender<Input>,
    /// The clusters there are, and their users.
    pub desired: DesiredReceiver,
    /// Checks passwords.
    pub authenticator: Arc<Authenticator>,
    /// Where refusals are noted.
    pub refusals: Arc<RefusalBook>,
    /// What strangers may take.
    pub hygiene: Hygiene,
    addresses: Arc<AddressGuard>,
    /// Time, for deadlines.
    pub clock: Clock,
    last_conn: Arc<AtomicU64>,
}

impl Context {
    /// Feeds `mailbox`.
    pub fn new(
        mailbox: mpsc::Sender<Input>,
        desired: DesiredReceiver,
        authenticator: Arc<Authenticator>,
        refusals: Arc<RefusalBook>,
        hygiene: Hygiene,
        clock: Clock,
    ) -> Self {
        let addresses = Arc::new(AddressGuard::new(hygiene.address_rate_max));
        let last_conn = Arc::default();
        Self { mailbox, desired, authenticator, refusals, hygiene, addresses, clock, last_conn }
    }

    /// Counts a connection from an address, before anything is done for it.
    ///
    /// # Errors
    /// [`OpenError::TooMany`]: it comes too often.
    pub fn arrives(&self, from: IpAddr) -> Result<(), OpenError> {
        self.addresses.admits(self.clock.mono(), from).then_some(()).ok_or(OpenError::TooMany)
    }

    /// An id for a new connection.
    pub fn next_conn(&self) -> ConnId {
        ConnId(self.last_conn.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
