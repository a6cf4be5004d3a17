//! Queues: who goes next, and what no cap, rate or pause lets through.

use super::scene::*;
use crate::explain::why;
use crate::plan::{Hints, plan};
use crate::queue::QueueId;
use crate::state::State;
use crate::view::queue as view;
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::Event;
use outlive_schemas::executor::{Capacity, Registration};
use outlive_schemas::id::{ExecutorId, JobId};
use outlive_schemas::job::JobSpec;
use outlive_schemas::queue::{HeldBy, QueueDeleted, Rate};
use outlive_schemas::time::{Millis, Timestamp};
use proptest::prelude::*;

impl Scene {
    fn next(&self) -> Vec<u64> {
        let proposals = plan(&self.state, &Hints::default(), self.time(), 1_000).proposals;
        proposals.iter().map(|p| number(p.job)).collect()
    }

    /// Places what is planned, one job at a time as in a cluster with one free slot, each of which is over at once.
    fn served(mut self, count: usize) -> (Scene, Vec<u64>) {
        let mut order = Vec::new();
        for _ in 0..count {
            let proposals = plan(&self.state, &Hints::default(), self.time(), 1).proposals;
            let Some(p) = proposals.first() else { break };
            order.push(number(p.job));
            self = self.when(place(p.job, p.attempt.0, p.executor)).happened().0;
            self = self.when(report(p.executor, p.job, p.attempt.0, exited(0))).happened().0;
        }
        (self, order)
    }

    fn queue(&self, name: &str) -> outlive_schemas::queue::QueueView {
        view::queue(&self.state, &namespace(), &name.parse().unwrap(), self.time()).unwrap()
    }
}

fn number(id: JobId) -> u64 {
    (id.0.as_u128() & 0xffff_ffff) as u64
}

fn slots(executor: ExecutorId, slots: u32) -> Event {
    let capacity = Capacity { cpu_millis: 1_000_000, memory_bytes: 1 << 40, slots };
    Event::ExecutorJoined(Registration { capacity, ..registration(executor) })
}

/// Jobs from 1 on, each submitted a millisecond after the one before.
fn with_waiting(scene: Scene, specs: impl IntoIterator<Item = JobSpec>) -> Scene {
    (1..).zip(specs).fold(scene, |scene, (n, spec)| scene.at(n).and([submitted(job(n), spec)]))
}

fn rate(limit: u32, per: Millis) -> Option<Rate> {
    Some(Rate { limit, per })
}

#[test]
fn a_queue_is_put_changed_and_deleted() {
    let scene = given([]).when(put_queue("mail", |q| q.weight = 3)).then([queue_put("mail", |q| q.weight = 3)]);
    let scene = scene.when(put_queue("mail", |q| q.weight = 3)).nothing();
    let scene = scene.when(put_queue("mail", |q| q.paused = true)).happened().0;
    assert_eq!((scene.queue("mail").weight, scene.queue("mail").paused), (1, true));
    let scene = scene.when(put_queue("mail", |q| q.weight = 0)).refused(ErrorCode::InvalidArgument, "`weight` is 0");
    // The default one is there without having been put.
    assert_eq!(scene.queue("default").weight, 1);
    let listed = |only: Option<&str>| {
        let only = only.map(|name| name.parse().unwrap());
        let found = view::queues(&scene.state, &namespace(), only.as_ref(), scene.time()).queues;
        found.iter().map(|queue| queue.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(None), ["default", "mail"]);
    assert_eq!((listed(Some("mail")), listed(Some("post"))), (vec!["mail".to_owned()], vec![]));

    let scene = scene.and([joined(A), submitted(job(1), batch().queued("mail"))]);
    let scene = scene.when(delete_queue("mail")).refused(ErrorCode::InUse, "1 waiting and 0 running of 1");
    let scene = scene.when(kill(job(1))).happened().0;
    let deleted = QueueDeleted { namespace: namespace(), name: "mail".parse().unwrap(), request_id: None };
    let scene = scene.when(delete_queue("mail")).then([Event::QueueDeleted(deleted)]);
    let scene = scene.when(delete_queue("mail")).refused(ErrorCode::NotFound, "queue `mail`");
    scene.when(delete_queue("default")).nothing();
}

#[test]
fn a_job_names_a_queue_that_is_there() {
    let mail = || batch().queued("mail");
    let scene = given([]).when(submit([(job(1), mail())])).refused(ErrorCode::NotFound, "outlive queue put mail");
    let two = [(job(1), batch()), (job(2), mail())];
    let scene = scene.when(submit(two)).refused(ErrorCode::NotFound, "`jobs[1]`: there is no queue `mail`");
    let scene = scene.and([queue_put("mail", |_| {})]).when(submit([(job(1), mail())])).happened().0;
    scene.when(update(job(1), 1, batch().queued("post"))).refused(ErrorCode::NotFound, "queue `post`");
}

#[test]
fn no_more_wait_than_may() {
    let scene = given([queue_put("mail", |q| q.max_waiting = Some(2))]);
    let mail = || batch().queued("mail");
    let three = [(job(1), mail()), (job(2), mail()), (job(3), mail())];
    let scene = scene.when(submit(three)).refused(ErrorCode::LimitExceeded, "`jobs[2]`: queue `mail`");
    let scene = scene.when(submit([(job(1), mail()), (job(2), mail())])).happened().0;
    let scene = scene.when(submit([(job(3), mail())])).refused(ErrorCode::LimitExceeded, "its `max_waiting` is 2");
    let scene = scene.when(submit([(job(3), batch())])).happened().0;
    // One that is placed waits no more.
    let scene = scene.and([joined(A), placed(job(1), 1, A)]).when(submit([(job(4), mail())])).happened().0;
    assert_eq!((scene.queue("mail").waiting, scene.queue("mail").running), (2, 1));
}

#[test]
fn a_paused_queue_starts_nothing_new() {
    let mail = || batch().queued("mail");
    let scene = given([joined(A), joined(B), queue_put("mail", |_| {})]).and(running(job(1), mail(), A));
    let scene = scene.and([submitted(job(2), mail()), submitted(job(3), batch())]);
    let scene = scene.when(put_queue("mail", |q| q.paused = true)).happened().0;
    assert_eq!(scene.next(), [3]);
    let scene = scene.when(place(job(2), 1, A)).stale();
    assert_eq!(scene.queue("mail").held_by, Some(HeldBy::Paused));
    // What runs goes on, also through a loss.
    let scene = scene.and([lost(A)]).when(evict(job(1), 1)).happened().0;
    assert_eq!(scene.next(), [1, 3]);
    assert_eq!(scene.when(put_queue("mail", |_| {})).happened().0.next(), [1, 3, 2]);
}

#[test]
fn a_cap_holds_what_is_beyond_it() {
    let mail = || batch().queued("mail");
    let scene = given([slots(A, 9), queue_put("mail", |q| q.concurrency = Some(2))]);
    let scene = with_waiting(scene, [mail(), mail(), mail(), batch()]);
    assert_eq!(scene.next().len(), 3);
    let scene = scene.and([placed(job(1), 1, A), placed(job(2), 1, A)]);
    assert_eq!((scene.next(), scene.queue("mail").held_by), (vec![4], Some(HeldBy::Concurrency)));
    // A plan of before it was full is let go.
    let scene = scene.when(place(job(3), 1, A)).stale();
    let scene = scene.when(report(A, job(1), 1, exited(0))).happened().0;
    assert_eq!(scene.next(), [4, 3], "the queue that runs less goes first");
}

#[test]
fn a_key_is_capped_in_all_queues_of_its_namespace() {
    let keyed = |limit| batch().keyed("customer-42", limit);
    let scene = given([slots(A, 9), queue_put("mail", |_| {})]);
    let scene = with_waiting(scene, [keyed(1), keyed(1).queued("mail"), keyed(2), batch().keyed("other", 1)]);
    assert_eq!(scene.next().len(), 3, "one of those with limit 1, and the others");
    let scene = scene.and([placed(job(1), 1, A)]);
    assert_eq!(scene.next(), [4, 3]);
    let scene = scene.when(place(job(2), 1, A)).stale();
    let scene = scene.when(report(A, job(1), 1, exited(0))).happened().0;
    assert!(scene.next().contains(&2));
}

#[test]
fn a_rate_is_a_fact_of_the_log() {
    let mail = || batch().queued("mail");
    let scene = given([slots(A, 99), queue_put("mail", |q| q.rate = rate(3, Millis::secs(10)))]);
    let scene = with_waiting(scene, (0..8).map(|_| mail())).at(1_000);
    assert_eq!(scene.next(), [1, 2, 3]);
    let scene = scene.and([1, 2, 3].map(|n| placed(job(n), 1, A)));
    assert_eq!(scene.next(), [0; 0]);
    let scene = scene.when(place(job(4), 1, A)).stale();
    assert_eq!(scene.queue("mail").held_by, Some(HeldBy::Rate));
    assert_eq!(scene.queue("mail").next_start_at, Some(at(11_000)));
    // Whoever leads next has folded the same, also through an image.
    let mut loaded: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&scene.state).unwrap()).unwrap();
    loaded.rebuild_index();
    assert_eq!(loaded, scene.state);
    assert_eq!(plan(&loaded, &Hints::default(), at(10_999), 10).proposals, []);
    assert_eq!(scene.at(11_000).next(), [4, 5, 6]);
}

#[test]
fn the_more_urgent_go_first_in_their_queue() {
    let scene = with_waiting(given([slots(A, 3)]), [batch(), batch().prior(90), batch().prior(10), noop().prior(90)]);
    assert_eq!(scene.next(), [2, 4, 1]);
    // After a loss as well.
    let scene =
        given([slots(A, 9), slots(B, 1)]).and(running(job(1), batch(), A)).and(running(job(2), batch().prior(60), A));
    let scene = scene.and([lost(A)]).when(evict(job(1), 1)).happened().0.when(evict(job(2), 1)).happened().0;
    assert_eq!(scene.next(), [2]);
}

#[test]
fn queues_share_the_room_by_weight() {
    let scene = given([slots(A, 8), queue_put("a", |q| q.weight = 3), queue_put("b", |_| {})]);
    let jobs = (0..40).map(|n| batch().queued(if n < 30 { "a" } else { "b" }).prior(if n < 30 { 100 } else { 0 }));
    let scene = with_waiting(scene, jobs);
    let planned = scene.next();
    assert_eq!(planned.iter().filter(|n| **n <= 30).count(), 6, "{planned:?}: priorities count within a queue only");
    // One after the other, where each is over at once: turns go by weight too.
    let scene = with_waiting(
        given([slots(A, 1), queue_put("a", |q| q.weight = 3), queue_put("b", |_| {})]),
        (0..40).map(|n| batch().queued(if n < 30 { "a" } else { "b" })),
    );
    let (scene, order) = scene.served(20);
    assert_eq!(order.iter().filter(|n| **n <= 30).count(), 15, "{order:?}");
    // And the next leader goes on from there.
    let mut loaded: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&scene.state).unwrap()).unwrap();
    loaded.rebuild_index();
    assert_eq!(plan(&loaded, &Hints::default(), at(99), 4), plan(&scene.state, &Hints::default(), at(99), 4));
}

#[test]
fn keys_share_a_queue() {
    let jobs = (0..20).map(|n| batch().keyed(if n < 15 { "a" } else { "b" }, 9));
    let planned = with_waiting(given([slots(A, 8)]), jobs).next();
    assert_eq!(planned.iter().filter(|n| **n <= 15).count(), 4, "{planned:?}");
    // Jobs without a key count as one.
    let jobs = (0..20).map(|n| if n < 15 { batch() } else { batch().keyed("b", 9) });
    let planned = with_waiting(given([slots(A, 8)]), jobs).next();
    assert_eq!(planned.iter().filter(|n| **n <= 15).count(), 4, "{planned:?}");
}

#[test]
fn why_says_what_holds_it_and_where_it_stands() {
    let mail = || batch().queued("mail");
    let scene = given([joined(A), queue_put("mail", |q| q.rate = rate(1, Millis::secs(10)))]);
    let scene = with_waiting(scene, [mail(), mail(), mail().prior(60), mail().keyed("k", 1)]).at(1_000);
    let asked = |scene: &Scene, n| why(&scene.state, &Hints::default(), job(n), scene.job(job(n)), scene.time());
    let scene = scene.and([placed(job(1), 1, A)]);
    let told = asked(&scene, 2);
    assert_eq!(
        told.summary,
        "it waits in queue `mail`: the queue starts at most 1 in 10s: the next one at 2023-11-14T22:13:31.000Z; before \
         it in queue `mail`: 1"
    );
    let queue = told.queue.expect("it waits");
    assert_eq!((queue.ahead, queue.held_by, queue.next_try_at), (1, Some(HeldBy::Rate), Some(at(11_000))));
    let told = asked(&scene.clone().when(put_queue("mail", |q| q.paused = true)).happened().0, 2);
    assert!(told.summary.contains("paused: `outlive queue resume`"), "{}", told.summary);
    let told = asked(&scene.clone().when(put_queue("mail", |q| q.concurrency = Some(1))).happened().0, 2);
    assert!(told.summary.contains("the queue runs 1, and its `concurrency` is 1"), "{}", told.summary);
    let scene = scene.when(put_queue("mail", |_| {})).happened().0.and([placed(job(4), 1, A)]);
    let scene = scene.and([submitted(job(5), batch().keyed("k", 1))]);
    let told = asked(&scene, 5);
    assert!(told.summary.contains("concurrency key `k`") && told.queue.unwrap().held_by == Some(HeldBy::Key));
    assert_eq!(asked(&scene, 4).queue, None, "it waits no more");
}

/// Queues with all kinds of settings, keys with several limits, and what happens to their jobs in any order.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        queue: u8,
        priority: u32,
        key: u8,
    },
    Put {
        queue: u8,
        concurrency: Option<u32>,
        rate: Option<(u32, u64)>,
        weight: u32,
        paused: bool,
    },
    Plan(usize),
    /// A placement that nobody planned, or that was overtaken.
    Place(u8),
    End {
        job: u8,
        code: i32,
    },
    Lose,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put =
        (0..3_u8, prop::option::of(1..4_u32), prop::option::of((1..4_u32, 100..2_000_u64)), 1..4_u32, any::<bool>());
    let step = prop_oneof![
        4 => (0..3_u8, 0..4_u32, 0..4_u8)
            .prop_map(|(queue, priority, key)| Step::Submit { queue, priority: priority * 30, key }),
        1 => put.prop_map(|(queue, concurrency, rate, weight, paused)| Step::Put { queue, concurrency, rate, weight, paused }),
        3 => (0..6_usize).prop_map(Step::Plan),
        2 => any::<u8>().prop_map(Step::Place),
        3 => (any::<u8>(), 0..2_i32).prop_map(|(job, code)| Step::End { job, code }),
        1 => Just(Step::Lose),
        2 => (0..900_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

fn name(queue: u8) -> &'static str {
    ["default", "q-1", "q-2"][queue as usize % 3]
}

struct World {
    scene: Scene,
    now: u64,
    jobs: u64,
    hosts: u128,
    /// When which queue has started something since its rate was put.
    started: Vec<(QueueId, Timestamp)>,
}

impl World {
    fn new() -> World {
        let scene = given([queue_put("q-1", |_| {}), queue_put("q-2", |_| {}), slots(A, 5), slots(B, 3)]);
        World { scene, now: 0, jobs: 0, hosts: 0, started: Vec::new() }
    }

    /// Folds what a command leads to, if anything, and holds every placement against what is set up.
    fn act(&mut self, command: Command) -> bool {
        let decided = crate::decide::decide(&self.scene.state, command, self.scene.time());
        let events = decided.unwrap_or_default();
        for envelope in &events {
            if let Event::QueuePut(e) = &envelope.event {
                let id = QueueId(e.namespace.clone(), e.name.clone());
                let known = self.scene.state.queues.get(&id).and_then(|queue| queue.settings.rate);
                if known != e.settings.rate {
                    // What was started before is counted by the rate of before.
                    self.started.retain(|(of, _)| *of != id);
                }
            }
            self.scene = self.scene.clone().at(self.now).and([envelope.event.clone()]);
            if let Event::JobPlaced(e) = &envelope.event {
                self.check(e.job, envelope.at);
            }
        }
        !events.is_empty()
    }

    fn check(&mut self, id: JobId, at: Timestamp) {
        let state = &self.scene.state;
        let job = &state.jobs[&id];
        let queue = job.queue();
        self.started.push((queue.clone(), at));
        let placed = || state.jobs.values().map(|job| &**job).filter(|job| job.placement.is_some());
        if let Some(with) = &job.spec.concurrency {
            let same =
                |other: &&crate::state::Job| other.spec.concurrency.as_ref().is_some_and(|other| other.key == with.key);
            let running = placed().filter(same).count();
            assert!(running <= with.limit as usize, "{running} with {with:?}");
        }
        let Some(known) = state.queues.get(&queue) else { return };
        let settings = known.settings;
        assert!(!settings.paused || job.restarts > 0, "{queue:?} is paused");
        let running = placed().filter(|job| job.queue() == queue).count();
        assert!(settings.concurrency.is_none_or(|cap| running <= cap as usize), "{running} run in {settings:?}");
        if let Some(Rate { limit, per }) = settings.rate {
            let counted = |(of, when): &&(QueueId, Timestamp)| *of == queue && *when + per > at;
            let within = self.started.iter().filter(counted).count();
            assert!(within <= limit as usize, "{within} of {queue:?} in {settings:?}");
        }
    }

    fn step(&mut self, step: &Step) {
        self.scene = self.scene.clone().at(self.now);
        match *step {
            Step::Submit { queue, priority, key } => {
                self.jobs += 1;
                let spec = batch().queued(name(queue)).prior(priority).attempts(None);
                let spec = if key < 2 { spec.keyed(&format!("k-{key}"), u32::from(queue) + 1) } else { spec };
                self.act(submit([(job(self.jobs), spec)]));
            }
            Step::Put { queue, concurrency, rate: of, weight, paused } => {
                self.act(put_queue(name(queue), |q| {
                    (q.concurrency, q.weight, q.paused) = (concurrency, weight, paused);
                    q.rate = of.map(|(limit, per)| Rate { limit, per: Millis(per) });
                }));
            }
            Step::Plan(limit) => {
                // All that one round proposes is taken: it is held against what the round itself gave away before.
                for p in plan(&self.scene.state, &Hints::default(), self.scene.time(), limit).proposals {
                    assert!(self.act(place(p.job, p.attempt.0, p.executor)), "{p:?} was proposed and refused");
                }
            }
            Step::Place(n) => {
                let id = job(u64::from(n) % (self.jobs + 1));
                let attempt = self.scene.state.jobs.get(&id).map_or(0, |job| job.attempt.0);
                self.act(place(id, attempt + 1, if n % 2 == 0 { A } else { B }));
            }
            Step::End { job: n, code } => {
                let held: Vec<_> =
                    self.scene.state.jobs.iter().filter_map(|(id, j)| Some((*id, j.attempt.0, j.placement?))).collect();
                if let Some((id, attempt, placed)) = held.get(n as usize % held.len().max(1)) {
                    self.act(report(placed.executor, *id, *attempt, exited(code)));
                }
            }
            Step::Lose => {
                let alive = self.scene.state.executors.iter().find(|(_, e)| e.is_alive() && !e.attempts.is_empty());
                let Some((&id, executor)) = alive else { return };
                let (jobs, again) = (executor.attempts.clone(), executor.registration.clone());
                self.act(lose(id, self.scene.time()));
                for id in jobs {
                    let attempt = self.scene.state.jobs[&id].attempt.0;
                    self.act(evict(id, attempt));
                }
                self.hosts += 1;
                let id = ExecutorId(uuid::Uuid::from_u128(again.id.0.as_u128() + (self.hosts << 16)));
                self.act(Command::AdmitExecutor(Registration { id, ..again }));
            }
            Step::Wait(ms) => self.now += ms,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// The checks are in `World::check`, and that of the whole state after every fold.
    #[test]
    fn no_cap_rate_or_pause_is_ever_exceeded(steps in steps()) {
        let mut world = World::new();
        world.scene.checked = true;
        for step in &steps {
            world.step(step);
        }
    }

    /// Nobody starves: with caps, rates and pauses lifted and hosts that go on working, all comes to its end.
    #[test]
    fn every_queue_comes_to_its_end(steps in steps()) {
        let mut world = World::new();
        world.scene.checked = false;
        for step in &steps {
            world.step(step);
        }
        for queue in 0..3 {
            world.step(&Step::Put { queue, concurrency: None, rate: None, weight: 1, paused: false });
        }
        for _ in 0..400 {
            world.step(&Step::Wait(60_000));
            world.step(&Step::Plan(1));
            world.step(&Step::End { job: 0, code: 0 });
        }
        prop_assert!(world.scene.state.queue().is_empty());
    }
}

/// A queue that always has more urgent jobs than another's does not keep that one from being served.
#[test]
fn a_flood_does_not_starve_the_others() {
    let mut scene = given([slots(A, 1), queue_put("flood", |q| q.weight = 10), queue_put("drops", |_| {})]);
    scene.checked = false;
    let (mut next, mut drops) = (1, Vec::new());
    for turn in 0..300 {
        scene = scene.at(turn);
        // More of the flood than is ever served, all of the highest priority.
        for _ in 0..2 {
            scene = scene.and([submitted(job(next), batch().queued("flood").prior(100))]);
            next += 1;
        }
        if turn == 10 {
            for _ in 0..10 {
                scene = scene.and([submitted(job(next), batch().queued("drops").prior(0))]);
                drops.push(next);
                next += 1;
            }
        }
        scene = scene.served(1).0;
    }
    for number in drops {
        assert!(scene.job(job(number)).status.is_final(), "job {number} starved");
    }
}
