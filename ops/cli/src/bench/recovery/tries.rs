//! One try of each row: prepare, strike, wait until it is over, and say how long each part took.

use super::field::Field;
use super::{BACKOFF_MS, Loss, Tried};
use crate::dev::control::Request;
use crate::dev::topology::Role;
use crate::human::now;
use anyhow::Context as _;
use outlive_schemas::id::{Attempt, JobId, Term};
use outlive_schemas::subject;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{JobView, Status, SystemStatus};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two questions to a leader that may be there.
const ASK_EVERY: Duration = Duration::from_millis(5);
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Jobs before a zone is killed: so many that each zone has some.
const JOBS_PER_TRY: usize = 6;

impl Field {
    pub async fn process(&mut self) -> anyhow::Result<Tried> {
        let job = self.submit().await?;
        let before = self.until_running(job, 1).await?;
        let pid = std::fs::read_to_string(self.signs.path().join(format!("{job}.pid"))).context("the job's sign")?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).context("the job's process id")?;
        let struck = now();
        kill_process(pid, Signal::KILL)?;
        let mut tried = self.recovered(&before, struck).await?;
        tried.ms = tried.ms.saturating_sub(BACKOFF_MS);
        self.end(job).await?;
        Ok(tried)
    }

    pub async fn executor(&mut self) -> anyhow::Result<Tried> {
        let job = self.submit().await?;
        let before = self.until_running(job, 1).await?;
        let executor = before.executor.clone().context("a running job has an executor")?;
        let struck = now();
        self.chaos(Field::kill(Role::Executor, executor)).await?;
        let tried = self.recovered(&before, struck).await?;
        self.end(job).await?;
        self.heal().await?;
        Ok(tried)
    }

    pub async fn silent(&mut self) -> anyhow::Result<Tried> {
        let job = self.submit().await?;
        let before = self.until_running(job, 1).await?;
        let name = before.executor.clone().context("a running job has an executor")?.to_string();
        let struck = now();
        self.chaos(Request::Pause { role: Role::Executor, name }).await?;
        let tried = self.recovered(&before, struck).await?;
        self.end(job).await?;
        self.heal().await?;
        Ok(tried)
    }

    pub async fn zone(&mut self, row: Loss) -> anyhow::Result<Tried> {
        self.heal().await?;
        let mut jobs = Vec::new();
        for _ in 0..JOBS_PER_TRY {
            jobs.push(self.submit().await?);
        }
        let mut views = Vec::new();
        for job in &jobs {
            views.push(self.until_running(*job, 1).await?);
        }
        let status = self.status().await?;
        let zone = target(row, &status).context("no zone fits the row: the leaders have moved")?;
        let hit: Vec<JobView> =
            views.into_iter().filter(|view| view.zone.as_ref().is_some_and(|z| *z.as_str() == *zone)).collect();
        let struck = now();
        self.chaos(Request::KillZone { zone }).await?;
        // The last job of the zone to be back counts.
        let mut tried = Tried::default();
        for before in &hit {
            let one = self.recovered(before, struck).await?;
            let lost = tried.lost + one.lost;
            if one.ms >= tried.ms {
                tried = one;
            }
            tried.lost = lost;
        }
        anyhow::ensure!(!hit.is_empty(), "no job ran in the zone");
        for job in jobs {
            self.end(job).await?;
        }
        self.heal().await?;
        Ok(tried)
    }

    pub async fn leader(&mut self) -> anyhow::Result<Tried> {
        let job = self.submit().await?;
        let before = self.until_running(job, 1).await?;
        let status = self.status().await?;
        let began = Instant::now();
        self.chaos(Field::kill(Role::Scheduler, &status.leader.scheduler)).await?;
        let acted = self.first_answer_of_another(status.leader.term).await?;
        let mut tried = Tried { ms: millis(acted.duration_since(began)), ..Tried::default() };
        // Running jobs do not notice: the same attempt, and no acknowledged checkpoint gone.
        let after = self.until_running(job, 1).await?;
        tried.lost += u64::from(after.attempt != before.attempt || number(&after) < number(&before));
        self.end(job).await?;
        self.heal().await?;
        Ok(tried)
    }

    pub async fn hand_over(&mut self) -> anyhow::Result<Tried> {
        let status = self.status().await?;
        let name = status.leader.scheduler.to_string();
        let (mut last_old, mut first_new) = (Instant::now(), None);
        let restart = self.chaos(Request::Restart { role: Role::Scheduler, name });
        let asking = async {
            while first_new.is_none() {
                match self.leads().await {
                    Some(term) if term > status.leader.term => first_new = Some(Instant::now()),
                    Some(_) => last_old = Instant::now(),
                    None => {}
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        let (restarted, ()) = tokio::join!(restart, asking);
        restarted?;
        let ms = first_new.map_or(0, |new| millis(new.duration_since(last_old)));
        self.heal().await?;
        Ok(Tried { ms, ..Tried::default() })
    }

    /// The term of the leader that answers, if one does soon.
    async fn leads(&self) -> Option<Term> {
        let request = async_nats::Request::new().payload("{}".into()).timeout(Some(ANSWER_WITHIN));
        let reply = self.stage.client.send_request(subject::system_operation("status"), request).await.ok()?;
        serde_json::from_slice::<SystemStatus>(&reply.payload).ok().map(|status| status.leader.term)
    }

    async fn first_answer_of_another(&self, term: Term) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        loop {
            if self.leads().await.is_some_and(|now| now > term) {
                return Ok(Instant::now());
            }
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "nobody came to lead in a minute");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Waits until the job runs in another attempt, and says how long it was away and why.
    pub async fn recovered(&self, before: &JobView, struck: Timestamp) -> anyhow::Result<Tried> {
        let job = before.id;
        self.wait("a job to be back", async || {
            let view = self.get(job).await?;
            Ok(view.status == Status::Running && view.attempt > before.attempt)
        })
        .await?;
        let view = self.get(job).await?;
        let recovery = view.last_recovery.clone().context("a job that is back has recovered")?;
        let mut parts = BTreeMap::new();
        if let Some(started) = self.sign(job, view.attempt) {
            parts.insert("from_kill_ms", started.since(struck).0);
        }
        let history = self.history(job).await?;
        let noticed = history.iter().rfind(|event| event.kind == "job_restarting").map(|event| event.at);
        if let Some(noticed) = noticed {
            parts.insert("until_noticed_ms", noticed.since(recovery.lost_at).0);
            parts.insert("until_started_ms", recovery.resumed_at.since(noticed).0);
        }
        let restored = recovery.restored_checkpoint.map_or(0, |number| number.0);
        let lost = u64::from(restored < number(before));
        Ok(Tried { ms: recovery.recovery_ms, parts, lost })
    }

    fn sign(&self, job: JobId, attempt: Attempt) -> Option<Timestamp> {
        let text = std::fs::read_to_string(self.signs.path().join(format!("{job}.{attempt}"))).ok()?;
        text.trim().parse().ok().map(Timestamp)
    }
}

/// The zone to kill.
fn target(row: Loss, status: &SystemStatus) -> Option<String> {
    let leader = status.leader.zone.to_string();
    let stream = status.log.stream_leader_zone.as_ref()?.to_string();
    match row {
        Loss::ZoneStream => Some(stream),
        Loss::ZoneScheduler => Some(leader),
        _ => status.zones.iter().map(|zone| zone.zone.to_string()).find(|zone| *zone != leader && *zone != stream),
    }
}

fn number(view: &JobView) -> u64 {
    view.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number.0)
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
