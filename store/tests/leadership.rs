//! Leadership and the registry on a real etcd.

mod support;

use outlive_schemas::id::SchedulerName;
use outlive_schemas::subject;
use outlive_store::bridge::{self, Bridge, BridgeError, EtcdBridge};
use outlive_store::etcd::{self, EtcdConfig, EtcdError};
use outlive_store::leadership::{self, EtcdLeadership, Holder, Leadership, LeadershipError, Tenure};
use outlive_store::registry::{self, EtcdRegistry, Registry};
use std::sync::Arc;
use std::time::Duration;
use support::{Etcd, until};

const BOUND: Duration = Duration::from_secs(60);
/// The shortest that etcd grants.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than any restart of a server on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn holder(name: &str) -> Holder {
    Holder { scheduler: name.parse().expect("a name"), zone: "a".parse().expect("a zone") }
}

async fn connected(server: &Etcd) -> etcd::Etcd {
    etcd::connect(&EtcdConfig { endpoints: vec![server.endpoint()], ..EtcdConfig::default() }).await.expect("connected")
}

async fn election(server: &Etcd, ttl: Duration) -> EtcdLeadership {
    EtcdLeadership::new(&connected(server).await, "test", ttl)
}

async fn won(election: &EtcdLeadership, name: &str) -> Arc<dyn Tenure> {
    election.campaign(holder(name)).await.expect("in reach").expect("vacant")
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"))
}

#[tokio::test]
async fn etcd_leadership_conforms() {
    let server = Etcd::start();
    leadership::conformance::conforms(&election(&server, leadership::TTL_DEFAULT).await).await;
}

#[tokio::test]
async fn etcd_registry_conforms() {
    let server = Etcd::start();
    registry::conformance::conforms(&EtcdRegistry::new(&connected(&server).await, "test", SHORT)).await;
}

/// As a put of its own that had been given up and arrives late would be.
#[tokio::test]
async fn who_registers_while_the_entry_changes_is_refused_and_leaves_no_lease() {
    let server = Etcd::start();
    let registry = EtcdRegistry::new(&connected(&server).await, "test", LONG);
    let executor = registry::conformance::executor(1);
    let key = format!("{}{}", subject::etcd::executors("test"), executor.id);
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.expect("connected");
    let mut other = client.clone();
    let putting = tokio::spawn(async move {
        loop {
            other.put(key.as_str(), "{}", None).await.expect("put");
        }
    });
    until("a registration is refused", BOUND, || async {
        match registry.register(&executor).await {
            Err(error) => error.to_string().contains("has come in between"),
            Ok(membership) => {
                membership.leave().await;
                false
            }
        }
    })
    .await;
    putting.abort();
    assert!(client.leases().await.expect("in reach").leases().is_empty(), "its lease was ended");
    registry.register(&executor).await.expect("nobody is in the way");
    assert!(registry.holds(executor.id).await.expect("in reach"));
}

#[tokio::test]
async fn the_bridge_in_etcd_conforms() {
    let server = Etcd::start();
    let bridge = EtcdBridge::new(&connected(&server).await, "test");
    bridge::conformance::conforms(&bridge, &election(&server, LONG).await).await;
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.expect("connected");
    client.put("/outlive/test/bridge/odd", "what is this", None).await.expect("put");
    let odd = bridge.list().await.expect_err("not ours");
    assert!(
        matches!(&odd, BridgeError::Refused { .. }) && odd.to_string().contains("/outlive/test/bridge/odd"),
        "{odd}"
    );
}

#[tokio::test]
async fn a_tenure_outlasts_its_lease_and_ends_when_it_is_dropped() {
    let server = Etcd::start();
    // Two connections, as two schedulers have them.
    let (one, two) = (election(&server, SHORT).await, election(&server, SHORT).await);
    let first = won(&one, "one").await;
    let term = first.term();
    // Longer than the lease by far, and nobody else can take it.
    let vacant = tokio::time::timeout(SHORT * 3, two.vacancy(term)).await;
    assert!(vacant.is_err(), "a renewed lease does not run out");
    assert!(first.is_valid());
    assert!(two.campaign(holder("two")).await.expect("in reach").is_none());
    // A scheduler that is gone renews nothing.
    drop(first);
    within("the lease runs out", two.vacancy(term)).await.expect("in reach");
    assert!(won(&two, "two").await.term() > term);
}

#[tokio::test]
async fn deposing_lets_the_other_win_at_once() {
    let server = Etcd::start();
    let (one, two) = (election(&server, LONG).await, election(&server, LONG).await);
    let first = won(&one, "one").await;
    first.witness(b"first".to_vec()).await.expect("it leads");
    let reign = two.reign().await.expect("in reach").expect("somebody leads");
    assert_eq!(reign.holder, holder("one"));
    two.depose(&reign).await.expect("in reach");
    let second = won(&two, "two").await;
    within("the deposed one notices", first.lost()).await;
    assert!(!first.is_valid());
    let refused = first.witness(b"stale".to_vec()).await;
    assert!(matches!(refused, Err(LeadershipError::Deposed { term }) if term == first.term()), "{refused:?}");
    assert_eq!(two.read_witness().await.expect("in reach").as_deref(), Some(b"first".as_slice()));
    second.witness(b"second".to_vec()).await.expect("it leads");
    first.resign().await;
    assert!(second.is_valid(), "an old leader's farewell changes nothing");
    assert_eq!(one.reign().await.expect("in reach").map(|reign| reign.term), Some(second.term()));
}

#[tokio::test]
async fn a_tenure_survives_kill_9_of_etcd() {
    let mut server = Etcd::start();
    let one = election(&server, LONG).await;
    let registry = EtcdRegistry::new(&connected(&server).await, "test", LONG);
    let executor = registry::conformance::executor(1);
    let membership = registry.register(&executor).await.expect("in reach");
    let tenure = won(&one, "one").await;
    tenure.witness(b"before".to_vec()).await.expect("it leads");
    server.kill();
    assert!(matches!(one.reign().await, Err(LeadershipError::Unavailable { .. })), "nobody is there");
    assert!(tenure.is_valid(), "not renewed, but not for long");
    server.restart();
    until("etcd answers again", BOUND, || async { one.reign().await.is_ok() }).await;
    assert_eq!(one.reign().await.expect("in reach").map(|reign| reign.term), Some(tenure.term()));
    tenure.witness(b"after".to_vec()).await.expect("it still leads");
    assert!(tenure.is_valid());
    let other = election(&server, LONG).await;
    assert!(other.campaign(holder("two")).await.expect("in reach").is_none());
    assert!(registry.holds(executor.id).await.expect("in reach"));
    // And the renewals go on: the age falls back.
    let aged = membership.renewed_ms_ago();
    until("the registration is renewed", BOUND, || async { membership.renewed_ms_ago() < aged }).await;
    tenure.resign().await;
    assert!(other.campaign(holder("two")).await.expect("in reach").is_some());
}

#[tokio::test]
async fn a_leader_without_etcd_stops_by_itself() {
    let mut server = Etcd::start();
    let one = election(&server, SHORT).await;
    let tenure = won(&one, "one").await;
    server.kill();
    until("it is not valid any more", BOUND, || async { !tenure.is_valid() }).await;
    within("it counts as lost", tenure.lost()).await;
    server.restart();
    let two = election(&server, SHORT).await;
    within("the old lease ends", two.vacancy(tenure.term())).await.expect("in reach");
    assert!(won(&two, "two").await.term() > tenure.term());
    assert!(!tenure.is_valid());
}

#[tokio::test]
async fn a_frozen_etcd_makes_nobody_wait_for_ever() {
    let server = Etcd::start();
    let one = election(&server, SHORT).await;
    let tenure = won(&one, "one").await;
    server.pause();
    within("a request ends", one.reign()).await.expect_err("no answer");
    within("a campaign ends", one.campaign(holder("two"))).await.map(|_| ()).expect_err("no answer");
    within("it counts as lost", tenure.lost()).await;
    server.resume();
    within("somebody else wins", async {
        until("a campaign is won", BOUND, || async { matches!(one.campaign(holder("two")).await, Ok(Some(_))) }).await;
    })
    .await;
}

#[tokio::test]
async fn of_two_campaigners_one_wins_again_and_again() {
    let server = Etcd::start();
    let (one, two) = (election(&server, LONG).await, election(&server, LONG).await);
    let mut last = None;
    for _ in 0..10 {
        let (a, b) = tokio::join!(one.campaign(holder("one")), two.campaign(holder("two")));
        let (a, b) = (a.expect("in reach"), b.expect("in reach"));
        assert!(a.is_some() != b.is_some(), "exactly one wins");
        let winner = a.or(b).expect("one of them");
        assert!(last < Some(winner.term()), "terms rise");
        last = Some(winner.term());
        winner.resign().await;
    }
}

#[tokio::test]
async fn an_executor_whose_lease_is_over_is_told() {
    let server = Etcd::start();
    let connection = connected(&server).await;
    let registry = EtcdRegistry::new(&connection, "test", SHORT);
    let executor = registry::conformance::executor(1);
    let membership = registry.register(&executor).await.expect("in reach");
    // An operator, or another Outlive, ends every lease there is.
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.expect("connected");
    for lease in client.leases().await.expect("listed").leases() {
        client.lease_revoke(lease.id()).await.expect("revoked");
    }
    within("the loss is noticed", membership.lost()).await;
    assert!(!registry.holds(executor.id).await.expect("in reach"), "and not mended silently");
}

#[tokio::test]
async fn thousands_of_entries_are_listed_in_pages() {
    let server = Etcd::start();
    let connection = connected(&server).await;
    let registry = EtcdRegistry::new(&connection, "test", LONG);
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.expect("connected");
    for number in 0..2_500 {
        let executor = registry::conformance::executor(number);
        let value = serde_json::to_vec(&executor).expect("written");
        client.put(format!("/outlive/test/executors/{}", executor.id), value, None).await.expect("put");
    }
    client.put("/outlive/test/executors/odd", "not JSON", None).await.expect("put");
    client.put("/outlive/test/executors0", "after the prefix", None).await.expect("put");
    let listed = registry.list().await.expect("in reach");
    assert_eq!(listed.len(), 2_500, "what cannot be read is left out");
    assert!(listed.windows(2).all(|pair| pair[0].id < pair[1].id), "each once");
    let name: SchedulerName = "scheduler-a".parse().expect("a name");
    let _member = registry.register_scheduler(&name, "{}").await.expect("in reach");
    assert_eq!(registry.list_schedulers().await.expect("in reach"), [(name, "{}".to_owned())]);
}

#[tokio::test]
async fn what_outlive_did_not_write_is_named() {
    let server = Etcd::start();
    let one = election(&server, SHORT).await;
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.expect("connected");
    client.put("/outlive/test/leader", "somebody", None).await.expect("put");
    let odd = one.reign().await.expect_err("not ours");
    assert!(odd.to_string().contains("/outlive/test/leader"), "{odd}");
    assert!(one.campaign(holder("one")).await.expect("in reach").is_none());
}

#[tokio::test]
async fn nobody_there_is_named() {
    let mut server = Etcd::start();
    server.kill();
    let config = EtcdConfig { endpoints: vec![server.endpoint()], ..EtcdConfig::default() };
    let error = within("it gives up", etcd::connect(&config)).await.expect_err("nobody there");
    assert!(matches!(&error, EtcdError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&server.endpoint()) && error.to_string().contains("etcd.endpoints"), "{error}");
}

#[tokio::test]
async fn a_lost_member_of_etcd_costs_no_term() {
    let mut members = Etcd::start_cluster();
    let endpoints: Vec<_> = members.iter().map(Etcd::endpoint).collect();
    let connection = etcd::connect(&EtcdConfig { endpoints, ..EtcdConfig::default() }).await.expect("connected");
    // The default's length: a member's loss, and the election after it, must fit.
    let one = EtcdLeadership::new(&connection, "test", leadership::TTL_DEFAULT);
    let tenure = won(&one, "one").await;
    for lost in &mut members {
        lost.kill();
        for number in 0..20 {
            within("a witness", tenure.witness(vec![number])).await.expect("two members are enough");
        }
        assert_eq!(one.reign().await.expect("in reach").map(|reign| reign.term), Some(tenure.term()));
        lost.restart();
        until("the lease is renewed", BOUND, || async { tenure.is_valid() }).await;
    }
    tenure.witness(b"last".to_vec()).await.expect("the same term all along");
}

#[tokio::test]
async fn a_frozen_member_of_etcd_is_left_alone() {
    let members = Etcd::start_cluster();
    let endpoints: Vec<_> = members.iter().map(Etcd::endpoint).collect();
    let connection = etcd::connect(&EtcdConfig { endpoints, ..EtcdConfig::default() }).await.expect("connected");
    let tenure = won(&EtcdLeadership::new(&connection, "test", LONG), "one").await;
    for frozen in &members {
        frozen.pause();
        // If each of these, or every second, waited for the frozen member, they would take minutes.
        within("a hundred writes past a frozen member", async {
            for number in 0..100 {
                tenure.witness(vec![number]).await.expect("two members are enough");
            }
        })
        .await;
        frozen.resume();
        assert!(tenure.is_valid());
    }
}
