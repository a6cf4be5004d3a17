//! The directory of a backup: which runs it holds, and which files they consist of.
//!
//! `manifest.json` names every file with its length and hash, and has a hash of its own. It is replaced as a whole, last:
//! so a run that is stopped half-way leaves the runs before it as they were, and at most some files that nobody names.
//! A directory comes from outside: names in it are names of files beside the manifest, and nothing else.

use super::BackupError;
use super::pack::{PackReader, PackWriter, Written};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;
/// At some hundred bytes for a file and five files a run this is tens of thousands of runs.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Commits, new since the run before.
    Log,
    /// Blobs, new since the run before.
    Blobs,
    /// Jobs' output, new since the run before.
    Output,
    /// Every wrapped key that there was. Those of earlier runs are removed: a key that was destroyed since must not
    /// live on in a backup.
    Keys,
    /// Subjects of every blob that there was, without bodies.
    Alive,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Blobs => "blobs",
            Kind::Output => "output",
            Kind::Keys => "keys",
            Kind::Alive => "alive",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    pub name: String,
    pub kind: Kind,
    pub run: u32,
    pub records: u64,
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
    pub blake3: String,
}

/// A position of the log, and what is known of it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPoint {
    pub seq: Sequence,
    /// The chain's hash right after it, in hexadecimal.
    #[serde(with = "hex")]
    pub chain: [u8; 32],
    /// The highest term up to there.
    pub term: Term,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub number: u32,
    pub at: Timestamp,
    /// The version of the program that wrote it.
    pub version: String,
    pub log: LogPoint,
    /// How far the other streams were read.
    pub blobs_end: u64,
    pub output_end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    cluster: String,
    runs: Vec<Run>,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    blake3: String,
    contents: serde_json::Value,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(*bytes).to_hex().as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(text.as_bytes()).map(Into::into).map_err(serde::de::Error::custom)
    }
}

/// An open backup.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    contents: Contents,
}

impl Directory {
    /// A backup that is there.
    pub fn open(path: &Path) -> Result<Directory, BackupError> {
        let damaged = |what: String| BackupError::Damaged { file: MANIFEST.to_owned(), what };
        let file = path.join(MANIFEST);
        let opened = File::open(&file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => BackupError::NotABackup { path: path.to_owned() },
            _ => BackupError::Io { doing: "read", path: file.clone(), source },
        })?;
        let mut text = Vec::new();
        let read = opened.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|source| BackupError::Io { doing: "read", path: file, source })?;
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(damaged(format!("it is longer than {MANIFEST_BYTES_MAX} bytes")));
        }
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if let Some(found) = value.get("format").and_then(serde_json::Value::as_u64)
            && found != u64::from(FORMAT)
        {
            return Err(BackupError::UnknownFormat { found, known: FORMAT });
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        if hash_of(&manifest.contents) != manifest.blake3 {
            return Err(damaged("its contents do not belong to its hash".to_owned()));
        }
        let contents: Contents =
            serde_json::from_value(manifest.contents).map_err(|error| damaged(error.to_string()))?;
        for entry in &contents.files {
            // What a name may be is what this program gives: anything else could lead out of the directory.
            if entry.name != file_name(entry.kind, entry.run) {
                return Err(damaged(format!("`{}` is not the name of a file of a backup", entry.name)));
            }
        }
        if contents.runs.is_empty() {
            return Err(damaged("it holds no run".to_owned()));
        }
        Ok(Directory { path: path.to_owned(), contents })
    }

    /// The backup that is there, or a new one in a directory that is empty or not there yet.
    pub fn open_or_create(path: &Path, cluster: &str) -> Result<Directory, BackupError> {
        let io = |doing, source| BackupError::Io { doing, path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(|source| io("made", source))?;
        match Directory::open(path) {
            Ok(found) if found.contents.cluster == cluster => Ok(found),
            Ok(found) => Err(BackupError::AnotherCluster { found: found.contents.cluster, wanted: cluster.to_owned() }),
            Err(BackupError::NotABackup { .. }) => {
                let mut entries = std::fs::read_dir(path).map_err(|source| io("read", source))?;
                // A first run that was stopped leaves only files of its own.
                let foreign = |name: &str| !name.ends_with("-1.pack") && !name.starts_with(MANIFEST);
                if entries.any(|entry| entry.is_ok_and(|entry| foreign(&entry.file_name().to_string_lossy()))) {
                    return Err(BackupError::NotEmpty { path: path.to_owned() });
                }
                let contents = Contents { cluster: cluster.to_owned(), runs: Vec::new(), files: Vec::new() };
                Ok(Directory { path: path.to_owned(), contents })
            }
            Err(error) => Err(error),
        }
    }

    pub fn cluster(&self) -> &str {
        &self.contents.cluster
    }

    /// Oldest first.
    pub fn runs(&self) -> &[Run] {
        &self.contents.runs
    }

    pub fn last_run(&self) -> Option<&Run> {
        self.contents.runs.last()
    }

    /// The files of one kind, in the order of their runs.
    pub fn files(&self, kind: Kind) -> impl Iterator<Item = &FileEntry> {
        self.contents.files.iter().filter(move |entry| entry.kind == kind)
    }

    pub fn all_files(&self) -> &[FileEntry] {
        &self.contents.files
    }

    /// The first commit that is held.
    pub fn log_first(&self) -> Sequence {
        self.files(Kind::Log).find(|entry| entry.records > 0).map_or(Sequence(1), |entry| Sequence(entry.first))
    }

    pub fn next_run(&self) -> u32 {
        self.last_run().map_or(1, |run| run.number + 1)
    }

    /// A file of the run that is being written.
    pub fn writer(&self, kind: Kind) -> Result<PackWriter, BackupError> {
        PackWriter::create(&self.path.join(file_name(kind, self.next_run())))
    }

    pub fn reader(&self, entry: &FileEntry) -> Result<PackReader, BackupError> {
        PackReader::open(&self.path.join(&entry.name))
    }

    /// Whether a file is what the manifest says, every byte of it.
    pub fn check(&self, entry: &FileEntry) -> Result<(), BackupError> {
        let path = self.path.join(&entry.name);
        let file = File::open(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => BackupError::Missing { file: entry.name.clone() },
            _ => BackupError::Io { doing: "read", path: path.clone(), source },
        })?;
        let damaged = |what: String| BackupError::Damaged { file: entry.name.clone(), what };
        let bytes =
            file.metadata().map_err(|source| BackupError::Io { doing: "read", path: path.clone(), source })?.len();
        if bytes != entry.bytes {
            return Err(damaged(format!("it has {bytes} bytes instead of {}", entry.bytes)));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(|source| BackupError::Io { doing: "read", path, source })?;
        if hasher.finalize().to_hex().as_str() != entry.blake3 {
            return Err(damaged("its contents do not belong to its hash".to_owned()));
        }
        Ok(())
    }

    /// The run is written: from now on it is part of the backup.
    pub fn commit(&mut self, run: Run, files: Vec<(Kind, Written)>) -> Result<(), BackupError> {
        let number = run.number;
        let entries = files.into_iter().map(|(kind, written)| FileEntry {
            name: file_name(kind, number),
            kind,
            run: number,
            records: written.records,
            first: written.first,
            last: written.last,
            bytes: written.bytes,
            blake3: written.hash.to_hex().to_string(),
        });
        let mut next = self.contents.clone();
        next.files.extend(entries);
        next.runs.push(run);
        let outdated = |entry: &FileEntry| entry.kind == Kind::Keys && entry.run < number;
        let gone: Vec<String> = next.files.iter().filter(|e| outdated(e)).map(|e| e.name.clone()).collect();
        next.files.retain(|entry| !outdated(entry));
        self.replace_manifest(&next)?;
        self.contents = next;
        for name in gone {
            // What the manifest no longer names is no longer part of it; but keys must not lie about.
            if let Err(error) = std::fs::remove_file(self.path.join(&name)) {
                tracing::warn!(name, %error, "the keys of an earlier run could not be removed");
            }
        }
        Ok(())
    }

    fn replace_manifest(&self, contents: &Contents) -> Result<(), BackupError> {
        let contents = serde_json::to_value(contents).expect("names and numbers can be written");
        let manifest = Manifest { format: FORMAT, blake3: hash_of(&contents), contents };
        let text = serde_json::to_vec_pretty(&manifest).expect("names and numbers can be written");
        let (beside, path) = (self.path.join(format!("{MANIFEST}.new")), self.path.join(MANIFEST));
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&beside, &path))
            .and_then(|()| File::open(&self.path)?.sync_all());
        written.map_err(|source| BackupError::Io { doing: "written", path, source })
    }
}

fn file_name(kind: Kind, run: u32) -> String {
    format!("{}-{run}.pack", kind.as_str())
}

/// serde_json keeps a value's keys in order, so that the same contents have the same text.
fn hash_of(contents: &serde_json::Value) -> String {
    let text = serde_json::to_vec(contents).expect("a value can be written");
    blake3::hash(&text).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Record;

    fn run(number: u32) -> Run {
        let log = LogPoint { seq: Sequence(u64::from(number) * 10), chain: [number as u8; 32], term: Term(3) };
        Run { number, at: Timestamp(1), version: "1".to_owned(), log, blobs_end: 5, output_end: 6 }
    }

    fn add(directory: &mut Directory, number: u32) {
        let files = [Kind::Log, Kind::Keys].map(|kind| {
            let mut writer = directory.writer(kind).expect("a writer");
            let body = vec![number as u8; 100];
            writer.push(&Record { seq: u64::from(number), at_ms: 1, subject: "s".to_owned(), body }).expect("written");
            (kind, writer.finish().expect("finished"))
        });
        directory.commit(run(number), files.into()).expect("committed");
    }

    #[test]
    fn runs_add_up_and_only_the_last_keys_stay() {
        let room = tempfile::tempdir().expect("a directory");
        let path = room.path().join("backup");
        let mut directory = Directory::open_or_create(&path, "c").expect("made");
        assert!(matches!(Directory::open(&path), Err(BackupError::NotABackup { .. })));
        add(&mut directory, 1);
        add(&mut directory, 2);
        let found = Directory::open(&path).expect("there");
        assert_eq!(found.runs(), [run(1), run(2)]);
        assert_eq!(found.files(Kind::Log).count(), 2);
        assert_eq!(found.files(Kind::Keys).map(|entry| entry.run).collect::<Vec<_>>(), [2]);
        assert!(!path.join("keys-1.pack").exists());
        found.all_files().iter().for_each(|entry| found.check(entry).expect("whole"));
        assert!(matches!(Directory::open_or_create(&path, "other"), Err(BackupError::AnotherCluster { .. })));
    }

    #[test]
    fn a_run_that_was_not_finished_leaves_the_one_before() {
        let room = tempfile::tempdir().expect("a directory");
        let mut directory = Directory::open_or_create(room.path(), "c").expect("made");
        // The first one of all may be stopped as well.
        directory.writer(Kind::Log).expect("a writer").finish().expect("finished");
        let mut directory_again = Directory::open_or_create(room.path(), "c").expect("its own leftovers");
        add(&mut directory_again, 1);
        directory = Directory::open(room.path()).expect("there");
        directory.writer(Kind::Log).expect("a writer").finish().expect("finished");
        assert_eq!(Directory::open(room.path()).expect("there").runs(), [run(1)]);
    }

    #[test]
    fn what_is_damaged_hostile_or_foreign_is_named() {
        let room = tempfile::tempdir().expect("a directory");
        let path = room.path().join("backup");
        let mut directory = Directory::open_or_create(&path, "c").expect("made");
        add(&mut directory, 1);
        let manifest = path.join(MANIFEST);
        let whole = std::fs::read_to_string(&manifest).expect("there");
        let with = |from: &str, to: &str| {
            assert!(whole.contains(from), "{from}");
            std::fs::write(&manifest, whole.replacen(from, to, 1)).expect("written");
            Directory::open(&path).expect_err("refused")
        };
        assert!(matches!(with("\"format\": 1", "\"format\": 2"), BackupError::UnknownFormat { found: 2, .. }));
        assert!(matches!(with("\"cluster\": \"c\"", "\"cluster\": \"d\""), BackupError::Damaged { .. }));
        assert!(matches!(with("{", ""), BackupError::Damaged { .. }));

        // A hostile one has a right hash.
        for name in ["../../etc/passwd", "/etc/passwd", "log-2.pack", "log-1.pack/../x", ""] {
            let mut contents = directory.contents.clone();
            contents.files[0].name = name.to_owned();
            directory.replace_manifest(&contents).expect("written");
            let refused = Directory::open(&path).expect_err("refused");
            assert!(
                matches!(&refused, BackupError::Damaged { what, .. } if what.contains("not the name")),
                "{refused}"
            );
        }
        std::fs::write(&manifest, vec![b' '; MANIFEST_BYTES_MAX as usize + 1]).expect("written");
        assert!(Directory::open(&path).expect_err("refused").to_string().contains("longer than"));
        std::fs::write(&manifest, &whole).expect("written");

        let entry = directory.files(Kind::Log).next().expect("one").clone();
        let pack = path.join(&entry.name);
        let mut bytes = std::fs::read(&pack).expect("there");
        *bytes.last_mut().expect("a byte") ^= 1;
        std::fs::write(&pack, &bytes).expect("written");
        assert!(directory.check(&entry).expect_err("refused").to_string().contains("hash"));
        std::fs::write(&pack, &bytes[1..]).expect("written");
        assert!(directory.check(&entry).expect_err("refused").to_string().contains("bytes instead of"));
        std::fs::remove_file(&pack).expect("removed");
        assert!(matches!(directory.check(&entry), Err(BackupError::Missing { .. })));

        std::fs::write(room.path().join("something.txt"), "x").expect("written");
        assert!(matches!(Directory::open_or_create(room.path(), "c"), Err(BackupError::NotEmpty { .. })));
    }
}
