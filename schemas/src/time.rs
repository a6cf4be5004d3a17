//! Points in time and lengths of time, as they stand in the log (milliseconds) and before people (text).
//!
//! Nothing here reads a clock.

use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Add, Sub};

/// Milliseconds since the Unix epoch, UTC.
///
/// To people: RFC 3339 with milliseconds, such as `2026-01-01T00:00:00.123Z`. In the log: the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
///
/// To people: `250ms`, `10s`, `5m`, `1h30m`. In the log: the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// The text is not a point or a length of time.
#[derive(Debug, thiserror::Error)]
#[error("`{given}` is not {expected}")]
pub struct TimeError {
    given: String,
    expected: &'static str,
}

const DURATION_SHAPE: &str = "a duration such as 250ms, 10s, 5m or 1h30m";
const TIMESTAMP_SHAPE: &str = "a time such as 2026-01-01T00:00:00Z";

impl Timestamp {
    /// The length of time from `earlier` to this, or nothing where `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
        let refused = || TimeError { given: text.to_owned(), expected: TIMESTAMP_SHAPE };
        let at: jiff::Timestamp = text.parse().map_err(|_| refused())?;
        u64::try_from(at.as_millisecond()).map(Timestamp).map_err(|_| refused())
    }
}

impl Millis {
    pub const ZERO: Millis = Millis(0);

    pub const fn secs(secs: u64) -> Millis {
        Millis(secs * 1_000)
    }

    pub const fn minutes(minutes: u64) -> Millis {
        Millis(minutes * 60_000)
    }

    pub fn parse(text: &str) -> Result<Millis, TimeError> {
        let refused = || TimeError { given: text.to_owned(), expected: DURATION_SHAPE };
        let length = SpanParser::new().parse_duration(text).map_err(|_| refused())?;
        let whole = length.as_nanos() % 1_000_000 == 0;
        u64::try_from(length.as_millis()).ok().filter(|_| whole).map(Millis).ok_or_else(refused)
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }
}

impl From<Millis> for std::time::Duration {
    fn from(length: Millis) -> Self {
        std::time::Duration::from_millis(length.0)
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, length: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(length.0))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, length: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(length.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match at {
            Some(at) => write!(f, "{at:.3}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: SpanPrinter = SpanPrinter::new().designator(Designator::Compact).spacing(Spacing::None);
        let length = i64::try_from(self.0).map(jiff::SignedDuration::from_millis).unwrap_or(jiff::SignedDuration::MAX);
        f.write_str(&PRINTER.duration_to_string(&length))
    }
}

/// Text where people read, a number in the log.
macro_rules! text_or_number {
    ($type:ident, $shape:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($shape)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Text)
                } else {
                    u64::deserialize(deserializer).map($type).map_err(D::Error::custom)
                }
            }
        }
    };
}

text_or_number!(Timestamp, TIMESTAMP_SHAPE);
text_or_number!(Millis, DURATION_SHAPE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_alike() {
        for text in ["250ms", "10s", "5m", "1h30m", "24h", "1s500ms"] {
            assert_eq!(Millis::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Millis::parse("90s").expect("90s"), Millis(90_000));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "10", "-5s", "ten", "1us", "99999999999999999999s", "1h-3m", "\u{0}"] {
            assert!(Millis::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_read_and_print_alike() {
        let text = "2026-01-01T00:00:00.123Z";
        assert_eq!(Timestamp::parse(text).expect(text).to_string(), text);
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert!(Timestamp::parse("yesterday").is_err());
        assert!(Timestamp::parse("1900-01-01T00:00:00Z").is_err());
    }
}
