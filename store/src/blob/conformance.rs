//! What every blob store must do. For tests: it panics at the first thing that is not so.

use super::{BlobError, BlobStore, Owner, Put};
use bytes::Bytes;
use futures::StreamExt as _;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::JobId;
use outlive_schemas::limits::BLOB_BYTES_MAX;
use uuid::Uuid;

fn name(number: u8) -> BlobName {
    BlobName([number; 32])
}

/// Runs the whole suite against a store that is empty, and leaves it empty.
pub async fn conforms(store: &dyn BlobStore) {
    let jobs = [1, 2].map(|n| Owner::Job(JobId(Uuid::from_u128(n))));
    written_once(store, jobs[0]).await;
    owners_are_apart(store, jobs).await;
    deleted_is_gone(store, jobs[0]).await;
    what_is_behind_a_mark_stays(store, jobs[0]).await;
    limits_hold(store, jobs[0]).await;
    many_at_once(store, jobs[1]).await;
    for owner in jobs.into_iter().chain([Owner::Images, Owner::ImageHeads]) {
        store.delete_all(owner).await.expect("delete all");
    }
    let usage = store.usage().await.expect("usage");
    assert_eq!((usage.items, usage.bytes), (0, 0), "an empty store takes up nothing");
}

async fn written_once(store: &dyn BlobStore, owner: Owner) {
    let missing = store.get(owner, name(1)).await;
    assert!(matches!(missing, Err(BlobError::Missing { name: n }) if n == name(1)), "{missing:?}");
    assert_eq!(store.put(owner, name(1), Bytes::from_static(b"first")).await.expect("put"), Put::Stored);
    assert_eq!(store.put(owner, name(1), Bytes::from_static(b"second")).await.expect("put"), Put::Present);
    assert_eq!(store.get(owner, name(1)).await.expect("get"), "first", "a put never replaces");
    assert_eq!(store.put(owner, name(2), Bytes::new()).await.expect("put"), Put::Stored);
    assert_eq!(store.get(owner, name(2)).await.expect("get"), "", "an empty blob is a blob");
    let usage = store.usage().await.expect("usage");
    assert_eq!(usage.items, 2);
    assert!(usage.bytes >= 5, "{usage:?}");
    store.delete_all(owner).await.expect("delete all");
}

async fn owners_are_apart(store: &dyn BlobStore, jobs: [Owner; 2]) {
    let owners = [jobs[0], jobs[1], Owner::Images, Owner::ImageHeads];
    for (number, owner) in owners.into_iter().enumerate() {
        let body = Bytes::from(format!("of owner {number}"));
        assert_eq!(store.put(owner, name(1), body).await.expect("put"), Put::Stored);
    }
    store.put(jobs[0], name(2), Bytes::from_static(b"more")).await.expect("put");
    assert_eq!(sorted(store, jobs[0]).await, [name(1), name(2)]);
    assert_eq!(sorted(store, Owner::ImageHeads).await, [name(1)]);
    store.delete_all(jobs[0]).await.expect("delete all");
    assert_eq!(sorted(store, jobs[0]).await, []);
    for (number, owner) in owners.into_iter().enumerate().skip(1) {
        assert_eq!(store.get(owner, name(1)).await.expect("others stay"), format!("of owner {number}"));
        store.delete_all(owner).await.expect("delete all");
    }
    store.delete_all(jobs[0]).await.expect("deleting nothing is a success");
}

async fn deleted_is_gone(store: &dyn BlobStore, owner: Owner) {
    store.put(owner, name(1), Bytes::from_static(b"first")).await.expect("put");
    store.put(owner, name(2), Bytes::from_static(b"stays")).await.expect("put");
    store.delete(owner, name(1)).await.expect("delete");
    store.delete(owner, name(1)).await.expect("deleting what is gone is a success");
    store.delete(owner, name(3)).await.expect("deleting what never was is a success");
    assert!(matches!(store.get(owner, name(1)).await, Err(BlobError::Missing { .. })));
    assert_eq!(sorted(store, owner).await, [name(2)]);
    assert_eq!(store.put(owner, name(1), Bytes::from_static(b"again")).await.expect("put"), Put::Stored);
    assert_eq!(store.get(owner, name(1)).await.expect("get"), "again");
    store.delete_all(owner).await.expect("delete all");
}

async fn what_is_behind_a_mark_stays(store: &dyn BlobStore, owner: Owner) {
    store.put(owner, name(1), Bytes::from_static(b"before")).await.expect("put");
    store.put(owner, name(2), Bytes::from_static(b"before")).await.expect("put");
    let mark = store.mark().await.expect("mark");
    assert_eq!(store.mark().await.expect("mark"), mark, "nothing was stored since");
    store.put(owner, name(3), Bytes::from_static(b"after")).await.expect("put");
    store.delete(owner, name(2)).await.expect("delete");
    store.put(owner, name(2), Bytes::from_static(b"after, under the same name")).await.expect("put");
    for number in 1..=4 {
        store
            .delete_stored_by(owner, name(number), mark)
            .await
            .expect("what is behind the mark, or nowhere, is no error");
    }
    assert_eq!(sorted(store, owner).await, [name(2), name(3)]);
    assert_eq!(store.get(owner, name(2)).await.expect("get"), "after, under the same name");
    assert!(store.mark().await.expect("mark") > mark);
    store.delete_all(owner).await.expect("delete all");
}

async fn limits_hold(store: &dyn BlobStore, owner: Owner) {
    let largest = Bytes::from(vec![0xa5; BLOB_BYTES_MAX]);
    assert_eq!(store.put(owner, name(1), largest.clone()).await.expect("the largest blob fits"), Put::Stored);
    assert_eq!(store.get(owner, name(1)).await.expect("get"), largest);
    let larger = store.put(owner, name(2), vec![0; BLOB_BYTES_MAX + 1].into()).await;
    assert!(
        matches!(larger, Err(BlobError::TooLarge { bytes, max }) if bytes == BLOB_BYTES_MAX + 1 && max == BLOB_BYTES_MAX)
    );
    store.delete_all(owner).await.expect("delete all");
}

/// Many puts in flight, each name from two sides: of each name exactly one is stored.
async fn many_at_once(store: &dyn BlobStore, owner: Owner) {
    const NAMES: u8 = 100;
    let puts = futures::stream::iter((0..2 * NAMES).map(|number| {
        let number = number % NAMES;
        store.put(owner, name(number), Bytes::from(vec![number; 1_000]))
    }));
    let outcomes: Vec<_> = puts.buffer_unordered(64).collect().await;
    let outcomes: Vec<Put> = outcomes.into_iter().collect::<Result<_, _>>().expect("every put is answered");
    assert_eq!(outcomes.iter().filter(|put| **put == Put::Stored).count(), usize::from(NAMES));
    assert_eq!(sorted(store, owner).await, (0..NAMES).map(name).collect::<Vec<_>>());
    for number in 0..NAMES {
        assert_eq!(store.get(owner, name(number)).await.expect("get"), vec![number; 1_000]);
    }
}

async fn sorted(store: &dyn BlobStore, owner: Owner) -> Vec<BlobName> {
    let mut names = store.list(owner).await.expect("list");
    names.sort_unstable();
    names
}
