//! What a state directory may not hold, said so that whoever wrote the job can mend it.

use std::io;

use rustix::io::Errno;

use super::DEPTH_MAX;
use crate::manifest::shown;
use outlive_schemas::limits::{CHECKPOINT_ENTRIES_MAX, PATH_BYTES_MAX};

/// Why an entry cannot be part of a checkpoint, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is a device, which means nothing on another host: make devices outside of $OUTLIVE_STATE_DIR")]
    Device,
    #[error("it is set-user-id or set-group-id, which no checkpoint brings to another host: chmod ug-s it")]
    SetId,
    #[error(
        "it is a symbolic link that leads out of the state directory, to `{target}`, which will not be there on another \
         host: link to something inside by a relative path, or make the link outside of $OUTLIVE_STATE_DIR"
    )]
    LinkLeaves { target: String },
    #[error("its path has {PATH_BYTES_MAX} bytes or more, which no system call takes: use shorter names")]
    PathTooLong,
    #[error("it lies more than {DEPTH_MAX} directories deep: nest fewer")]
    TooDeep,
    #[error("something is mounted there, and only the state directory's own file system is kept: mount it elsewhere")]
    MountPoint,
    #[error("it may not be read by the user the executor runs as: chmod u+r it, and u+rx a directory")]
    Unreadable,
    #[error("it is none of file, directory, symbolic link, pipe and socket: keep it outside of $OUTLIVE_STATE_DIR")]
    UnknownKind,
}

/// Why a state directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("`{path}` cannot be part of a checkpoint: {refusal}")]
    Refused { path: String, refusal: Refusal },
    #[error(
        "the state directory has more than {CHECKPOINT_ENTRIES_MAX} entries, the most that a checkpoint holds: keep fewer \
         and larger files"
    )]
    TooManyEntries,
    /// The host's fault.
    #[error("it cannot be told which files the job writes through memory")]
    Mappings {
        #[source]
        source: io::Error,
    },
    /// The host's fault.
    #[error("`{path}` {what}")]
    Local {
        what: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

impl ScanError {
    pub(super) fn refused(path: &[u8], refusal: Refusal) -> Self {
        ScanError::Refused { path: shown(path), refusal }
    }

    pub(super) fn local(what: &'static str, path: &[u8], errno: Errno) -> Self {
        ScanError::Local { what, path: shown(path), source: errno.into() }
    }
}
