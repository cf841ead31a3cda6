//! Two clocks as values. Only `crate::clock` reads the real ones.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in wall-clock time, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Used for whatever must survive a restart: session expiry, will due times, records.
/// Shown as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest instant that RFC 3339 can write (9999-12-31T23:59:59.999Z).
    pub const MAX: Self = Self(253_402_300_799_999);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since 1970, clamped to what RFC 3339 can write.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self::EPOCH
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant and `seconds` more, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus_secs(self, seconds: u32) -> Self {
        Self::from_millis(self.0.saturating_add(seconds as i64 * 1_000))
    }

    /// Whole seconds from `now` until this instant, rounded up; 0 when it has passed.
    pub fn secs_after(self, now: Self) -> u32 {
        let millis = self.0.saturating_sub(now.0).max(0);
        u32::try_from((millis + 999) / 1_000).unwrap_or(u32::MAX)
    }

    /// Time elapsed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self::from_millis(at.unix_timestamp() * 1_000 + i64::from(at.millisecond()))
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(at: Timestamp) -> Self {
        let (secs, millis) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
        // Within the constructor's clamp every value is representable.
        let at = Self::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        at + ::time::Duration::milliseconds(millis)
    }
}

impl Timestamp {
    /// As it is shown, by hand: a page of records has hundreds, and the formatter's pieces show in its profile.
    fn text(self) -> [u8; 24] {
        let at = OffsetDateTime::from(self);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |place: Range<usize>, mut number: u32| {
            for digit in text[place].iter_mut().rev() {
                *digit = b"0123456789"[(number % 10) as usize];
                number /= 10;
            }
        };
        put(0..4, at.year().unsigned_abs());
        put(5..7, u8::from(at.month()).into());
        put(8..10, at.day().into());
        put(11..13, at.hour().into());
        put(14..16, at.minute().into());
        put(17..19, at.second().into());
        put(20..23, at.millisecond().into());
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = ::time::error::Parse;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self::from)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom("expected an RFC 3339 time such as 2026-01-31T12:00:00.000Z")
        })
    }
}

/// Milliseconds on a clock that never jumps and means nothing outside this process.
///
/// Used for keep-alive, retransmission and deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// From milliseconds since the process's own origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the process's own origin.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Time elapsed since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This instant and `more`.
    #[must_use]
    pub const fn plus_millis(self, more: u64) -> Self {
        Self(self.0.saturating_add(more))
    }
}

/// What a pure state machine is told about time: both clocks, read once for a whole turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The calendar: for what must survive a restart.
    pub wall: Timestamp,
    /// The stopwatch: for what must not jump.
    pub mono: Monotonic,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc_3339_with_milliseconds() {
        let at = Timestamp::from_millis(1_767_225_600_007);
        assert_eq!(at.to_string(), "2026-01-01T00:00:00.007Z");
        assert_eq!("2026-01-01T01:00:00.007+01:00".parse::<Timestamp>().ok(), Some(at));
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for n in 0..2_000 {
            let at = Timestamp::from_millis(n * 126_691_234_567);
            assert_eq!(at.to_string().parse::<Timestamp>().ok(), Some(at), "{at}");
        }
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(951_782_399_999).to_string(), "2000-02-28T23:59:59.999Z");
        assert_eq!(Timestamp::from_millis(951_782_400_010).to_string(), "2000-02-29T00:00:00.010Z");
    }

    #[test]
    fn clamps_to_what_can_be_written() {
        assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn remaining_seconds_round_up_and_never_go_below_zero() {
        let at = Timestamp::from_millis(10_001);
        assert_eq!(at.secs_after(Timestamp::from_millis(9_000)), 2);
        assert_eq!(at.secs_after(Timestamp::from_millis(10_001)), 0);
        assert_eq!(at.secs_after(Timestamp::from_millis(99_000)), 0);
    }
}
