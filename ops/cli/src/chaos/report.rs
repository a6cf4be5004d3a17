//! What a disturbance cost: which jobs were away and for how long, from which checkpoint each resumed and how much
//! work it did again, how long nobody led, and whether anything acknowledged was lost.
//!
//! It looks before and after through the public service, as any user could, and at the log itself. Of a namespace's
//! jobs it follows those that were live.

mod log;
mod shown;

use crate::args::Global;
use crate::client::Client;
use crate::dev::Directory;
use crate::dev::control::{Action, Done};
use crate::dev::topology::Role;
use crate::progress::Progress;
use anyhow::Context as _;
use log::LogHead;
use outlive_schemas::event::{Cause, HistoryEvent};
use outlive_schemas::id::{CheckpointNumber, ExecutorName, JobId, JobName, JobRef, SchedulerName, Sequence};
use outlive_schemas::limits;
use outlive_schemas::request::{HistoryRequest, JobRequest, ListRequest};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::{History, JobList, JobView, Status, SystemStatus};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two looks at who is back.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Live jobs that are followed; of more, the first.
const JOBS_MAX: usize = 10_000;
/// Pages of a job's history that are read to find one checkpoint.
const HISTORY_PAGES_MAX: usize = 50;
/// A question to a system in trouble is given up after this, and asked again.
const ASK_PATIENCE: Millis = Millis(3_000);
/// How long the first look may take before the disturbance goes ahead without.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// One job that was hit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobReport {
    pub job: JobId,
    pub name: JobName,
    pub status: Status,
    pub from: Option<ExecutorName>,
    pub to: Option<ExecutorName>,
    pub cause: Option<Cause>,
    /// From the last sign of life until its process was started again; nothing where it is not back.
    pub away_ms: Option<u64>,
    pub restored_checkpoint: Option<CheckpointNumber>,
    /// From the restored checkpoint, or the attempt's start where there was none, until the last sign of life.
    pub redone_ms: Option<u64>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaderReport {
    pub before: SchedulerName,
    pub after: Option<SchedulerName>,
    /// From the disturbance until another leader acted; nothing where the leader stayed, or none came.
    pub away_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    pub acknowledged_before: Sequence,
    pub acknowledged_after: Option<Sequence>,
    /// Whether the last commit acknowledged before stands in the log, byte for byte, and with it, by the chain, all
    /// before it. Nothing where the log could not be read.
    pub intact: Option<bool>,
    /// Live jobs from before that are not there any more.
    pub jobs_missing: Vec<JobId>,
    /// Finished jobs before and after.
    pub finished_before: u64,
    pub finished_after: Option<u64>,
}

impl LogReport {
    /// Whether anything that was acknowledged is gone; nothing where it could not be found out.
    pub fn lost(&self) -> Option<bool> {
        let behind = self.acknowledged_after.map(|after| after < self.acknowledged_before);
        Some(!self.intact? || behind? || !self.jobs_missing.is_empty())
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub jobs: Vec<JobReport>,
    pub leader: LeaderReport,
    pub log: LogReport,
    /// Whether anything acknowledged was lost.
    pub lost: Option<bool>,
    pub waited_ms: u64,
}

/// How everything was before.
pub struct Before {
    client: Client,
    head: LogHead,
    status: SystemStatus,
    jobs: BTreeMap<JobId, JobView>,
}

impl Before {
    /// Nothing where the system does not answer: then there is nothing to compare with, and that is said.
    pub async fn look(directory: &Directory, global: &Global) -> Option<Before> {
        let progress = Progress::start("looking at how things are");
        let looked = tokio::time::timeout(LOOK_PATIENCE, Before::try_look(directory, global)).await;
        progress.clear();
        match looked {
            Ok(Ok(before)) => Some(before),
            Ok(Err(error)) => {
                eprintln!("outlive chaos: there is no report, for the system does not answer: {error:#}");
                None
            }
            Err(_) => {
                eprintln!("outlive chaos: there is no report, for the system does not answer");
                None
            }
        }
    }

    async fn try_look(directory: &Directory, global: &Global) -> anyhow::Result<Before> {
        let config = Some(directory.config());
        let global = Global { config, server: None, context: None, request_timeout: ASK_PATIENCE, ..global.clone() };
        let client = Client::connect(&global).await?;
        let status: SystemStatus = client.ask_system("status").await?.body;
        let head = LogHead::at(&global, status.log.last_seq).await?;
        let jobs = live(&client).await?;
        Ok(Before { client, head, status, jobs })
    }

    /// Waits until all that was hit is back, for at most `patience`, and says what it cost.
    pub async fn follow(self, done: &[Done], began: Instant, patience: Duration) -> Report {
        let hit = |role: Role| {
            let hit =
                done.iter().filter(move |d| d.role == role && !matches!(d.action, Action::Started | Action::Resumed));
            hit.map(|d| d.name.clone()).collect::<Vec<String>>()
        };
        let (executors, schedulers) = (hit(Role::Executor), hit(Role::Scheduler));
        let leader_hit = schedulers.contains(&self.status.leader.scheduler.to_string());
        let progress = Progress::start("");
        let mut after: Option<SystemStatus> = None;
        let mut views: BTreeMap<JobId, Option<JobView>> = BTreeMap::new();
        loop {
            if let Ok(reply) = self.client.ask_system::<SystemStatus>("status").await {
                let changed = reply.body.leader.term > self.status.leader.term;
                if changed || !leader_hit {
                    after = Some(reply.body);
                }
            }
            let mut away = 0;
            for (id, before) in &self.jobs {
                let was_hit = before.executor.as_ref().is_some_and(|e| executors.contains(&e.to_string()));
                if !was_hit || views.get(id).is_some_and(|view| view.as_ref().is_none_or(|v| is_back(before, v))) {
                    continue;
                }
                let Ok(view) = get(&self.client, *id).await else {
                    away += 1;
                    continue;
                };
                away += usize::from(view.as_ref().is_some_and(|view| !is_back(before, view)));
                views.insert(*id, view);
            }
            if (away == 0 && after.is_some()) || began.elapsed() >= patience {
                break;
            }
            progress.say(match after {
                Some(_) => format!("{away} job(s) are away"),
                None => "nobody leads".to_owned(),
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
        progress.say("comparing what is there with what was acknowledged");
        let report = self.compare(views, after, began).await;
        progress.clear();
        report
    }

    async fn compare(
        &self,
        mut views: BTreeMap<JobId, Option<JobView>>,
        after: Option<SystemStatus>,
        began: Instant,
    ) -> Report {
        // Others may have been moved along, or be gone without having been hit.
        for id in self.jobs.keys() {
            if !views.contains_key(id)
                && let Ok(view) = get(&self.client, *id).await
            {
                views.insert(*id, view);
            }
        }
        let mut jobs = Vec::new();
        for (id, before) in &self.jobs {
            let Some(Some(view)) = views.get(id) else { continue };
            if was_hit(before, view) {
                jobs.push(self.job(before, view).await);
            }
        }
        let finished =
            |status: &SystemStatus| status.jobs.iter().filter(|(s, _)| s.is_final()).map(|(_, count)| count).sum();
        let log = LogReport {
            acknowledged_before: self.status.log.last_seq,
            acknowledged_after: after.as_ref().map(|status| status.log.last_seq),
            intact: self.head.still_stands().await,
            jobs_missing: views.iter().filter(|(_, view)| view.is_none()).map(|(id, _)| *id).collect(),
            finished_before: finished(&self.status),
            finished_after: after.as_ref().map(finished),
        };
        let leader = self.leader(after.as_ref(), began);
        Report { jobs, leader, lost: log.lost(), log, waited_ms: millis(began.elapsed()) }
    }

    fn leader(&self, after: Option<&SystemStatus>, began: Instant) -> LeaderReport {
        let before = self.status.leader.scheduler.clone();
        let Some(after) = after else { return LeaderReport { before, after: None, away_ms: None } };
        let changed = after.leader.term > self.status.leader.term;
        // One machine, one clock: when the disturbance began is known on the leader's as well.
        let began_at = Timestamp(crate::human::now().0.saturating_sub(millis(began.elapsed())));
        let away_ms = changed.then(|| after.leader.since.since(began_at).0);
        LeaderReport { before, after: Some(after.leader.scheduler.clone()), away_ms }
    }

    async fn job(&self, before: &JobView, view: &JobView) -> JobReport {
        let back = is_back(before, view);
        let recovery = view.last_recovery.as_ref().filter(|_| back);
        let mut redone_ms = None;
        if let Some(recovery) = recovery
            && let Ok(from) = self.began_from(view, recovery.restored_checkpoint).await
        {
            redone_ms = from.map(|from| recovery.lost_at.since(from).0);
        }
        JobReport {
            job: view.id,
            name: view.name.clone(),
            status: view.status,
            from: before.executor.clone(),
            to: view.executor.clone().filter(|_| back),
            cause: recovery.map(|r| r.cause),
            away_ms: recovery.map(|r| r.recovery_ms),
            restored_checkpoint: recovery.and_then(|r| r.restored_checkpoint),
            redone_ms,
            reason: view.reason.clone(),
        }
    }

    /// When the work that was restored had been kept: its checkpoint, or the start of the attempt before.
    async fn began_from(
        &self,
        view: &JobView,
        restored: Option<CheckpointNumber>,
    ) -> anyhow::Result<Option<Timestamp>> {
        let mut request =
            HistoryRequest { job: JobRef::Id(view.id), limit: Some(limits::HISTORY_LIMIT_MAX), cursor: None };
        let mut found = None;
        for _ in 0..HISTORY_PAGES_MAX {
            let page: History = self.client.ask("job.history", &request).await?.body;
            for event in &page.events {
                if kept_by(event, view, restored) {
                    found = Some(event.at);
                }
            }
            request.cursor = page.cursor;
            if request.cursor.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

fn kept_by(event: &HistoryEvent, view: &JobView, restored: Option<CheckpointNumber>) -> bool {
    match restored {
        Some(number) => event.kind == "checkpoint_completed" && event.details["checkpoint"].as_u64() == Some(number.0),
        None => event.kind == "attempt_started" && event.attempt < Some(view.attempt),
    }
}

/// Every live job of the namespace.
async fn live(client: &Client) -> anyhow::Result<BTreeMap<JobId, JobView>> {
    let status = Status::ALL.into_iter().filter(|status| !status.is_final() && *status != Status::Stopped);
    let mut request =
        ListRequest { status: Some(status.collect()), limit: Some(limits::LIST_LIMIT_MAX), ..ListRequest::default() };
    let mut found = BTreeMap::new();
    while found.len() < JOBS_MAX {
        let page: JobList = client.ask("job.list", &request).await.context("jobs cannot be listed")?.body;
        found.extend(page.jobs.into_iter().map(|job| (job.id, job)));
        request.cursor = page.cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

/// Nothing where there is no such job.
async fn get(client: &Client, job: JobId) -> anyhow::Result<Option<JobView>> {
    match client.ask::<JobView>("job.get", &JobRequest { job: JobRef::Id(job) }).await {
        Ok(reply) => Ok(Some(reply.body)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    use crate::failure::Failure;
    use outlive_schemas::error::ErrorCode;
    matches!(error.downcast_ref(), Some(Failure::Refused(rejection)) if rejection.code == ErrorCode::NotFound)
}

/// Whether the job has been moved, or is away. One that held no executor before waits for something else.
fn was_hit(before: &JobView, view: &JobView) -> bool {
    view.attempt != before.attempt || (before.executor.is_some() && !is_settled(view))
}

fn is_settled(view: &JobView) -> bool {
    view.status == Status::Running || view.status == Status::Stopped || view.status.is_final()
}

/// Whether it runs in a later attempt, or is over.
fn is_back(before: &JobView, view: &JobView) -> bool {
    is_settled(view) && (view.attempt > before.attempt || view.status != Status::Running)
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(status: &str, attempt: u32, executor: Option<&str>) -> JobView {
        let view = json!({
            "id": "0197f3c8-0000-7000-8000-000000000001", "namespace": "default", "name": "counter", "kind": "service",
            "version": 1, "status": status, "reason": null, "attempt": attempt, "executor": executor, "zone": null,
            "restarts": 0, "checkpoint": null, "last_recovery": null, "next_try_at": null,
            "submitted_at": "2026-01-01T00:00:00.000Z", "started_at": null, "finished_at": null, "exit_code": null,
            "result": null, "labels": {},
        });
        serde_json::from_value(view).expect("a view")
    }

    #[test]
    fn a_job_that_waited_before_was_not_hit() {
        let before = job("running", 1, Some("executor-a-1"));
        assert!(was_hit(&before, &job("running", 2, Some("executor-b-1"))));
        assert!(was_hit(&before, &job("restarting", 1, None)));
        assert!(!was_hit(&before, &before));
        let waits = job("pending", 0, None);
        assert!(!was_hit(&waits, &waits));
        assert!(was_hit(&waits, &job("running", 1, Some("executor-b-1"))));
    }
}
