//! Checkpoints of real directories: what was there is there again after a restore, only what changed is uploaded, and
//! what cannot be kept is refused by name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::pending;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_executor::checkpoint::{Baseline, CheckpointError, Checkpointer};
use outlive_executor::restore::{RestoreError, Unreadable, blobs_of, restore};
use outlive_executor::scan::{Refusal, ScanError};
use outlive_schemas::checkpoint::{BlobName, CheckpointRef, Taken};
use outlive_schemas::id::{CheckpointNumber, JobId};
use outlive_store::blob::{BlobStore, MemoryBlobs, Owner};
use outlive_store::seal::Key;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::mount::{MountFlags, UnmountFlags};

const JOB: JobId = JobId(uuid::Uuid::from_u128(0x0197));

/// A job's state directory, its blobs, and room for copies.
struct Job {
    room: tempfile::TempDir,
    state: PathBuf,
    blobs: Arc<MemoryBlobs>,
    checkpointer: Checkpointer,
    restored: u32,
}

impl Job {
    fn new() -> Job {
        let room = tempfile::tempdir().expect("a directory");
        let state = room.path().join("state");
        fs::create_dir(&state).expect("made");
        fs::create_dir(room.path().join("staging")).expect("made");
        let blobs = Arc::new(MemoryBlobs::new());
        let checkpointer = checkpointer(&room, &state, &blobs, None);
        Job { room, state, blobs, checkpointer, restored: 0 }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.state.join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, contents).expect("written");
    }

    async fn try_take(&self) -> Result<Option<Taken>, CheckpointError> {
        let reading = self.checkpointer.read()?;
        self.checkpointer.store(reading, pending()).await
    }

    /// A checkpoint that the leader commits.
    async fn take(&self) -> Option<Taken> {
        let taken = self.try_take().await.expect("taken");
        if let Some(taken) = &taken {
            self.checkpointer.commit(taken);
        }
        taken
    }

    async fn take_changed(&self) -> Taken {
        self.take().await.expect("something changed")
    }

    async fn try_restore(&mut self, taken: &Taken) -> Result<(PathBuf, Baseline), RestoreError> {
        self.restored += 1;
        let into = self.room.path().join(format!("restored-{}", self.restored));
        let restored = restore(self.blobs.clone(), key(), JOB, reference(taken), into.clone(), None).await?;
        Ok((into, restored.baseline))
    }

    /// Restores, and finds what is in the state directory.
    async fn restores(&mut self, taken: &Taken) -> (PathBuf, Baseline) {
        let (into, baseline) = self.try_restore(taken).await.expect("restored");
        assert_eq!(contents(&into), contents(&self.state));
        assert_eq!(fs::metadata(&into).expect("there").permissions().mode() & 0o7777, 0o700);
        (into, baseline)
    }

    /// The job goes on elsewhere, from what was restored.
    fn move_to(&mut self, (state, baseline): (PathBuf, Baseline)) {
        self.checkpointer = checkpointer(&self.room, &state, &self.blobs, Some(baseline));
        self.state = state;
    }

    /// Waits until the file system's clock has gone on so far that what was written until now is clearly old.
    fn until_old(&self) {
        let probe = tempfile::tempfile_in(self.room.path()).expect("made");
        let stamp = || {
            probe.set_len(0).expect("cut");
            probe.write_all_at(b"x", 0).expect("written");
            let stat = probe.metadata().expect("there");
            i128::from(stat.ctime()) * 1_000_000_000 + i128::from(stat.ctime_nsec())
        };
        let (first, began) = (stamp(), std::time::Instant::now());
        while stamp() < first + 50_000_000 {
            assert!(began.elapsed().as_secs() < 30, "the file system's clock stands still");
            std::thread::yield_now();
        }
    }

    fn refused(&self) -> (String, Refusal) {
        match self.checkpointer.read() {
            Err(CheckpointError::Scan { source: ScanError::Refused { path, refusal } }) => (path, refusal),
            other => panic!("{other:?}"),
        }
    }
}

fn checkpointer(
    room: &tempfile::TempDir,
    state: &Path,
    blobs: &Arc<MemoryBlobs>,
    baseline: Option<Baseline>,
) -> Checkpointer {
    Checkpointer::new(JOB, key(), state.to_owned(), room.path().join("staging"), blobs.clone(), baseline)
}

fn key() -> Key {
    Key::from_bytes([9; 32])
}

fn reference(taken: &Taken) -> CheckpointRef {
    CheckpointRef { number: CheckpointNumber(1), manifest: taken.manifest }
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// All that a checkpoint keeps of an entry: kind, mode, time, and contents or target.
type Kept = (&'static str, u32, (i64, i64), Vec<u8>);

fn contents(directory: &Path) -> BTreeMap<Vec<u8>, Kept> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(next) = ahead.pop() {
        for entry in fs::read_dir(next).expect("lists") {
            let path = entry.expect("listed").path();
            let stat = fs::symlink_metadata(&path).expect("there");
            let kind = stat.file_type();
            let (kind, contents) = if kind.is_dir() {
                ahead.push(path.clone());
                ("directory", vec![])
            } else if kind.is_symlink() {
                ("link", fs::read_link(&path).expect("read").into_os_string().into_vec())
            } else if kind.is_fifo() {
                ("pipe", vec![])
            } else if kind.is_socket() {
                continue;
            } else if stat.len() > 100_000_000 {
                // Only sparse ones are so long.
                ("long file", stat.len().to_string().into_bytes())
            } else {
                ("file", fs::read(&path).expect("read"))
            };
            let name = path.strip_prefix(directory).expect("inside").as_os_str().as_bytes().to_vec();
            found.insert(name, (kind, stat.mode() & 0o7777, (stat.mtime(), stat.mtime_nsec()), contents));
        }
    }
    found
}

fn set_modified(path: &Path, seconds: i64, nanoseconds: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn everything_in_a_directory_comes_back() {
    let mut job = Job::new();
    job.write("empty", "");
    job.write("small", "a few bytes");
    job.write("a/b/c/deep", noise(1, 5_000));
    job.write("a.b", "sorts between `a` and `a/b` by bytes");
    job.write("large", noise(2, 3_000_000));
    job.write("zeros", vec![0; 10_000]);
    job.write("text", "the same again and again\n".repeat(50_000));
    fs::create_dir(job.path("nothing in it")).expect("made");
    fs::write(job.path(std::ffi::OsStr::from_bytes(b"not text \xff\xfe\n")), b"x").expect("written");
    symlink("a/b", job.path("inside")).expect("linked");
    symlink("../../small", job.path("a/b/up")).expect("linked");
    symlink("not there", job.path("dangling")).expect("linked");
    rustix::fs::mknodat(CWD, job.path("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("made");
    fs::hard_link(job.path("small"), job.path("the same small")).expect("linked");
    let _socket = std::os::unix::net::UnixListener::bind(job.path("socket")).expect("bound");

    set_mode(&job.path("small"), 0o400);
    set_mode(&job.path("large"), 0o751);
    set_mode(&job.path("a/b/c"), 0o1777);
    set_mode(&job.path("a/b"), 0o500);
    set_modified(&job.path("small"), 1, 999_999_999);
    set_modified(&job.path("empty"), -1_000, 5);
    set_modified(&job.path("dangling"), 2_000_000_000, 7);
    set_modified(&job.path("pipe"), 86_400, 0);
    set_modified(&job.path("a/b/c"), 12_345, 678);
    set_modified(&job.path("a"), 4_000_000_000, 1);

    let taken = job.take_changed().await;
    assert_eq!(taken.files, 9);
    let sizes = [0, 11, 5_000, 36, 3_000_000, 10_000, 1_250_000, 1, 11];
    assert_eq!(taken.size_bytes, sizes.iter().sum::<u64>());
    assert!(taken.uploaded_bytes < 3_100_000, "{}", taken.uploaded_bytes);
    let (into, _) = job.restores(&taken).await;
    assert!(!into.join("socket").exists(), "a socket means nothing without its process");
    set_mode(&job.path("a/b"), 0o700);
    set_mode(&into.join("a/b"), 0o700);
}

#[tokio::test]
async fn an_unchanged_state_makes_no_checkpoint() {
    let mut job = Job::new();
    assert_eq!(job.take().await, None, "nothing, and nothing before");
    job.write("a/file", noise(1, 100_000));
    let first = job.take_changed().await;
    assert_eq!(job.take().await, None);
    let restored = job.restores(&first).await;
    job.move_to(restored);
    assert_eq!(job.take().await, None, "right after a restore");
    job.until_old();
    assert_eq!(job.take().await, None);
    let reading = job.checkpointer.read().expect("read");
    assert_eq!(reading.files_read, 0, "what is clearly old is not read again");

    // Each of these is a change.
    set_mode(&job.path("a/file"), 0o600);
    assert!(job.take_changed().await.uploaded_bytes < 1_000);
    set_modified(&job.path("a/file"), 1, 1);
    job.take_changed().await;
    fs::create_dir(job.path("b")).expect("made");
    job.take_changed().await;
    symlink("a", job.path("c")).expect("linked");
    job.take_changed().await;
    fs::remove_file(job.path("a/file")).expect("removed");
    let last = job.take_changed().await;
    assert_eq!((last.files, last.size_bytes), (0, 0));
    job.restores(&last).await;
    fs::remove_file(job.path("c")).expect("removed");
    fs::remove_dir(job.path("a")).expect("removed");
    fs::remove_dir(job.path("b")).expect("removed");
    let empty = job.take_changed().await;
    job.restores(&empty).await;
}

#[tokio::test]
async fn only_what_changed_is_read_and_uploaded() {
    let mut job = Job::new();
    let file = |n: u32| format!("{}/{}/file", n % 7, n);
    (0..400).for_each(|n| job.write(&file(n), noise(n.into(), 50_000)));
    let first = job.take_changed().await;
    assert_eq!((first.files, first.size_bytes), (400, 20_000_000));
    assert!(first.uploaded_bytes > 20_000_000);
    job.until_old();
    assert_eq!(job.take().await, None);

    (0..4).for_each(|n| job.write(&file(n * 99), noise(1_000 + u64::from(n), 50_000)));
    let reading = job.checkpointer.read().expect("read");
    assert_eq!((reading.files_read, reading.bytes_read), (4, 200_000));
    let second = job.take_changed().await;
    assert!((200_000..=400_000).contains(&second.uploaded_bytes), "{} bytes uploaded", second.uploaded_bytes);
    job.restores(&second).await;

    // A directory under another name is nothing to read, and only its description to upload.
    job.until_old();
    assert_eq!(job.take().await, None);
    fs::rename(job.path("3"), job.path("renamed")).expect("renamed");
    assert_eq!(job.checkpointer.read().expect("read").files_read, 0);
    let third = job.take_changed().await;
    assert!(third.uploaded_bytes < 100_000, "{} bytes uploaded", third.uploaded_bytes);
    let restored = job.restores(&third).await;

    // And it goes on like this after a restore.
    job.move_to(restored);
    job.write("new", noise(5_000, 100_000));
    let fourth = job.take_changed().await;
    assert!((100_000..=200_000).contains(&fourth.uploaded_bytes), "{} bytes uploaded", fourth.uploaded_bytes);
    job.restores(&fourth).await;
    // The first can still be had.
    let (into, _) = job.try_restore(&first).await.expect("restored");
    assert_eq!(fs::read(into.join(file(0))).expect("read"), noise(0, 50_000));
}

/// Times tell nothing of a second write to the same page of memory.
#[tokio::test]
async fn what_is_written_through_memory_is_noticed() {
    const WRITER: &str = "import mmap, sys\n\
        file = open(sys.argv[1], 'r+b')\n\
        memory = mmap.mmap(file.fileno(), 0)\n\
        for line in sys.stdin:\n\
        \x20   memory[100:101] = line[:1].encode()\n\
        \x20   print('done', flush=True)\n";
    let mut job = Job::new();
    job.write("file", noise(1, 50_000));
    let mut writer = std::process::Command::new("python3")
        .args(["-c", WRITER])
        .arg(job.path("file"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut answers = BufReader::new(writer.stdout.take().expect("piped")).lines();
    let mut say = writer.stdin.take().expect("piped");
    let mut write = |byte: &str| {
        writeln!(say, "{byte}").expect("said");
        assert_eq!(answers.next().expect("an answer").expect("read"), "done");
    };
    let process = writer.id() as i32;
    for byte in ["a", "b", "c", "d"] {
        write(byte);
        job.until_old();
        let reading = job.checkpointer.read_of(process).expect("read");
        let taken = job.checkpointer.store(reading, pending()).await.expect("stored").expect("changed");
        job.checkpointer.commit(&taken);
        job.restores(&taken).await;
    }
    drop(say);
    assert!(writer.wait().expect("waited").success());
}

#[tokio::test]
async fn an_insertion_into_a_large_file_uploads_little() {
    let mut job = Job::new();
    job.write("log", noise(1, 2_000_000));
    job.take_changed().await;
    job.write("log", [b"in front ".to_vec(), noise(1, 2_000_000), b" and behind".to_vec()].concat());
    let taken = job.take_changed().await;
    assert!(taken.uploaded_bytes < 400_000, "{} bytes uploaded", taken.uploaded_bytes);
    job.restores(&taken).await;
}

#[tokio::test]
async fn sparse_files_stay_sparse() {
    let mut job = Job::new();
    let long = |name: &str, bytes: u64| {
        let mut file = File::create(job.path(name)).expect("made");
        file.write_all(b"beginning").expect("written");
        file.seek(SeekFrom::Start(bytes / 2)).expect("sought");
        file.write_all(&noise(1, 100_000)).expect("written");
        file.set_len(bytes).expect("set");
    };
    long("long", 64 << 30);
    long("short", 50 << 20);
    File::create(job.path("only a hole")).expect("made").set_len(1 << 30).expect("set");
    let taken = job.take_changed().await;
    assert_eq!(taken.size_bytes, (64 << 30) + (50 << 20) + (1 << 30));
    assert!(taken.uploaded_bytes < 200_000, "{} bytes uploaded", taken.uploaded_bytes);
    let restored = job.restores(&taken).await;
    for name in ["long", "short", "only a hole"] {
        let bytes = fs::metadata(restored.0.join(name)).expect("there").blocks() * 512;
        assert!(bytes < 500_000, "{name} takes up {bytes} bytes");
    }
    let mut middle = vec![0; 100_000];
    File::open(restored.0.join("long")).expect("opens").read_exact_at(&mut middle, 32 << 30).expect("read");
    assert!(middle == noise(1, 100_000));
    job.move_to(restored);
    assert_eq!(job.take().await, None, "holes are where they were");
}

#[tokio::test]
async fn a_state_larger_than_memory_is_spilled() {
    let mut job = Job::new();
    // Never the same twice, and quickly sealed.
    let lines = |n: u32| (0..1_600_000).map(|line| format!("{n}{line:08}\n")).collect::<String>();
    (0..5).for_each(|n| job.write(&n.to_string(), lines(n)));
    let taken = job.take_changed().await;
    assert_eq!(taken.size_bytes, 80_000_000);
    job.restores(&taken).await;
    assert_eq!(fs::read_dir(job.room.path().join("staging")).expect("lists").count(), 0);
}

#[tokio::test]
async fn a_manifest_may_be_many_chunks() {
    let mut job = Job::new();
    // Long enough that the list of its chunks is itself cut.
    (0..8_000).for_each(|n| job.write(&format!("{}/{}", n % 10, "x".repeat(200) + &n.to_string()), n.to_string()));
    let first = job.take_changed().await;
    job.restores(&first).await;
    job.write("5/new", "x");
    let second = job.take_changed().await;
    assert!(second.uploaded_bytes < first.uploaded_bytes.min(60_000), "{} bytes uploaded", second.uploaded_bytes);
    job.restores(&second).await;
}

#[tokio::test]
async fn what_leaves_the_directory_is_refused_by_name() {
    let job = Job::new();
    job.write("dir/file", "x");
    for (target, path) in [("/etc/passwd", "out"), ("..", "out"), ("../x", "dir/out"), ("../../x", "dir/out")] {
        let link = job.path(path);
        symlink(target, &link).expect("linked");
        let leaves = !(path == "dir/out" && target == "../x");
        if leaves {
            assert_eq!(job.refused(), (path.to_owned(), Refusal::LinkLeaves { target: target.to_owned() }));
        } else {
            job.take_changed().await;
        }
        fs::remove_file(link).expect("removed");
    }
    // Each stays inside, and both together lead out.
    symlink("..", job.path("dir/top")).expect("linked");
    symlink("dir/top/..", job.path("out")).expect("linked");
    assert_eq!(job.refused().0, "out");
    fs::remove_file(job.path("out")).expect("removed");
    job.take_changed().await;
}

#[tokio::test]
async fn what_is_no_state_is_refused_by_name() {
    let job = Job::new();
    job.write("bin/tool", "x");
    for mode in [0o4755, 0o2755] {
        set_mode(&job.path("bin/tool"), mode);
        assert_eq!(job.refused(), ("bin/tool".to_owned(), Refusal::SetId));
    }
    set_mode(&job.path("bin/tool"), 0o755);
    job.take_changed().await;

    let deep = job.path("d/".repeat(600));
    let mut at = rustix::fs::open(&job.state, rustix::fs::OFlags::DIRECTORY, Mode::empty()).expect("opens");
    for _ in 0..600 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("made");
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, Mode::empty()).expect("opens");
    }
    assert_eq!(job.refused().1, Refusal::TooDeep);
    assert!(deep.exists());
    fs::remove_dir_all(job.path("d")).expect("removed");

    // The longest name, so often that no system call takes the whole path.
    let name = "n".repeat(255);
    let mut at = rustix::fs::open(&job.state, rustix::fs::OFlags::DIRECTORY, Mode::empty()).expect("opens");
    for _ in 0..17 {
        rustix::fs::mkdirat(&at, &*name, Mode::RWXU).expect("made");
        at = rustix::fs::openat(&at, &*name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).expect("opens");
    }
    assert_eq!(job.refused().1, Refusal::PathTooLong);
    fs::remove_dir_all(job.path(&name)).expect("removed");

    if rustix::process::geteuid().is_root() {
        let device = job.path("device");
        // Some containers may not make any.
        if rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).is_ok() {
            assert_eq!(job.refused(), ("device".to_owned(), Refusal::Device));
            fs::remove_file(device).expect("removed");
        }
        let mount = job.path("mount");
        fs::create_dir(&mount).expect("made");
        if rustix::mount::mount("none", &mount, "tmpfs", MountFlags::empty(), None).is_ok() {
            let refused = job.checkpointer.read();
            rustix::mount::unmount(&mount, UnmountFlags::DETACH).expect("unmounted");
            let Err(CheckpointError::Scan { source: ScanError::Refused { path, refusal } }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!((path.as_str(), refusal), ("mount", Refusal::MountPoint));
        }
    } else {
        set_mode(&job.path("bin/tool"), 0o200);
        assert_eq!(job.refused(), ("bin/tool".to_owned(), Refusal::Unreadable));
        set_mode(&job.path("bin/tool"), 0o755);
    }
    assert!(job.checkpointer.read().is_ok());
}

#[tokio::test]
async fn a_checkpoint_that_fails_midway_leaves_the_one_before() {
    let mut job = Job::new();
    job.write("old", noise(1, 300_000));
    let first = job.take_changed().await;
    let before = contents(&job.state);
    let stored = job.blobs.usage().await.expect("known").bytes;

    job.write("new", noise(2, 1_000_000));
    job.blobs.set_bytes_max(Some(stored + 500_000));
    assert!(matches!(job.try_take().await, Err(CheckpointError::Store { .. })));
    let (into, _) = job.try_restore(&first).await.expect("the first is whole");
    assert_eq!(contents(&into), before);

    // What was uploaded then is not uploaded again.
    job.blobs.set_bytes_max(None);
    let second = job.take_changed().await;
    assert!((400_000..700_000).contains(&second.uploaded_bytes), "{} bytes uploaded", second.uploaded_bytes);
    job.restores(&second).await;

    job.write("newer", noise(3, 100_000));
    job.blobs.set_out_of_reach(true);
    assert!(matches!(job.try_take().await, Err(CheckpointError::Store { .. })));
    assert!(matches!(job.try_restore(&second).await, Err(RestoreError::Unavailable { .. })));
    job.blobs.set_out_of_reach(false);
    job.blobs.lose_answers(1);
    assert!(matches!(job.try_take().await, Err(CheckpointError::Store { .. })));
    let third = job.take_changed().await;
    job.restores(&third).await;
}

#[tokio::test]
async fn a_checkpoint_that_was_not_committed_is_no_base() {
    let mut job = Job::new();
    job.write("file", noise(1, 100_000));
    let first = job.take_changed().await;
    job.write("file", noise(2, 100_000));
    let lost = job.try_take().await.expect("stored").expect("changed");
    // The leader never said so; the same state is found to be new again, and nothing of it goes out twice.
    let again = job.try_take().await.expect("stored").expect("changed");
    assert_eq!(lost.manifest, again.manifest);
    assert!(again.uploaded_bytes < 2_000, "{} bytes uploaded", again.uploaded_bytes);
    job.checkpointer.commit(&again);
    assert_eq!(job.take().await, None);
    job.restores(&again).await;

    // What the last committed checkpoint does not refer to may have been deleted, and is uploaded again.
    let needed = blobs_of(job.blobs.clone(), key(), JOB, again.manifest).await.expect("read");
    for name in job.blobs.list(Owner::Job(JOB)).await.expect("listed") {
        if !needed.contains(&name) {
            job.blobs.delete(Owner::Job(JOB), name).await.expect("deleted");
        }
    }
    assert!(job.try_restore(&first).await.is_err());
    job.write("file", noise(1, 100_000));
    let back = job.take_changed().await;
    assert!(back.uploaded_bytes > 100_000);
    job.restores(&back).await;
}

#[tokio::test]
async fn a_reading_that_was_overtaken_is_refused() {
    let job = Job::new();
    job.write("kept", noise(1, 100_000));
    job.take_changed().await;
    job.until_old();
    job.take().await;
    let reading = job.checkpointer.read().expect("read");
    fs::remove_file(job.path("kept")).expect("removed");
    job.take_changed().await;
    // Its chunks may be gone by now.
    assert!(matches!(job.checkpointer.store(reading, pending()).await, Err(CheckpointError::Outdated)));
}

#[tokio::test]
async fn a_cancelled_checkpoint_does_not_exist() {
    let job = Job::new();
    job.write("file", noise(1, 1_000_000));
    let reading = job.checkpointer.read().expect("read");
    assert!(matches!(job.checkpointer.store(reading, async {}).await, Err(CheckpointError::Cancelled)));
    job.take_changed().await;
}

#[tokio::test]
async fn every_damaged_or_missing_blob_is_named() {
    let mut job = Job::new();
    job.write("a/large", noise(1, 300_000));
    (0..200).for_each(|n| job.write(&format!("b/{n}"), noise(n, 600)));
    let taken = job.take_changed().await;
    let owner = Owner::Job(JOB);
    let names = job.blobs.list(owner).await.expect("listed");
    assert!(names.len() > 200 && names.contains(&taken.manifest));
    let (mut of_files, mut of_manifest) = (0, 0);
    for name in names.iter().step_by(7).chain([&taken.manifest]) {
        let body = job.blobs.get(owner, *name).await.expect("there");
        for missing in [false, true] {
            if missing {
                job.blobs.delete(owner, *name).await.expect("deleted");
            } else {
                assert!(job.blobs.damage(owner, *name));
            }
            let part = match job.try_restore(&taken).await {
                Err(RestoreError::Unreadable { fault: Unreadable::Damaged { name: found, part, .. } }) if !missing => {
                    assert_eq!(found, *name);
                    part
                }
                Err(RestoreError::Unreadable { fault: Unreadable::Missing { name: found, part } }) if missing => {
                    assert_eq!(found, *name);
                    part
                }
                other => panic!("{other:?}"),
            };
            if part.contains("manifest") {
                of_manifest += 1;
            } else {
                assert!(part.contains("`a/large`") || part.contains("`b/"), "{part}");
                of_files += 1;
            }
            job.blobs.delete(owner, *name).await.expect("deleted");
            job.blobs.put(owner, *name, body.clone()).await.expect("put back");
        }
    }
    assert!(of_files > 20 && of_manifest >= 2, "{of_files} {of_manifest}");
    job.restores(&taken).await;
}

#[tokio::test]
async fn a_checkpoint_opens_for_its_job_and_key_alone() {
    let mut job = Job::new();
    job.write("file", "secret");
    let taken = job.take_changed().await;
    let into = job.room.path().join("elsewhere");
    let other_key = Key::from_bytes([8; 32]);
    let refused = restore(job.blobs.clone(), other_key, JOB, reference(&taken), into.clone(), None).await;
    assert!(matches!(refused, Err(RestoreError::Unreadable { fault: Unreadable::Damaged { .. } })));
    let other_job = JobId(uuid::Uuid::from_u128(5));
    let body = job.blobs.get(Owner::Job(JOB), taken.manifest).await.expect("there");
    job.blobs.put(Owner::Job(other_job), taken.manifest, body).await.expect("put");
    let refused = restore(job.blobs.clone(), key(), other_job, reference(&taken), into.clone(), None).await;
    assert!(matches!(refused, Err(RestoreError::Unreadable { fault: Unreadable::Damaged { .. } })));
    let nothing = Taken { manifest: BlobName([0; 32]), ..taken };
    assert!(matches!(
        job.try_restore(&nothing).await,
        Err(RestoreError::Unreadable { fault: Unreadable::Missing { .. } })
    ));
}

#[tokio::test]
async fn nothing_is_restored_over_something() {
    let mut job = Job::new();
    job.write("file", "x");
    let taken = job.take_changed().await;
    let (into, _) = job.restores(&taken).await;
    let refused = restore(job.blobs.clone(), key(), JOB, reference(&taken), into.clone(), None).await;
    assert!(matches!(refused, Err(RestoreError::Local { .. })), "{refused:?}");
    let link = job.room.path().join("link");
    fs::create_dir(job.room.path().join("target")).expect("made");
    symlink("target", &link).expect("linked");
    let refused = restore(job.blobs.clone(), key(), JOB, reference(&taken), link, None).await;
    assert!(matches!(refused, Err(RestoreError::Local { .. })), "{refused:?}");
}

#[tokio::test]
async fn nothing_of_the_state_is_readable_in_what_is_stored() {
    let job = Job::new();
    let marker = "a marker that nobody else writes";
    job.write(&format!("name of {marker}"), "x");
    job.write("small", marker);
    job.write("large", marker.repeat(10_000));
    symlink(format!("to {marker}"), job.path("link")).expect("linked");
    job.take_changed().await;
    for name in job.blobs.list(Owner::Job(JOB)).await.expect("listed") {
        let body = job.blobs.get(Owner::Job(JOB), name).await.expect("there");
        assert!(!body.windows(16).any(|window| window == &marker.as_bytes()[..16]));
    }
}

/// What a job may do between two checkpoints.
#[derive(Clone, Debug)]
enum Edit {
    Create(usize, usize),
    Append(usize, usize),
    Truncate(usize, usize),
    /// The same length: neither size nor, within a tick of the clock, time tells.
    Overwrite(usize, u8),
    Delete(usize),
    Rename(usize, usize),
    MakeDirectory(usize),
    Chmod(usize, u32),
    Link(usize, usize),
    Touch(usize, i64),
    Checkpoint,
    /// The job goes on elsewhere.
    Move,
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "a/x", "a/y", "b/x", "b/y", "a/x/1", "a/x/2", "b/x/1", "c/z"];

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let name = || 0..NAMES.len();
    let size = || prop_oneof![Just(0), 1..600_usize, 1..300_000_usize];
    let edit = prop_oneof![
        4 => (name(), size()).prop_map(|(n, s)| Edit::Create(n, s)),
        2 => (name(), size()).prop_map(|(n, s)| Edit::Append(n, s)),
        2 => (name(), size()).prop_map(|(n, s)| Edit::Truncate(n, s)),
        3 => (name(), any::<u8>()).prop_map(|(n, b)| Edit::Overwrite(n, b)),
        2 => name().prop_map(Edit::Delete),
        3 => (name(), name()).prop_map(|(a, b)| Edit::Rename(a, b)),
        3 => name().prop_map(Edit::MakeDirectory),
        1 => (name(), prop_oneof![Just(0o700), Just(0o755), Just(0o1777)]).prop_map(|(n, m)| Edit::Chmod(n, m)),
        1 => (name(), name()).prop_map(|(a, b)| Edit::Link(a, b)),
        1 => (name(), any::<i32>()).prop_map(|(n, t)| Edit::Touch(n, t.into())),
        6 => Just(Edit::Checkpoint),
        1 => Just(Edit::Move),
    ];
    proptest::collection::vec(edit, 1..40)
}

/// Does it if it can be done.
fn edit(job: &Job, edit: &Edit, seed: u64) {
    let path = |n: &usize| job.path(NAMES[*n]);
    // Never through a link, which might lead anywhere among these names.
    let plain = |n: &usize| fs::symlink_metadata(path(n)).is_ok_and(|stat| stat.is_file());
    let _ = match edit {
        Edit::Create(n, bytes) if !path(n).is_symlink() => fs::write(path(n), noise(seed, *bytes)),
        Edit::Append(n, bytes) if plain(n) => {
            File::options().append(true).open(path(n)).and_then(|mut file| file.write_all(&noise(seed, *bytes)))
        }
        Edit::Truncate(n, bytes) if plain(n) => {
            File::options().write(true).open(path(n)).and_then(|file| file.set_len(*bytes as u64))
        }
        Edit::Overwrite(n, byte) if plain(n) => {
            let bytes = fs::metadata(path(n)).map_or(0, |stat| stat.len());
            File::options()
                .write(true)
                .open(path(n))
                .and_then(|file| if bytes > 0 { file.write_all_at(&[*byte], seed % bytes) } else { Ok(()) })
        }
        Edit::Delete(n) => fs::remove_file(path(n)).or_else(|_| fs::remove_dir_all(path(n))),
        Edit::Rename(a, b) => fs::rename(path(a), path(b)),
        Edit::MakeDirectory(n) => fs::create_dir(path(n)),
        Edit::Chmod(n, mode) if !path(n).is_symlink() => {
            fs::set_permissions(path(n), fs::Permissions::from_mode(*mode))
        }
        Edit::Link(a, b) => symlink(Path::new(NAMES[*b]).file_name().expect("named"), path(a)),
        Edit::Touch(n, seconds) if path(n).exists() && !path(n).is_symlink() => {
            set_modified(&path(n), *seconds, 5);
            Ok(())
        }
        _ => Ok(()),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_job_does_is_restored(edits in edits()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let mut job = Job::new();
            let mut last: Option<(Taken, BTreeMap<Vec<u8>, Kept>)> = None;
            for (seed, step) in edits.iter().chain([&Edit::Checkpoint]).enumerate() {
                match step {
                    Edit::Checkpoint | Edit::Move => {
                        let now = contents(&job.state);
                        match job.take().await {
                            Some(taken) => {
                                assert!(last.as_ref().is_none_or(|(_, before)| *before != now), "nothing changed");
                                let restored = job.restores(&taken).await;
                                if matches!(step, Edit::Move) {
                                    job.move_to(restored);
                                }
                                last = Some((taken, now));
                            }
                            None => assert_eq!(now, last.as_ref().map_or_else(BTreeMap::new, |(_, before)| before.clone())),
                        }
                    }
                    step => edit(&job, step, seed as u64),
                }
            }
        });
    }
}
