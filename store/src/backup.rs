//! A copy of a whole cluster's streams in a directory, and back.
//!
//! What is copied is sealed and stays sealed: commits, blobs, jobs' output and wrapped keys go as they are, and nothing
//! here has a key. A directory holds any number of runs, each of which adds what is new since the one before (see
//! `backup/directory.rs`); a run is there once the directory's manifest names it. Which position of the log a run stands
//! for, what must not be collected meanwhile, and what a restored cluster is told, is the business of who calls this.

pub mod directory;
pub mod pack;
mod stream;

pub use directory::{Directory, FileEntry, Kind, LogPoint, Run};
pub use pack::Record;
pub use stream::{Source, Target};

use outlive_schemas::id::Sequence;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{} is no backup: it holds no manifest.json", path.display())]
    NotABackup { path: PathBuf },
    #[error("{} is neither empty nor a backup: choose another directory", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the backup has format {found}, and this version reads {known}: use the version of outlive that wrote it")]
    UnknownFormat { found: u64, known: u32 },
    #[error("the backup's {file} is damaged: {what}; restore the directory from another copy")]
    Damaged { file: String, what: String },
    #[error("the backup's {file} is missing; restore the directory from another copy")]
    Missing { file: String },
    #[error("the backup is of cluster `{found}`, and the configuration names `{wanted}`: use another directory")]
    AnotherCluster { found: String, wanted: String },
    #[error(
        "commit {at} does not follow the last one in this directory: it holds a backup of another log, or the log has \
         lost commits; see `outlive log verify`, and use another directory for another log"
    )]
    AnotherLog { at: Sequence },
    #[error(
        "the log begins at {first}, and the backup ends at {end}: what is between was purged since; use a new directory"
    )]
    Gap { first: Sequence, end: Sequence },
    #[error("{} cannot be {doing}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the stream {stream} cannot be {doing}: {reason}")]
    Stream { stream: String, doing: &'static str, reason: String },
    #[error("a message of {bytes} bytes is over the limit of {max} for one in a backup")]
    TooLarge { bytes: usize, max: usize },
}
