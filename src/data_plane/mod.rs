//! The MQTT broker.
//!
//! [`protocol`], [`session`], [`broker`], [`cluster`] and [`message_log`] are pure: they never await,
//! read a clock or hold a socket. [`runtime`] owns the sockets and drives them.
//! [`message_log::journal`] alone has files, and threads of its own to write and read them.
//!
//! A packet's way: `runtime::connection` reads bytes, `protocol` makes packets of them,
//! `runtime::worker` hands them to its `cluster`, which asks the `session` what they mean, the
//! `broker` whom they concern and the `message_log` to keep them; the answers go out the same way.

pub mod broker;
pub mod cluster;
pub mod message_log;
pub mod protocol;
pub mod runtime;
pub mod session;

use std::num::NonZeroU32;

/// The largest packet a client may send, in bytes (PRODUCT Q-9); told to v5 clients in CONNACK.
pub const PACKET_BYTES_MAX: NonZeroU32 = NonZeroU32::new(256 * 1_024).expect("not 0");
