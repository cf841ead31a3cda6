//! Which addresses a request may go to that a tenant has named (server-side request forgery, CWE-918).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where requests may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// To addresses that are the same machine for everybody: nothing of this machine, of its network or
    /// of its provider, such as the metadata service at 169.254.169.254.
    #[default]
    Public,
    /// Anywhere.
    Anywhere,
}

impl Reach {
    /// Whether a request may go to this address.
    pub fn allows(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Anywhere, _) => true,
            (Self::Public, IpAddr::V4(address)) => is_public_v4(address),
            (Self::Public, IpAddr::V6(address)) => is_public_v6(address),
        }
    }
}

/// The IANA registry of special-purpose addresses (RFC 6890), as far as a unicast request could leave by.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        // This network; private (RFC 1918); loopback; multicast, reserved and broadcast.
        (0 | 10 | 127 | 224.., _, _) | (172, 16..=31, _) | (192, 168, _)
            // Shared by carriers (RFC 6598).
            | (100, 64..=127, _)
            // Link-local: metadata services live there.
            | (169, 254, _)
            // Protocol assignments, documentation, 6to4 relays, benchmarks (RFC 2544).
            | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113)
    );
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_public_v4(inner);
    }
    let segments = address.segments();
    // Global unicast is 2000::/3; of it, documentation (RFC 3849, RFC 9637) and IETF assignments (RFC 2928).
    let is_documentation = (segments[0] == 0x2001 && segments[1] == 0x0db8) || segments[0] == 0x3fff;
    let is_assignment = segments[0] == 0x2001 && segments[1] < 0x0200;
    segments[0] & 0xe000 == 0x2000 && !is_documentation && !is_assignment
}

/// The IPv4 address that a packet to this IPv6 address ends up at: mapped, translated (RFC 6052), 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at =
        |begin: usize| Ipv4Addr::new(octets[begin], octets[begin + 1], octets[begin + 2], octets[begin + 3]);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(at(12)),
        [0x2002, ..] => Some(at(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_this_machine_or_its_network_is_public() {
        for inner in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "::7f00:1",
            "64:ff9b:1::1",
            "100::1",
        ] {
            let address = inner.parse().expect(inner);
            assert!(!Reach::Public.allows(address), "{inner}");
            assert!(Reach::Anywhere.allows(address), "{inner}");
        }
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
        ] {
            assert!(Reach::Public.allows(public.parse().expect(public)), "{public}");
        }
    }
}
