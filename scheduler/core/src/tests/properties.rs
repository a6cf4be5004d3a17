//! Random stories over a few jobs and executors, with commands that are stale, doubled, and about others.

use super::scene::*;
use crate::decide::{Refusal, decide};
use crate::fold::fold;
use crate::invariant;
use crate::plan::{Hints, plan};
use crate::state::State;
use crate::timer;
use crate::{array, depend};
use outlive_schemas::array::ArraySpec;
use outlive_schemas::command::{Command, Stop};
use outlive_schemas::depend::{Condition, Dependency};
use outlive_schemas::event::Envelope;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Sequence};
use outlive_schemas::message::{News, Outcome};
use outlive_schemas::snapshot::{ImportedContent, SnapshotStatus};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use outlive_schemas::when::{GiveUp, Start};
use proptest::prelude::*;
use std::collections::BTreeMap;

const EXECUTORS: [ExecutorId; 4] = [A, A2, B, C];

/// One thing that somebody does. Small numbers are jobs and executors, taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        kinds: Vec<u8>,
        name: u8,
        request: u8,
    },
    Cancel {
        job: u8,
        kill: bool,
    },
    Delete {
        job: u8,
        request: u8,
    },
    Retry {
        jobs: Vec<u8>,
        request: u8,
    },
    CancelTasks {
        array: u8,
        tasks: String,
        kill: bool,
        request: u8,
    },
    RetryTasks {
        array: u8,
        tasks: String,
        request: u8,
    },
    StopJob {
        job: u8,
        force: bool,
    },
    StartJob {
        job: u8,
        restore: u8,
    },
    Update {
        job: u8,
        version: u8,
        allow_lost_state: bool,
        request: u8,
    },
    RollBack {
        job: u8,
    },
    Snapshot {
        job: u8,
        name: u8,
    },
    DeleteSnapshot {
        job: u8,
        name: u8,
    },
    Import {
        job: u8,
        name: u8,
        ends: bool,
    },
    Admit(u8),
    Lose(u8),
    Evict(u8),
    Place {
        job: u8,
        executor: u8,
    },
    Plan {
        limit: u8,
    },
    Report {
        job: u8,
        age_ms: u64,
        news: News,
    },
    /// From an executor that may not hold it, about an attempt that may not be the newest.
    Stray {
        job: u8,
        attempt: u32,
        executor: u8,
        news: News,
    },
    /// What was done before, once more.
    Again(u8),
    Due,
    Wait(u64),
}

fn news() -> impl Strategy<Value = News> {
    prop_oneof![
        3 => Just(News::Started),
        3 => (0..6_u64).prop_map(|contents| News::Checkpoint(taken(contents))),
        1 => Just(News::CheckpointFailed { reason: "no room".into() }),
        2 => Just(exited(0)),
        2 => (prop_oneof![Just(0), Just(700_000), any::<u64>()]).prop_map(|ran| ended(Outcome::Exited { code: 1 }, ran)),
        1 => any::<i32>().prop_map(|signal| ended(Outcome::Signalled { signal }, 5)),
        1 => (1..8_u64).prop_map(unreadable),
        1 => Just(News::Missing),
        1 => Just(News::ReleaseFailed { reason: "disk full".into() }),
        2 => (0..9_u64, prop::option::of(0..6_u64)).prop_map(|(up_to, contents)| News::Snapshot {
            up_to,
            manifest: contents.map(|contents| taken(contents).manifest),
        }),
        1 => (0..9_u64).prop_map(|up_to| News::SnapshotFailed { up_to, reason: "disk full".into() }),
        2 => (prop::option::of(0..6_u64), any::<bool>()).prop_map(|(contents, fault)| released(
            contents,
            fault.then_some("disk full"),
        )),
    ]
}

/// Of arrays of five tasks; one of these names a task that there is not.
fn tasks() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0..5_u32).prop_map(|index| index.to_string()),
        3 => (0..5_u32, 0..3_u32).prop_map(|(first, more)| format!("{first}-{}", (first + more).min(4))),
        1 => Just("0-4".to_owned()),
        1 => Just("4-5".to_owned()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let age = prop_oneof![4 => 0..50_u64, 1 => any::<u64>()];
    prop_oneof![
        4 => (prop::collection::vec(0..11_u8, 1..4), 0..6_u8, 0..8_u8)
            .prop_map(|(kinds, name, request)| Step::Submit { kinds, name, request }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(job, kill)| Step::Cancel { job, kill }),
        1 => (any::<u8>(), 0..8_u8).prop_map(|(job, request)| Step::Delete { job, request }),
        2 => (prop::collection::vec(any::<u8>(), 1..3), 0..8_u8)
            .prop_map(|(jobs, request)| Step::Retry { jobs, request }),
        3 => (any::<u8>(), tasks(), any::<bool>(), 0..8_u8)
            .prop_map(|(array, tasks, kill, request)| Step::CancelTasks { array, tasks, kill, request }),
        3 => (any::<u8>(), tasks(), 0..8_u8)
            .prop_map(|(array, tasks, request)| Step::RetryTasks { array, tasks, request }),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(job, force)| Step::StopJob { job, force }),
        3 => (any::<u8>(), 0..4_u8).prop_map(|(job, restore)| Step::StartJob { job, restore }),
        3 => (any::<u8>(), 0..4_u8, any::<bool>(), 0..8_u8).prop_map(|(job, version, allow_lost_state, request)| {
            Step::Update { job, version, allow_lost_state, request }
        }),
        1 => any::<u8>().prop_map(|job| Step::RollBack { job }),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(job, name)| Step::Snapshot { job, name }),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(job, name)| Step::DeleteSnapshot { job, name }),
        1 => (any::<u8>(), 0..3_u8, any::<bool>()).prop_map(|(job, name, ends)| Step::Import { job, name, ends }),
        3 => any::<u8>().prop_map(Step::Admit),
        1 => any::<u8>().prop_map(Step::Lose),
        4 => any::<u8>().prop_map(Step::Evict),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(job, executor)| Step::Place { job, executor }),
        4 => (0..9_u8).prop_map(|limit| Step::Plan { limit }),
        10 => (any::<u8>(), age, news()).prop_map(|(job, age_ms, news)| Step::Report { job, age_ms, news }),
        2 => (any::<u8>(), 0..5_u32, any::<u8>(), news())
            .prop_map(|(job, attempt, executor, news)| Step::Stray { job, attempt, executor, news }),
        2 => any::<u8>().prop_map(Step::Again),
        1 => Just(Step::Due),
        3 => prop_oneof![0..2_000_u64, 0..100_000_u64].prop_map(Step::Wait),
    ]
}

fn story() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..120)
}

/// A run of the steps against one state, with the log that it left.
struct World {
    state: State,
    log: Vec<(Sequence, Envelope)>,
    now: Timestamp,
    submitted: u64,
    lives: u128,
    done: Vec<Command>,
}

impl World {
    fn play(steps: &[Step]) -> World {
        let (state, log, done) = Default::default();
        let mut world = World { state, log, now: T0, submitted: 0, lives: 0, done };
        for step in steps {
            for command in world.commands(step) {
                world.act(command);
            }
        }
        world
    }

    fn fresh_id(&mut self) -> JobId {
        self.submitted += 1;
        // With room for the ids of tasks.
        job(self.submitted * 16)
    }

    fn job(&self, number: u8) -> JobId {
        let count = self.state.jobs.len().max(1);
        self.state.jobs.keys().nth(number as usize % count).copied().unwrap_or(job(1))
    }

    /// An array, where there is one.
    fn array(&self, number: u8) -> JobId {
        let arrays: Vec<_> = self.state.jobs.iter().filter(|(_, job)| job.array.is_some()).map(|(id, _)| *id).collect();
        arrays.get(number as usize % arrays.len().max(1)).copied().unwrap_or(self.job(number))
    }

    fn executor(&self, number: u8) -> ExecutorId {
        let count = self.state.executors.len().max(1);
        self.state.executors.keys().nth(number as usize % count).copied().unwrap_or(A)
    }

    fn attempt(&self, job: JobId) -> u32 {
        self.state.jobs.get(&job).map_or(0, |job| job.attempt.0)
    }

    fn created_at(&self, job: JobId, name: &str) -> Timestamp {
        let life = self.state.jobs.get(&job).and_then(|job| job.life.as_ref());
        let known = life.and_then(|life| life.snapshots.iter().find(|snapshot| snapshot.name.as_str() == name));
        known.map_or(T0, |snapshot| snapshot.created_at)
    }

    fn commands(&mut self, step: &Step) -> Vec<Command> {
        let request = |number: u8| (number < 5).then(|| format!("r-{number}"));
        match *step {
            Step::Submit { ref kinds, name, request: number } => {
                let newest: Vec<JobId> = self.state.jobs.keys().rev().take(3).copied().collect();
                let specs = kinds.iter().enumerate().map(|(position, kind)| {
                    let spec = match kind {
                        0 => noop(),
                        1 => service(),
                        2 => batch().in_zones(&["a"]),
                        3 => batch().needing(700, 300),
                        6 => batch().with(|spec| spec.array = Some(ArraySpec { count: 5, parallel: Some(2) })),
                        4 => batch().with(|spec| {
                            spec.start = Some(Start::Delay(Millis(1_500)));
                            spec.deadline = Some(GiveUp { start_within: Some(Millis(900)), finish_within: None });
                        }),
                        5 => batch().with(|spec| {
                            spec.deadline = Some(GiveUp { start_within: None, finish_within: Some(Millis(2_500)) });
                            spec.restart.no_retry_exit_codes.insert(1);
                        }),
                        8.. => {
                            // Of a job that is there, or of the first of the same request.
                            let there = newest.get(*kind as usize - 8);
                            let parent = there.map_or(format!("name-{name}"), |id| id.to_string());
                            let until = if kind % 2 == 0 { Condition::Succeeded } else { Condition::Finished };
                            batch().with(|spec| {
                                spec.depends_on.push(Dependency { job: parent.parse().unwrap(), until });
                            })
                        }
                        _ => batch(),
                    };
                    let named = position == 0 && name < 3;
                    if named { spec.named(&format!("name-{name}")) } else { spec }
                });
                let specs: Vec<_> = specs.collect();
                let jobs = specs.into_iter().map(|spec| (self.fresh_id(), spec.into())).collect();
                let origin = origin(request(number).as_deref());
                vec![Command::SubmitJobs { namespace: namespace(), origin, jobs }]
            }
            Step::Cancel { job, kill } => vec![stop(self.job(job), if kill { Stop::Kill } else { GRACEFUL })],
            Step::Delete { job, request: number } => vec![delete(self.job(job), request(number).as_deref())],
            Step::Retry { ref jobs, request: number } => {
                let origin = origin(request(number).map(|id| format!("retry-{id}")).as_deref());
                let jobs = jobs.iter().map(|job| self.job(*job)).collect();
                vec![Command::RetryJobs { namespace: namespace(), origin, jobs }]
            }
            Step::CancelTasks { array, ref tasks, kill, request: number } => {
                let origin = origin(request(number).map(|id| format!("tasks-{id}")).as_deref());
                let how = if kill { Stop::Kill } else { GRACEFUL };
                vec![cancel_tasks(origin, self.array(array), tasks, how)]
            }
            Step::RetryTasks { array, ref tasks, request: number } => {
                let origin = origin(request(number).map(|id| format!("tasks-{id}")).as_deref());
                vec![retry_tasks(origin, self.array(array), tasks)]
            }
            Step::StopJob { job, force } => vec![stop_service(self.job(job), force)],
            Step::StartJob { job, restore } => {
                let mode = match restore {
                    0 => "latest",
                    1 => "none",
                    _ => "snapshot",
                };
                vec![start(
                    self.job(job),
                    mode,
                    (restore > 1).then_some(if restore == 2 { "snap-0" } else { "snap-1" }),
                )]
            }
            Step::Update { job, version, allow_lost_state, request: number } => {
                let job = self.job(job);
                let known = self.state.jobs.get(&job);
                // Mostly the current one.
                let expected = if version < 3 { known.map_or(1, |job| job.version.0) } else { 7 };
                let kind = known.map_or(outlive_schemas::job::JobKind::Batch, |job| job.spec.kind);
                let spec = batch().with(|spec| {
                    spec.kind = kind;
                    spec.restart.max_attempts = (version == 1).then_some(Some(1));
                    spec.labels.insert("version".into(), expected.to_string().into());
                });
                let origin = origin(request(number).map(|id| format!("update-{id}")).as_deref());
                vec![update_as(origin, job, expected, spec, allow_lost_state)]
            }
            Step::RollBack { job } => {
                let job = self.job(job);
                vec![roll_back(job, self.state.jobs.get(&job).map_or(1, |job| job.version.0))]
            }
            Step::Snapshot { job, name } => vec![create_snapshot(self.job(job), &format!("snap-{name}"))],
            Step::DeleteSnapshot { job, name } => {
                let job = self.job(job);
                let name = format!("snap-{name}");
                vec![delete_snapshot(job, &name, self.created_at(job, &name))]
            }
            Step::Import { job, name, ends } => {
                let job = self.job(job);
                let name = format!("snap-{name}");
                let created_at = self.created_at(job, &name);
                let content = ends.then(|| ImportedContent { created_at, taken: Some(taken(99)) });
                vec![import_snapshot(job, &name, content)]
            }
            Step::Admit(number) => {
                let like = EXECUTORS[number as usize % EXECUTORS.len()];
                self.lives += 1;
                let id = ExecutorId(uuid::Uuid::from_u128(like.0.as_u128() + (self.lives << 16)));
                vec![Command::AdmitExecutor(Registration { id, ..registration(like) })]
            }
            Step::Lose(executor) => vec![lose(self.executor(executor), self.now - Millis(300))],
            Step::Evict(number) => {
                let lost = self.state.to_evict().filter_map(|id| self.state.executors.get(&id));
                let jobs: Vec<_> = lost.flat_map(|executor| executor.attempts.iter().copied()).collect();
                let job = jobs.get(number as usize % jobs.len().max(1)).copied().unwrap_or(self.job(number));
                vec![evict(job, self.attempt(job))]
            }
            Step::Place { job, executor } => {
                let job = self.job(job);
                vec![place(job, self.attempt(job) + 1, self.executor(executor))]
            }
            Step::Plan { limit } => {
                let proposals = plan(&self.state, &Hints::default(), self.now, limit.into()).proposals;
                proposals.iter().map(|p| place(p.job, p.attempt.0, p.executor)).collect()
            }
            Step::Report { job, age_ms, ref news } => {
                // Of an attempt that is there, if any is.
                let held: Vec<_> =
                    self.state.jobs.iter().filter_map(|(id, j)| Some((*id, j.placement?.executor))).collect();
                let Some(&(job, executor)) = held.get(job as usize % held.len().max(1)) else { return Vec::new() };
                vec![report_aged(executor, job, self.attempt(job), age_ms, news.clone())]
            }
            Step::Stray { job, attempt, executor, ref news } => {
                vec![report(self.executor(executor), self.job(job), attempt, news.clone())]
            }
            Step::Again(number) => {
                let count = self.done.len().max(1);
                let mut again = self.done.iter().nth_back(number as usize % count.min(6)).cloned();
                if let Some(Command::SubmitJobs { jobs, .. }) = &mut again {
                    // A request that comes twice gets fresh ids, as from the leader.
                    jobs.iter_mut().for_each(|(id, _)| *id = self.fresh_id());
                }
                again.into_iter().collect()
            }
            Step::Due => {
                let mut due = timer::due(&self.state, self.now, 100);
                due.extend(depend::due(&self.state, 100));
                due.extend(array::due(&self.state, 100));
                due
            }
            Step::Wait(ms) => {
                self.now = self.now + Millis(ms);
                Vec::new()
            }
        }
    }

    /// Decides and folds one command as one commit, and checks what must hold after every step.
    fn act(&mut self, command: Command) {
        let before = self.state.clone();
        let decided = decide(&self.state, command.clone(), self.now);
        assert_eq!(decided, decide(&self.state, command.clone(), self.now), "a decision is the same each time");
        assert_eq!(self.state, before, "deciding changes nothing");
        let events = decided.unwrap_or_default();
        let seq = Sequence(self.log.last().map_or(0, |(seq, _)| seq.0) + 1);
        for envelope in events {
            if let Err(error) = fold(&mut self.state, seq, &envelope) {
                panic!("{command:?} led to {envelope:?}: {error}");
            }
            check_told(&self.state, seq, &envelope);
            self.log.push((seq, envelope));
        }
        if let Err(wrong) = invariant::check(&self.state) {
            panic!("after {command:?}: {wrong}");
        }
        check_lives(&before, &self.state, &command);
        if let Command::Report { .. } = command {
            self.check_doubled(command.clone(), seq);
        }
        self.done.push(command);
    }

    /// The same report at once again changes nothing.
    fn check_doubled(&self, report: Command, seq: Sequence) {
        let mut state = self.state.clone();
        let events = match decide(&self.state, report.clone(), self.now) {
            Ok(events) => events,
            Err(refusal) => return assert_eq!(refusal, Refusal::Superseded),
        };
        for envelope in &events {
            fold(&mut state, seq, envelope).unwrap();
        }
        assert_eq!(state, self.state, "{report:?} came twice");
        // Only a failure to make a checkpoint is told twice; nothing in the state could know it again.
        let told = |envelope: &Envelope| matches!(envelope.event, outlive_schemas::event::Event::CheckpointFailed(_));
        assert!(events.iter().all(told), "{events:?}");
    }
}

/// From one state to the next: attempts do not fall, what is over stays over unless it is tried again, nothing holds room twice.
fn check_lives(before: &State, after: &State, command: &Command) {
    let may_come_back = matches!(command, Command::RetryJobs { .. } | Command::RetryTasks { .. });
    for (id, was) in &before.jobs {
        let Some(is) = after.jobs.get(id) else {
            assert!(
                was.status.is_final() || was.status == Status::Stopped,
                "job {id} went while it was {}",
                was.status
            );
            continue;
        };
        assert!(
            is.attempt == was.attempt || is.attempt == Attempt(was.attempt.0 + 1),
            "{id}: {} to {}",
            was.attempt,
            is.attempt
        );
        assert!(is.restarts >= was.restarts && is.last_checkpoint >= was.last_checkpoint, "{id}");
        let is_back = may_come_back && is.status == Status::Pending && is.attempt == was.attempt;
        if was.status.is_final() && !is_back {
            // But for its snapshots, which may still be deleted.
            let without = |job: &crate::state::Job| {
                let mut job = job.clone();
                (job.life, job.commits) = (None, Vec::new());
                job
            };
            assert_eq!(without(is), without(was), "job {id} was over");
        }
        check_snapshots(*id, was, is);
        // Two attempts at once: the old one has to be let go of before the new one begins.
        if is.attempt != was.attempt {
            assert!(was.placement.is_none(), "job {id} was placed while attempt {} held room", was.attempt);
        }
    }
    let mut holders: BTreeMap<JobId, u32> = BTreeMap::new();
    for job in after.executors.values().flat_map(|executor| &executor.attempts) {
        *holders.entry(*job).or_default() += 1;
    }
    assert!(holders.values().all(|count| *count == 1), "{holders:?}");
}

/// What is ready stays as it is until it is deleted; what an attempt may be started from is kept.
fn check_snapshots(id: JobId, was: &crate::state::Job, is: &crate::state::Job) {
    for snapshot in was.life.iter().flat_map(|life| &life.snapshots) {
        let now = is.life.as_ref().and_then(|life| life.snapshots.iter().find(|other| other.number == snapshot.number));
        match (snapshot.status, now) {
            (SnapshotStatus::Deleting, None) => {}
            (_, None) => panic!("snapshot {} of {id} went while it was {}", snapshot.name, snapshot.status),
            (SnapshotStatus::Ready, Some(now)) => {
                assert_eq!((&now.content, now.ready_at), (&snapshot.content, snapshot.ready_at), "{id}");
                assert!(matches!(now.status, SnapshotStatus::Ready | SnapshotStatus::Deleting));
            }
            (SnapshotStatus::Failed, Some(now)) => assert_ne!(now.status, SnapshotStatus::Ready),
            _ => {}
        }
    }
    if let Some(restorable) = is.restorable() {
        assert!(is.manifests().any(|kept| kept == restorable.manifest), "{id} could not be restored");
    }
}

fn replay(log: &[(Sequence, Envelope)], from: State) -> State {
    let mut state = from;
    for (seq, envelope) in log {
        fold(&mut state, *seq, envelope).unwrap();
    }
    state
}

fn through_an_image(state: &State) -> State {
    let mut loaded: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap();
    loaded.rebuild_index();
    loaded
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// The checks are in `World::act`; here the log is folded again, whole and in two parts with an image between.
    #[test]
    fn every_story_holds_and_can_be_told_again(steps in story(), cut in any::<prop::sample::Index>()) {
        let world = World::play(&steps);
        prop_assert_eq!(&replay(&world.log, State::default()), &world.state);
        prop_assert_eq!(&through_an_image(&world.state), &world.state);
        let cut = cut.index(world.log.len() + 1);
        let prefix = through_an_image(&replay(&world.log[..cut], State::default()));
        prop_assert_eq!(&replay(&world.log[cut..], prefix), &world.state);
    }

    /// Left alone with room for everything, every job comes to its end, and every executor is empty again.
    #[test]
    fn every_story_comes_to_an_end(steps in story()) {
        let mut world = World::play(&steps);
        for executor in EXECUTORS {
            world.lives += 1;
            let id = ExecutorId(uuid::Uuid::from_u128(executor.0.as_u128() + (world.lives << 16)));
            world.act(Command::AdmitExecutor(Registration { id, ..registration(executor) }));
        }
        let in_the_way =
            |job: &crate::state::Job| matches!(job.status, Status::Stopped | Status::Updating | Status::RollingBack);
        for _ in 0..500 {
            world.now = world.now + Millis(60_000);
            let mut commands = timer::due(&world.state, world.now, 100);
            commands.extend(depend::due(&world.state, 100));
            commands.extend(array::due(&world.state, 100));
            for executor in world.state.to_evict().filter_map(|id| world.state.executors.get(&id)) {
                commands.extend(executor.attempts.iter().map(|job| evict(*job, world.attempt(*job))));
            }
            for (&id, job) in world.state.jobs.iter().filter(|(_, job)| !job.status.is_final()) {
                match job.placement {
                    // A service is told to stop; what has been placed does its work.
                    Some(placed) if job.spec.kind == outlive_schemas::job::JobKind::Batch || job.stop.is_some() => {
                        commands.push(report(placed.executor, id, job.attempt.0, exited(0)));
                    }
                    Some(_) => commands.push(kill(id)),
                    None if in_the_way(job) => commands.push(kill(id)),
                    None => {}
                }
            }
            commands.extend(world.commands(&Step::Plan { limit: 100 }));
            if commands.is_empty() {
                break;
            }
            commands.into_iter().for_each(|command| world.act(command));
        }
        let counts = world.state.counts();
        prop_assert!(counts.keys().all(|status| status.is_final()), "{:?}", counts);
        prop_assert!(world.state.executors.values().all(|executor| executor.attempts.is_empty()));
        prop_assert!(world.state.queue().is_empty() && world.state.stopping().count() == 0);
        let told: u64 = [Status::Succeeded, Status::Failed, Status::Cancelled].iter().filter_map(|s| counts.get(s)).sum();
        prop_assert_eq!(told, world.state.jobs.len() as u64);
    }
}
