//! Fetching blobs in order and ahead of time, and opening them where that holds nobody up. What somebody else has found
//! already goes with them in its place.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use outlive_schemas::checkpoint::BlobName;
use outlive_store::blob::{BlobError, BlobStore, Owner};

use super::{RestoreError, Unreadable};
use crate::checkpoint::blocking;
use crate::chunk::{ChunkRef, Kind, Sealer};

/// Fetches under way at once. At 128 KiB each this is 4 MiB, several round trips' worth of a fast network.
const FETCHES_MAX: usize = 32;

/// Blobs that are opened and written in one go, and how many such batches may wait.
const BATCH_BLOBS: usize = 32;
const BATCHES_WAITING_MAX: usize = 2;

/// Where a job's blobs are and how they open.
#[derive(Clone)]
pub(crate) struct Source {
    pub blobs: Arc<dyn BlobStore>,
    pub owner: Owner,
    pub sealer: Arc<Sealer>,
}

impl Source {
    /// One sealed blob; `part` says what it is a part of.
    pub async fn get(&self, name: BlobName, part: impl FnOnce() -> String) -> Result<Bytes, RestoreError> {
        self.blobs.get(self.owner, name).await.map_err(|error| match error {
            BlobError::Missing { .. } | BlobError::TooLarge { .. } => {
                RestoreError::Unreadable { fault: Unreadable::Missing { name, part: part() } }
            }
            source @ (BlobError::Unavailable { .. } | BlobError::Full { .. }) => RestoreError::Unavailable { source },
        })
    }
}

/// A chunk on its way.
enum Got {
    /// It was at hand, and is what its name says.
    Open(Vec<u8>),
    Sealed(Bytes),
}

/// Gives every one of `chunks`, opened and in order, to `take`, which may block. `part` says what the nth is a part of.
pub(crate) async fn each<T: Send + 'static>(
    source: &Source,
    kind: Kind,
    chunks: Vec<ChunkRef>,
    part: impl Fn(usize) -> String + Send + Sync + 'static,
    state: T,
    take: fn(&mut T, Vec<u8>) -> Result<(), RestoreError>,
) -> Result<T, RestoreError> {
    let chunks = futures::stream::iter(chunks).map(|chunk| (chunk, None));
    let (state, _) = each_missing(source, kind, chunks, part, state, take).await?;
    Ok(state)
}

/// As [`each`], for chunks of which some come with their contents. How many bytes were fetched is returned as well.
pub(super) async fn each_missing<T: Send + 'static>(
    source: &Source,
    kind: Kind,
    chunks: impl Stream<Item = (ChunkRef, Option<Vec<u8>>)> + Send,
    part: impl Fn(usize) -> String + Send + Sync + 'static,
    mut state: T,
    take: fn(&mut T, Vec<u8>) -> Result<(), RestoreError>,
) -> Result<(T, u64), RestoreError> {
    let part = Arc::new(part);
    let mut fetched_bytes = 0;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(BATCHES_WAITING_MAX);
    let fetching = async {
        let fetched = chunks
            .enumerate()
            .map(|(nth, (chunk, at_hand))| {
                let part = part.clone();
                async move {
                    let got = match at_hand {
                        Some(content) => Got::Open(content),
                        None => Got::Sealed(source.get(chunk.name(), || part(nth)).await?),
                    };
                    Ok::<_, RestoreError>((nth, chunk, got))
                }
            })
            .buffered(FETCHES_MAX);
        let mut batches = std::pin::pin!(fetched.try_chunks(BATCH_BLOBS));
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| error.1)?;
            if sender.send(batch).await.is_err() {
                // The other side has failed and will say so.
                break;
            }
        }
        drop(sender);
        Ok(())
    };
    let taking = async {
        while let Some(batch) = receiver.recv().await {
            let (sealer, part) = (source.sealer.clone(), part.clone());
            (state, fetched_bytes) = blocking(move || {
                for (nth, chunk, got) in batch {
                    let content = match got {
                        Got::Open(content) => content,
                        Got::Sealed(sealed) => {
                            fetched_bytes += chunk.bytes() as u64;
                            let opened = sealer.open_chunk(kind, chunk, &sealed);
                            opened.map_err(|damage| RestoreError::damaged(chunk.name(), part(nth), damage))?
                        }
                    };
                    take(&mut state, content)?;
                }
                Ok::<_, RestoreError>((state, fetched_bytes))
            })
            .await?;
        }
        Ok((state, fetched_bytes))
    };
    let ((), taken) = tokio::try_join!(fetching, taking)?;
    Ok(taken)
}
