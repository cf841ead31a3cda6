//! How many connections a second may come from one address (off unless it is set).
//!
//! Asked as soon as the address is known and before anything is done for the connection: before TLS; behind
//! a proxy, after its header. A network of IPv6 (64 bits) counts as one address: whoever has one has all of it.
//! What is remembered has a bound; beyond it, addresses are let in that were not seen before.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use parking_lot::Mutex;

use crate::data_plane::broker::bucket::Bucket;
use crate::model::Monotonic;

/// How many addresses are remembered: some MiB.
const ADDRESSES_MAX: usize = 65_536;

/// How often it is looked which of them are quiet again, when there are too many.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who has come how often.
#[derive(Debug, Default)]
pub struct AddressGuard {
    /// Connections a second; `None` for no bound.
    rate: Option<NonZeroU32>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpAddr, Bucket>,
    looked_at: Monotonic,
}

impl AddressGuard {
    /// Lets so many connections a second in from each address.
    pub fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, state: Mutex::default() }
    }

    /// Counts a connection; whether it may go on.
    pub fn admits(&self, now: Monotonic, address: IpAddr) -> bool {
        let Some(rate) = self.rate else { return true };
        let address = network(address);
        let mut state = self.state.lock();
        state.make_room(rate.get(), now);
        if state.addresses.len() >= ADDRESSES_MAX && !state.addresses.contains_key(&address) {
            return true;
        }
        state.addresses.entry(address).or_default().take(Some(rate.get()), now, 1).is_ok()
    }
}

impl State {
    fn make_room(&mut self, rate: u32, now: Monotonic) {
        if self.addresses.len() >= ADDRESSES_MAX && now.since(self.looked_at) >= LOOK_EVERY {
            self.looked_at = now;
            self.addresses.retain(|_, bucket| !bucket.is_full(rate, now));
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn an_address_has_its_rate_and_others_theirs() {
        let guard = AddressGuard::new(NonZeroU32::new(2));
        let admits = |millis, text: &str| guard.admits(at(millis), ip(text));
        assert!(admits(0, "192.0.2.1") && admits(0, "192.0.2.1") && !admits(0, "192.0.2.1"));
        assert!(!admits(0, "::ffff:192.0.2.1"), "the same address");
        assert!(admits(0, "192.0.2.2"));
        assert!(!admits(499, "192.0.2.1") && admits(500, "192.0.2.1"));
        assert!(admits(0, "2001:db8::1") && admits(0, "2001:db8::2") && !admits(0, "2001:db8::3"));
        assert!(admits(0, "2001:db8:0:1::1"));
        let off = AddressGuard::default();
        assert!((0..1_000).all(|_| off.admits(at(0), ip("192.0.2.1"))));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let guard = AddressGuard::new(NonZeroU32::new(1));
        for n in 0..u32::try_from(ADDRESSES_MAX).expect("small") {
            assert!(guard.admits(at(5_000), IpAddr::V4(n.into())));
        }
        assert!(guard.admits(at(5_000), ip("192.0.2.1")) && guard.admits(at(5_000), ip("192.0.2.1")));
        assert!(!guard.admits(at(5_000), IpAddr::V4(7.into())));
        assert!(guard.admits(at(7_000), ip("192.0.2.1")) && !guard.admits(at(7_000), ip("192.0.2.1")));
        assert_eq!(guard.state.lock().addresses.len(), 1);
    }
}
