//! Reading a file, part after part, as an enemy's.

use super::{About, FORMAT, FileError, Head, MAGIC, PART_BYTES_MAX, PIECE_BYTES, PURPOSE, Part, binding, distinct};
use crate::chunk::{self, ChunkRef, Damage};
use crate::manifest::{self, Entry, ManifestError, Node};
use outlive_schemas::limits::MANIFEST_BYTES_MAX;
use outlive_store::keyring::{Keyring, WRAPPED_BYTES};
use outlive_store::seal::{self, Key, KeyId};
use std::fs::File;
use std::io::{BufReader, Read as _};

const BUFFER_BYTES: usize = 256 << 10;
/// A head holds some names.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// A file that was read to its end, every byte of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub about: About,
    /// Tells this file from every other, one of the same snapshot among them.
    pub file: KeyId,
    /// Whether there is no state in it at all.
    pub is_empty: bool,
    pub size_bytes: u64,
    pub files: u64,
    pub chunks: u64,
}

/// Reads a whole file and gives what is in it. Nothing is kept but the manifest while it lasts. Blocks.
pub fn check(file: File, keyring: &Keyring) -> Result<Checked, FileError> {
    let (mut reader, head) = Reader::begin(file, keyring)?;
    let file = reader.key.id();
    let entries = reader.entries(&head)?;
    let chunks = distinct(&entries);
    for chunk in &chunks {
        reader.chunk(*chunk)?;
    }
    reader.end()?;
    let (size_bytes, files) = sums(&entries);
    let (is_empty, chunks) = (head.manifest_bytes.is_none(), chunks.len() as u64);
    Ok(Checked { about: head.about, file, is_empty, size_bytes, files, chunks })
}

/// Bytes and number of the files.
pub(super) fn sums(entries: &[Entry]) -> (u64, u64) {
    let sizes = entries.iter().filter_map(|entry| match &entry.node {
        Node::File { size, .. } => Some(*size),
        _ => None,
    });
    sizes.fold((0, 0), |(bytes, files), size| (bytes.saturating_add(size), files + 1))
}

pub(super) struct Reader {
    file: BufReader<File>,
    key: Key,
    /// Of the part that comes next.
    place: u64,
}

impl Reader {
    pub fn begin(file: File, keyring: &Keyring) -> Result<(Reader, Head), FileError> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut magic = [0; MAGIC.len() + 1];
        fill(&mut file, &mut magic, || FileError::NotASnapshot)?;
        if magic[..MAGIC.len()] != MAGIC {
            return Err(FileError::NotASnapshot);
        }
        match magic[MAGIC.len()] {
            FORMAT => {}
            given => return Err(FileError::Format { given }),
        }
        let mut wrapped = [0; WRAPPED_BYTES];
        fill(&mut file, &mut wrapped, || FileError::CutShort { part: 0 })?;
        let key = keyring.unwrap(PURPOSE, &wrapped).map_err(FileError::Key)?;
        let mut reader = Reader { file, key, place: 0 };
        let head = reader.part(Part::Head, HEAD_BYTES_MAX)?;
        let head = rmp_serde::from_slice(&head).map_err(|_| FileError::Undecodable { part: 0 })?;
        Ok((reader, head))
    }

    /// What the manifest says, checked as a restore checks it.
    pub fn entries(&mut self, head: &Head) -> Result<Vec<Entry>, FileError> {
        let Some(bytes) = head.manifest_bytes else { return Ok(Vec::new()) };
        let too_large = |bytes| FileError::Manifest(ManifestError::TooLarge { bytes });
        let bytes = usize::try_from(bytes).map_err(|_| too_large(usize::MAX))?;
        if bytes > MANIFEST_BYTES_MAX {
            return Err(too_large(bytes));
        }
        // Grows with what is there, not with what is announced.
        let mut manifest = Vec::new();
        while manifest.len() < bytes {
            let expected = PIECE_BYTES.min(bytes - manifest.len());
            let piece = self.exactly(Part::Manifest, expected)?;
            manifest.extend_from_slice(&piece);
        }
        manifest::read(&manifest).map_err(FileError::Manifest)
    }

    pub fn chunk(&mut self, chunk: ChunkRef) -> Result<Vec<u8>, FileError> {
        self.exactly(Part::Chunk, chunk.bytes())
    }

    pub fn end(&mut self) -> Result<(), FileError> {
        self.part(Part::End, 0)?;
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(FileError::Trailing),
            Err(source) => Err(FileError::Io { doing: "read", source }),
        }
    }

    fn exactly(&mut self, part: Part, expected: usize) -> Result<Vec<u8>, FileError> {
        let place = self.place;
        let content = self.part(part, expected)?;
        if content.len() == expected {
            return Ok(content);
        }
        let source = Damage::Length { expected, actual: content.len() };
        Err(FileError::Packed { part: place, source })
    }

    fn part(&mut self, part: Part, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let place = self.place;
        let cut_short = || FileError::CutShort { part: place };
        let mut length = [0; 4];
        fill(&mut self.file, &mut length, cut_short)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > PART_BYTES_MAX {
            return Err(FileError::TooLong { part: place, bytes: length });
        }
        let mut sealed = vec![0; length];
        fill(&mut self.file, &mut sealed, cut_short)?;
        let plain = seal::open(&self.key, &binding(place, part), &sealed)
            .map_err(|source| FileError::Sealed { part: place, source })?;
        self.place += 1;
        chunk::unpack(&plain, bytes_max).map_err(|source| FileError::Packed { part: place, source })
    }
}

fn fill(file: &mut BufReader<File>, bytes: &mut [u8], short: impl FnOnce() -> FileError) -> Result<(), FileError> {
    file.read_exact(bytes).map_err(|source| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => short(),
        _ => FileError::Io { doing: "read", source },
    })
}
