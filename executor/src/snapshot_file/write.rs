//! Writing a file, part after part.

use super::{About, FORMAT, FileError, Head, MAGIC, PART_BYTES_MAX, PIECE_BYTES, PURPOSE, Part, binding};
use crate::chunk;
use outlive_store::keyring::Keyring;
use outlive_store::seal::{self, Key};
use std::fs::File;
use std::io::{BufWriter, Write as _};

const BUFFER_BYTES: usize = 256 << 10;

pub(super) struct Writer {
    file: BufWriter<File>,
    key: Key,
    place: u64,
    pub bytes: u64,
}

fn io(source: std::io::Error) -> FileError {
    FileError::Io { doing: "written", source }
}

impl Writer {
    /// `manifest` as it is packed; nothing where the state is empty.
    pub fn begin(file: File, keyring: &Keyring, about: About, manifest: Option<&[u8]>) -> Result<Writer, FileError> {
        let key = Key::generate();
        let mut writer = Writer { file: BufWriter::with_capacity(BUFFER_BYTES, file), key, place: 0, bytes: 0 };
        let wrapped = keyring.wrap(PURPOSE, &writer.key);
        writer.write(&[&MAGIC[..], &[FORMAT], &wrapped].concat())?;
        let head = Head { about, manifest_bytes: manifest.map(|manifest| manifest.len() as u64) };
        let head = rmp_serde::to_vec_named(&head).expect("a head has nothing that MessagePack cannot hold");
        writer.part(Part::Head, &head)?;
        for piece in manifest.unwrap_or_default().chunks(PIECE_BYTES) {
            writer.part(Part::Manifest, piece)?;
        }
        Ok(writer)
    }

    pub fn chunk(&mut self, content: &[u8]) -> Result<(), FileError> {
        self.part(Part::Chunk, content)
    }

    /// On `Ok` the file is on the disk.
    pub fn finish(mut self) -> Result<u64, FileError> {
        self.part(Part::End, b"")?;
        self.file.flush().map_err(io)?;
        self.file.get_ref().sync_all().map_err(io)?;
        Ok(self.bytes)
    }

    fn part(&mut self, part: Part, content: &[u8]) -> Result<(), FileError> {
        let sealed = seal::seal(&self.key, &binding(self.place, part), &chunk::pack(content));
        debug_assert!(sealed.len() <= PART_BYTES_MAX);
        self.place += 1;
        self.write(&(sealed.len() as u32).to_le_bytes())?;
        self.write(&sealed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(io)
    }
}
