//! The keyring: master keys, read from files at the start, which wrap every other key.
//!
//! Several keys may be given at once: the first wraps, all unwrap, so that a key can be replaced while the old one is
//! still needed. Wrapped keys are kept by `key_store.rs`; nothing here talks to a server, and nothing here logs a key.

use crate::seal::{self, KEY_BYTES, Key, KeyId, OpenError, SEAL_BYTES};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a key file begins with; the number is the format's version.
const FILE_WORD: &str = "outlive-key-1";
/// A key file is one line of less than a hundred bytes. More is some other file, and is not read to its end.
const FILE_BYTES_MAX: u64 = 1_024;
/// What a wrapped key begins with; the last byte is the format's version.
const WRAPPED_MAGIC: [u8; 4] = *b"OLK\x01";
const WRAPPED_HEADER_BYTES: usize = WRAPPED_MAGIC.len() + 8;
/// A wrapped key, whichever it is.
pub const WRAPPED_BYTES: usize = WRAPPED_HEADER_BYTES + KEY_BYTES + SEAL_BYTES;
const WRAP_CONTEXT: &str = "wrap keys";

/// The section `keys` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// Files with master keys. The first wraps new keys; all of them unwrap.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("`keys.files` is empty: make a key file with `outlive keys generate FILE` and name it there")]
    NoFiles,
    #[error("there is no key file {}: make one with `outlive keys generate`, or correct `keys.files`", path.display())]
    Missing { path: PathBuf },
    #[error("the key file {} cannot be read: see that it is a file and that this user may read it", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a key file: {what}", path.display())]
    Malformed { path: PathBuf, what: &'static str },
    #[error(
        "the key file {} is damaged: its key does not have the id {id} that it gives; restore it from a backup",
        path.display()
    )]
    Damaged { path: PathBuf, id: String },
}

#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("{} is there already and is not overwritten: everything sealed with it would be lost", path.display())]
    Exists { path: PathBuf },
    #[error("the key file {} cannot be written", path.display())]
    Unwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    #[error("{bytes} bytes are not a wrapped key, which has {WRAPPED_BYTES}")]
    WrongLength { bytes: usize },
    #[error("the wrapped key has a format this version does not know: a newer version of outlive wrote it")]
    UnknownFormat,
    #[error("unknown master key {id}: give the file that holds it in keys.files")]
    UnknownMaster { id: KeyId },
    #[error("the wrapped key is damaged, or belongs somewhere else; master key {id} does not open it")]
    Damaged {
        id: KeyId,
        #[source]
        source: OpenError,
    },
}

/// Master keys, the active one first.
#[derive(Debug)]
pub struct Keyring {
    active: Master,
    older: Vec<Master>,
}

#[derive(Debug)]
struct Master {
    id: KeyId,
    wrapping: Key,
}

impl Master {
    fn new(key: &Key) -> Master {
        Master { id: key.id(), wrapping: key.derive(WRAP_CONTEXT) }
    }
}

impl Keyring {
    /// Reads every file that the configuration names; one that is wrong is an error, not a partial start.
    pub fn load(config: &KeysConfig) -> Result<Keyring, KeyringError> {
        let mut masters = config.files.iter().map(|path| read_file(path).map(|key| Master::new(&key)));
        let active = masters.next().ok_or(KeyringError::NoFiles)??;
        Ok(Keyring { active, older: masters.collect::<Result<_, _>>()? })
    }

    /// A keyring of one key that is in no file: for tests and simulations.
    pub fn of(key: &Key) -> Keyring {
        Keyring { active: Master::new(key), older: Vec::new() }
    }

    /// The master key that wraps.
    pub fn active(&self) -> KeyId {
        self.active.id
    }

    /// Wraps `key` for one purpose; it unwraps for no other.
    pub fn wrap(&self, purpose: &[u8], key: &Key) -> Vec<u8> {
        let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
        wrapped.extend_from_slice(&WRAPPED_MAGIC);
        wrapped.extend_from_slice(&self.active.id.0);
        let sealed = seal::seal(&self.active.wrapping, &associated(&wrapped, purpose), key.expose());
        wrapped.extend_from_slice(&sealed);
        wrapped
    }

    /// The key that [`Keyring::wrap`] wrapped for this purpose, with whichever of the masters it was.
    pub fn unwrap(&self, purpose: &[u8], wrapped: &[u8]) -> Result<Key, UnwrapError> {
        if wrapped.len() >= 4 && wrapped[..3] == WRAPPED_MAGIC[..3] && wrapped[3] != WRAPPED_MAGIC[3] {
            return Err(UnwrapError::UnknownFormat);
        }
        let wrong_length = UnwrapError::WrongLength { bytes: wrapped.len() };
        if wrapped.len() != WRAPPED_BYTES || wrapped[..4] != WRAPPED_MAGIC {
            return Err(wrong_length);
        }
        let (header, sealed) = wrapped.split_at(WRAPPED_HEADER_BYTES);
        let id = KeyId(std::array::from_fn(|i| header[WRAPPED_MAGIC.len() + i]));
        let master = std::iter::once(&self.active).chain(&self.older).find(|master| master.id == id);
        let master = master.ok_or(UnwrapError::UnknownMaster { id })?;
        let opened = seal::open(&master.wrapping, &associated(header, purpose), sealed);
        let opened = Zeroizing::new(opened.map_err(|source| UnwrapError::Damaged { id, source })?);
        let bytes = <[u8; KEY_BYTES]>::try_from(opened.as_slice()).map_err(|_| wrong_length)?;
        Ok(Key::from_bytes(bytes))
    }
}

fn associated(header: &[u8], purpose: &[u8]) -> Vec<u8> {
    [header, purpose].concat()
}

/// Writes a fresh master key that only the owner may read, and returns its id.
pub fn generate_file(path: &Path) -> Result<KeyId, GenerateError> {
    let unwritable = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => GenerateError::Exists { path: path.to_owned() },
        _ => GenerateError::Unwritable { path: path.to_owned(), source },
    };
    let key = Key::generate();
    let line = Zeroizing::new(format!("{FILE_WORD} {} {}\n", key.id(), *Zeroizing::new(BASE64.encode(key.expose()))));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritable)?;
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_parent(path));
    written.map_err(|source| {
        // Half a key is worse than none; that it cannot be removed adds nothing to the first error.
        let _ = std::fs::remove_file(path);
        unwritable(source)
    })?;
    Ok(key.id())
}

/// A new file's name is durable only once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

fn read_file(path: &Path) -> Result<Key, KeyringError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyringError::Missing { path: path.to_owned() },
        _ => KeyringError::Unreadable { path: path.to_owned(), source },
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = %format!("{:o}", mode & 0o777),
            "others than its owner may read or write this key file: run chmod 600 on it");
    }
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    parse(path, &text)
}

fn parse(path: &Path, text: &[u8]) -> Result<Key, KeyringError> {
    let malformed = |what| KeyringError::Malformed { path: path.to_owned(), what };
    let shape = "it should hold one line, `outlive-key-1 <id> <key>`, as `outlive keys generate` writes it";
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed("it is longer than any key file"));
    }
    let text = std::str::from_utf8(text).map_err(|_| malformed("it is not text"))?;
    let mut words = text.split_ascii_whitespace();
    let (word, id, encoded) = (words.next(), words.next(), words.next());
    if word.is_some_and(|word| word.starts_with("outlive-key-") && word != FILE_WORD) {
        return Err(malformed("its format is not known to this version: a newer version of outlive wrote it"));
    }
    let (Some(FILE_WORD), Some(id), Some(encoded), None) = (word, id, encoded, words.next()) else {
        return Err(malformed(shape));
    };
    let decoded = Zeroizing::new(BASE64.decode(encoded).map_err(|_| malformed("its key is not base64"))?);
    let bytes = <[u8; KEY_BYTES]>::try_from(decoded.as_slice()).map_err(|_| malformed("its key has not 32 bytes"))?;
    let key = Key::from_bytes(bytes);
    if key.id().to_string() != id {
        return Err(KeyringError::Damaged { path: path.to_owned(), id: id.chars().take(32).collect() });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        generate_file(&path).expect("a key file");
        path
    }

    fn load(files: &[&Path]) -> Result<Keyring, KeyringError> {
        Keyring::load(&KeysConfig { files: files.iter().map(|path| path.to_path_buf()).collect() })
    }

    #[test]
    fn a_generated_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = generated(dir.path(), "key");
        let before = std::fs::read(&path).expect("its text");
        assert_eq!(std::fs::metadata(&path).expect("its mode").permissions().mode() & 0o777, 0o600);
        assert!(matches!(generate_file(&path), Err(GenerateError::Exists { .. })));
        assert_eq!(std::fs::read(&path).expect("its text"), before);
        assert!(matches!(generate_file(&dir.path().join("no/key")), Err(GenerateError::Unwritable { .. })));
    }

    #[test]
    fn the_first_key_wraps_and_all_unwrap() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (generated(dir.path(), "old"), generated(dir.path(), "new"));
        let key = Key::generate();
        let wrapped = load(&[&old]).expect("old").wrap(b"job 1", &key);
        let both = load(&[&new, &old]).expect("both");
        assert_eq!(both.unwrap(b"job 1", &wrapped), Ok(key.clone()));
        assert!(matches!(both.unwrap(b"job 2", &wrapped), Err(UnwrapError::Damaged { .. })));
        let again = both.wrap(b"job 1", &key);
        assert_eq!(load(&[&new]).expect("new").unwrap(b"job 1", &again), Ok(key));

        let id = load(&[&old]).expect("old").active();
        let unknown = load(&[&new]).expect("new").unwrap(b"job 1", &wrapped).expect_err("unknown");
        assert_eq!(unknown.to_string(), format!("unknown master key {id}: give the file that holds it in keys.files"));
    }

    #[test]
    fn wrapped_keys_are_checked_byte_by_byte() {
        let keyring = Keyring::of(&Key::from_bytes([1; 32]));
        let wrapped = keyring.wrap(b"", &Key::from_bytes([2; 32]));
        for at in 0..wrapped.len() {
            let mut altered = wrapped.clone();
            altered[at] ^= 1;
            assert!(keyring.unwrap(b"", &altered).is_err(), "byte {at}");
            assert!(keyring.unwrap(b"", &wrapped[..at]).is_err(), "{at} bytes");
        }
        let mut newer = wrapped;
        newer[3] = 2;
        assert_eq!(keyring.unwrap(b"", &newer), Err(UnwrapError::UnknownFormat));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let good = std::fs::read_to_string(generated(dir.path(), "good")).expect("its text");
        let words: Vec<&str> = good.split_whitespace().collect();
        let other = BASE64.encode([7; 32]);
        let refused = |text: &[u8]| {
            let path = dir.path().join("bad");
            std::fs::write(&path, text).expect("written");
            let refusal = load(&[&path]).expect_err("refused").to_string();
            assert!(!refusal.contains(words[2]) && !refusal.contains(&other), "shows a key: {refusal}");
            refusal
        };
        assert!(refused(b"").contains("one line"));
        assert!(refused(format!("{good}{good}").as_bytes()).contains("one line"));
        assert!(refused(b"-----BEGIN PRIVATE KEY-----").contains("one line"));
        assert!(refused(format!("outlive-key-2 {} {}", words[1], words[2]).as_bytes()).contains("newer"));
        assert!(refused(format!("{} {} ???", words[0], words[1]).as_bytes()).contains("base64"));
        assert!(refused(format!("{} {} AAAA", words[0], words[1]).as_bytes()).contains("32 bytes"));
        assert!(refused(format!("{} {} {other}", words[0], words[1]).as_bytes()).contains("damaged"));
        assert!(refused(&[0xff; 10]).contains("not text"));
        assert!(refused(&[b'a'; 5_000]).contains("longer"));
        assert!(matches!(load(&[]), Err(KeyringError::NoFiles)));
        assert!(matches!(load(&[&dir.path().join("none")]), Err(KeyringError::Missing { .. })));
        assert!(matches!(load(&[dir.path()]), Err(KeyringError::Unreadable { .. })));
    }

    #[test]
    fn the_configuration_refuses_what_it_does_not_know() {
        assert!(serde_json::from_str::<KeysConfig>(r#"{"files":["/a"],"file":"/b"}"#).is_err());
    }
}
