//! The part of the data plane that is fuzzed.

#[path = "../../src/data_plane/protocol/mod.rs"]
pub mod protocol;
