//! The witness: where the log's head was, kept in etcd, so that a log that lost its tail is noticed.
//!
//! The leader writes it after appends are acknowledged, through its tenure (`leadership.rs`); a new leader judges the
//! log by it before it leads. Pure: how it is stored and when it is written is not here.

use crate::frame::ChainHash;
use outlive_schemas::id::Sequence;
use serde::{Deserialize, Serialize};

/// The format this version writes, and the only one so far.
const FORMAT: u32 = 1;
/// A witness is less than 150 bytes; anything longer is something else.
const WITNESS_BYTES_MAX: usize = 1_024;

/// The head of the log as its leader once saw it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    pub seq: Sequence,
    pub chain: ChainHash,
}

/// As it stands in etcd: JSON, so that an operator can read it there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    seq: Sequence,
    chain: String,
}

/// The stored witness cannot be read, and so the log cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    #[error("the witness has format {format}, and this version reads {FORMAT}: a newer version of outlive wrote it")]
    UnknownFormat { format: u64 },
    #[error(
        "the stored witness is damaged ({reason}): check the log, then write a new one by `outlive log accept-loss`"
    )]
    Damaged { reason: String },
}

/// The log does not hold what was acknowledged. Nobody leads until an operator has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogLostAcknowledgedCommits {
    #[error(
        "log_lost_acknowledged_commits: commit {} was acknowledged, but the log ends at {log_end}; restore the log, or \
         run `outlive log accept-loss` to go on without the commits from {} to {}",
        witness.seq, log_end.next(), witness.seq
    )]
    Missing { witness: Witness, log_end: Sequence },
    #[error(
        "log_lost_acknowledged_commits: commit {} was acknowledged with chain hash {}, but the log, which ends at \
         {log_end}, has {found} there; restore the log, or run `outlive log accept-loss` to go on with what is there",
        witness.seq, witness.chain
    )]
    Replaced { witness: Witness, log_end: Sequence, found: ChainHash },
    #[error(
        "log_lost_acknowledged_commits: a leader found that the log had lost commit {}, of which others had been told; \
         the log ends at {log_end} by now; restore the log, or run `outlive log accept-loss` to go on with what is there",
        witness.seq
    )]
    FoundLost { witness: Witness, log_end: Sequence },
}

/// In place of a chain's hash that nobody knows. No commit has it: it is where every log begins.
const UNKNOWN: ChainHash = ChainHash::START;

impl Witness {
    /// What a leader leaves behind that has learnt that the log has lost this commit: nobody leads after it, however
    /// far the log goes by then, until an operator has looked.
    pub fn of_lost(seq: Sequence) -> Witness {
        Witness { seq, chain: UNKNOWN }
    }

    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored { format: FORMAT, seq: self.seq, chain: self.chain.to_string() };
        serde_json::to_vec(&stored).expect("numbers and text can be written")
    }

    pub fn decode(bytes: &[u8]) -> Result<Witness, WitnessError> {
        let damaged = |reason: String| WitnessError::Damaged { reason };
        if bytes.len() > WITNESS_BYTES_MAX {
            return Err(damaged(format!("it has {} bytes", bytes.len())));
        }
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if let Some(format) = value.get("format").and_then(serde_json::Value::as_u64)
            && format != u64::from(FORMAT)
        {
            return Err(WitnessError::UnknownFormat { format });
        }
        let stored: Stored = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        let chain = blake3::Hash::from_hex(&stored.chain).map_err(|error| damaged(error.to_string()))?;
        Ok(Witness { seq: stored.seq, chain: ChainHash(chain.into()) })
    }
}

/// Whether a log that ends at `log_end` holds what was witnessed.
///
/// `chain_at` gives the chain's hash right after a position. Nothing means that the reader began above it, from an
/// image: then the log goes on beyond the witnessed commit, and that is all there is to know.
pub fn judge(
    witness: Option<Witness>,
    log_end: Sequence,
    chain_at: impl FnOnce(Sequence) -> Option<ChainHash>,
) -> Result<(), LogLostAcknowledgedCommits> {
    let Some(witness) = witness.filter(|witness| witness.seq > Sequence(0)) else { return Ok(()) };
    if witness.seq > log_end {
        return Err(LogLostAcknowledgedCommits::Missing { witness, log_end });
    }
    if witness.chain == UNKNOWN {
        return Err(LogLostAcknowledgedCommits::FoundLost { witness, log_end });
    }
    match chain_at(witness.seq) {
        Some(found) if found != witness.chain => Err(LogLostAcknowledgedCommits::Replaced { witness, log_end, found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITNESS: Witness = Witness { seq: Sequence(7), chain: ChainHash([7; 32]) };

    #[test]
    fn it_reads_back() {
        assert_eq!(Witness::decode(&WITNESS.encode()), Ok(WITNESS));
        let frozen = format!(r#"{{"format":1,"seq":7,"chain":"{}"}}"#, "07".repeat(32));
        assert_eq!(String::from_utf8(WITNESS.encode()).expect("text"), frozen);
    }

    #[test]
    fn what_is_no_witness_is_refused() {
        for bytes in [&b""[..], b"7", b"{}", b"\xff", br#"{"format":1,"seq":-1,"chain":""}"#, &[b' '; 2_000]] {
            assert!(matches!(Witness::decode(bytes), Err(WitnessError::Damaged { .. })), "{bytes:?}");
        }
        assert_eq!(Witness::decode(br#"{"format":2,"x":1}"#), Err(WitnessError::UnknownFormat { format: 2 }));
    }

    #[test]
    fn the_log_is_judged() {
        let same = |_| Some(ChainHash([7; 32]));
        let other = |_| Some(ChainHash([8; 32]));
        let unknown = |_| None;
        assert_eq!(judge(None, Sequence(0), other), Ok(()));
        assert_eq!(judge(Some(WITNESS), Sequence(7), same), Ok(()));
        assert_eq!(judge(Some(WITNESS), Sequence(9), same), Ok(()));
        assert_eq!(judge(Some(WITNESS), Sequence(9), unknown), Ok(()));

        let lost = Some(Witness::of_lost(Sequence(7)));
        for (log_end, chain_at) in [(4, unknown as fn(Sequence) -> Option<ChainHash>), (9, same), (9, unknown)] {
            let found = judge(lost, Sequence(log_end), chain_at).expect_err("however far it goes").to_string();
            assert!(found.contains("log_lost_acknowledged_commits") && found.contains("commit 7"), "{found}");
        }

        let missing = judge(Some(WITNESS), Sequence(4), unknown).expect_err("missing").to_string();
        for part in ["log_lost_acknowledged_commits", "ends at 4", "from 5 to 7", "outlive log accept-loss"] {
            assert!(missing.contains(part), "{missing}");
        }
        let replaced = judge(Some(WITNESS), Sequence(9), other).expect_err("replaced").to_string();
        for part in ["log_lost_acknowledged_commits", "commit 7", "0707", "0808", "outlive log accept-loss"] {
            assert!(replaced.contains(part), "{replaced}");
        }
    }
}
