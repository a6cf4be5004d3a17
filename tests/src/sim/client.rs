//! Users: they submit, look, cancel and delete, and ask the same again until they are answered.

use super::env::{Env, Happening, MS, Micros, Node, Reply, SECOND, Timer, say};
use super::executor::short;
use super::job::Work;
use super::network::{Message, NatsReply};
use super::queues;
use super::ticks::every;
use outlive_core::state::Job;
use outlive_scheduler::leader::Answer;
use outlive_scheduler::submission::ScheduleAsked;
use outlive_scheduler::submission::{Asked, LifeAsked, QueueAsked, Request};
use outlive_schemas::array::ArraySpec;
use outlive_schemas::command::{Origin, Stop};
use outlive_schemas::depend::{Condition, Dependency};
use outlive_schemas::error::ErrorCode;
use outlive_schemas::id::ScheduleName;
use outlive_schemas::id::{Attempt, ExecutorRef, JobId, JobName, JobRef, JobVersion, Namespace};
use outlive_schemas::job::{Driver, Factor, JobKind, JobSpec, NoopSpec, ProcessSpec};
use outlive_schemas::life::{RestoreRequest, RollbackRequest, StartRequest, StopRequest, UpdateRequest};
use outlive_schemas::request::{Deadline, ListRequest};
use outlive_schemas::schedule::{CatchUp, Overlap, PutRequest, ScheduleRequest};
use outlive_schemas::snapshot::SnapshotRequest;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;
use outlive_schemas::when::Selection;
use std::collections::BTreeMap;

/// What a user learns from an answer.
#[derive(Clone, Debug)]
pub enum Said {
    Submitted(Vec<JobId>),
    View { job: JobId, status: Status, attempt: Attempt },
    Deleted,
    Rejected(ErrorCode),
    Other,
}

impl Said {
    pub fn of(answer: Answer) -> Said {
        match answer {
            Answer::Submitted(reply) => Said::Submitted(vec![reply.id]),
            Answer::SubmittedMany(reply) => Said::Submitted(reply.jobs.iter().map(|job| job.id).collect()),
            Answer::Job(view) => Said::View { job: view.id, status: view.status, attempt: view.attempt },
            Answer::Deleted => Said::Deleted,
            Answer::Rejected(rejection) => Said::Rejected(rejection.code),
            _ => Said::Other,
        }
    }
}

const TIMEOUT: Micros = 5 * SECOND;
const STEP_MAX: Micros = 2 * SECOND;

pub struct ClientNode {
    open: BTreeMap<u64, Request>,
    /// What each request for a submission came to.
    submitted: BTreeMap<String, Vec<JobId>>,
    pub jobs: Vec<JobId>,
    next: u64,
    jobs_max: usize,
    submitting: usize,
    /// Whether its users have queues.
    pub queues: bool,
    /// Whether they have jobs tried again that failed or were cancelled.
    pub retries: bool,
    /// Names of schedules that may be used.
    schedules: u64,
    closing_since: Option<Micros>,
    /// In the end nobody submits any more, and services are cancelled.
    pub closing: bool,
    /// Whether jobs are stopped, started, updated and rolled back, and snapshots taken.
    pub life: bool,
    /// Whether operators drain executors and zones, and take that back.
    pub drains: bool,
    /// Whether users only submit and look, and leave alone what there is.
    pub only_submits: bool,
}

impl ClientNode {
    pub fn new(jobs_max: usize, schedules: u64) -> ClientNode {
        ClientNode {
            open: BTreeMap::new(),
            submitted: BTreeMap::new(),
            jobs: Vec::new(),
            next: 0,
            jobs_max,
            submitting: 0,
            queues: false,
            retries: false,
            schedules,
            closing_since: None,
            closing: false,
            life: false,
            drains: false,
            only_submits: false,
        }
    }

    pub fn start(&mut self, env: &mut Env) {
        env.timer(Node::Client, 0, SECOND, Timer::ClientStep);
    }

    /// Submits a few more.
    pub fn reopen(&mut self) {
        self.closing = false;
        self.jobs_max += 5;
    }

    pub fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    pub fn happens(&mut self, what: Happening, env: &mut Env) {
        match what {
            Happening::Timer(Timer::ClientStep) => {
                self.step(env);
                let delay = env.chance.between(50 * MS, if self.life { STEP_MAX / 4 } else { STEP_MAX });
                env.timer(Node::Client, 0, delay, Timer::ClientStep);
            }
            Happening::Message(Message::Reply { call, reply }) => self.replied(call, Reply::Nats(reply), env),
            Happening::Reply { call, reply } => self.replied(call, reply, env),
            _ => {}
        }
    }

    fn replied(&mut self, call: u64, reply: Reply, env: &mut Env) {
        let Some(request) = self.open.remove(&call) else { return };
        let said = match reply {
            Reply::Nats(NatsReply::Answer(said)) => *said,
            // Not answered: the same again.
            _ => return self.send(request, env),
        };
        match &said {
            Said::Rejected(ErrorCode::Unavailable) => self.send(request, env),
            Said::Submitted(jobs) => {
                let id = request.origin.request_id.map(|id| id.to_string()).unwrap_or_default();
                say!(
                    env,
                    "client      {id} made {}",
                    jobs.iter().map(|job| short(*job)).collect::<Vec<_>>().join(", ")
                );
                match self.submitted.get(&id) {
                    Some(before) if before != jobs => {
                        env.checkers.fail(format!("request {id} made {before:?} before, and {jobs:?} now"));
                    }
                    Some(_) => {}
                    None => {
                        self.submitted.insert(id, jobs.clone());
                        self.jobs.extend(jobs.iter().copied());
                    }
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, env: &mut Env) {
        if self.closing {
            return self.close(env);
        }
        let changes = !self.only_submits;
        if changes && self.queues && env.chance.per_mille(120) {
            let request = queues::put(env);
            return self.ask(Asked::Queue(QueueAsked::Put(request)), env);
        }
        if changes && self.schedules > 0 && env.chance.per_mille(80) {
            let what = self.about_a_schedule(env);
            return self.ask(what, env);
        }
        if changes && self.retries && !self.jobs.is_empty() && env.chance.per_mille(200) {
            let other = env.chance.one_of(&self.jobs);
            let what = retry(JobRef::Id(other), env);
            return self.ask(what, env);
        }
        let dice = env.chance.below(100);
        if dice < 55 && self.submitting < self.jobs_max {
            let many = if dice < 8 { env.chance.between(2, 4) as usize } else { 1 };
            self.submitting += many;
            let services = if self.life { 700 } else { 250 };
            let mut specs: Vec<JobSpec> = (0..many).map(|_| spec(env, services)).collect();
            self.relate(&mut specs, env);
            if self.queues {
                specs.iter_mut().for_each(|spec| queues::say(spec, env));
            }
            let what = if many > 1 { Asked::SubmitMany(specs) } else { Asked::Submit(Box::new(specs.remove(0))) };
            self.ask(what, env);
        } else if !self.jobs.is_empty() {
            let id = env.chance.one_of(&self.jobs);
            let job = JobRef::Id(id);
            let what = match dice % 20 {
                _ if !changes => Asked::Get(job),
                dice @ 3..12 if self.life => self.change(dice, id, env),
                dice @ 12..16 if self.drains => operate(dice, env),
                0 => Asked::Cancel { job, how: Stop::Graceful { grace: Millis(env.chance.between(0, 3_000)) } },
                1 => Asked::Cancel { job, how: Stop::Kill },
                2 => Asked::Delete(job),
                _ => Asked::Get(job),
            };
            self.ask(what, env);
        }
    }

    /// Changes a job that is there, in one way or another.
    fn change(&self, dice: u64, id: JobId, env: &mut Env) -> Asked {
        let job = JobRef::Id(id);
        let there = env.checkers.truth.jobs.get(&id);
        let expected_version = there.map_or(JobVersion(1), |there| there.version);
        Asked::Life(Box::new(match dice {
            3 | 4 => LifeAsked::Stop(StopRequest { job, force: dice == 4 }),
            5..=7 => LifeAsked::Start(StartRequest { job, restore: RestoreRequest::default() }),
            8 | 9 => {
                let mut spec =
                    there.map_or_else(|| JobSpec::new(Driver::Noop(NoopSpec {})), |there| (*there.spec).clone());
                spec.checkpoint.retain = 1 + (self.next % 3) as u32;
                // A version that does not stay up, now and then.
                if spec.kind == JobKind::Service && env.chance.per_mille(300) {
                    let work = Work { until: None, fails_every: Some(3), stubborn: false };
                    let command = work.command();
                    spec.driver = Driver::Process(ProcessSpec { command, env: Default::default() });
                }
                LifeAsked::Update(UpdateRequest { job, expected_version, spec, allow_lost_state: dice == 9 })
            }
            10 => LifeAsked::RollBack(RollbackRequest { job, expected_version }),
            _ => {
                let name = format!("snapshot-{}", self.next).parse().expect("a name");
                LifeAsked::CreateSnapshot(SnapshotRequest { job, name })
            }
        }))
    }

    /// Some wait for jobs that are there, or for one of the same request.
    fn relate(&self, specs: &mut [JobSpec], env: &mut Env) {
        let recent: Vec<JobId> = self.jobs.iter().rev().take(4).copied().collect();
        let named = JobName::new(&format!("first-of-{}", self.next)).expect("a name");
        let many = specs.len() > 1;
        for (position, spec) in specs.iter_mut().enumerate() {
            let chance = &mut env.chance;
            if spec.kind == JobKind::Batch && chance.per_mille(80) {
                let (count, parallel) = (chance.between(2, 12) as u32, chance.between(1, 4) as u32);
                spec.array = Some(ArraySpec { count, parallel: Some(parallel) });
            }
            if many && position == 0 {
                spec.name = Some(named.clone());
            } else if many && chance.per_mille(500) {
                spec.depends_on.push(Dependency { job: JobRef::Name(named.clone()), until: Condition::Finished });
            }
            if !recent.is_empty() && chance.per_mille(250) {
                let until = if chance.per_mille(500) { Condition::Succeeded } else { Condition::Finished };
                spec.depends_on.push(Dependency { job: JobRef::Id(chance.one_of(&recent)), until });
            }
        }
    }

    /// One of the few schedules that there are at most is made, changed, paused, triggered or deleted.
    fn about_a_schedule(&self, env: &mut Env) -> Asked {
        let name: ScheduleName = format!("every-{}", env.chance.below(self.schedules)).parse().expect("a name");
        let dice = env.chance.below(10);
        let request = ScheduleRequest { name: name.clone() };
        Asked::Schedule(Box::new(match dice {
            0 => ScheduleAsked::Pause { name, paused: true },
            1 | 2 => ScheduleAsked::Pause { name, paused: false },
            3 => ScheduleAsked::Trigger(request),
            4 => ScheduleAsked::Delete(request),
            _ => {
                let mut spec = spec(env, 0);
                spec.kind = JobKind::Batch;
                if spec.keeps_state() {
                    let until = Some(env.chance.between(5, 60));
                    let command = Work { until, fails_every: None, stubborn: false }.command();
                    spec.driver = Driver::Process(ProcessSpec { command, env: Default::default() });
                }
                ScheduleAsked::Put(PutRequest {
                    name,
                    cron: every(env.chance.one_of(&[2, 5, 10, 20])).into(),
                    time_zone: "UTC".into(),
                    overlap: env.chance.one_of(&[Overlap::Skip, Overlap::Queue, Overlap::Replace]),
                    catch_up: env.chance.one_of(&[CatchUp::None, CatchUp::One, CatchUp::All]),
                    jitter: env.chance.per_mille(300).then_some(Millis(1_500)),
                    spec,
                    paused: env.chance.per_mille(100),
                })
            }
        }))
    }

    /// Ends what would never end by itself.
    fn close(&mut self, env: &mut Env) {
        if self.open.is_empty() {
            let truth = &env.checkers.truth;
            let executors = truth.drained_executors.keys().cloned().map(ExecutorRef::Name).map(Asked::UndrainExecutor);
            let drained: Vec<_> =
                executors.chain(truth.drained_zones.keys().cloned().map(Asked::UndrainZone)).collect();
            drained.into_iter().for_each(|undrain| self.ask(undrain, env));
        }
        // And jobs that have been stopped, whatever they are.
        let is_endless = |job: &Job| job.spec.kind == JobKind::Service || job.status == Status::Stopped;
        let services: Vec<JobId> = env
            .checkers
            .truth
            .jobs
            .iter()
            .filter(|(_, job)| is_endless(job) && !job.status.is_final() && job.status != Status::Stopping)
            .map(|(id, _)| *id)
            .collect();
        if self.open.is_empty() {
            for request in queues::held(&env.checkers.truth) {
                self.ask(Asked::Queue(QueueAsked::Put(request)), env);
            }
            // First they are left to run while nothing is broken, and must be kept then.
            let since = *self.closing_since.get_or_insert(env.now);
            let names = if env.now >= since + 40 * SECOND { env.checkers.ticks.names() } else { Vec::new() };
            if let Some(vanished) =
                env.checkers.ticks.overdue(env.checkers.truth.newest_event_at).filter(|_| !names.is_empty())
            {
                env.checkers.fail(vanished);
            }
            for name in names {
                self.ask(Asked::Schedule(Box::new(ScheduleAsked::Delete(ScheduleRequest { name }))), env);
            }
            for job in services {
                self.ask(Asked::Cancel { job: JobRef::Id(job), how: Stop::Kill }, env);
            }
        }
    }

    fn ask(&mut self, what: Asked, env: &mut Env) {
        self.next += 1;
        let request_id = Some(format!("request-{}", self.next).into());
        let namespace = Namespace::new("default").expect("a namespace");
        self.send(Request { namespace, origin: Origin { request_id, by: None }, what, trace: None }, env);
    }

    fn send(&mut self, request: Request, env: &mut Env) {
        // One of those that serve gets it.
        let serving: Vec<Node> = env.net.serving.iter().copied().collect();
        let to = if serving.is_empty() { Vec::new() } else { vec![env.chance.one_of(&serving)] };
        let timeout = if to.is_empty() { 300 * MS } else { TIMEOUT };
        let asked = request.clone();
        let call = if to.is_empty() {
            let call = env.new_call();
            let event = super::env::Event::Answered { to: Node::Client, run: 0, call, reply: Reply::Nothing };
            env.after(timeout, event);
            call
        } else {
            env.request(Node::Client, 0, timeout, &to, |call| Message::Asked { request: asked.clone(), call })
        };
        self.open.insert(call, request);
    }
}

/// Has one job tried again, of those that can be; or all that failed, or were cancelled as well. Or cancels another, so
/// that there are some.
fn retry(other: JobRef, env: &mut Env) -> Asked {
    let all =
        |status: Option<Vec<Status>>| Asked::Retry(Selection::Filter(ListRequest { status, ..Default::default() }));
    let may = |job: &Job| matches!(job.status, Status::Failed | Status::Cancelled) && job.task.is_none();
    let over = env.checkers.truth.jobs.iter().filter(|(_, job)| may(job)).map(|(id, _)| *id);
    let over: Vec<JobId> = over.collect();
    match env.chance.below(8) {
        0 => Asked::Cancel { job: other, how: Stop::Kill },
        1 => all(None),
        2 => all(Some(vec![Status::Failed, Status::Cancelled])),
        3 => some_tasks(true, env).unwrap_or_else(|| all(None)),
        4 => some_tasks(false, env).or_else(|| some_tasks(true, env)).unwrap_or_else(|| all(None)),
        _ if over.is_empty() => Asked::Cancel { job: other, how: Stop::Graceful { grace: Millis(1_000) } },
        _ => Asked::Retry(Selection::Job(JobRef::Id(env.chance.one_of(&over)))),
    }
}

/// Cancels a few tasks of an array that have not ended well, or has them tried again.
fn some_tasks(cancel: bool, env: &mut Env) -> Option<Asked> {
    let arrays = env.checkers.truth.jobs.iter().filter_map(|(id, job)| Some((*id, job.array.as_deref()?)));
    let some = arrays.filter_map(|(id, array)| {
        let (mut tasks, more) = match cancel {
            true => (array.pending.clone(), &array.open),
            false => (array.failed.clone(), &array.cancelled),
        };
        tasks.extend(more);
        (!tasks.is_empty()).then_some((id, tasks))
    });
    let some: Vec<_> = some.collect();
    let chosen = (!some.is_empty()).then(|| env.chance.below(some.len() as u64) as usize)?;
    let (id, tasks) = &some[chosen];
    let (job, tasks) = (JobRef::Id(*id), tasks.lowest(env.chance.between(1, 4) as u32));
    let how = Stop::Graceful { grace: Millis(500) };
    Some(if cancel { Asked::CancelTasks { job, tasks, how } } else { Asked::Retry(Selection::Tasks(job, tasks)) })
}

/// Has an executor or a zone emptied, or takes that back.
fn operate(dice: u64, env: &mut Env) -> Asked {
    let there: Vec<_> = env.checkers.truth.executors.values().map(|executor| &executor.registration).collect();
    let Some(chosen) = (!there.is_empty()).then(|| env.chance.below(there.len() as u64) as usize) else {
        return Asked::Executors;
    };
    let (name, zone) = (there[chosen].name.clone(), there[chosen].zone.clone());
    let deadline = Some(Deadline::After(Millis(env.chance.between(1_000, 30_000))));
    match dice {
        12 => Asked::DrainExecutor { executor: ExecutorRef::Name(name), deadline },
        13 => Asked::DrainZone { zone, deadline },
        14 => Asked::UndrainExecutor(ExecutorRef::Name(name)),
        _ => Asked::UndrainZone(zone),
    }
}

/// Some job or other; so many of a thousand are services.
fn spec(env: &mut Env, services: u64) -> JobSpec {
    let chance = &mut env.chance;
    if chance.per_mille(100) {
        return JobSpec::new(Driver::Noop(NoopSpec {}));
    }
    let kind = if chance.per_mille(services) { JobKind::Service } else { JobKind::Batch };
    let work = Work {
        until: (kind == JobKind::Batch).then(|| chance.between(5, 300)),
        fails_every: chance.per_mille(200).then(|| chance.between(20, 200)),
        stubborn: chance.per_mille(100),
    };
    let mut spec = JobSpec::new(Driver::Process(ProcessSpec { command: work.command(), env: Default::default() }));
    spec.kind = kind;
    spec.exclusive = chance.per_mille(350);
    spec.checkpoint.interval = Millis(chance.between(500, 5_000));
    spec.checkpoint.min_pause = Millis(200);
    spec.checkpoint.timeout = Millis(chance.between(3_000, 20_000));
    spec.checkpoint.retain = chance.between(1, 3) as u32;
    spec.restart.initial_backoff = Millis(100);
    spec.restart.max_backoff = Millis(2_000);
    spec.restart.multiplier = Factor(2_000);
    if chance.per_mille(100) {
        spec.timeout = Some(Millis(chance.between(2_000, 20_000)));
    }
    spec
}
