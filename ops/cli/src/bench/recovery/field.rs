//! The system that is hit: three zones, what is asked of them, and what has to hold before the next blow.

use super::{Loss, Tried};
use crate::args::Global;
use crate::bench::stage::Stage;
use crate::client::{Client, new_request_id};
use crate::dev::Directory;
use crate::dev::control::{self, Done, Request};
use crate::dev::topology::Role;
use anyhow::{Context as _, bail};
use outlive_schemas::event::HistoryEvent;
use outlive_schemas::id::{JobId, JobRef};
use outlive_schemas::job::JobSpec;
use outlive_schemas::limits;
use outlive_schemas::request::{HistoryRequest, JobRequest};
use outlive_schemas::subject;
use outlive_schemas::time::Millis;
use outlive_schemas::view::{ExecutorList, ExecutorState, History, JobView, Status, SubmitReply, SystemStatus};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const ZONES: u8 = 3;
/// What takes longer than this is not slow but broken.
const BOUND: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(15);

pub struct Field {
    pub stage: Stage,
    pub client: Client,
    control: PathBuf,
    /// Where jobs say that they have started.
    pub signs: tempfile::TempDir,
}

impl Field {
    pub async fn open(global: &Global) -> anyhow::Result<Field> {
        let stage = Stage::open(global, ZONES).await?;
        let config = stage.global.config.clone().context("a running system is named by its --config")?;
        let folder = config.parent().map(Path::to_owned).context("the configuration has no folder")?;
        let control = Directory::at(Some(folder))?.control();
        let asking = Global { namespace: stage.namespace.clone(), ..stage.global.clone() };
        let client = Client::connect(&asking).await?;
        let signs = tempfile::Builder::new().prefix("outlive-signs-").tempdir()?;
        Ok(Field { stage, client, control, signs })
    }

    pub async fn attempt(&mut self, row: Loss) -> anyhow::Result<Tried> {
        match row {
            Loss::Process => self.process().await,
            Loss::Executor => self.executor().await,
            Loss::Silent => self.silent().await,
            Loss::Zone | Loss::ZoneStream | Loss::ZoneScheduler => self.zone(row).await,
            Loss::Leader => self.leader().await,
            Loss::HandOver => self.hand_over().await,
            Loss::Sleepers => self.sleepers().await,
        }
    }

    /// Ends what a row has left running.
    pub async fn after(&mut self, row: Loss) -> anyhow::Result<()> {
        if row == Loss::Sleepers { self.end_all().await } else { Ok(()) }
    }

    pub async fn chaos(&self, request: Request) -> anyhow::Result<Vec<Done>> {
        let reply = control::request(&self.control, &request).await?;
        Ok(reply.map_err(|refused| anyhow::anyhow!("{refused}"))?.done)
    }

    pub fn kill(role: Role, name: impl ToString) -> Request {
        Request::Kill { role, name: name.to_string() }
    }

    /// A counter that checkpoints twice a second, and leaves a sign as it starts.
    pub async fn submit(&self) -> anyhow::Result<JobId> {
        let script = "echo $$ > $SIGNS/$OUTLIVE_JOB_ID.pid; date +%s%3N > $SIGNS/$OUTLIVE_JOB_ID.$OUTLIVE_ATTEMPT; \
                      n=$(cat n 2>/dev/null || echo 0); \
                      while :; do n=$((n+1)); echo $n > n.new; mv n.new n; sleep 0.1; done";
        let backoff = format!("{}ms", super::BACKOFF_MS);
        let spec = json!({
            "kind": "service",
            "driver": {"process": {"command": ["sh", "-c", script], "env": {"SIGNS": self.signs.path()}}},
            "checkpoint": {"interval": "500ms", "min_pause": "100ms"},
            "restart": {"initial_backoff": backoff, "multiplier": 1.0, "jitter": 0.0},
        });
        self.submit_spec(spec).await
    }

    pub async fn submit_spec(&self, spec: Value) -> anyhow::Result<JobId> {
        let spec: JobSpec = serde_json::from_value(spec).context("the bench's own job")?;
        let reply: SubmitReply = self.client.change("job.submit", &spec, &new_request_id()).await?.body;
        Ok(reply.id)
    }

    pub async fn get(&self, job: JobId) -> anyhow::Result<JobView> {
        Ok(self.client.ask("job.get", &JobRequest { job: JobRef::Id(job) }).await?.body)
    }

    pub async fn end(&self, job: JobId) -> anyhow::Result<()> {
        let request = JobRequest { job: JobRef::Id(job) };
        self.client.change::<Value>("job.kill", &request, &new_request_id()).await?;
        self.wait("a job's end", async || Ok(self.get(job).await?.status.is_final())).await
    }

    pub async fn status(&self) -> anyhow::Result<SystemStatus> {
        Ok(self.client.ask_system("status").await?.body)
    }

    pub async fn executors(&self) -> anyhow::Result<ExecutorList> {
        Ok(self.client.ask_system("executor.list").await?.body)
    }

    pub async fn history(&self, job: JobId) -> anyhow::Result<Vec<HistoryEvent>> {
        let mut request = HistoryRequest { job: JobRef::Id(job), limit: Some(limits::HISTORY_LIMIT_MAX), cursor: None };
        let mut all = Vec::new();
        loop {
            let page: History = self.client.ask("job.history", &request).await?.body;
            all.extend(page.events);
            request.cursor = page.cursor;
            if request.cursor.is_none() {
                return Ok(all);
            }
        }
    }

    pub async fn wait(&self, what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let last = match holds().await {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if begun.elapsed() > BOUND {
                bail!("waited {} s in vain for {what}{last}", BOUND.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub async fn until_running(&self, job: JobId, checkpoint: u64) -> anyhow::Result<JobView> {
        self.wait("a job with a checkpoint", async || {
            let view = self.get(job).await?;
            let number = view.checkpoint.as_ref().map_or(0, |c| c.number.0);
            Ok(view.status == Status::Running && number >= checkpoint)
        })
        .await?;
        self.get(job).await
    }

    /// Heals, and waits until the next blow meets a whole system: every executor ready, every replica current, the two
    /// leaders in different zones.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.chaos(Request::Heal).await?;
        self.wait("every executor", async || {
            let ready = |list: ExecutorList| list.executors.iter().filter(|e| e.state == ExecutorState::Ready).count();
            Ok(ready(self.executors().await?) == usize::from(ZONES))
        })
        .await?;
        self.wait("every zone to be steady", async || {
            let status = self.status().await?;
            Ok(status.zones.iter().all(|zone| zone.state == outlive_schemas::view::ZoneState::Steady))
        })
        .await?;
        let jetstream = async_nats::jetstream::new(self.stage.client.clone());
        for name in [subject::LOG_STREAM, subject::BLOB_STREAM, subject::KEY_STREAM] {
            self.wait("every replica", async || {
                let stream = jetstream.get_stream(name).await?;
                let cluster = stream.cached_info().cluster.clone().context("a cluster")?;
                Ok(cluster.leader.is_some() && cluster.replicas.iter().all(|r| r.current && !r.offline))
            })
            .await?;
        }
        self.wait("the leaders to be apart", async || {
            let status = self.status().await?;
            Ok(status.log.stream_leader_zone.is_some_and(|zone| zone != status.leader.zone))
        })
        .await
    }

    /// Ends whatever runs in the bench's namespace.
    pub async fn end_all(&self) -> anyhow::Result<()> {
        loop {
            let list: outlive_schemas::view::JobList = self
                .client
                .ask("job.list", &json!({"status": ["pending", "starting", "running", "restarting"], "limit": 1000}))
                .await?
                .body;
            if list.jobs.is_empty() {
                return Ok(());
            }
            for job in list.jobs {
                let request = JobRequest { job: JobRef::Id(job.id) };
                self.client.change::<Value>("job.kill", &request, &new_request_id()).await?;
            }
            tokio::time::sleep(Millis(500).into()).await;
        }
    }
}
