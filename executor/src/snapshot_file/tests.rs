//! What a snapshot in a file keeps, and what is refused of one that was altered.

use super::write::Writer;
use super::*;
use crate::checkpoint::Checkpointer;
use crate::manifest::{self, Extent, FileTime, Node};
use crate::restore::restore;
use outlive_schemas::checkpoint::{BlobName, CheckpointRef, Taken};
use outlive_schemas::id::CheckpointNumber;
use outlive_store::blob::{BlobStore as _, MemoryBlobs, Owner};
use outlive_store::keyring::Keyring;
use outlive_store::seal::Key;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FROM: JobId = JobId(uuid::Uuid::from_u128(1));
const TO: JobId = JobId(uuid::Uuid::from_u128(2));

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

fn keyring() -> Keyring {
    Keyring::of(&key(9))
}

fn about() -> About {
    About {
        cluster: "here".to_owned(),
        namespace: Namespace::new("default").expect("a namespace"),
        job: FROM,
        name: "before".parse().expect("a name"),
        created_at: Timestamp(1),
        job_version: JobVersion(3),
        written_by: "0".to_owned(),
    }
}

struct World {
    room: tempfile::TempDir,
    blobs: Arc<MemoryBlobs>,
}

impl World {
    fn new() -> World {
        World { room: tempfile::tempdir().expect("a directory"), blobs: Arc::new(MemoryBlobs::new()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    /// A state with everything that a state may have: nested, linked, with a hole, the same twice, and so many files
    /// that the manifest does not fit its root.
    fn state(&self) -> PathBuf {
        let state = self.path("state");
        fs::create_dir_all(state.join("deep/er")).expect("made");
        let mut bytes = vec![0; 700_000];
        blake3::Hasher::new().update(b"x").finalize_xof().fill(&mut bytes);
        fs::write(state.join("large"), &bytes).expect("written");
        fs::write(state.join("deep/the same"), &bytes).expect("written");
        fs::write(state.join("deep/er/tool"), vec![b't'; 40_000]).expect("written");
        fs::set_permissions(state.join("deep/er/tool"), fs::Permissions::from_mode(0o755)).expect("changed");
        let sparse = File::create(state.join("sparse")).expect("made");
        sparse.set_len(3 << 20).expect("made longer");
        std::os::unix::fs::symlink("deep/er", state.join("link")).expect("made");
        for number in 0..2_000 {
            fs::write(state.join(format!("deep/file-{number}")), number.to_string()).expect("written");
        }
        state
    }

    async fn taken(&self, state: PathBuf) -> Taken {
        let staging = self.path("staging");
        fs::create_dir_all(&staging).expect("made");
        let checkpointer = Checkpointer::new(FROM, key(1), state, staging, self.blobs.clone(), None);
        let reading = checkpointer.read().expect("read");
        checkpointer.store(reading, std::future::pending()).await.expect("stored").expect("there is a state")
    }

    async fn exported(&self, manifest: Option<BlobName>) -> PathBuf {
        let path = self.path("a.snapshot");
        let file = File::create(&path).expect("made");
        let made = export(self.blobs.clone(), &key(1), about(), manifest, &keyring(), file).await.expect("exported");
        assert_eq!(made.bytes, fs::metadata(&path).expect("there").len());
        path
    }

    fn refused(&self, bytes: &[u8], keyring: &Keyring) -> FileError {
        let path = self.path("bad");
        fs::write(&path, bytes).expect("written");
        check(File::open(&path).expect("there"), keyring).expect_err("refused")
    }
}

/// Everything below a directory: path, mode, contents or where it leads to.
fn listed(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(next) = ahead.pop() {
        for entry in fs::read_dir(next).expect("there") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("there");
            let content = if meta.is_symlink() {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            } else if meta.is_dir() {
                ahead.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).expect("read")
            };
            let mode = meta.permissions().mode();
            all.push((path.strip_prefix(directory).expect("inside").to_owned(), mode, content));
        }
    }
    all.sort();
    all
}

fn open(path: &Path) -> File {
    File::open(path).expect("there")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_under_another_jobs_key() {
    let here = World::new();
    let state = here.state();
    let taken = here.taken(state.clone()).await;
    let path = here.exported(Some(taken.manifest)).await;
    let checked = check(open(&path), &keyring()).expect("sound");
    assert_eq!((checked.about, checked.size_bytes, checked.files), (about(), taken.size_bytes, taken.files));
    let stored = fs::metadata(&path).expect("there").len();
    assert!(stored < 1_200_000, "the same bytes are in it once: {stored}");

    let there = World::new();
    let target = Target::new(there.blobs.clone(), TO, &key(2), Vec::new()).await.expect("a target");
    let imported = import(open(&path), &keyring(), &target).await.expect("imported").expect("a state");
    assert_eq!((imported.size_bytes, imported.files), (taken.size_bytes, taken.files));
    assert_ne!(imported.manifest, taken.manifest, "names are the other job's");
    let from = CheckpointRef { number: CheckpointNumber(1), manifest: imported.manifest };
    let into = there.path("restored");
    restore(there.blobs.clone(), key(2), TO, from, into.clone(), None).await.expect("restored");
    assert_eq!(listed(&into), listed(&state));

    // Once more, as after an import that was broken off: it comes to the same.
    let before = there.blobs.list(Owner::Job(TO)).await.expect("listed").len();
    let target = Target::new(there.blobs.clone(), TO, &key(2), Vec::new()).await.expect("a target");
    let again = import(open(&path), &keyring(), &target).await.expect("imported").expect("a state");
    assert_eq!(again.manifest, imported.manifest);
    // And where it is retained nothing is put again.
    let target = Target::new(there.blobs.clone(), TO, &key(2), vec![again.manifest]).await.expect("a target");
    let again = import(open(&path), &keyring(), &target).await.expect("imported").expect("a state");
    assert_eq!((again.manifest, again.uploaded_bytes), (imported.manifest, 0));
    assert_eq!(there.blobs.list(Owner::Job(TO)).await.expect("listed").len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_empty_goes_as_well() {
    let here = World::new();
    let path = here.exported(None).await;
    assert!(check(open(&path), &keyring()).expect("sound").is_empty);
    let target = Target::new(here.blobs.clone(), TO, &key(2), Vec::new()).await.expect("a target");
    assert_eq!(import(open(&path), &keyring(), &target).await.expect("imported"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_altered_is_refused_by_what_is_wrong_with_it() {
    let world = World::new();
    let state = world.path("state");
    fs::create_dir(&state).expect("made");
    let mut bytes = vec![0; 300_000];
    blake3::Hasher::new().update(b"y").finalize_xof().fill(&mut bytes);
    fs::write(state.join("file"), &bytes).expect("written");
    let taken = world.taken(state).await;
    let whole = fs::read(world.exported(Some(taken.manifest)).await).expect("there");

    // The parts by themselves.
    let head = MAGIC.len() + 1 + outlive_store::keyring::WRAPPED_BYTES;
    let (mut parts, mut at) = (Vec::new(), head);
    while at < whole.len() {
        let length = u32::from_le_bytes(whole[at..at + 4].try_into().expect("four")) as usize;
        parts.push(&whole[at..at + 4 + length]);
        at += 4 + length;
    }
    assert!(parts.len() > 5, "{}", parts.len());
    let file = |parts: &[&[u8]]| [&whole[..head], &parts.concat()].concat();

    // Cut anywhere, and at every seam.
    let mut cuts: Vec<usize> = (0..whole.len()).step_by(whole.len() / 97).collect();
    cuts.extend((0..parts.len()).map(|count| file(&parts[..count]).len()));
    for length in cuts {
        let refused = world.refused(&whole[..length], &keyring());
        assert!(matches!(refused, FileError::CutShort { .. } | FileError::NotASnapshot), "{length}: {refused:?}");
    }
    // A bit anywhere.
    for at in (0..head + 200).chain((head..whole.len()).step_by(whole.len() / 97)) {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        world.refused(&altered, &keyring());
    }
    // Parts that changed places, came twice, or are missing.
    let last = parts.len() - 1;
    for other in [
        [&parts[..2], &[parts[3], parts[2]], &parts[4..]].concat(),
        [&parts[..3], &parts[2..]].concat(),
        [&parts[..2], &parts[3..]].concat(),
        [&parts[..last - 1], &parts[last..]].concat(),
        [&[parts[1], parts[0]], &parts[2..]].concat(),
    ] {
        let refused = world.refused(&file(&other), &keyring());
        assert!(matches!(refused, FileError::Sealed { .. }), "{refused:?}");
    }
    // A part of another file of the same snapshot.
    let other = fs::read(world.exported(Some(taken.manifest)).await).expect("there");
    let mixed = [&whole[..head + parts[0].len()], &other[head + parts[0].len()..]].concat();
    assert!(matches!(world.refused(&mixed, &keyring()), FileError::Sealed { part: 1, .. }));
    let more = [&whole[..], b"x"].concat();
    assert!(matches!(world.refused(&more, &keyring()), FileError::Trailing));
    let huge = [&whole[..head], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(world.refused(&huge, &keyring()), FileError::TooLong { part: 0, .. }));
    // Another key, another version, and something else altogether.
    let refused = world.refused(&whole, &Keyring::of(&key(8)));
    assert!(matches!(&refused, FileError::Key(UnwrapError::UnknownMaster { .. })), "{refused:?}");
    let newer = [&MAGIC[..], &[FORMAT + 1], &whole[5..]].concat();
    assert!(matches!(world.refused(&newer, &keyring()), FileError::Format { given: 2 }));
    assert!(matches!(world.refused(b"#!/bin/sh\n", &keyring()), FileError::NotASnapshot));
    assert!(matches!(world.refused(b"", &keyring()), FileError::NotASnapshot));
}

#[test]
fn what_leads_out_of_the_state_is_refused_though_it_is_sealed_well() {
    let world = World::new();
    let refused = |entries: &[Entry], chunks: &[&[u8]]| {
        let mut packed = Vec::new();
        entries.iter().for_each(|entry| manifest::append(entry, &mut packed));
        let path = world.path("made");
        let file = File::create(&path).expect("made");
        let mut writer = Writer::begin(file, &keyring(), about(), Some(&packed)).expect("begun");
        chunks.iter().for_each(|chunk| writer.chunk(chunk).expect("written"));
        writer.finish().expect("finished");
        check(open(&path), &keyring())
    };
    let entry =
        |path: &str, node: Node| Entry { path: path.as_bytes().to_vec(), mode: 0o644, modified: FileTime(0, 0), node };
    let link = |target: &str| Node::Symlink { target: target.as_bytes().to_vec() };
    for bad in [
        entry("../outside", Node::Fifo),
        entry("/etc/passwd", Node::Fifo),
        entry("a//b", Node::Fifo),
        Entry { mode: 0o4755, ..entry("a", Node::Fifo) },
        entry("a", link("../outside")),
        entry("a", link("/etc")),
    ] {
        let refused = refused(std::slice::from_ref(&bad), &[]);
        assert!(matches!(refused, Err(FileError::Manifest(_))), "{bad:?}: {refused:?}");
    }
    // A chunk that is not as long as it is said to be.
    let chunk = ChunkRef(BlobName([1; 32]), 5);
    let file = Node::File { size: 5, extents: vec![Extent::Chunk(chunk)].into() };
    assert!(refused(&[entry("a", file.clone())], &[b"12345"]).is_ok());
    for other in [&b"1234"[..], b"123456"] {
        assert!(matches!(refused(&[entry("a", file.clone())], &[other]), Err(FileError::Packed { .. })));
    }
    assert!(matches!(refused(&[entry("a", file)], &[]), Err(FileError::Sealed { .. })), "the end where a chunk is due");
}
