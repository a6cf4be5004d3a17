//! Why a scheduler cannot run. Losing a term is not among these: then it follows, and campaigns again.

use outlive_core::fold::FoldError;
use outlive_schemas::id::{Sequence, Term};
use outlive_store::bridge::BridgeError;
use outlive_store::frame::FrameError;
use outlive_store::image::ImageError;
use outlive_store::key_store::KeyError;
use outlive_store::keyring::KeyringError;
use outlive_store::leadership::LeadershipError;
use outlive_store::log::{AppendError, ReadError};
use outlive_store::nats::{EnsureStreamError, NatsError, ServerVersionError};
use outlive_store::registry::RegistryError;
use outlive_store::telemetry::TelemetryError;
use outlive_store::witness::{LogLostAcknowledgedCommits, WitnessError};

#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error("the master keys cannot be used")]
    Keys(#[source] KeyringError),
    #[error("NATS cannot be used")]
    Nats(#[source] NatsError),
    #[error("the NATS server cannot be used")]
    ServerVersion(#[source] ServerVersionError),
    #[error("a stream cannot be used")]
    Stream(#[source] EnsureStreamError),
    #[error("etcd cannot be used")]
    Etcd(#[source] outlive_store::etcd::EtcdError),
    #[error("the log's keys cannot be used")]
    LogKey(#[source] KeyError),
    #[error("metrics cannot be served")]
    Telemetry(#[source] TelemetryError),
    #[error("traces cannot be exported")]
    Traces(#[source] outlive_store::telemetry::trace::TraceError),
    #[error("the log cannot be replayed")]
    Replay(#[source] ReplayError),
    #[error("the log is not what it was")]
    Lost(#[source] LogLostAcknowledgedCommits),
    #[error("the witness cannot be used")]
    Witness(#[source] WitnessError),
    #[error("leadership failed")]
    Leadership(#[source] LeadershipError),
    #[error("the bridge cannot be used")]
    Bridge(#[source] BridgeError),
    #[error("the registry failed")]
    Registry(#[source] RegistryError),
    #[error(
        "term {term} was won, but the log has seen term {seen}: etcd has gone back in time; restore it, or run \
         `outlive log raise-terms`"
    )]
    TermTooLow { term: Term, seen: Term },
    #[error("the barrier of term {term} could not be appended")]
    Barrier {
        term: Term,
        #[source]
        source: AppendError,
    },
    #[error("the scheduler cannot be reached")]
    Listen(#[source] crate::service::ListenError),
    #[error("the leader stopped")]
    Stopped(#[source] crate::leader::Resignation),
}

/// The log or an image does not give a state.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the log cannot be read")]
    Read(#[source] ReadError),
    #[error("commit {seq} cannot be opened")]
    Frame {
        seq: Sequence,
        #[source]
        source: FrameError,
    },
    #[error("the log's events contradict one another")]
    Fold(#[source] FoldError),
    #[error("the log's keys cannot be read")]
    Key(#[source] KeyError),
    #[error("images cannot be listed")]
    Images(#[source] ImageError),
    #[error("the log begins at {first}, and no image reaches that far: restore the log or an image from a backup")]
    NothingToBeginWith { first: Sequence },
}
