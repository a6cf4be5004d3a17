//! What no checkpoint refers to is collected, and what one refers to never is: with attempts that come and go, uploads
//! that are never committed, and collectors that stop half-way and wake up when others have long gone on.

use async_trait::async_trait;
use bytes::Bytes;
use outlive_executor::checkpoint::Checkpointer;
use outlive_executor::checkpoint::collect::{CollectError, Collected};
use outlive_executor::restore::{blobs_of, restore};
use outlive_executor::snapshot_file::{About, Target, export, import};
use outlive_schemas::checkpoint::{BlobName, CheckpointRef, Taken};
use outlive_schemas::id::{CheckpointNumber, JobId, JobVersion, Namespace};
use outlive_schemas::time::Timestamp;
use outlive_store::blob::{BlobError, BlobStore, Mark, MemoryBlobs, Owner, Put, Usage};
use outlive_store::keyring::Keyring;
use outlive_store::seal::Key;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const JOB: JobId = JobId(uuid::Uuid::from_u128(0x0197));
const OWNER: Owner = Owner::Job(JOB);

fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// A store whose deletions by collectors wait until they are let through.
struct Gated {
    inner: Arc<MemoryBlobs>,
    deletions: Semaphore,
    /// Whether a deletion has come to the gate.
    waits: tokio::sync::watch::Sender<bool>,
}

impl Gated {
    fn new() -> Arc<Gated> {
        Arc::new(Gated {
            inner: Arc::default(),
            deletions: Semaphore::new(Semaphore::MAX_PERMITS),
            waits: Default::default(),
        })
    }

    /// From now on so many more deletions are carried out, and then none.
    fn let_through(&self, count: usize) {
        self.deletions.forget_permits(Semaphore::MAX_PERMITS);
        self.waits.send_replace(false);
        self.deletions.add_permits(count);
    }

    async fn until_one_waits(&self) {
        let mut waits = self.waits.subscribe();
        let there = tokio::time::timeout(Duration::from_secs(30), waits.wait_for(|waits| *waits)).await;
        there.expect("a deletion comes to the gate").expect("the sender lives");
    }

    fn open(&self) {
        self.let_through(Semaphore::MAX_PERMITS >> 1);
    }

    async fn names(&self) -> BTreeSet<BlobName> {
        self.inner.list(OWNER).await.expect("listed").into_iter().collect()
    }
}

#[async_trait]
impl BlobStore for Gated {
    async fn put(&self, owner: Owner, name: BlobName, body: Bytes) -> Result<Put, BlobError> {
        self.inner.put(owner, name, body).await
    }
    async fn get(&self, owner: Owner, name: BlobName) -> Result<Bytes, BlobError> {
        self.inner.get(owner, name).await
    }
    async fn list(&self, owner: Owner) -> Result<Vec<BlobName>, BlobError> {
        self.inner.list(owner).await
    }
    async fn delete(&self, owner: Owner, name: BlobName) -> Result<(), BlobError> {
        self.inner.delete(owner, name).await
    }
    async fn mark(&self) -> Result<Mark, BlobError> {
        self.inner.mark().await
    }
    async fn delete_stored_by(&self, owner: Owner, name: BlobName, mark: Mark) -> Result<(), BlobError> {
        self.waits.send_replace(true);
        self.deletions.acquire().await.expect("never closed").forget();
        self.inner.delete_stored_by(owner, name, mark).await
    }
    async fn delete_all(&self, owner: Owner) -> Result<(), BlobError> {
        self.inner.delete_all(owner).await
    }
    async fn usage(&self) -> Result<Usage, BlobError> {
        self.inner.usage().await
    }
}

/// The job as its leader sees it: committed checkpoints, of which the last `retain` stay.
struct World {
    room: tempfile::TempDir,
    blobs: Arc<Gated>,
    committed: Vec<(Taken, Contents)>,
    retain: usize,
    attempts: u32,
}

/// Files and what is in them.
type Contents = Vec<(String, Vec<u8>)>;

/// One attempt of it.
struct Attempt {
    state: PathBuf,
    checkpointer: Arc<Checkpointer>,
}

/// Bytes that do not compress, the same for the same seed.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Enough for a few chunks.
const LENGTH: usize = 400_000;

impl World {
    fn new() -> World {
        let room = tempfile::tempdir().expect("a directory");
        World { room, blobs: Gated::new(), committed: Vec::new(), retain: 2, attempts: 0 }
    }

    fn retained(&self) -> Vec<BlobName> {
        let kept = self.committed.iter().rev().take(self.retain);
        let mut names: Vec<_> = kept.map(|(taken, _)| taken.manifest).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Another attempt, from the newest checkpoint.
    async fn attempt(&mut self) -> Attempt {
        self.attempts += 1;
        let state = self.room.path().join(format!("state-{}", self.attempts));
        let staging = self.room.path().join(format!("staging-{}", self.attempts));
        fs::create_dir(&staging).expect("made");
        let baseline = match self.committed.last() {
            None => {
                fs::create_dir(&state).expect("made");
                None
            }
            Some((taken, _)) => Some(self.restored(taken, state.clone()).await),
        };
        let checkpointer = Checkpointer::new(JOB, key(), state.clone(), staging, self.blobs.clone(), baseline)
            .with_retained(self.retained())
            .with_collect_pause(Duration::ZERO);
        Attempt { state, checkpointer: Arc::new(checkpointer) }
    }

    async fn restored(&self, taken: &Taken, into: PathBuf) -> outlive_executor::checkpoint::Baseline {
        let from = CheckpointRef { number: CheckpointNumber(1), manifest: taken.manifest };
        let restored = restore(self.blobs.clone(), key(), JOB, from, into, None).await;
        restored.expect("a retained checkpoint can be restored").baseline
    }

    /// The leader commits what the attempt has stored.
    fn commit(&mut self, attempt: &Attempt, taken: Option<Taken>) {
        if let Some(taken) = taken {
            self.committed.push((taken, attempt.contents()));
            attempt.checkpointer.commit(&taken);
        }
    }

    async fn checkpoint(&mut self, attempt: &Attempt) {
        let taken = attempt.store().await;
        self.commit(attempt, taken);
    }

    /// An attempt with two checkpoints, of which the second has nothing of the first.
    async fn two_checkpoints(&mut self) -> Attempt {
        let attempt = self.attempt().await;
        for seed in [1, 2] {
            attempt.write("a", seed);
            self.checkpoint(&attempt).await;
        }
        attempt
    }

    async fn collect(&self, attempt: &Attempt) -> Collected {
        attempt.checkpointer.collect(&self.retained()).await.expect("collected")
    }

    /// Every retained checkpoint is there, with all that it held.
    async fn all_retained_can_be_restored(&mut self) {
        for (taken, contents) in self.committed.iter().rev().take(self.retain).cloned().collect::<Vec<_>>() {
            self.attempts += 1;
            let into = self.room.path().join(format!("proof-{}", self.attempts));
            self.restored(&taken, into.clone()).await;
            let proof = Attempt { state: into, checkpointer: self.nobody() };
            assert_eq!(proof.contents(), contents);
        }
    }

    fn nobody(&self) -> Arc<Checkpointer> {
        let nowhere = self.room.path().to_owned();
        Arc::new(Checkpointer::new(JOB, key(), nowhere.clone(), nowhere, self.blobs.clone(), None))
    }

    /// What the retained checkpoints lead to.
    async fn referenced(&self) -> BTreeSet<BlobName> {
        let mut all = HashSet::new();
        for manifest in self.retained() {
            all.extend(blobs_of(self.blobs.clone(), key(), JOB, manifest).await.expect("readable"));
        }
        all.into_iter().collect()
    }
}

impl Attempt {
    fn write(&self, name: &str, seed: u64) {
        fs::write(self.state.join(name), content(seed, LENGTH)).expect("written");
    }

    async fn store(&self) -> Option<Taken> {
        let reading = self.checkpointer.read().expect("read");
        self.checkpointer.store(reading, pending()).await.expect("stored")
    }

    fn contents(&self) -> Contents {
        let mut all: Vec<_> = fs::read_dir(&self.state)
            .expect("there")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(path).expect("read"))
            })
            .collect();
        all.sort();
        all
    }
}

#[tokio::test]
async fn what_fell_out_of_retention_goes_and_the_rest_stays() {
    let mut world = World::new();
    let attempt = world.attempt().await;
    attempt.write("stays", 1);
    for seed in 10..14 {
        attempt.write("changes", seed);
        world.checkpoint(&attempt).await;
    }
    let before = world.blobs.names().await;
    let referenced = world.referenced().await;
    assert!(before.len() > referenced.len());
    assert_eq!(world.collect(&attempt).await.deleted, before.len() - referenced.len());
    assert_eq!(world.blobs.names().await, referenced);
    world.all_retained_can_be_restored().await;
    // Without a checkpoint in between there is no new word from the leader, and so no new round.
    assert_eq!(world.collect(&attempt).await, Collected::default());
    attempt.write("changes", 20);
    world.checkpoint(&attempt).await;
    assert!(world.collect(&attempt).await.deleted > 0);
    world.all_retained_can_be_restored().await;
}

#[tokio::test]
async fn what_an_attempt_left_half_done_is_collected_by_the_next() {
    let mut world = World::new();
    let first = world.attempt().await;
    first.write("a", 1);
    world.checkpoint(&first).await;
    first.write("a", 2);
    assert!(first.store().await.is_some(), "stored, and never committed: its executor died");

    let second = world.attempt().await;
    second.write("a", 3);
    world.checkpoint(&second).await;
    assert!(world.collect(&second).await.deleted > 0);
    assert_eq!(world.blobs.names().await, world.referenced().await);
    world.all_retained_can_be_restored().await;
}

#[tokio::test]
async fn what_is_stored_and_not_committed_yet_stays() {
    let mut world = World::new();
    let attempt = world.attempt().await;
    attempt.write("a", 1);
    world.checkpoint(&attempt).await;
    attempt.write("a", 2);
    let taken = attempt.store().await;
    world.collect(&attempt).await;
    world.commit(&attempt, taken);
    world.all_retained_can_be_restored().await;
}

#[tokio::test]
async fn a_collector_that_wakes_up_late_takes_nothing_from_those_who_went_on() {
    let mut world = World::new();
    let first = world.attempt().await;
    for seed in [1, 2, 3, 4] {
        first.write("a", seed);
        world.checkpoint(&first).await;
    }
    // It has found what to delete, and then its host stands still.
    world.blobs.let_through(0);
    let (collector, retained) = (first.checkpointer.clone(), world.retained());
    let collecting = tokio::spawn(async move { collector.collect(&retained).await });
    assert!(world.blobs.names().await.len() > world.referenced().await.len(), "there is something to delete");
    world.blobs.until_one_waits().await;

    // Meanwhile the job goes on elsewhere, and comes back to a state whose chunks are all among what is to be deleted.
    let second = world.attempt().await;
    second.write("a", 1);
    world.checkpoint(&second).await;
    world.blobs.open();
    collecting.await.expect("no panic").expect("collected");
    world.all_retained_can_be_restored().await;
}

#[tokio::test]
async fn an_import_does_not_build_on_what_a_stopped_collector_is_about_to_delete() {
    let mut world = World::new();
    world.retain = 1;
    let first = world.two_checkpoints().await;
    let keyring = Keyring::of(&key());
    let about = About {
        cluster: "here".to_owned(),
        namespace: Namespace::new("default").expect("a namespace"),
        job: JOB,
        name: "a".parse().expect("a name"),
        created_at: Timestamp(1),
        job_version: JobVersion(1),
        written_by: "0".to_owned(),
    };
    let (path, manifest) = (world.room.path().join("file"), world.committed[0].0.manifest);
    let file = fs::File::create(&path).expect("made");
    export(world.blobs.clone(), &key(), about, Some(manifest), &keyring, file).await.expect("exported");
    world.blobs.let_through(0);
    let (collector, retained) = (first.checkpointer.clone(), world.retained());
    let collecting = tokio::spawn(async move { collector.collect(&retained).await });
    world.blobs.until_one_waits().await;

    // Every chunk of what is imported is there, and among what is to be deleted; who imports is not held up.
    let target = Target::new(world.blobs.inner.clone(), JOB, &key(), world.retained()).await.expect("a target");
    let taken = import(fs::File::open(&path).expect("there"), &keyring, &target).await.expect("imported");
    world.blobs.open();
    collecting.await.expect("no panic").expect("collected");
    world.committed.push((taken.expect("a state"), vec![("a".to_owned(), content(1, LENGTH))]));
    world.all_retained_can_be_restored().await;
}

#[tokio::test]
async fn a_chunk_that_a_retained_checkpoint_refers_to_is_not_put_again() {
    let mut world = World::new();
    world.two_checkpoints().await;

    // It begins from the second; the first, which is retained as well, holds what the state comes back to.
    let second = world.attempt().await;
    let mark = world.blobs.mark().await.expect("mark").0;
    second.write("a", 1);
    world.checkpoint(&second).await;
    let stored = world.blobs.mark().await.expect("mark").0 - mark;
    assert_eq!(stored, 1, "only the manifest's root, for the file's time differs");
    world.all_retained_can_be_restored().await;
}

#[tokio::test]
async fn nothing_is_collected_while_a_retained_checkpoint_cannot_be_read() {
    let mut world = World::new();
    world.two_checkpoints().await;
    let second = world.attempt().await;
    second.write("a", 3);
    world.retain = 3;
    world.checkpoint(&second).await;
    let oldest = world.committed[0].0.manifest;
    assert!(world.blobs.inner.damage(OWNER, oldest));
    let before = world.blobs.names().await;
    let refused = second.checkpointer.collect(&world.retained()).await.expect_err("refused");
    assert!(matches!(refused, CollectError::Unreadable { manifest, .. } if manifest == oldest));
    assert_eq!(world.blobs.names().await, before);
}

#[tokio::test]
async fn a_collector_killed_half_way_leaves_garbage_and_nothing_else() {
    let mut world = World::new();
    let first = world.attempt().await;
    for seed in 1..=6 {
        first.write("a", seed);
        world.checkpoint(&first).await;
    }
    for count in 0..3 {
        world.blobs.let_through(count);
        let retained = world.retained();
        let shut = async {
            world.blobs.until_one_waits().await;
            while world.blobs.deletions.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = first.checkpointer.collect(&retained) => panic!("there is more to delete than was let through: {done:?}"),
            () = shut => {}
        }
        world.all_retained_can_be_restored().await;
        first.write("a", 100 + count as u64);
        world.blobs.open();
        world.checkpoint(&first).await;
    }
    world.collect(&first).await;
    assert_eq!(world.blobs.names().await, world.referenced().await);
    world.all_retained_can_be_restored().await;
}

/// Attempts come and go, write, fail, collect, are stopped in the middle of it and wake up at any time.
#[tokio::test]
async fn whatever_the_order_retained_checkpoints_can_be_restored() {
    for seed in 0..12_u64 {
        let mut chance = content(seed, 4_096).into_iter();
        let mut world = World::new();
        let mut sleepers = Vec::new();
        let mut attempt = world.attempt().await;
        for _ in 0..30 {
            let drawn = chance.next().expect("enough");
            match drawn % 8 {
                0..=2 => {
                    // Of few contents, so that states come back to what they were.
                    attempt.write(["a", "b"][usize::from(drawn / 8 % 2)], u64::from(drawn / 16 % 4));
                    world.checkpoint(&attempt).await;
                }
                3 => {
                    attempt.write("a", u64::from(drawn / 16 % 4));
                    attempt.store().await;
                }
                4 => attempt = world.attempt().await,
                5 => {
                    world.blobs.open();
                    world.collect(&attempt).await;
                }
                6 => {
                    world.blobs.let_through(usize::from(drawn / 8 % 3));
                    let (collector, retained) = (attempt.checkpointer.clone(), world.retained());
                    sleepers.push(tokio::spawn(async move { collector.collect(&retained).await }));
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                    }
                    // Its attempt is over for everybody but itself.
                    attempt = world.attempt().await;
                }
                _ => world.blobs.open(),
            }
            world.all_retained_can_be_restored().await;
        }
        world.blobs.open();
        for sleeper in sleepers {
            sleeper.await.expect("no panic").expect("collected");
            world.all_retained_can_be_restored().await;
        }
    }
}
