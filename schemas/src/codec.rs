//! How bodies are written: JSON or MessagePack to users, compact MessagePack between Outlive's parts and in the log.
//!
//! To users both formats have one shape (times and sizes are text in either). Between parts, numbers stay numbers.

mod objects;

use crate::error::{ErrorCode, Rejection};
use crate::id::TOKEN_SHAPE;
use crate::job::NOT_WITHIN;
use objects::Objects;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// The format of a user's request, and so of its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    #[default]
    Json,
    MessagePack,
}

pub const JSON: &str = "application/json";
pub const MESSAGE_PACK: &str = "application/msgpack";

/// Our own bytes do not decode: they are damaged, or another version's.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are not {what}")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: rmp_serde::decode::Error,
}

impl Format {
    /// By the `content-type` header; none means JSON.
    pub fn of(content_type: Option<&str>) -> Result<Format, Rejection> {
        let Some(given) = content_type else { return Ok(Format::Json) };
        let kind = given.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case(JSON) {
            Ok(Format::Json)
        } else if kind.eq_ignore_ascii_case(MESSAGE_PACK) {
            Ok(Format::MessagePack)
        } else {
            let shown: String = given.chars().take(80).collect();
            Err(Rejection::new(
                ErrorCode::InvalidRequest,
                format!("content-type `{shown}` is not understood: send {JSON} or {MESSAGE_PACK}"),
            ))
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::MessagePack => MESSAGE_PACK,
        }
    }

    /// Reads a request. An empty body stands for `{}`.
    ///
    /// Errors: `invalid_request`, or `invalid_argument` for a value that only its range forbids; each names the field
    /// where one is at fault.
    pub fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, Rejection> {
        match self {
            Format::Json => {
                let body = if body.is_empty() { b"{}" } else { body };
                let mut reader = serde_json::Deserializer::from_slice(body);
                let read = T::deserialize(Objects(&mut reader)).and_then(|read| reader.end().map(|()| read));
                read.or_else(|_| {
                    // Only a request that failed pays for the path to its fault.
                    let mut reader = serde_json::Deserializer::from_slice(body);
                    let read = serde_path_to_error::deserialize(Objects(&mut reader)).map_err(|e| named("JSON", &e))?;
                    reader.end().map_err(|e| refused("JSON", "", &e.to_string()))?;
                    Ok(read)
                })
            }
            Format::MessagePack => {
                let body = if body.is_empty() { &[0x80] } else { body };
                let mut reader = rmp_serde::Deserializer::from_read_ref(body).with_human_readable();
                let read = serde_path_to_error::deserialize(Objects(&mut reader));
                let read = read.map_err(|e| named("MessagePack", &e))?;
                match IgnoredAny::deserialize(&mut reader) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(read),
                    _ => Err(refused("MessagePack", "", "something follows after it")),
                }
            }
        }
    }

    /// Writes a reply. Views hold nothing that either format could refuse.
    pub fn encode<T: Serialize>(self, value: &T) -> Vec<u8> {
        let written = match self {
            Format::Json => serde_json::to_vec(value).map_err(|e| e.to_string()),
            Format::MessagePack => {
                let mut bytes = Vec::with_capacity(256);
                let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
                value.serialize(&mut writer).map_err(|e| e.to_string()).map(|()| bytes)
            }
        };
        written.expect("views can be written in either format")
    }
}

/// Reads one value of which nothing is a list that has to be an object.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::deserialize(Objects(from))
}

fn named<E: std::error::Error>(format: &str, error: &serde_path_to_error::Error<E>) -> Rejection {
    let path = error.path().to_string();
    let path = if path == "." { "" } else { &path };
    refused(format, path, &error.inner().to_string())
}

fn refused(format: &str, path: &str, what: &str) -> Rejection {
    let what: String = what.chars().take(400).collect();
    if let Some(what) = out_of_range(&what).filter(|_| !path.is_empty()) {
        return Rejection::new(ErrorCode::InvalidArgument, format!("`{path}`: {what}"));
    }
    let place = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
    Rejection::new(ErrorCode::InvalidRequest, format!("the body is not a valid {format} request{place}: {what}"))
}

/// What to say where it is not the type of a value that is wrong, but its range. The formats' errors keep nothing of
/// ours but the words, so it is known by these: those of names and of numbers in fields of ours, and serde's own for
/// numbers that their type cannot hold.
fn out_of_range(what: &str) -> Option<Cow<'_, str>> {
    // Serde's words come before what a user has given.
    let is_name = what.starts_with('`') && what.contains(TOKEN_SHAPE);
    let is_number = what.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && what.contains(NOT_WITHIN);
    if is_name || is_number {
        return Some(Cow::Borrowed(what));
    }
    let (given, _) = what.strip_prefix("invalid value: integer `")?.split_once('`')?;
    let bound = if given.starts_with('-') { "less than 0" } else { "more than it may be" };
    Some(Cow::Owned(format!("{given} is {bound}")))
}

/// Writes what only Outlive's own parts read.
pub fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("our own messages can be written")
}

/// Reads what [`pack`] wrote; `what` names it in the error.
pub fn unpack<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes).map_err(|source| DecodeError { what, source })
}

/// As [`pack`], for what is too large to be there in one piece.
pub fn pack_into<T: Serialize>(value: &T, onto: &mut dyn std::io::Write) -> std::io::Result<()> {
    let mut writer = rmp_serde::Serializer::new(onto).with_struct_map();
    value.serialize(&mut writer).map_err(std::io::Error::other)
}

/// Reads what [`pack_into`] wrote.
pub fn unpack_from<T: DeserializeOwned>(what: &'static str, from: &mut dyn std::io::Read) -> Result<T, DecodeError> {
    rmp_serde::from_read(from).map_err(|source| DecodeError { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;
    use crate::request::{JobRequest, ListRequest, SubmitManyRequest};

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(body: &[u8]) -> String {
        Format::Json.decode::<T>(body).expect_err("refused").message
    }

    #[test]
    fn refusals_name_the_field() {
        assert!(
            refusal::<JobSpec>(br#"{"driver":{"process":{"command":"x"}}}"#).contains("at `driver.process.command`")
        );
        assert!(refusal::<JobSpec>(br#"{"driver":{"noop":{}},"colour":1}"#).contains("unknown field `colour`"));
        assert!(refusal::<JobSpec>(br#"{"driver":{"noop":{}},"timeout":"soon"}"#).contains("at `timeout`"));
        assert!(
            refusal::<SubmitManyRequest>(br#"{"jobs":[{"driver":{"noop":{}}},{"driver":7}]}"#)
                .contains("at `jobs[1].driver")
        );
        assert!(refusal::<JobRequest>(b"").contains("missing field `job`"));
        assert!(refusal::<JobRequest>(b"{").contains("JSON"));
        assert!(refusal::<JobRequest>(b"\xff\xfe").contains("JSON"));
        assert!(refusal::<JobRequest>(br#"{"job":"a"} x"#).contains("trailing"));
        let mut packed = Format::MessagePack.encode(&serde_json::json!({"job": "a"}));
        Format::MessagePack.decode::<JobRequest>(&packed).expect("one value");
        for more in [0x00, 0x81] {
            packed.push(more);
            let refused = Format::MessagePack.decode::<JobRequest>(&packed).expect_err("two");
            assert!(refused.message.contains("something follows"), "{}", refused.message);
        }
    }

    #[test]
    fn what_is_only_out_of_its_range_is_an_argument() {
        let codes = |body: &str| {
            let json = Format::Json.decode::<JobSpec>(body.as_bytes()).expect_err(body);
            let packed = Format::MessagePack.encode(&serde_json::from_str::<serde_json::Value>(body).expect("JSON"));
            let packed = Format::MessagePack.decode::<JobSpec>(&packed).expect_err(body);
            assert_eq!(json.code, packed.code, "{body}");
            (json.code.as_str(), json.message)
        };
        for (field, given, words) in [
            ("priority", "-1", "`priority`: -1 is less than 0"),
            ("array", r#"{"count":5000000000}"#, "`array.count`: 5000000000 is more than it may be"),
            ("restart", r#"{"jitter":-0.5}"#, "`restart.jitter`: -0.5 is a factor, not within 0 to 1000"),
            ("restart", r#"{"no_retry_exit_codes":[256]}"#, "256 is an exit code, not within 1 to 255"),
            ("name", r#""Not A Name""#, "`name`: `Not A Name` is not a job name: 1 to 63 characters"),
            ("placement", r#"{"zones":["A"]}"#, "`placement.zones[0]`: `A` is not a zone: 1 to 63 characters"),
            ("depends_on", r#"[{"job":"../x"}]"#, "`depends_on[0].job`: `../x` is not a job id or name"),
        ] {
            let (code, message) = codes(&format!(r#"{{"driver":{{"noop":{{}}}},"{field}":{given}}}"#));
            assert_eq!(code, "invalid_argument", "{message}");
            assert!(message.contains(words), "{message}");
        }
        for (field, given) in [
            ("priority", r#"", not within ""#),
            (", not within ", "1"),
            ("timeout", r#""soon""#),
            ("kind", r#""daemon""#),
            ("resources", r#"{"cpu_millis":1.5}"#),
        ] {
            let (code, message) = codes(&format!(r#"{{"driver":{{"noop":{{}}}},"{field}":{given}}}"#));
            assert_eq!(code, "invalid_request", "{message}");
        }
    }

    #[test]
    fn a_list_is_no_object() {
        for body in [
            r#"["a"]"#,
            "[]",
            r#"{"driver":{"noop":[]}}"#,
            r#"{"driver":{"process":[["true"]]}}"#,
            r#"{"driver":{"noop":{}},"resources":[100,"64MiB"]}"#,
            r#"{"driver":{"noop":{}},"array":[3]}"#,
            r#"{"driver":{"noop":{}},"depends_on":[["a"]]}"#,
        ] {
            let refused = Format::Json.decode::<JobSpec>(body.as_bytes()).expect_err(body);
            assert!(refused.message.contains("invalid type: sequence, expected an object"), "{}", refused.message);
            assert_eq!(refused.code, ErrorCode::InvalidRequest);
            let packed = Format::MessagePack.encode(&serde_json::from_str::<serde_json::Value>(body).expect("JSON"));
            assert!(Format::MessagePack.decode::<JobSpec>(&packed).is_err(), "{body}");
        }
        assert!(Format::Json.decode::<ListRequest>(b"[]").is_err());
        assert!(Format::Json.decode::<JobRequest>(br#"["a"]"#).is_err());
        assert_eq!(Format::Json.decode::<Vec<ListRequest>>(b"[{}]"), Ok(vec![ListRequest::default()]));
    }

    #[test]
    fn both_formats_have_one_shape() {
        let json = br#"{"driver":{"noop":{}},"timeout":"10s","input":{"base64":"/wA="}}"#;
        let spec: JobSpec = Format::Json.decode(json).expect("json");
        let packed = Format::MessagePack.encode(&spec);
        let generic: serde_json::Value = rmp_serde::from_slice(&packed).expect("plain MessagePack");
        assert_eq!(generic["timeout"], "10s");
        assert_eq!(Format::MessagePack.decode::<JobSpec>(&packed).expect("msgpack"), spec);
        assert_eq!(Format::MessagePack.decode::<ListRequest>(b"").expect("empty"), ListRequest::default());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(Format::Json.decode::<JobSpec>(deep.as_bytes()).is_err());
        let mut deep = vec![0x91; 500_000];
        deep.push(1);
        assert!(Format::MessagePack.decode::<JobSpec>(&deep).is_err());
    }

    #[test]
    fn content_types() {
        assert_eq!(Format::of(None), Ok(Format::Json));
        assert_eq!(Format::of(Some("application/msgpack")), Ok(Format::MessagePack));
        assert_eq!(Format::of(Some("application/json; charset=utf-8")), Ok(Format::Json));
        assert!(Format::of(Some("text/xml")).is_err());
    }
}
