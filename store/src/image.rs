//! Images: the scheduler's folded state as of one commit, so that replay can begin there.
//!
//! An image is disposable: whoever cannot use one takes an older one, or replays the whole log. A standby writes
//! them, a starting scheduler reads them. What is in one is the scheduler's business; here it is bytes.
//!
//! An image is compressed, cut into pieces, and each piece sealed into a blob. One more blob, the head, names the
//! pieces; it is stored last, so that an image that has a head is whole. Names begin with the commit's sequence: so
//! heads can be found, and pieces that no head names be told from those that one is about to.

use crate::blob::{BlobError, BlobStore, Owner, Put, Usage};
use crate::seal::{Key, OpenError, blob_name, open, seal};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::codec::{DecodeError, pack, unpack};
use outlive_schemas::id::Sequence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

/// Of a piece before it is sealed: two fit one NATS message, and four in flight fit a slow link.
const PIECE_BYTES: usize = 512 * 1024;
/// Pieces of one image: so many names still fit a head, and 14 GiB compressed are more state than fits a host.
const PIECES_MAX: usize = 28_000;
/// An image once opened: bounds what a broken head can make a reader allocate.
const IMAGE_BYTES_MAX: u64 = 64 << 30;
/// Puts, gets and deletes at once.
const IN_FLIGHT: usize = 8;
/// Fast: an image is written often and read seldom.
const COMPRESSION_LEVEL: i32 = 1;
const BUFFER_BYTES: usize = 256 * 1024;
const FORMAT: u8 = 1;

/// What an image is found and checked by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHead {
    format: u8,
    /// The last commit that is folded into it, and the log's chain hash there.
    pub seq: Sequence,
    #[serde(with = "serde_bytes")]
    pub chain: [u8; 32],
    /// Of the content.
    pub bytes: u64,
    #[serde(with = "serde_bytes")]
    hash: [u8; 32],
    pieces: Vec<BlobName>,
    /// What the pieces take as they are stored; 0 in an image of an earlier version, which did not say.
    #[serde(default)]
    stored_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the blob store failed while an image was {doing}")]
    Blob {
        doing: &'static str,
        #[source]
        source: BlobError,
    },
    #[error("a piece or the head of the image at {seq} does not open")]
    Sealed {
        seq: Sequence,
        #[source]
        source: OpenError,
    },
    #[error("the head of the image at {seq} cannot be read")]
    Head {
        seq: Sequence,
        #[source]
        source: DecodeError,
    },
    #[error("the image at {seq} is not what its head says: {what}")]
    Mismatch { seq: Sequence, what: String },
    #[error("an image cannot be written")]
    Written {
        #[source]
        source: io::Error,
    },
    #[error("an image of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: u64, max: u64 },
}

#[derive(Clone)]
pub struct ImageStore {
    blobs: Arc<dyn BlobStore>,
    key: Key,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImageStore")
    }
}

/// A name that begins with the commit's sequence.
fn numbered(seq: Sequence, rest: &[u8]) -> BlobName {
    let mut name = [0; 32];
    let length = rest.len().min(24);
    name[..8].copy_from_slice(&seq.0.to_be_bytes());
    name[8..8 + length].copy_from_slice(&rest[..length]);
    BlobName(name)
}

fn sequence_in(name: BlobName) -> Sequence {
    let (number, _) = name.0.split_first_chunk().expect("a name has 32 bytes");
    Sequence(u64::from_be_bytes(*number))
}

/// There is one head per commit.
fn head_name(seq: Sequence) -> BlobName {
    numbered(seq, &[])
}

fn head_binding(seq: Sequence) -> Vec<u8> {
    [b"outlive image head ".as_slice(), &seq.0.to_be_bytes()].concat()
}

fn piece_binding(seq: Sequence, index: usize) -> Vec<u8> {
    [b"outlive image piece ".as_slice(), &seq.0.to_be_bytes(), &(index as u64).to_be_bytes()].concat()
}

fn blob(doing: &'static str) -> impl Fn(BlobError) -> ImageError {
    move |source| ImageError::Blob { doing, source }
}

/// Writing and compressing hundreds of megabytes takes a second: not on a thread that others wait for.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("compression does not panic, and is not cancelled")
}

impl ImageStore {
    pub fn new(blobs: Arc<dyn BlobStore>, key: Key) -> ImageStore {
        ImageStore { blobs, key }
    }

    /// Stores the state as of the commit `seq`, as `write` writes it. If there is an image of that very commit, that one
    /// stays. What is written is compressed on the way, so that it is never there in one piece.
    pub async fn save(
        &self,
        seq: Sequence,
        chain: [u8; 32],
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<ImageHead, ImageError> {
        let (bytes, hash, packed) =
            aside(move || packed(write)).await.map_err(|source| ImageError::Written { source })?;
        let stored_bytes = packed.iter().map(|piece| piece.len() as u64).sum();
        if bytes > IMAGE_BYTES_MAX {
            return Err(ImageError::TooLarge { bytes, max: IMAGE_BYTES_MAX });
        }
        if packed.len() > PIECES_MAX {
            return Err(ImageError::TooLarge { bytes: stored_bytes, max: (PIECES_MAX * PIECE_BYTES) as u64 });
        }
        let pieces: Vec<BlobName> = futures::stream::iter(packed.into_iter().enumerate())
            .map(|(index, piece)| self.save_piece(seq, index, piece))
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        let head = ImageHead { format: FORMAT, seq, chain, bytes, hash, pieces, stored_bytes };
        self.save_head(head).await
    }

    async fn save_piece(&self, seq: Sequence, index: usize, piece: Bytes) -> Result<BlobName, ImageError> {
        let binding = piece_binding(seq, index);
        // The name covers the binding: the same bytes elsewhere are sealed otherwise, and so are another blob.
        let name = numbered(seq, &blob_name(&self.key, &[&binding, piece.as_ref()].concat()).0);
        let sealed = seal(&self.key, &binding, &piece);
        self.blobs.put(Owner::Images, name, sealed.into()).await.map_err(blob("saved"))?;
        Ok(name)
    }

    async fn save_head(&self, head: ImageHead) -> Result<ImageHead, ImageError> {
        let sealed = Bytes::from(seal(&self.key, &head_binding(head.seq), &pack(&head)));
        let put = || self.blobs.put(Owner::ImageHeads, head_name(head.seq), sealed.clone());
        if put().await.map_err(blob("saved"))? == Put::Stored {
            return Ok(head);
        }
        match self.head(head.seq).await {
            Ok(present) if present.chain == head.chain => {
                // Another version's encoding of the same state, perhaps: its pieces are not ours.
                let kept: BTreeSet<_> = present.pieces.iter().collect();
                let ours = head.pieces.iter().filter(|name| !kept.contains(name)).copied().collect();
                self.delete_pieces(ours).await?;
                Ok(present)
            }
            // What stands there is broken, or of a log that is no more: this image takes its place.
            _ => {
                self.blobs.delete(Owner::ImageHeads, head_name(head.seq)).await.map_err(blob("replaced"))?;
                match put().await.map_err(blob("saved"))? {
                    Put::Stored => Ok(head),
                    Put::Present => self.head(head.seq).await,
                }
            }
        }
    }

    async fn head(&self, seq: Sequence) -> Result<ImageHead, ImageError> {
        let sealed = self.blobs.get(Owner::ImageHeads, head_name(seq)).await.map_err(blob("looked for"))?;
        let plain =
            open(&self.key, &head_binding(seq), &sealed).map_err(|source| ImageError::Sealed { seq, source })?;
        let head: ImageHead =
            unpack("the head of an image", &plain).map_err(|source| ImageError::Head { seq, source })?;
        let mismatch = |what: String| ImageError::Mismatch { seq, what };
        if head.format != FORMAT {
            return Err(mismatch(format!("its format is {}, and this version reads {FORMAT}", head.format)));
        }
        if head.seq != seq || head.pieces.len() > PIECES_MAX || head.bytes > IMAGE_BYTES_MAX {
            return Err(mismatch("the head names another commit, or too much".to_owned()));
        }
        Ok(head)
    }

    /// The heads that can be read, newest first. The others are reported to the log: an image is disposable.
    pub async fn list(&self) -> Result<Vec<ImageHead>, ImageError> {
        let mut names = self.blobs.list(Owner::ImageHeads).await.map_err(blob("looked for"))?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        let mut heads = Vec::with_capacity(names.len());
        for seq in names.into_iter().map(sequence_in) {
            match self.head(seq).await {
                Ok(head) => heads.push(head),
                // Deleted since it was listed.
                Err(ImageError::Blob { source: BlobError::Missing { .. }, .. }) => {}
                Err(error @ ImageError::Blob { .. }) => return Err(error),
                Err(error) => tracing::warn!(%seq, "an image is left aside: {error}"),
            }
        }
        Ok(heads)
    }

    /// What the images take, about: seals and heads are some bytes more.
    pub async fn usage(&self) -> Result<Usage, ImageError> {
        let heads = self.list().await?;
        let items = heads.iter().map(|head| head.pieces.len() as u64 + 1).sum();
        Ok(Usage { bytes: heads.iter().map(|head| head.stored_bytes).sum(), items })
    }

    /// The state that was saved, as `read` reads it: every byte of it is checked, though the last only after it was
    /// read. It is decompressed on the way, so that it is never there in one piece.
    pub async fn load<T: Send + 'static>(
        &self,
        head: &ImageHead,
        read: impl FnOnce(&mut dyn BufRead) -> T + Send + 'static,
    ) -> Result<T, ImageError> {
        let seq = head.seq;
        let pieces: Vec<Vec<u8>> = futures::stream::iter(head.pieces.iter().copied().enumerate())
            .map(async |(index, name)| {
                let sealed = self.blobs.get(Owner::Images, name).await.map_err(blob("loaded"))?;
                open(&self.key, &piece_binding(seq, index), &sealed)
                    .map_err(|source| ImageError::Sealed { seq, source })
            })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        let ImageHead { bytes, hash, .. } = *head;
        aside(move || unpacked(pieces, bytes, hash, read)).await.map_err(|what| ImageError::Mismatch { seq, what })
    }

    /// Keeps the `count` newest images and deletes the others, and pieces left behind by saves that were not
    /// finished. Returns the sequence of the oldest image that is kept.
    pub async fn retain(&self, count: usize) -> Result<Option<Sequence>, ImageError> {
        let heads = self.list().await?;
        let kept = &heads[..heads.len().min(count)];
        let Some(oldest) = kept.last().map(|head| head.seq) else { return Ok(None) };
        // Heads first: a head must not name what is gone. Unreadable heads below go too.
        let names = self.blobs.list(Owner::ImageHeads).await.map_err(blob("deleted"))?;
        for name in names.into_iter().filter(|name| sequence_in(*name) < oldest) {
            self.blobs.delete(Owner::ImageHeads, name).await.map_err(blob("deleted"))?;
        }
        // Pieces above the oldest image may belong to one that is being saved. Those at or below it that no head
        // names never will.
        let named: BTreeSet<BlobName> = kept.iter().flat_map(|head| head.pieces.iter().copied()).collect();
        let pieces = self.blobs.list(Owner::Images).await.map_err(blob("deleted"))?;
        let unnamed = |name: &BlobName| sequence_in(*name) < oldest && !named.contains(name);
        self.delete_pieces(pieces.into_iter().filter(unnamed).collect()).await?;
        Ok(Some(oldest))
    }

    async fn delete_pieces(&self, names: Vec<BlobName>) -> Result<(), ImageError> {
        futures::stream::iter(names)
            .map(|name| self.blobs.delete(Owner::Images, name))
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
            .map_err(blob("deleted"))
    }
}

/// Takes what is written, and counts and hashes it on its way.
struct Checked<T> {
    inner: T,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl<T> Checked<T> {
    fn new(inner: T) -> Checked<T> {
        Checked { inner, bytes: 0, hasher: blake3::Hasher::new() }
    }

    fn note(&mut self, taken: &[u8]) {
        self.bytes += taken.len() as u64;
        self.hasher.update(taken);
    }
}

impl<T: Write> Write for Checked<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.note(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Checked<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.note(&into[..read]);
        Ok(read)
    }
}

/// Cuts what is written into pieces.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.last().is_none_or(|last| last.len() == PIECE_BYTES) {
            self.0.push(Vec::with_capacity(PIECE_BYTES));
        }
        let last = self.0.last_mut().expect("one was pushed");
        let fits = bytes.len().min(PIECE_BYTES - last.len());
        last.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Length and hash of what is written, and what it comes to when compressed and cut.
fn packed(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<(u64, [u8; 32], Vec<Bytes>)> {
    let compressed = zstd::Encoder::new(Pieces::default(), COMPRESSION_LEVEL)?;
    // Values are written by the byte; what compresses and hashes takes them by the block.
    let mut checked = BufWriter::with_capacity(BUFFER_BYTES, Checked::new(compressed));
    write(&mut checked)?;
    let Checked { inner, bytes, hasher } = checked.into_inner().map_err(io::IntoInnerError::into_error)?;
    let Pieces(pieces) = inner.finish()?;
    Ok((bytes, hasher.finalize().into(), pieces.into_iter().map(Bytes::from).collect()))
}

fn unpacked<T>(
    pieces: Vec<Vec<u8>>,
    bytes: u64,
    hash: [u8; 32],
    read: impl FnOnce(&mut dyn BufRead) -> T,
) -> Result<T, String> {
    let failed = |error: io::Error| format!("it cannot be decompressed: {error}");
    // Each piece is let go of once it is read.
    let mut ahead = pieces.into_iter().map(io::Cursor::new);
    let chained = Chained { piece: ahead.next(), ahead };
    let decoder = zstd::Decoder::with_buffer(BufReader::new(chained)).map_err(failed)?;
    // One byte more than is right, so that too much is noticed and not cut off.
    let mut checked = BufReader::with_capacity(BUFFER_BYTES, Checked::new(decoder.take(bytes + 1)));
    let value = read(&mut checked);
    io::copy(&mut checked, &mut io::sink()).map_err(failed)?;
    let Checked { bytes: found, hasher, .. } = checked.into_inner();
    if found != bytes {
        return Err(format!("it has {found} bytes instead of {bytes}"));
    }
    if *hasher.finalize().as_bytes() != hash {
        return Err("its hash is another".to_owned());
    }
    Ok(value)
}

/// Reads pieces one after the other.
struct Chained<I> {
    piece: Option<io::Cursor<Vec<u8>>>,
    ahead: I,
}

impl<I: Iterator<Item = io::Cursor<Vec<u8>>>> Read for Chained<I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = &mut self.piece {
            let read = piece.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            self.piece = self.ahead.next();
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::MemoryBlobs;

    const CHAIN: [u8; 32] = [9; 32];

    fn store() -> (Arc<MemoryBlobs>, ImageStore) {
        let blobs = Arc::new(MemoryBlobs::new());
        (blobs.clone(), ImageStore::new(blobs, Key::from_bytes([1; 32])))
    }

    /// Bytes that do not compress, so that several pieces come of them.
    fn content(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    async fn saved(images: &ImageStore, seq: u64, content: Vec<u8>) -> ImageHead {
        images.save(Sequence(seq), CHAIN, writing(content)).await.expect("saved")
    }

    fn writing(content: Vec<u8>) -> impl FnOnce(&mut dyn Write) -> io::Result<()> + Send {
        move |onto| onto.write_all(&content)
    }

    async fn loaded(images: &ImageStore, head: &ImageHead) -> Result<Vec<u8>, ImageError> {
        let read = |from: &mut dyn BufRead| {
            let mut content = Vec::new();
            from.read_to_end(&mut content).map(|_| content)
        };
        images.load(head, read).await.map(|content| content.expect("read"))
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded() {
        let (_, images) = store();
        for (seq, length) in [(1, 0), (2, 1), (3, PIECE_BYTES), (700, 3 * PIECE_BYTES + 17)] {
            saved(&images, seq, content(seq as u8, length)).await;
        }
        let heads = images.list().await.expect("listed");
        assert_eq!(heads.iter().map(|head| head.seq.0).collect::<Vec<_>>(), [700, 3, 2, 1], "newest first");
        assert_eq!(heads[0].chain, CHAIN);
        assert!(heads[0].pieces.len() > 3);
        for head in &heads {
            let found = loaded(&images, head).await.expect("loaded");
            assert!(found == content(head.seq.0 as u8, head.bytes as usize), "{}", head.seq);
        }
    }

    #[tokio::test]
    async fn nothing_readable_is_stored() {
        let (blobs, images) = store();
        let marker = b"a marker that is long enough to be found".repeat(3);
        saved(&images, 1, marker.clone()).await;
        for owner in [Owner::Images, Owner::ImageHeads] {
            for name in blobs.list(owner).await.expect("listed") {
                let body = blobs.get(owner, name).await.expect("there");
                assert!(!body.windows(16).any(|window| window == &marker[..16]));
            }
        }
    }

    #[tokio::test]
    async fn damage_is_noticed() {
        let (blobs, images) = store();
        let head = saved(&images, 1, content(1, 2 * PIECE_BYTES)).await;
        let older = ImageHead { seq: Sequence(0), ..head.clone() };
        assert!(matches!(loaded(&images, &older).await, Err(ImageError::Sealed { .. })), "bound to its commit");
        let swapped = ImageHead { pieces: head.pieces.iter().rev().copied().collect(), ..head.clone() };
        assert!(matches!(loaded(&images, &swapped).await, Err(ImageError::Sealed { .. })), "bound to its place");
        let cut = ImageHead { pieces: head.pieces[..1].to_vec(), ..head.clone() };
        assert!(matches!(loaded(&images, &cut).await, Err(ImageError::Mismatch { .. })));
        let longer = ImageHead { bytes: head.bytes + 1, ..head.clone() };
        assert!(matches!(loaded(&images, &longer).await, Err(ImageError::Mismatch { .. })));
        let shorter = ImageHead { bytes: head.bytes - 1, ..head.clone() };
        assert!(matches!(loaded(&images, &shorter).await, Err(ImageError::Mismatch { .. })));
        let other = ImageHead { hash: [0; 32], ..head.clone() };
        assert!(matches!(loaded(&images, &other).await, Err(ImageError::Mismatch { .. })));
        assert!(blobs.damage(Owner::Images, head.pieces[1]));
        assert!(matches!(loaded(&images, &head).await, Err(ImageError::Sealed { .. })));
        blobs.delete(Owner::Images, head.pieces[0]).await.expect("deleted");
        assert!(matches!(
            loaded(&images, &head).await,
            Err(ImageError::Blob { source: BlobError::Missing { .. }, .. } | ImageError::Sealed { .. })
        ));
    }

    #[tokio::test]
    async fn a_broken_head_is_left_aside_and_replaced() {
        let (blobs, images) = store();
        saved(&images, 1, content(1, 10)).await;
        saved(&images, 2, content(2, 10)).await;
        assert!(blobs.damage(Owner::ImageHeads, head_name(Sequence(2))));
        let heads = images.list().await.expect("listed");
        assert_eq!(heads.iter().map(|head| head.seq.0).collect::<Vec<_>>(), [1]);
        let head = saved(&images, 2, content(2, 10)).await;
        assert_eq!(loaded(&images, &head).await.expect("loaded"), content(2, 10));
        let stranger = ImageStore::new(blobs, Key::from_bytes([2; 32]));
        assert_eq!(stranger.list().await.expect("listed"), []);
    }

    #[tokio::test]
    async fn the_first_image_of_a_commit_stays_unless_the_log_is_another() {
        let (blobs, images) = store();
        let first = saved(&images, 5, content(1, 100)).await;
        let second = saved(&images, 5, content(2, 100)).await;
        assert_eq!(second, first);
        assert_eq!(blobs.list(Owner::Images).await.expect("listed"), first.pieces);
        let other = images.save(Sequence(5), [8; 32], writing(content(3, 100))).await.expect("saved");
        assert_eq!(other.chain, [8; 32]);
        assert_eq!(loaded(&images, &other).await.expect("loaded"), content(3, 100));
        assert_eq!(images.list().await.expect("listed"), [other]);
    }

    #[tokio::test]
    async fn old_images_go_with_their_pieces() {
        let (blobs, images) = store();
        assert_eq!(images.retain(2).await.expect("retained"), None);
        for seq in 1..=5 {
            saved(&images, seq, content(seq as u8, PIECE_BYTES + 1)).await;
        }
        // One save that never came to its head, old; and one that is under way.
        let orphan = images.save_piece(Sequence(2), 7, Bytes::from_static(b"orphan")).await.expect("saved");
        let coming = images.save_piece(Sequence(6), 0, Bytes::from_static(b"coming")).await.expect("saved");
        assert!(blobs.damage(Owner::ImageHeads, head_name(Sequence(1))));
        assert_eq!(images.retain(2).await.expect("retained"), Some(Sequence(4)));
        let heads = images.list().await.expect("listed");
        assert_eq!(heads.iter().map(|head| head.seq.0).collect::<Vec<_>>(), [5, 4]);
        assert_eq!(blobs.list(Owner::ImageHeads).await.expect("listed").len(), 2, "the broken head is gone as well");
        let pieces = blobs.list(Owner::Images).await.expect("listed");
        assert!(!pieces.contains(&orphan) && pieces.contains(&coming));
        assert_eq!(pieces.len(), heads.iter().map(|head| head.pieces.len()).sum::<usize>() + 1);
        for head in &heads {
            loaded(&images, head).await.expect("loaded");
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_is_named() {
        let (blobs, images) = store();
        blobs.set_out_of_reach(true);
        let failed = images.save(Sequence(1), CHAIN, writing(vec![1])).await;
        assert!(matches!(failed, Err(ImageError::Blob { doing: "saved", .. })), "{failed:?}");
        assert!(matches!(images.list().await, Err(ImageError::Blob { .. })), "out of reach is not empty");
    }
}
