//! Amounts of memory and storage: `64MiB` to people, a number of bytes in the log.

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SHAPE: &str = "a size such as 512KiB, 64MiB or 1GiB";

/// The text is not a size.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not {SHAPE}")]
pub struct SizeError(String);

impl ByteSize {
    pub const fn mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }

    pub fn parse(text: &str) -> Result<ByteSize, SizeError> {
        // The crate takes `1e99` and `-1`; a size here is digits and a unit.
        let plain = text.as_bytes().first().is_some_and(u8::is_ascii_digit) && text.len() <= 32;
        let size = text.parse::<bytesize::ByteSize>().ok().filter(|s| plain && s.as_u64() < u64::MAX);
        size.map(|s| ByteSize(s.as_u64())).ok_or_else(|| SizeError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that loses nothing: `64MiB`, not `67108864`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SHAPE)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Text)
        } else {
            u64::deserialize(deserializer).map(ByteSize).map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print_alike() {
        for text in ["64MiB", "1GiB", "512KiB", "3B", "1025B"] {
            assert_eq!(ByteSize::parse(text).expect(text).to_string(), text);
        }
        for text in ["", "-1MiB", "1e99", "lots", "99999999999999999999TiB", "MiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text:?}");
        }
    }
}
