//! What every registry must do. For tests: it panics at the first thing that is not so.

use super::{Membership, Registry};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{ExecutorId, SchedulerName};
use outlive_schemas::job::Labels;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What takes longer than this does not happen.
const BOUND: Duration = Duration::from_secs(30);

/// An executor to register.
pub fn executor(number: u128) -> Registration {
    Registration {
        id: ExecutorId(Uuid::from_u128(number)),
        name: format!("executor-a-{number}").parse().expect("the suite's names are names"),
        zone: "a".parse().expect("the suite's zone is a zone"),
        host: "host".to_owned(),
        capacity: Capacity { cpu_millis: 4_000, memory_bytes: 1 << 30, slots: 16 },
        labels: Labels::default(),
        drivers: vec![DriverKind::Process, DriverKind::Noop],
        version: "0.1.0".to_owned(),
    }
}

async fn registered(registry: &dyn Registry, executor: &Registration) -> Arc<dyn Membership> {
    registry.register(executor).await.expect("in reach")
}

async fn listed(registry: &dyn Registry) -> Vec<Registration> {
    let mut all = registry.list().await.expect("in reach");
    all.sort_by_key(|executor| executor.id);
    all
}

/// Runs the whole suite against an empty registry, and leaves it empty.
pub async fn conforms(registry: &dyn Registry) {
    let (one, two) = (executor(1), executor(2));
    assert_eq!(listed(registry).await, []);
    assert!(!registry.holds(one.id).await.expect("in reach"));
    let first = registered(registry, &one).await;
    let second = registered(registry, &two).await;
    assert_eq!(listed(registry).await, [one.clone(), two.clone()]);
    assert!(registry.holds(one.id).await.expect("in reach"));
    assert!(u128::from(first.renewed_ms_ago()) < BOUND.as_millis());

    first.leave().await;
    tokio::time::timeout(BOUND, first.lost()).await.expect("who left is lost");
    assert!(!registry.holds(one.id).await.expect("in reach"));
    assert_eq!(listed(registry).await, std::slice::from_ref(&two));
    first.leave().await;

    let third = registered(registry, &one).await;
    assert_eq!(registry.end_executors().await.expect("in reach"), 2);
    for ended in [&second, &third] {
        tokio::time::timeout(BOUND, ended.lost()).await.expect("its lease was ended");
    }
    assert_eq!(listed(registry).await, []);
    assert_eq!(registry.end_executors().await.expect("in reach"), 0);
    let second = registered(registry, &two).await;

    let name: SchedulerName = "scheduler-a".parse().expect("the suite's names are names");
    let earlier = registry.register_scheduler(&name, "first").await.expect("in reach");
    let later = registry.register_scheduler(&name, "second").await.expect("in reach");
    assert_eq!(registry.list_schedulers().await.expect("in reach"), [(name.clone(), "second".to_owned())]);
    earlier.leave().await;
    assert_eq!(registry.list_schedulers().await.expect("in reach"), [(name, "second".to_owned())], "taken over");
    assert_eq!(listed(registry).await.len(), 1, "schedulers are no executors");
    later.leave().await;
    assert_eq!(registry.list_schedulers().await.expect("in reach"), []);
    second.leave().await;
    assert_eq!(listed(registry).await, []);
}
