//! What users ask of the leader: submissions, reads, waits and orders to stop, each answered once it is durable.
//!
//! The life of a job that is there (snapshots, stops, updates) is in `life`, the fleet in `fleet`.

use super::{Answer, Leader, Lookup, Output, ReplyTo};
use crate::submission::{Asked, Request};
use crate::waiters;
use outlive_core::state::Job;
use outlive_core::{explain, view};
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::id::{JobId, JobRef, Namespace};
use outlive_schemas::job::{JobSpec, duration_in_range};
use outlive_schemas::limits;
use outlive_schemas::request::{DRAIN_DEADLINE_DEFAULT, Deadline, WaitRequest};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::{ExecutorList, Held, SubmitManyReply, SubmitReply};
use std::sync::Arc;

impl Leader {
    pub(super) fn request(&mut self, request: Request, to: ReplyTo, now: Timestamp, out: &mut Vec<Output>) {
        let Request { namespace, origin, trace, what } = request;
        let answered = match what {
            Asked::Submit(spec) => {
                self.submit(namespace, origin, vec![*spec], now, out).map(|mut jobs| Answer::Submitted(jobs.remove(0)))
            }
            Asked::SubmitMany(specs) => self
                .submit(namespace, origin, specs, now, out)
                .map(|jobs| Answer::SubmittedMany(SubmitManyReply { jobs })),
            Asked::Get(job) => match self.find(&namespace, &job) {
                Ok((id, job)) => Ok(Answer::Job(Box::new(view::job(id, job, now)))),
                // A task that is no job of its own at the moment.
                Err(missing) => {
                    let counted = self.state().counted_task(&namespace, &job, now);
                    counted.map(|view| Answer::Job(Box::new(view))).ok_or(missing)
                }
            },
            Asked::List(request) => view::list(self.state(), &namespace, &request, now).map(Answer::Jobs),
            Asked::Why(job) => {
                let hints = self.hints(now);
                self.find(&namespace, &job)
                    .map(|(id, job)| Answer::Why(explain::why(self.state(), &hints, id, job, now)))
            }
            Asked::Executors => {
                Ok(Answer::Executors(ExecutorList { executors: self.watch.executors(self.state(), now) }))
            }
            Asked::Executor(executor) => self.executor(&executor, now),
            Asked::DrainExecutor { executor, deadline } => {
                let deadline = deadline.unwrap_or(Deadline::After(DRAIN_DEADLINE_DEFAULT)).at(now);
                let command = Command::DrainExecutor { origin, executor: executor.clone(), deadline };
                self.propose(command, now, out).and_then(|()| self.executor(&executor, now))
            }
            Asked::UndrainExecutor(executor) => {
                let command = Command::UndrainExecutor { origin, executor: executor.clone() };
                self.propose(command, now, out).and_then(|()| self.executor(&executor, now))
            }
            Asked::DrainZone { zone, deadline } => {
                let deadline = deadline.unwrap_or(Deadline::After(DRAIN_DEADLINE_DEFAULT)).at(now);
                let command = Command::DrainZone { origin, zone: zone.clone(), deadline };
                self.propose(command, now, out).and_then(|()| self.zone(&zone))
            }
            Asked::UndrainZone(zone) => {
                let command = Command::UndrainZone { origin, zone: zone.clone() };
                self.propose(command, now, out).and_then(|()| self.zone(&zone))
            }
            Asked::Cancel { job, how } => {
                let command = |namespace, job| Command::CancelJob { namespace, origin, job, how };
                self.change(namespace, &job, command, now, out)
            }
            Asked::CancelTasks { job, tasks, how } => {
                let command = |namespace, job| Command::CancelTasks { namespace, origin, job, tasks, how };
                self.change(namespace, &job, command, now, out)
            }
            Asked::Delete(job) => match self.delete(&namespace, origin, job, now, out) {
                // The answer says that the job's state and key are gone; so it follows their erasure.
                Ok(Some(job)) if self.state().to_erase.contains_key(&job) => {
                    self.erasing.insert(job);
                    return self.journal.hold_back(Output::Erase { to: Some(to), namespace, job }, out);
                }
                Ok(_) => Ok(Answer::Deleted),
                Err(rejection) => Err(rejection),
            },
            Asked::DeleteMany(filter) => self.delete_many(namespace, origin, filter, now, out),
            Asked::Retry(selection) => self.retry(namespace, origin, selection, now, out),
            Asked::HoldCollection(length) => {
                let command = Command::HoldCollection { by: origin.by, until: now + length };
                let until = |leader: &Leader| leader.state().collection_held_until;
                self.propose(command, now, out).map(|()| Answer::Held(Held { until: until(self) }))
            }
            Asked::Schedule(what) => self.schedule(namespace, origin, *what, now, out),
            Asked::Life(what) => self.life(namespace, origin, *what, now, out),
            Asked::Queue(what) => self.queue(namespace, origin, what, now, out),
            Asked::Wait(request) => match self.wait(&namespace, &request, to, now) {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => return,
                Err(rejection) => Err(rejection),
            },
            Asked::History(request) => match self.find(&namespace, &request.job) {
                Ok((job, found)) => {
                    let lookup = Lookup::History { job, commits: found.history(), request };
                    return self.journal.hold_back(Output::Lookup { to, lookup }, out);
                }
                Err(rejection) => Err(rejection),
            },
            Asked::Logs(request) => match self.find(&namespace, &request.job).map(|(job, _)| job).or_else(|missing| {
                // What a task has written stays until its array is deleted.
                let counted = self.state().counted_task(&namespace, &request.job, now);
                counted.map(|task| task.id).ok_or(missing)
            }) {
                Ok(job) => {
                    let lookup = Lookup::Logs { namespace, job, request };
                    return self.journal.hold_back(Output::Lookup { to, lookup }, out);
                }
                Err(rejection) => Err(rejection),
            },
            Asked::Status => {
                let lookup = Lookup::Status(self.status());
                return self.journal.hold_back(Output::Lookup { to, lookup }, out);
            }
        };
        let answer = answered.unwrap_or_else(Answer::Rejected);
        if self.traces.wants(trace) {
            self.trace_submission(&answer, trace, now, out);
        }
        self.journal.hold_back(Output::Answer { to, answer }, out);
    }

    pub(super) fn find(&self, namespace: &Namespace, job: &JobRef) -> Result<(JobId, &Job), Rejection> {
        self.state().resolve(namespace, job)
    }

    pub(super) fn submit(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        specs: Vec<JobSpec>,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Vec<SubmitReply>, Rejection> {
        if let Some(request_id) = &origin.request_id
            && let Some(ids) = self.state().submitted_by(&namespace, request_id)
        {
            let known = ids.iter().filter_map(|id| self.state().jobs.get(id).map(|job| (*id, job)));
            return Ok(known.map(|(id, job)| submitted(id, job, true)).collect());
        }
        let jobs: Vec<_> = specs.into_iter().map(|spec| (self.ids.next(now), Arc::new(spec))).collect();
        let ids: Vec<JobId> = jobs.iter().map(|(id, _)| *id).collect();
        self.propose(Command::SubmitJobs { namespace, origin, jobs }, now, out)?;
        let known = ids.into_iter().filter_map(|id| self.state().jobs.get(&id).map(|job| (id, job)));
        Ok(known.map(|(id, job)| submitted(id, job, false)).collect())
    }

    /// The job to erase, or nothing where the same request has been done before.
    pub(super) fn delete(
        &mut self,
        namespace: &Namespace,
        origin: Origin,
        job: JobRef,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Option<JobId>, Rejection> {
        let id = self.find(namespace, &job).ok().map(|(id, _)| id);
        self.propose(Command::DeleteJob { namespace: namespace.clone(), origin, job }, now, out)?;
        Ok(id)
    }

    /// The answer, if it can be given at once.
    pub(super) fn wait(
        &mut self,
        namespace: &Namespace,
        request: &WaitRequest,
        to: ReplyTo,
        now: Timestamp,
    ) -> Result<Option<Answer>, Rejection> {
        let timeout = request.timeout.unwrap_or(Millis(limits::WAIT_MS_DEFAULT));
        duration_in_range("timeout", timeout, Millis::ZERO, Millis(limits::WAIT_MS_MAX))?;
        let id = match (self.find(namespace, &request.job), self.state().counted_task(namespace, &request.job, now)) {
            (Ok((id, job)), _) if waiters::is_there(job, request.until) => {
                return Ok(Some(Answer::Job(Box::new(view::job(id, job, now)))));
            }
            (Ok((id, _)), _) => id,
            (Err(_), Some(task)) if task.status.is_final() => return Ok(Some(Answer::Job(Box::new(task)))),
            (Err(_), Some(task)) => task.id,
            (Err(missing), None) => return Err(missing),
        };
        if self.waiters.len() >= limits::WAITERS_MAX {
            let message = format!("{} requests wait already, which is the limit", limits::WAITERS_MAX);
            return Err(Rejection::new(ErrorCode::LimitExceeded, message));
        }
        self.waiters.add(id, request.until, now + timeout, to);
        Ok(None)
    }
}

fn submitted(id: JobId, job: &Job, duplicate: bool) -> SubmitReply {
    SubmitReply { id, name: job.name(id), version: job.version, status: job.status, duplicate }
}
