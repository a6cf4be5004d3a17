//! What every bridge must do. For tests: it panics at the first thing that is not so.

use super::{Bridge, BridgeError};
use crate::leadership::{Holder, Leadership, Tenure};
use crate::log::Stored;
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_schemas::limits;
use std::sync::Arc;

fn commit(seq: u64, text: &str) -> Stored {
    Stored { seq: Sequence(seq), body: Bytes::from(text.to_owned()) }
}

async fn won(election: &dyn Leadership) -> Arc<dyn Tenure> {
    let holder = Holder {
        scheduler: "bridging".parse().expect("the suite's names are names"),
        zone: "a".parse().expect("the suite's zone is a zone"),
    };
    election.campaign(holder).await.expect("in reach").expect("vacant, so the campaign is won")
}

/// Runs the whole suite against a bridge that is empty and the vacant election that guards it, and leaves them so.
pub async fn conforms(bridge: &dyn Bridge, election: &dyn Leadership) {
    what_is_put_is_listed_in_order(bridge, election).await;
    only_who_leads_may_put_and_remove(bridge, election).await;
    it_holds_as_much_as_is_promised(bridge, election).await;
}

async fn what_is_put_is_listed_in_order(bridge: &dyn Bridge, election: &dyn Leadership) {
    assert_eq!(bridge.list().await, Ok(vec![]));
    let tenure = won(election).await;
    let term = tenure.term();
    let commits = [commit(9, "nine"), commit(10, "ten"), commit(11, "eleven"), commit(100, "far")];
    for commit in &commits {
        bridge.put(term, commit).await.expect("it leads");
    }
    bridge.put(term, &commits[1]).await.expect("the same again");
    assert_eq!(bridge.put(term, &commit(10, "other")).await, Err(BridgeError::Occupied { at: Sequence(10) }));
    assert_eq!(bridge.list().await.expect("in reach"), commits, "as numbers go, not as words");
    for at in [9, 10, 11, 11, 100] {
        bridge.remove(term, Sequence(at)).await.expect("it leads");
    }
    assert_eq!(bridge.list().await, Ok(vec![]));
    tenure.resign().await;
}

async fn only_who_leads_may_put_and_remove(bridge: &dyn Bridge, election: &dyn Leadership) {
    let first = won(election).await;
    let old = first.term();
    bridge.put(old, &commit(1, "one")).await.expect("it leads");
    first.resign().await;
    assert_eq!(bridge.put(old, &commit(2, "two")).await, Err(BridgeError::Deposed { term: old }), "nobody leads");
    let second = won(election).await;
    assert_eq!(bridge.put(old, &commit(2, "two")).await, Err(BridgeError::Deposed { term: old }), "another leads");
    assert_eq!(bridge.remove(old, Sequence(1)).await, Err(BridgeError::Deposed { term: old }));
    // What it put while it led is durable, and it may learn so even now.
    assert_eq!(bridge.put(old, &commit(1, "one")).await, Ok(()));
    assert_eq!(bridge.list().await, Ok(vec![commit(1, "one")]));
    bridge.put(second.term(), &commit(2, "another two")).await.expect("it leads");
    bridge.remove(second.term(), Sequence(1)).await.expect("it leads");
    second.resign().await;
    bridge.discard(Sequence(2)).await.expect("an operator needs no term");
    bridge.discard(Sequence(2)).await.expect("nor anything to be there");
    assert_eq!(bridge.list().await, Ok(vec![]));
}

async fn it_holds_as_much_as_is_promised(bridge: &dyn Bridge, election: &dyn Leadership) {
    let tenure = won(election).await;
    let large = |seq: u64, bytes: usize| Stored { seq: Sequence(seq), body: Bytes::from(vec![seq as u8; bytes]) };
    bridge.put(tenure.term(), &large(1, limits::COMMIT_SEALED_BYTES_MAX)).await.expect("the largest commit");
    bridge.remove(tenure.term(), Sequence(1)).await.expect("it leads");
    let each = limits::BRIDGE_BYTES_MAX / limits::BRIDGE_COMMITS_MAX;
    let all: Vec<Stored> = (1..=limits::BRIDGE_COMMITS_MAX as u64).map(|seq| large(seq, each)).collect();
    for commit in &all {
        bridge.put(tenure.term(), commit).await.expect("it leads");
    }
    assert!(bridge.list().await.expect("in reach") == all, "all of it is listed");
    for commit in &all {
        bridge.remove(tenure.term(), commit.seq).await.expect("it leads");
    }
    tenure.resign().await;
}
