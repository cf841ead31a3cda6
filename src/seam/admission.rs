//! Would this client get in? A question to the data plane that changes nothing.

use std::net::IpAddr;

use crate::model::{Epoch, ProtocolVersion, RefusalReason, SessionId};

/// A CONNECT that might come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionQuestion {
    /// The client id; empty where the server is to choose one.
    pub client_id: String,
    /// The user name, if one is given. Its password is taken to be right.
    pub username: Option<String>,
    /// What the client speaks.
    pub protocol: ProtocolVersion,
    /// Clean start, or clean session.
    pub clean_start: bool,
    /// The session expiry interval of a v5 client, in seconds.
    pub session_expiry_secs: Option<u32>,
    /// Where it comes from. No rule asks for it yet.
    pub ip: Option<IpAddr>,
    /// Whether it brings a will.
    pub has_will: bool,
}

/// What would become of it at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionVerdict {
    /// Whether it would be let in.
    pub outcome: Result<Admitted, NotAdmitted>,
    /// The session that its client id has.
    pub session: Option<KnownSession>,
}

/// The session of a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSession {
    /// Which.
    pub session_id: SessionId,
    /// Its attachment.
    pub epoch: Epoch,
    /// Whether it has a connection, which would be taken over.
    pub is_online: bool,
}

/// How it would be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whether the session would be resumed.
    pub session_present: bool,
    /// The session expiry that it would be granted, in seconds.
    pub session_expiry_secs: u32,
}

/// Why it would not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// The rule or the quota.
    pub reason: RefusalReason,
    /// The reason code of a v5 CONNACK.
    pub code_v5: u8,
    /// The return code of a 3.1 or 3.1.1 CONNACK.
    pub code_v3: u8,
    /// For people, as a v5 client is told it.
    pub detail: String,
    /// The limit and how much of it is in use, where it is one.
    pub measure: Option<Measure>,
}

/// A limit and how much of it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The limit.
    pub limit: u64,
    /// How much of it is in use.
    pub in_use: u64,
}
