//! One file of a backup: a row of records, each a message as it stood in its stream.
//!
//! ```text
//! "OLBK" version ‖ ( length (4 bytes, little endian) ‖ MessagePack [sequence, time, subject, body] )*
//! ```
//!
//! That a file is whole is the manifest's business, which holds its length and hash; a reader here bounds what a
//! damaged or hostile file can make it allocate, whether or not anybody has looked at the hash.

use super::BackupError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 5] = *b"OLBK\x01";
/// A record: a NATS message of a MiB at most, and some words around it.
pub const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;

/// A message as it stood in its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub seq: u64,
    /// When the server stored it, in milliseconds since 1970.
    pub at_ms: u64,
    pub subject: String,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl Record {
    pub fn body(&self) -> Bytes {
        Bytes::copy_from_slice(&self.body)
    }
}

/// What a finished file is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub records: u64,
    pub bytes: u64,
    pub hash: blake3::Hash,
    /// Sequences of the first and last record; 0 where there is none.
    pub first: u64,
    pub last: u64,
}

pub struct PackWriter {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    written: Written,
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    move |source| BackupError::Io { doing, path: path.to_owned(), source }
}

impl PackWriter {
    /// Writes a new file; one that is there, left by a run that was not finished, is overwritten.
    pub fn create(path: &Path) -> Result<PackWriter, BackupError> {
        let file = File::create(path).map_err(io("written", path))?;
        let written = Written { records: 0, bytes: 0, hash: blake3::hash(b""), first: 0, last: 0 };
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = PackWriter { path: path.to_owned(), file, hasher: blake3::Hasher::new(), written };
        writer.write(&MAGIC)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.hasher.update(bytes);
        self.written.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(io("written", &self.path))
    }

    pub fn push(&mut self, record: &Record) -> Result<(), BackupError> {
        let packed = rmp_serde::to_vec(record).expect("a record can be written to memory");
        if packed.len() > RECORD_BYTES_MAX {
            return Err(BackupError::TooLarge { bytes: packed.len(), max: RECORD_BYTES_MAX });
        }
        self.write(&(packed.len() as u32).to_le_bytes())?;
        self.write(&packed)?;
        if self.written.records == 0 {
            self.written.first = record.seq;
        }
        self.written.last = record.seq;
        self.written.records += 1;
        Ok(())
    }

    /// On `Ok` the file is on the disk.
    pub fn finish(mut self) -> Result<Written, BackupError> {
        self.file.flush().map_err(io("written", &self.path))?;
        self.file.get_ref().sync_all().map_err(io("written", &self.path))?;
        Ok(Written { hash: self.hasher.finalize(), ..self.written })
    }
}

/// Records of one file, in order.
pub struct PackReader {
    name: String,
    path: PathBuf,
    file: BufReader<File>,
}

impl PackReader {
    pub fn open(path: &Path) -> Result<PackReader, BackupError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = File::open(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => BackupError::Missing { file: name.clone() },
            _ => BackupError::Io { doing: "read", path: path.to_owned(), source },
        })?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut reader = PackReader { name, path: path.to_owned(), file };
        let mut magic = [0; MAGIC.len()];
        reader.file.read_exact(&mut magic).map_err(|_| reader.damaged("it is too short"))?;
        if magic != MAGIC {
            return Err(reader.damaged("it does not begin as a file of a backup does"));
        }
        Ok(reader)
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged { file: self.name.clone(), what: what.to_owned() }
    }

    /// The next record; nothing at the end.
    pub fn read(&mut self) -> Result<Option<Record>, BackupError> {
        let mut length = [0; 4];
        match self.file.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(source) => return Err(BackupError::Io { doing: "read", path: self.path.clone(), source }),
        }
        self.file.read_exact(&mut length[1..]).map_err(|_| self.damaged("it ends within a record"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > RECORD_BYTES_MAX {
            return Err(self.damaged(&format!("a record of {length} bytes is over the limit of {RECORD_BYTES_MAX}")));
        }
        let mut packed = vec![0; length];
        self.file.read_exact(&mut packed).map_err(|_| self.damaged("it ends within a record"))?;
        let record = rmp_serde::from_slice(&packed).map_err(|_| self.damaged("a record cannot be read"))?;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64) -> Record {
        let body = vec![seq as u8; seq as usize * 10];
        Record { seq, at_ms: 1_000 + seq, subject: format!("outlive.blob.{seq}"), body }
    }

    fn all(path: &Path) -> Result<Vec<Record>, BackupError> {
        let mut reader = PackReader::open(path)?;
        let mut found = Vec::new();
        while let Some(record) = reader.read()? {
            found.push(record);
        }
        Ok(found)
    }

    #[test]
    fn records_read_back() {
        let room = tempfile::tempdir().expect("a directory");
        let path = room.path().join("x.pack");
        let mut writer = PackWriter::create(&path).expect("created");
        let records: Vec<_> = [3, 7, 8].map(record).into();
        records.iter().for_each(|record| writer.push(record).expect("written"));
        let written = writer.finish().expect("finished");
        assert_eq!((written.records, written.first, written.last), (3, 3, 8));
        let bytes = std::fs::read(&path).expect("there");
        assert_eq!((written.bytes, written.hash), (bytes.len() as u64, blake3::hash(&bytes)));
        assert_eq!(all(&path).expect("readable"), records);
    }

    #[test]
    fn what_is_cut_or_hostile_is_named_and_allocates_little() {
        let room = tempfile::tempdir().expect("a directory");
        let path = room.path().join("x.pack");
        let mut writer = PackWriter::create(&path).expect("created");
        writer.push(&record(5)).expect("written");
        writer.finish().expect("finished");
        let whole = std::fs::read(&path).expect("there");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("cut");
            // Right behind its head it is a file without records.
            assert_eq!(all(&path).is_err(), length != MAGIC.len(), "{length}");
        }
        let huge = [&MAGIC[..], &u32::MAX.to_le_bytes()].concat();
        let odd = [&MAGIC[..], &3_u32.to_le_bytes(), b"\xc1\xc1\xc1"].concat();
        for bytes in [huge, odd, b"#!/bin/sh\n".to_vec()] {
            std::fs::write(&path, bytes).expect("written");
            assert!(matches!(all(&path), Err(BackupError::Damaged { .. })));
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(all(&path), Err(BackupError::Missing { file }) if file == "x.pack"));
    }
}
