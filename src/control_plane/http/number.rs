//! Whole numbers in bodies, with a bound.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A whole number from 0 to `MAX`.
pub(super) type AtMost<const MAX: u32> = Within<0, MAX>;

/// A whole number from `MIN` to `MAX`.
///
/// `3.0` is one too: JSON has one kind of number, a schema's `integer` is any of them without a
/// fraction, and some languages write all of them with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Within<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole::<MIN, MAX>).map(Self)
    }
}

/// Reads a noun of the model that is written as a small number.
pub(super) fn numbered<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u8, Error: fmt::Display>,
{
    let number = AtMost::<{ u8::MAX as u32 }>::deserialize(deserializer)?.0;
    T::try_from(u8::try_from(number).unwrap_or(u8::MAX)).map_err(Error::custom)
}

/// Reads a set of such nouns. An error points at the one that is wrong.
pub(super) fn numbered_set<'de, D, T>(deserializer: D) -> Result<BTreeSet<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u8, Error: fmt::Display> + Ord,
{
    struct Numbered<T>(T);

    impl<'de, T: TryFrom<u8, Error: fmt::Display>> Deserialize<'de> for Numbered<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            numbered(deserializer).map(Self)
        }
    }

    let nouns = Vec::<Numbered<T>>::deserialize(deserializer)?;
    Ok(nouns.into_iter().map(|noun| noun.0).collect())
}

/// Reads a whole number whose bounds are looked at elsewhere.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    AtMost::<{ u32::MAX }>::deserialize(deserializer).map(|number| number.0)
}

/// As [`whole`] for a field that may be left out or be null.
pub(super) fn maybe_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<AtMost<{ u32::MAX }>>::deserialize(deserializer)?.map(|number| number.0))
}

/// As [`whole`] for a field that may be left out but not be null.
pub(super) fn present_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    whole(deserializer).map(Some)
}

/// As [`numbered`] for a field that may be left out but not be null.
pub(super) fn present_numbered<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u8, Error: fmt::Display>,
{
    numbered(deserializer).map(Some)
}

struct Whole<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Visitor<'_> for Whole<MIN, MAX> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        let number = u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
        number.ok_or_else(|| E::custom(format_args!("it must be a whole number from {MIN} to {MAX}")))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u32, E> {
        let whole = number.fract() == 0.0 && (f64::from(MIN)..=f64::from(MAX)).contains(&number);
        // Within the bounds, so neither sign nor size is lost.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.visit_u64(if whole { number as u64 } else { u64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::QoS;

    #[test]
    fn nouns_that_are_numbers_are_read_as_such() {
        let read = |text: &str| numbered::<_, QoS>(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!(
            (read("1"), read("2.0"), read("0e1")),
            (Some(QoS::AtLeastOnce), Some(QoS::ExactlyOnce), Some(QoS::AtMostOnce))
        );
        assert!(["3", "-1", "0.5", "256", "\"1\"", "null"].into_iter().all(|text| read(text).is_none()));
    }

    #[test]
    fn whole_numbers_within_the_bound_are_taken() {
        let read = |text: &str| serde_json::from_str::<AtMost<7>>(text).ok().map(|number| number.0);
        for (text, number) in [("0", 0), ("7", 7), ("7.0", 7), ("0.7e1", 7), ("-0", 0), ("-0.0", 0)] {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in ["8", "-1", "7.5", "8.0", "1e30", "-1e30", "\"7\"", "null", "true", "[7]"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(serde_json::from_str::<Within<1, 7>>("1.0").is_ok());
        assert!(serde_json::from_str::<Within<1, 7>>("0").is_err());
        let most = serde_json::from_str::<AtMost<{ u32::MAX }>>("4294967295.0").expect("a number");
        assert_eq!(most.0, u32::MAX);
    }
}
