//! The part of the data plane that is fuzzed.

use std::num::NonZeroU32;

#[path = "../../src/data_plane/broker/mod.rs"]
pub mod broker;
#[path = "../../src/data_plane/cluster/mod.rs"]
pub mod cluster;
#[path = "../../src/data_plane/message_log/mod.rs"]
pub mod message_log;
#[path = "../../src/data_plane/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/data_plane/session/mod.rs"]
pub mod session;

/// The largest packet a client may send, in bytes.
pub const PACKET_BYTES_MAX: NonZeroU32 = NonZeroU32::new(256 * 1_024).expect("not 0");
