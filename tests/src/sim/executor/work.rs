//! The long work of attempts: restore, launch, read, store, collect. Each piece takes time, and may fail.

use super::{Call, ExecutorNode};
use crate::sim::blobs::{BlobReply, BlobRequest};
use crate::sim::env::{Env, HostEvent, MS, Micros, Reply, Request, SECOND, Timer, say};
use crate::sim::executor::short;
use crate::sim::job::{self, files, manifest, name_of, names_in};
use crate::sim::sabotage::Sabotage;
use crate::sim::{checkers, env::Event};
use bytes::Bytes;
use compact_str::CompactString;
use outlive_executor::attempt::{self, Effect, PrepareFault};
use outlive_executor::machine::Input;
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::job::Driver;
use outlive_schemas::message::Assignment;
use std::sync::Arc;

const BLOB_TIMEOUT: Micros = 2 * SECOND;

/// What a blob store's reply is for.
#[derive(Clone, Debug)]
pub enum WorkCall {
    Manifest { of: u64 },
    Chunk { of: u64, name: BlobName, number: usize },
    Put { of: u64, name: BlobName, body: Bytes },
}

/// What goes on for one attempt beside its process.
#[derive(Debug)]
pub struct Work {
    pub assignment: Arc<Assignment>,
    /// Of the executor, when it took this on.
    lease: Option<u64>,
    /// The piece under way; an answer to another changes nothing.
    now: u64,
    what: Piece,
    /// Fetched so far.
    fetched: Vec<Option<Bytes>>,
    /// What the job begins with.
    count: u64,
    /// Read, and about to be stored.
    read: Option<Vec<Bytes>>,
    /// To be put: chunks, and the manifest last.
    to_put: Vec<(BlobName, Bytes)>,
    taken: Option<Taken>,
    baseline: Option<BlobName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Nothing,
    Prepare,
    Read { round: u32 },
    Store { round: u32 },
    ReadLast { round: u32 },
    EndFrozen { round: u32 },
    Collect,
}

impl Work {
    pub fn new(assignment: Arc<Assignment>, lease: Option<u64>) -> Work {
        Work {
            assignment,
            lease,
            now: 0,
            what: Piece::Nothing,
            fetched: Vec::new(),
            count: 0,
            read: None,
            to_put: Vec::new(),
            taken: None,
            baseline: None,
        }
    }
}

impl ExecutorNode {
    pub(super) fn perform_for(&mut self, job: JobId, attempt: Attempt, effect: Effect, env: &mut Env) {
        let key = (job, attempt);
        if !self.work.contains_key(&key) {
            return;
        }
        match effect {
            Effect::Prepare => self.prepare(job, attempt, env),
            Effect::CancelPrepare => self.begin_piece(job, attempt, Piece::Nothing),
            Effect::CancelCheckpoint => {
                self.begin_piece(job, attempt, Piece::Nothing);
                // Where it stands still, it goes on.
                self.host.go_on(job, attempt, env);
            }
            Effect::Start => self.start_process(job, attempt, env),
            Effect::Terminate => self.signal(job, attempt, 15, env),
            Effect::Kill => self.signal(job, attempt, 9, env),
            Effect::Read { round } => {
                self.begin_piece(job, attempt, Piece::Read { round });
                let delay = env.chance.between(MS, 30 * MS) + env.checkers.slow_disk(self.index);
                self.piece_timer(job, attempt, delay, env);
            }
            Effect::ReadLast { round } => {
                self.begin_piece(job, attempt, Piece::ReadLast { round });
                let delay = env.chance.between(MS, 30 * MS) + env.checkers.slow_disk(self.index);
                self.piece_timer(job, attempt, delay, env);
            }
            Effect::EndFrozen { round } => {
                self.begin_piece(job, attempt, Piece::EndFrozen { round });
                let delay = env.chance.between(MS, 10 * MS);
                self.piece_timer(job, attempt, delay, env);
            }
            Effect::Store { round } => self.store(job, attempt, round, env),
            Effect::CommitCheckpoint => {
                if let Some(work) = self.work.get_mut(&key)
                    && let Some(taken) = work.taken.take()
                {
                    work.baseline = Some(taken.manifest);
                }
            }
            Effect::Collect { .. } => {
                self.begin_piece(job, attempt, Piece::Collect);
                let delay = env.chance.between(MS, 20 * MS);
                self.piece_timer(job, attempt, delay, env);
            }
            Effect::Forget => {
                self.work.remove(&key);
                // Whatever should be left of it.
                if self.host.processes.contains_key(&key) {
                    self.signal(job, attempt, 9, env);
                }
            }
            _ => {}
        }
    }

    fn begin_piece(&mut self, job: JobId, attempt: Attempt, what: Piece) {
        self.next_work += 1;
        if let Some(work) = self.work.get_mut(&(job, attempt)) {
            (work.now, work.what) = (self.next_work, what);
        }
    }

    fn piece_timer(&mut self, job: JobId, attempt: Attempt, delay: Micros, env: &mut Env) {
        env.timer(self.node(), self.run, delay, Timer::Work(job, attempt, self.next_work));
    }

    fn signal(&mut self, job: JobId, attempt: Attempt, signal: i32, env: &mut Env) {
        let delay = env.chance.between(MS, 10 * MS);
        env.after(delay, Event::Host { executor: self.index, job, attempt, what: HostEvent::Signal(signal) });
    }

    fn attempt_input(&mut self, job: JobId, attempt: Attempt, input: attempt::Input, env: &mut Env) {
        self.input(Input::Attempt(job, attempt, input), env);
    }

    /// A piece that only takes its time has taken it.
    pub(super) fn work_done(&mut self, job: JobId, attempt: Attempt, of: u64, env: &mut Env) {
        let Some(work) = self.work.get_mut(&(job, attempt)).filter(|work| work.now == of) else { return };
        match work.what {
            Piece::Prepare => self.attempt_input(job, attempt, attempt::Input::Prepared, env),
            Piece::Read { round } | Piece::ReadLast { round } => {
                let count = match work.what {
                    Piece::ReadLast { .. } if !env.is(Sabotage::GoesOnAfterLastReading) => {
                        self.host.hold(job, attempt, env)
                    }
                    _ => self.host.count(job, attempt, env.now),
                };
                let result = match count {
                    Some(count) => {
                        work.read = Some(files(job, count));
                        Ok(())
                    }
                    None => Err(attempt::CheckpointFault::Over),
                };
                self.attempt_input(job, attempt, attempt::Input::Read { round, result }, env);
            }
            Piece::EndFrozen { round } => {
                let result = match self.host.count(job, attempt, env.now) {
                    Some(count) => {
                        env.checkers.ended_frozen(job, attempt, count);
                        self.host_event(job, attempt, HostEvent::Signal(9), env);
                        Ok(())
                    }
                    None => Err(attempt::CheckpointFault::Over),
                };
                self.attempt_input(job, attempt, attempt::Input::EndedFrozen { round, result }, env);
            }
            Piece::Collect => self.collected(job, attempt, env),
            Piece::Store { .. } | Piece::Nothing => {}
        }
    }

    // Preparing.

    fn prepare(&mut self, job: JobId, attempt: Attempt, env: &mut Env) {
        self.begin_piece(job, attempt, Piece::Prepare);
        let Some(work) = self.work.get_mut(&(job, attempt)) else { return };
        match work.assignment.restore {
            None => {
                let delay = env.chance.between(MS, 20 * MS) + env.checkers.slow_disk(self.index);
                self.piece_timer(job, attempt, delay, env);
            }
            Some(from) => {
                let of = work.now;
                self.get(job, attempt, from.manifest, WorkCall::Manifest { of }, env);
            }
        }
    }

    fn get(&mut self, job: JobId, attempt: Attempt, name: BlobName, call: WorkCall, env: &mut Env) {
        let request = Request::Blobs(BlobRequest::Get { job, name });
        let id = env.ask(self.node(), self.run, BLOB_TIMEOUT, request);
        self.calls.insert(id, Call::Work(job, attempt, call));
    }

    pub(super) fn work_replied(&mut self, job: JobId, attempt: Attempt, call: WorkCall, reply: Reply, env: &mut Env) {
        let of = match &call {
            WorkCall::Manifest { of } | WorkCall::Chunk { of, .. } | WorkCall::Put { of, .. } => *of,
        };
        if self.work.get(&(job, attempt)).is_none_or(|work| work.now != of) {
            return;
        }
        match (call, reply) {
            (WorkCall::Manifest { of }, Reply::Blobs(BlobReply::Found(body))) => {
                let Some(name) = self.work.get(&(job, attempt)).and_then(|w| w.assignment.restore).map(|r| r.manifest)
                else {
                    return;
                };
                if !self.is_whole(job, name, &body, env) {
                    return self.unreadable(job, attempt, "the manifest is damaged", env);
                }
                let names = names_in(&body);
                if let Some(work) = self.work.get_mut(&(job, attempt)) {
                    work.fetched = vec![None; names.len()];
                }
                for (number, name) in names.into_iter().enumerate() {
                    self.get(job, attempt, name, WorkCall::Chunk { of, name, number }, env);
                }
            }
            (WorkCall::Chunk { name, number, .. }, Reply::Blobs(BlobReply::Found(body))) => {
                if !self.is_whole(job, name, &body, env) {
                    return self.unreadable(job, attempt, "a chunk is damaged", env);
                }
                self.fetched(job, attempt, number, body, env);
            }
            (WorkCall::Manifest { .. } | WorkCall::Chunk { .. }, Reply::Blobs(BlobReply::NotThere)) => {
                self.unreadable(job, attempt, "something of it is not there", env)
            }
            (WorkCall::Manifest { .. } | WorkCall::Chunk { .. }, _) => {
                self.begin_piece(job, attempt, Piece::Nothing);
                let fault = PrepareFault::Unavailable { reason: "blobs are out of reach".into() };
                self.attempt_input(job, attempt, attempt::Input::NotPrepared(fault), env);
            }
            (WorkCall::Put { .. }, Reply::Blobs(BlobReply::Kept)) => self.put_next(job, attempt, env),
            // Unknown: the same again.
            (WorkCall::Put { of, name, body }, _) => self.put(job, attempt, of, name, body, env),
        }
    }

    fn is_whole(&self, job: JobId, name: BlobName, body: &[u8], env: &Env) -> bool {
        name_of(job, body) == name || self.is(Sabotage::DamageOverlooked, env)
    }

    fn unreadable(&mut self, job: JobId, attempt: Attempt, reason: &str, env: &mut Env) {
        say!(env, "{} cannot restore {}: {reason}", self.name, short(job));
        self.begin_piece(job, attempt, Piece::Prepare);
        if self.is(Sabotage::EmptyWhenUnreadable, env) {
            return self.piece_timer(job, attempt, MS, env);
        }
        let reason: CompactString = reason.into();
        self.begin_piece(job, attempt, Piece::Nothing);
        self.attempt_input(job, attempt, attempt::Input::NotPrepared(PrepareFault::Unreadable { reason }), env);
    }

    fn fetched(&mut self, job: JobId, attempt: Attempt, number: usize, body: Bytes, env: &mut Env) {
        let Some(work) = self.work.get_mut(&(job, attempt)) else { return };
        if let Some(place) = work.fetched.get_mut(number) {
            *place = Some(body);
        }
        let files: Option<Vec<Bytes>> = work.fetched.iter().cloned().collect();
        let (Some(files), Some(from)) = (files, work.assignment.restore) else { return };
        work.count = job::count_of(&files).unwrap_or(0);
        work.baseline = Some(from.manifest);
        checkers::restored(job, attempt, from, &files, env);
        self.attempt_input(job, attempt, attempt::Input::Prepared, env);
    }

    // Running.

    fn start_process(&mut self, job: JobId, attempt: Attempt, env: &mut Env) {
        let Some(work) = self.work.get(&(job, attempt)) else { return };
        let spec = &work.assignment.spec;
        if !matches!(spec.driver, Driver::Process(_)) {
            return;
        }
        let restored = work.baseline.is_some();
        let (what, count, exclusive, lease) = (job::Work::of(spec), work.count, spec.exclusive, work.lease);
        checkers::starts(job, attempt, restored.then_some(count), env);
        let holds = !exclusive || lease == self.lease.map(|lease| lease.id) || env.is(Sabotage::AnyLeaseWillDo);
        let deadline = if holds { self.deadline(exclusive) } else { 0 };
        self.host.launch((job, attempt), (what, count), (exclusive, deadline, lease), env);
        if exclusive {
            self.stand_still(true, env);
        }
    }

    fn store(&mut self, job: JobId, attempt: Attempt, round: u32, env: &mut Env) {
        self.begin_piece(job, attempt, Piece::Store { round });
        let Some(work) = self.work.get_mut(&(job, attempt)) else { return };
        let Some(files) = work.read.take() else { return };
        let names: Vec<BlobName> = files.iter().map(|file| name_of(job, file)).collect();
        let manifest = manifest(&names);
        let name = name_of(job, &manifest);
        if work.baseline == Some(name) {
            return self.attempt_input(job, attempt, attempt::Input::Stored { round, result: Ok(None) }, env);
        }
        let size = files.iter().map(|file| file.len() as u64).sum::<u64>();
        work.taken = Some(Taken {
            manifest: name,
            size_bytes: size,
            uploaded_bytes: size,
            files: files.len() as u64,
            duration_ms: 0,
            pause_ms: 0,
        });
        env.checkers.captured(job, attempt, name, &files);
        // The manifest only after every chunk.
        work.to_put = vec![(name, manifest)];
        work.to_put.extend(names.into_iter().zip(files).rev());
        if self.is(Sabotage::CheckpointBeforeUpload, env) {
            return self.stored(job, attempt, env);
        }
        self.put_next(job, attempt, env);
    }

    fn put_next(&mut self, job: JobId, attempt: Attempt, env: &mut Env) {
        let Some(work) = self.work.get_mut(&(job, attempt)) else { return };
        match work.to_put.pop() {
            Some((name, body)) => {
                let of = work.now;
                self.put(job, attempt, of, name, body, env);
            }
            None => self.stored(job, attempt, env),
        }
    }

    fn put(&mut self, job: JobId, attempt: Attempt, of: u64, name: BlobName, body: Bytes, env: &mut Env) {
        let request = Request::Blobs(BlobRequest::Put { job, name, body: body.clone() });
        let id = env.ask(self.node(), self.run, BLOB_TIMEOUT, request);
        self.calls.insert(id, Call::Work(job, attempt, WorkCall::Put { of, name, body }));
    }

    fn stored(&mut self, job: JobId, attempt: Attempt, env: &mut Env) {
        let Some(work) = self.work.get_mut(&(job, attempt)) else { return };
        let Piece::Store { round } = work.what else { return };
        let taken = work.taken;
        work.what = Piece::Nothing;
        self.attempt_input(job, attempt, attempt::Input::Stored { round, result: Ok(taken) }, env);
    }
}
