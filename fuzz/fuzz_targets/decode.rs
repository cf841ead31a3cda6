//! Any bytes to the decoder of either side, in any version and cut anyhow. See `any_bytes` for what is held.

#![no_main]

#[path = "../src/any_bytes.rs"]
mod any_bytes;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| any_bytes::check(input));
