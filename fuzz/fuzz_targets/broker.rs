//! A few clients that send any bytes at any time to a whole cluster. See `any_clients` for what is held.

#![no_main]

#[path = "../src/any_clients.rs"]
mod any_clients;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| any_clients::check(input));
