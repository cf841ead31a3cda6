//! What a stranger may take of the process before it is known: bounds of the process, not of a cluster.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{ConfigError, SettingsFile};

/// Bounds for clients that are not known yet.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Strangers")]
pub struct HygieneFlags {
    /// Seconds from the first byte of a connection until its client is known, 1 to 300; TLS, WebSocket,
    /// CONNECT and AUTH included [default: 10]
    #[arg(long, env = "HOLDFAST_CONNECT_WITHIN", value_name = "SECONDS", value_parser = connect_within)]
    pub connect_within: Option<u32>,
    /// The largest CONNECT that is read, in bytes, 256 to 65536 [default: 65536]
    #[arg(long, env = "HOLDFAST_CONNECT_BYTES_MAX", value_name = "BYTES", value_parser = connect_bytes_max)]
    pub connect_bytes_max: Option<u32>,
    /// New connections a second from one address (of IPv6: from one network of 64 bits), over all
    /// listeners; further ones are closed at once; 0 for no bound [default: 0]
    #[arg(long, env = "HOLDFAST_ADDRESS_RATE_MAX", value_name = "N", value_parser = address_rate_max)]
    pub address_rate_max: Option<u32>,
    /// TLS handshakes at once, over all listeners; further ones wait their turn [default: 256]
    #[arg(long, env = "HOLDFAST_TLS_HANDSHAKES_MAX", value_name = "N", value_parser = tls_handshakes_max)]
    pub tls_handshakes_max: Option<u32>,
}

/// Bounds for clients that are not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hygiene {
    /// How long a connection may take from its first byte until its client is known.
    pub connect_within: Duration,
    /// The largest packet of a client that was not let in yet, in bytes.
    pub connect_bytes_max: u32,
    /// New connections a second from one address; `None` for no bound.
    pub address_rate_max: Option<NonZeroU32>,
    /// How many TLS handshakes there are at once.
    pub tls_handshakes_max: usize,
}

impl Default for Hygiene {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(10),
            connect_bytes_max: Self::CONNECT_BYTES_MAX,
            address_rate_max: None,
            tls_handshakes_max: Self::TLS_HANDSHAKES_MAX,
        }
    }
}

impl Hygiene {
    /// The most that `connect_bytes_max` may be: all that an unknown peer can make us keep.
    pub const CONNECT_BYTES_MAX: u32 = 64 * 1_024;

    /// Each costs about a millisecond of a core, so that more of them would only all be late.
    pub const TLS_HANDSHAKES_MAX: usize = 256;
}

fn within(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}

fn connect_within(text: &str) -> Result<u32, String> {
    within(text, 1..=300)
}

fn connect_bytes_max(text: &str) -> Result<u32, String> {
    within(text, 256..=Hygiene::CONNECT_BYTES_MAX)
}

fn address_rate_max(text: &str) -> Result<u32, String> {
    within(text, 0..=1_000_000)
}

fn tls_handshakes_max(text: &str) -> Result<u32, String> {
    within(text, 1..=100_000)
}

impl HygieneFlags {
    /// Flag, else file, else default.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<Hygiene, ConfigError> {
        let default = Hygiene::default();
        let secs = file.text("connect-within", connect_within)?;
        let bytes = file.text("connect-bytes-max", connect_bytes_max)?;
        let rate = file.text("address-rate-max", address_rate_max)?;
        let handshakes = file.text("tls-handshakes-max", tls_handshakes_max)?;
        let secs = self.connect_within.or(secs);
        let handshakes = self.tls_handshakes_max.or(handshakes);
        Ok(Hygiene {
            connect_within: secs.map_or(default.connect_within, |secs| Duration::from_secs(secs.into())),
            connect_bytes_max: self.connect_bytes_max.or(bytes).unwrap_or(default.connect_bytes_max),
            address_rate_max: self.address_rate_max.or(rate).and_then(NonZeroU32::new),
            tls_handshakes_max: handshakes
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(default.tls_handshakes_max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: HygieneFlags, file: &str) -> Result<Hygiene, String> {
        let mut file = SettingsFile::parse("f".into(), file).expect("TOML");
        flags.resolve(&mut file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_the_default() {
        assert_eq!(resolve(HygieneFlags::default(), ""), Ok(Hygiene::default()));
        let file = "connect-within = '3'\nconnect-bytes-max = '512'\naddress-rate-max = '7'\n\
                    tls-handshakes-max = '2'";
        let expected = Hygiene {
            connect_within: Duration::from_secs(3),
            connect_bytes_max: 512,
            address_rate_max: NonZeroU32::new(7),
            tls_handshakes_max: 2,
        };
        assert_eq!(resolve(HygieneFlags::default(), file), Ok(expected));
        let flags = HygieneFlags { address_rate_max: Some(0), ..HygieneFlags::default() };
        assert_eq!(resolve(flags, file), Ok(Hygiene { address_rate_max: None, ..expected }));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_what_is_allowed() {
        for (file, expected) in [
            ("connect-within = '0'", "from 1 to 300"),
            ("connect-bytes-max = '65537'", "from 256 to 65536"),
            ("address-rate-max = '-1'", "from 0 to 1000000"),
            ("tls-handshakes-max = '0'", "from 1 to 100000"),
        ] {
            let said = resolve(HygieneFlags::default(), file).expect_err(file);
            assert!(said.ends_with(expected), "{said}");
        }
    }
}
