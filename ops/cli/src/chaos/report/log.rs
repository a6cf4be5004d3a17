//! One commit of the log, remembered, and looked for again.
//!
//! Each commit is sealed over the hash of all before it, and no scheduler leads a log whose chain does not fit. So a
//! commit that stands where it stood, byte for byte, stands for everything before it.

use crate::args::Global;
use crate::log::access::{self, Access};
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_store::bridge::{Bridge, EtcdBridge};
use outlive_store::log::CommitLog;
use outlive_store::log::jetstream::JetStreamLog;
use std::time::Duration;

/// A replica may be behind for a moment, and a server that was killed be replaced.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

pub struct LogHead {
    log: JetStreamLog,
    bridge: EtcdBridge,
    seq: Sequence,
    body: Bytes,
}

impl LogHead {
    pub async fn at(global: &Global, seq: Sequence) -> anyhow::Result<LogHead> {
        let Access { log, bridge, .. } = access::open(global).await?;
        for _ in 0..TRIES {
            if let Some(body) = found(&log, &bridge, seq).await? {
                return Ok(LogHead { log, bridge, seq, body });
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::bail!("commit {seq} was acknowledged, and cannot be read: see `outlive log verify`")
    }

    /// Nothing where neither the log nor the bridge can be read.
    pub async fn still_stands(&self) -> Option<bool> {
        let mut stands = None;
        for _ in 0..TRIES {
            match found(&self.log, &self.bridge, self.seq).await {
                Ok(Some(body)) => return Some(body == self.body),
                Ok(None) => stands = Some(false),
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        stands
    }
}

/// In the stream, or in the bridge on its way there.
async fn found(log: &JetStreamLog, bridge: &EtcdBridge, seq: Sequence) -> anyhow::Result<Option<Bytes>> {
    let stored = log.read(seq, 1).await?;
    if let Some(stored) = stored.into_iter().find(|stored| stored.seq == seq) {
        return Ok(Some(stored.body));
    }
    Ok(bridge.list().await?.into_iter().find(|commit| commit.seq == seq).map(|commit| commit.body))
}
