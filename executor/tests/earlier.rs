//! Restores with an earlier attempt's directory at hand: what is in it as the checkpoint has it is not fetched, and
//! whatever else is in it changes nothing of what is restored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::pending;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outlive_executor::checkpoint::Checkpointer;
use outlive_executor::restore::{RestoreError, Restored, restore};
use outlive_schemas::checkpoint::{BlobName, CheckpointRef, Taken};
use outlive_schemas::id::{CheckpointNumber, JobId};
use outlive_store::blob::{BlobStore, MemoryBlobs, Owner};
use outlive_store::seal::Key;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

const JOB: JobId = JobId(uuid::Uuid::from_u128(0x0197));

/// An attempt's state directory, and what it has stored.
struct Job {
    room: tempfile::TempDir,
    state: PathBuf,
    blobs: Arc<MemoryBlobs>,
    restored: u32,
    /// By the last restore, and how often.
    fetched: BTreeMap<BlobName, u64>,
}

impl Job {
    fn new() -> Job {
        let room = tempfile::tempdir().expect("a directory");
        let state = room.path().join("state");
        fs::create_dir(&state).expect("made");
        fs::create_dir(room.path().join("staging")).expect("made");
        Job { room, state, blobs: Arc::default(), restored: 0, fetched: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, contents).expect("written");
    }

    async fn take(&self) -> Taken {
        let (state, staging) = (self.state.clone(), self.room.path().join("staging"));
        let checkpointer = Checkpointer::new(JOB, key(), state, staging, self.blobs.clone(), None);
        let reading = checkpointer.read().expect("read");
        checkpointer.store(reading, pending()).await.expect("stored").expect("something")
    }

    async fn try_restore(
        &mut self,
        taken: &Taken,
        earlier: Option<&Path>,
    ) -> Result<(PathBuf, Restored), RestoreError> {
        self.restored += 1;
        self.blobs.take_fetched();
        let into = self.room.path().join(format!("restored-{}", self.restored));
        let from = CheckpointRef { number: CheckpointNumber(1), manifest: taken.manifest };
        let restored = restore(self.blobs.clone(), key(), JOB, from, into.clone(), earlier.map(Path::to_owned)).await;
        self.fetched = self.blobs.take_fetched();
        Ok((into, restored?))
    }

    /// Restores with what is left of the attempt, and finds what was there at its checkpoint.
    async fn restores(&mut self, taken: &Taken, expected: &Contents) -> Restored {
        let earlier = self.state.clone();
        let (into, restored) = self.try_restore(taken, Some(&earlier)).await.expect("restored");
        assert!(contents(&into) == *expected, "something else was restored");
        restored
    }

    fn gets(&self) -> u64 {
        self.fetched.values().sum()
    }
}

fn key() -> Key {
    Key::from_bytes([9; 32])
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Files by path, with their modes and times, and their contents.
type Contents = BTreeMap<PathBuf, (u32, i64, Vec<u8>)>;

fn contents(directory: &Path) -> Contents {
    let mut found = BTreeMap::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(next) = ahead.pop() {
        for entry in fs::read_dir(next).expect("lists") {
            let path = entry.expect("listed").path();
            let stat = fs::symlink_metadata(&path).expect("there");
            let name = path.strip_prefix(directory).expect("inside").to_owned();
            if stat.is_dir() {
                ahead.push(path);
            } else if stat.is_symlink() {
                let target = fs::read_link(&path).expect("read").into_os_string().into_encoded_bytes();
                found.insert(name, (0, stat.mtime(), target));
            } else if stat.is_file() {
                found.insert(name, (stat.mode(), stat.mtime(), fs::read(&path).expect("read")));
            }
        }
    }
    found
}

#[tokio::test]
async fn what_is_unchanged_is_not_fetched() {
    let mut job = Job::new();
    (0..300).for_each(|n| job.write(&format!("{}/deep/{n}", n % 7), noise(n, 40_000)));
    job.write("large", noise(1_000, 3_000_000));
    job.write("small", "lies in the manifest");
    job.write("sparse", [noise(2_000, 50_000), vec![0; 500_000], noise(2_001, 50_000)].concat());
    symlink("large", job.path("link")).expect("linked");
    let taken = job.take().await;
    let before = contents(&job.state);
    let with = job.restores(&taken, &before).await;
    let manifest_gets = job.gets();
    assert_eq!(with.store_bytes, 0);
    assert!((15_100_000..15_200_000).contains(&with.local_bytes), "{}", with.local_bytes);

    // Without it every chunk is fetched, beside the parts of the manifest.
    let (into, without) = job.try_restore(&taken, None).await.expect("restored");
    assert!(contents(&into) == before);
    assert_eq!((without.local_bytes, without.store_bytes), (0, with.local_bytes));
    assert!(manifest_gets < 10 && job.gets() > manifest_gets + 300, "{manifest_gets} and {}", job.gets());

    // What is not there at all is like nothing.
    let nowhere = job.room.path().join("nowhere");
    let (_, missing) = job.try_restore(&taken, Some(&nowhere)).await.expect("restored");
    assert_eq!(missing.store_bytes, without.store_bytes);
}

#[tokio::test]
async fn the_next_checkpoint_builds_on_it_as_on_any_other() {
    let mut job = Job::new();
    job.write("a/file", noise(1, 200_000));
    let taken = job.take().await;
    let earlier = job.state.clone();
    let (into, restored) = job.try_restore(&taken, Some(&earlier)).await.expect("restored");
    let staging = job.room.path().join("staging");
    let baseline = Some(restored.baseline);
    let checkpointer = Checkpointer::new(JOB, key(), into.clone(), staging, job.blobs.clone(), baseline);
    let take = async || {
        let reading = checkpointer.read().expect("read");
        checkpointer.store(reading, pending()).await.expect("stored")
    };
    assert_eq!(take().await, None, "right after a restore nothing has changed");
    // What it was read from is a file of its own.
    fs::write(job.path("a/file"), "changed").expect("written");
    assert_eq!(take().await, None);
    fs::write(into.join("a/new"), noise(2, 100_000)).expect("written");
    let next = take().await.expect("changed");
    assert!((100_000..150_000).contains(&next.uploaded_bytes), "{} bytes uploaded", next.uploaded_bytes);
}

#[tokio::test]
async fn what_has_changed_is_fetched_and_nothing_else() {
    let mut job = Job::new();
    (0..40).for_each(|n| job.write(&format!("d/{n}"), noise(n, 100_000)));
    let taken = job.take().await;
    let before = contents(&job.state);
    let whole = job.restores(&taken, &before).await.local_bytes;
    assert_eq!(whole, 4_000_000);
    let mut fetched_before = 0;
    let mut check = async |job: &mut Job, least: u64, most: u64| {
        let restored = job.restores(&taken, &before).await;
        assert_eq!(restored.local_bytes + restored.store_bytes, whole);
        let more = restored.store_bytes - fetched_before;
        fetched_before = restored.store_bytes;
        assert!((least..=most).contains(&more), "{more} bytes fetched");
    };
    // Written on after the checkpoint: all that was there still is.
    File::options().append(true).open(job.path("d/0")).expect("opens").write_all_at(b"", 0).expect("written");
    fs::write(job.path("d/0"), [noise(0, 100_000), noise(77, 5_000)].concat()).expect("written");
    job.write("d/new", noise(78, 1_000_000));
    check(&mut job, 0, 0).await;
    // One byte, of the same size and at the same time.
    let path = job.path("d/1");
    let modified = fs::metadata(&path).expect("there").modified().expect("a time");
    let file = File::options().write(true).open(&path).expect("opens");
    file.write_all_at(&[noise(1, 100_000)[50_000] ^ 1], 50_000).expect("written");
    file.set_modified(modified).expect("set");
    check(&mut job, 1_000, 128 << 10).await;
    // Cut short: the beginning is still there.
    File::options().write(true).open(job.path("d/2")).expect("opens").set_len(60_000).expect("cut");
    check(&mut job, 40_000, 100_000).await;
    fs::remove_file(job.path("d/3")).expect("removed");
    check(&mut job, 100_000, 100_000).await;
    // Under another name it is not looked for.
    fs::rename(job.path("d/4"), job.path("d/renamed")).expect("renamed");
    check(&mut job, 100_000, 100_000).await;
    // May not be read.
    fs::set_permissions(job.path("d/5"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("set");
    let may_all_the_same = rustix::process::geteuid().is_root();
    let expected = if may_all_the_same { 0 } else { 100_000 };
    check(&mut job, expected, expected).await;
    // Everything at once.
    fs::rename(job.path("d"), job.path("e")).expect("renamed");
    let restored = job.restores(&taken, &before).await;
    assert_eq!((restored.local_bytes, restored.store_bytes), (0, whole));
}

/// Whatever a job puts where a file was, or a directory on the way to it.
#[tokio::test]
async fn only_regular_files_are_read_and_no_link_is_followed() {
    let mut job = Job::new();
    let names = ["a/link", "a/fifo", "a/directory", "a/socket", "b/x/file", "c/x/file", "d/x/file", "top"];
    for (n, name) in names.iter().enumerate() {
        job.write(name, noise(n as u64, 50_000));
    }
    let taken = job.take().await;
    let before = contents(&job.state);
    assert_eq!(job.restores(&taken, &before).await.store_bytes, 0);

    // Each of them leads to what the checkpoint has, so that following would be seen.
    let outside = job.room.path().join("outside");
    fs::create_dir(&outside).expect("made");
    let move_out = |name: &str| {
        let to = outside.join(name.replace('/', "-"));
        fs::rename(job.path(name), &to).expect("moved");
        to
    };
    symlink(move_out("a/link"), job.path("a/link")).expect("linked");
    move_out("a/fifo");
    rustix::fs::mknodat(CWD, job.path("a/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("made");
    let inner = move_out("a/directory");
    fs::create_dir(job.path("a/directory")).expect("made");
    fs::copy(inner, job.path("a/directory/directory")).expect("copied");
    move_out("a/socket");
    let _socket = std::os::unix::net::UnixListener::bind(job.path("a/socket")).expect("bound");
    symlink(move_out("b/x"), job.path("b/x")).expect("linked");
    symlink(move_out("c"), job.path("c")).expect("linked");
    move_out("d/x");
    fs::write(job.path("d/x"), "a file on the way").expect("written");
    let restored = job.restores(&taken, &before).await;
    assert_eq!((restored.local_bytes, restored.store_bytes), (50_000, 350_000), "only `top` is as it was");

    // The directory itself may be a link, too.
    let link = job.room.path().join("link to the state");
    symlink(&job.state, &link).expect("linked");
    let (_, restored) = job.try_restore(&taken, Some(&link)).await.expect("restored");
    assert_eq!(restored.local_bytes, 0);
}

#[tokio::test]
async fn another_jobs_files_are_of_no_use() {
    let mut job = Job::new();
    (0..20).for_each(|n| job.write(&n.to_string(), noise(n, 50_000)));
    let taken = job.take().await;
    let before = contents(&job.state);
    let other = job.room.path().join("other");
    fs::create_dir(&other).expect("made");
    // The same names and sizes, and one file that happens to be the same.
    (0..20).for_each(|n| fs::write(other.join(n.to_string()), noise(n + 100, 50_000)).expect("written"));
    fs::write(other.join("7"), noise(7, 50_000)).expect("written");
    let (into, restored) = job.try_restore(&taken, Some(&other)).await.expect("restored");
    assert!(contents(&into) == before);
    assert_eq!((restored.local_bytes, restored.store_bytes), (50_000, 950_000));
}

#[tokio::test]
async fn what_is_missing_in_both_is_named() {
    let mut job = Job::new();
    job.write("lost", noise(1, 50_000));
    job.write("there", noise(2, 50_000));
    let taken = job.take().await;
    let (_, without) = job.try_restore(&taken, None).await.expect("restored");
    assert_eq!(without.store_bytes, 100_000);
    let chunks: Vec<_> = job.fetched.keys().copied().collect();
    for name in chunks.into_iter().filter(|name| *name != taken.manifest) {
        job.blobs.delete(Owner::Job(JOB), name).await.expect("deleted");
    }
    // All that is wanted of the store is the manifest.
    let before = contents(&job.state);
    assert_eq!(job.restores(&taken, &before).await.store_bytes, 0);
    assert_eq!(job.gets(), 1);
    fs::remove_file(job.path("lost")).expect("removed");
    let earlier = job.state.clone();
    let error = job.try_restore(&taken, Some(&earlier)).await.expect_err("a chunk is nowhere");
    let RestoreError::Unreadable { fault } = error else { panic!("{error:?}") };
    assert!(fault.to_string().contains("`lost`"), "{fault}");
    // The manifest is never taken from what is here.
    job.blobs.delete(Owner::Job(JOB), taken.manifest).await.expect("deleted");
    let error = job.try_restore(&taken, Some(&earlier)).await.expect_err("no manifest");
    assert!(matches!(error, RestoreError::Unreadable { .. }), "{error:?}");
}

/// What may have become of a file.
#[derive(Clone, Debug)]
enum Fate {
    Overwrite(usize, u8),
    Truncate(usize),
    Insert(usize, usize),
    Replace(usize),
    Remove,
    Link,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_became_of_it_the_checkpoint_is_restored(
        sizes in proptest::collection::vec(prop_oneof![0..600_usize, 1..300_000_usize], 1..8),
        fates in proptest::collection::vec((0..8_usize, prop_oneof![
            (0..300_000_usize, any::<u8>()).prop_map(|(at, byte)| Fate::Overwrite(at, byte)),
            (0..300_000_usize).prop_map(Fate::Truncate),
            (0..300_000_usize, 0..5_000_usize).prop_map(|(at, bytes)| Fate::Insert(at, bytes)),
            (0..300_000_usize).prop_map(Fate::Replace),
            Just(Fate::Remove),
            Just(Fate::Link),
        ]), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let mut job = Job::new();
            for (n, size) in sizes.iter().enumerate() {
                job.write(&format!("{}/{n}", n % 3), noise(n as u64, *size));
            }
            let taken = job.take().await;
            let before = contents(&job.state);
            for (n, fate) in fates.iter().map(|(n, fate)| (n % sizes.len(), fate)) {
                let path = job.path(&format!("{}/{n}", n % 3));
                let mut now = if path.is_symlink() { Vec::new() } else { fs::read(&path).unwrap_or_default() };
                let _ = fs::remove_file(&path);
                match fate {
                    Fate::Overwrite(at, byte) if !now.is_empty() => {
                        let at = at % now.len();
                        now[at] = *byte;
                    }
                    Fate::Truncate(to) => now.truncate(*to),
                    Fate::Insert(at, bytes) => {
                        let at = (*at).min(now.len());
                        now.splice(at..at, noise(99, *bytes));
                    }
                    Fate::Replace(bytes) => now = noise(98, *bytes),
                    Fate::Link => {
                        symlink("../0/0", &path).expect("linked");
                        continue;
                    }
                    Fate::Remove => continue,
                    Fate::Overwrite(..) => {}
                }
                fs::write(&path, now).expect("written");
            }
            job.restores(&taken, &before).await;
        });
    }
}

/// `cargo test --release -p outlive-executor --test earlier -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_long_200_mb_take() {
    let mut job = Job::new();
    (0..2_000).for_each(|n| job.write(&format!("{}/{n}", n % 50), noise(n, 100_000)));
    let taken = job.take().await;
    let earlier = job.state.clone();
    for _ in 0..3 {
        for earlier in [None, Some(earlier.as_path())] {
            let began = Instant::now();
            let (into, restored) = job.try_restore(&taken, earlier).await.expect("restored");
            let (took, what) = (began.elapsed(), if earlier.is_some() { "with" } else { "without" });
            println!("{what} it: {took:?}, {} gets, {} bytes fetched", job.gets(), restored.store_bytes);
            assert!(took < Duration::from_secs(60));
            fs::remove_dir_all(into).expect("removed");
        }
    }
}
