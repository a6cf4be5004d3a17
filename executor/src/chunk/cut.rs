//! Where contents are cut: long runs of zeros become holes, the rest is cut by FastCDC.
//!
//! The result depends on the contents and the job's seed alone, not on how the file system happens to store them, so
//! that a file that was restored elsewhere is cut as it was before.

use std::io;

use fastcdc::v2020::{FastCDC, Normalization};

/// How something is cut: FastCDC's three parameters, and below which length a rest is not cut at all.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    min: usize,
    average: usize,
    pub max: usize,
    whole: usize,
}

/// Files. Large enough that 10 GB are some 300,000 blobs, small enough that one changed record of a database costs
/// little.
pub const CONTENT: Sizes = Sizes { min: 8 << 10, average: 32 << 10, max: 128 << 10, whole: 16 << 10 };

/// Manifests. Finer, for what changes in them is spread thin: some forty bytes for each changed file.
pub const MANIFEST: Sizes = Sizes { min: 2 << 10, average: 8 << 10, max: 32 << 10, whole: 4 << 10 };

/// A manifest names how its files were cut; a change here must change this too.
pub const CUTTING: &str = "fastcdc-5 v2020 normalization 1 8192/32768/131072 whole 16384 holes 32768/4096 seeded";

/// Zeros are looked for in blocks of this size, the usual one of file systems and databases.
pub const BLOCK_BYTES: usize = 4 << 10;
/// A run of zero blocks becomes a hole from this length on; a shorter one would only cut chunks apart.
pub const HOLE_BYTES_MIN: u64 = 32 << 10;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Whether all of `block`, at most [`BLOCK_BYTES`] long, is zero.
pub fn is_zero(block: &[u8]) -> bool {
    block == &ZEROS[..block.len()]
}

impl Sizes {
    /// The length of the first chunk of `window`, which holds at least `max` bytes or all there is.
    pub fn first_cut(self, seed: u64, window: &[u8]) -> usize {
        if window.len() <= self.whole {
            return window.len();
        }
        let cutter =
            FastCDC::with_level_and_seed(window, self.min, self.average, self.max, Normalization::Level1, seed);
        cutter.cut(0, window.len()).1
    }
}

/// Some of a file's contents, in order. All but the last part of a file have a multiple of [`BLOCK_BYTES`].
#[derive(Debug)]
pub enum Part {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// A piece of a file as it is stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

/// Cuts one file; `P` gives its contents.
#[derive(Debug)]
pub struct FileCutter<P> {
    parts: P,
    seed: u64,
    /// The part at hand and how far it is used.
    bytes: Vec<u8>,
    used: usize,
    /// Data that is not cut yet.
    window: Vec<u8>,
    /// Zeros behind the window of which it is not known yet whether they are a hole.
    zeros: u64,
    /// Nothing will be added to the window: a hole or the end follows.
    closed: bool,
}

/// What the next block is.
enum Block {
    Zeros(u64),
    Data,
    End,
}

impl<P: Iterator<Item = io::Result<Part>>> FileCutter<P> {
    pub fn new(parts: P, seed: u64) -> Self {
        Self { parts, seed, bytes: Vec::new(), used: 0, window: Vec::new(), zeros: 0, closed: false }
    }

    /// The next piece, or nothing at the end.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if self.window.len() >= CONTENT.max || (self.closed && !self.window.is_empty()) {
                let rest = self.window.split_off(CONTENT.first_cut(self.seed, &self.window));
                return Ok(Some(Piece::Data(std::mem::replace(&mut self.window, rest))));
            }
            match self.next_block()? {
                Block::Zeros(bytes) => {
                    self.zeros += bytes;
                    self.closed |= self.zeros >= HOLE_BYTES_MIN;
                }
                Block::Data if self.closed => {
                    self.closed = false;
                    return Ok(Some(Piece::Hole(std::mem::take(&mut self.zeros))));
                }
                Block::Data => {
                    self.fill_zeros();
                    let end = self.block_end();
                    self.window.extend_from_slice(&self.bytes[self.used..end]);
                    self.used = end;
                }
                Block::End if self.closed && self.zeros > 0 => {
                    return Ok(Some(Piece::Hole(std::mem::take(&mut self.zeros))));
                }
                Block::End => {
                    self.fill_zeros();
                    self.closed = true;
                    if self.window.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Zeros are taken at once; data stays until it is used, for a hole may have to be told first.
    fn next_block(&mut self) -> io::Result<Block> {
        loop {
            let end = self.block_end();
            if self.used < end {
                if !is_zero(&self.bytes[self.used..end]) {
                    return Ok(Block::Data);
                }
                let bytes = (end - self.used) as u64;
                self.used = end;
                return Ok(Block::Zeros(bytes));
            }
            match self.parts.next().transpose()? {
                None => return Ok(Block::End),
                Some(Part::Zeros(bytes)) => return Ok(Block::Zeros(bytes)),
                Some(Part::Bytes(bytes)) => (self.bytes, self.used) = (bytes, 0),
            }
        }
    }

    fn block_end(&self) -> usize {
        self.bytes.len().min(self.used + BLOCK_BYTES)
    }

    /// The zeros turned out to be too few for a hole.
    fn fill_zeros(&mut self) {
        let zeros = std::mem::take(&mut self.zeros) as usize;
        self.window.resize(self.window.len() + zeros, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that every machine and version makes alike.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new_derive_key("outlive test noise").finalize_xof().fill(&mut noise);
        noise
    }

    fn cut(parts: Vec<Part>, seed: u64) -> Vec<Piece> {
        let mut cutter = FileCutter::new(parts.into_iter().map(Ok), seed);
        std::iter::from_fn(|| cutter.next_piece().expect("no I/O here")).collect()
    }

    fn lengths(pieces: &[Piece]) -> Vec<i64> {
        pieces
            .iter()
            .map(|p| match p {
                Piece::Data(data) => data.len() as i64,
                Piece::Hole(bytes) => -(*bytes as i64),
            })
            .collect()
    }

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        pieces
            .iter()
            .flat_map(|p| match p {
                Piece::Data(data) => data.clone(),
                Piece::Hole(bytes) => vec![0; *bytes as usize],
            })
            .collect()
    }

    /// Never edit these numbers: checkpoints that exist were cut like this, and cutting otherwise would upload every
    /// state anew. If they change, `fastcdc` has.
    #[test]
    fn the_cuts_are_where_they_always_were() {
        let found = lengths(&cut(vec![Part::Bytes(noise(1 << 20))], 0));
        assert_eq!(found, GOLDEN);
        let found = lengths(&cut(vec![Part::Bytes(noise(400_000))], 0x0123_4567_89ab_cdef));
        assert_eq!(found, GOLDEN_SEEDED);
    }

    const GOLDEN: &[i64] = &[
        57269, 21163, 25469, 42398, 33309, 15198, 12421, 34348, 46357, 44927, 24171, 65603, 33247, 85221, 34325, 57172,
        36797, 11128, 62772, 28606, 41044, 42644, 49089, 48449, 26862, 68587,
    ];
    const GOLDEN_SEEDED: &[i64] = &[23976, 10857, 27408, 36744, 49244, 81391, 32848, 36236, 37233, 53852, 10211];

    #[test]
    fn a_small_file_is_one_chunk_and_an_empty_one_none() {
        assert_eq!(cut(vec![], 0), []);
        assert_eq!(cut(vec![Part::Bytes(vec![])], 0), []);
        assert_eq!(lengths(&cut(vec![Part::Bytes(noise(1))], 0)), [1]);
        assert_eq!(lengths(&cut(vec![Part::Bytes(noise(CONTENT.whole))], 0)), [CONTENT.whole as i64]);
    }

    #[test]
    fn long_runs_of_zeros_are_holes_wherever_they_are() {
        let hole = HOLE_BYTES_MIN as i64;
        let zeros = || Part::Bytes(vec![0; HOLE_BYTES_MIN as usize]);
        let data = || Part::Bytes(noise(BLOCK_BYTES));
        let block = BLOCK_BYTES as i64;
        assert_eq!(lengths(&cut(vec![zeros()], 0)), [-hole]);
        assert_eq!(lengths(&cut(vec![data(), zeros()], 0)), [block, -hole]);
        assert_eq!(lengths(&cut(vec![zeros(), data()], 0)), [-hole, block]);
        assert_eq!(
            lengths(&cut(vec![data(), zeros(), Part::Zeros(1 << 40), data()], 0)),
            [block, -hole - (1 << 40), block]
        );
        // Too short for a hole.
        let short = || Part::Zeros(HOLE_BYTES_MIN - BLOCK_BYTES as u64);
        assert_eq!(lengths(&cut(vec![data(), short(), data()], 0)), [hole + block]);
        assert_eq!(lengths(&cut(vec![short()], 0)), [hole - block]);
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let before = noise(1 << 20);
        let after = [b"inserted".as_slice(), &before].concat();
        let (before, after) = (cut(vec![Part::Bytes(before)], 1), cut(vec![Part::Bytes(after)], 1));
        let new = after.iter().filter(|piece| !before.contains(piece)).count();
        assert!((1..=3).contains(&new), "{new} of {} chunks are new", after.len());
    }

    proptest! {
        /// Whether zeros were read or skipped, and in what parts, makes no difference; and nothing is lost.
        #[test]
        fn the_cuts_depend_on_the_contents_alone(
            blocks in proptest::collection::vec((any::<bool>(), 1..20_usize), 0..30), tail in 0..BLOCK_BYTES, seed: u64,
        ) {
            let noise = noise(20 * BLOCK_BYTES);
            let mut whole = Vec::new();
            let mut parts = Vec::new();
            for (data, blocks) in blocks {
                let bytes = blocks * BLOCK_BYTES;
                if data {
                    whole.extend_from_slice(&noise[..bytes]);
                    parts.push(Part::Bytes(noise[..bytes].to_vec()));
                } else {
                    whole.resize(whole.len() + bytes, 0);
                    parts.push(Part::Zeros(bytes as u64));
                }
            }
            whole.extend_from_slice(&noise[..tail]);
            parts.push(Part::Bytes(noise[..tail].to_vec()));
            let pieces = cut(parts, seed);
            prop_assert_eq!(&joined(&pieces), &whole);
            prop_assert_eq!(pieces, cut(vec![Part::Bytes(whole)], seed));
        }
    }
}
