//! Bytes that users hand in and get back: a job's input and its result.

use crate::codec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A job's input or result.
///
/// To people: text, or `{"base64": "…"}` where it is not UTF-8. In the log: the bytes.
/// Its `Debug` output gives the length only, for payloads are secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(pub Bytes);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "text, or {\"base64\": \"…\"}")]
enum Readable {
    Text(String),
    Encoded(#[serde(deserialize_with = "codec::object")] Encoded),
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Payload(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(&self.0);
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: BASE64.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return serde_bytes::ByteBuf::deserialize(deserializer).map(|b| Payload(b.into_vec().into()));
        }
        match Readable::deserialize(deserializer)? {
            Readable::Text(text) => Ok(Payload(text.into())),
            Readable::Encoded(Encoded { base64 }) => match BASE64.decode(&base64) {
                Ok(bytes) => Ok(Payload(bytes.into())),
                Err(e) => Err(serde::de::Error::custom(format_args!("`base64` does not hold base64: {e}"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_other_bytes_become_base64() {
        let text = Payload::from("grüß");
        assert_eq!(serde_json::to_string(&text).expect("json"), "\"grüß\"");
        let bytes = Payload(Bytes::from_static(&[0xff, 0]));
        let json = serde_json::to_string(&bytes).expect("json");
        assert_eq!(json, r#"{"base64":"/wA="}"#);
        assert_eq!(serde_json::from_str::<Payload>(&json).expect("back"), bytes);
        assert!(serde_json::from_str::<Payload>(r#"{"base64":"?"}"#).is_err());
        assert!(serde_json::from_str::<Payload>("7").is_err());
        assert!(serde_json::from_str::<Payload>(r#"["/wA="]"#).is_err());
    }
}
