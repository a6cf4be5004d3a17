//! The part of the machine that answers for snapshots, stops, starts, updates and rollbacks, and sees to their orders.
//!
//! No rules here: `decide` has them.

use super::{Answer, Leader, Output};
use crate::submission::LifeAsked;
use outlive_core::decide::find_snapshot;
use outlive_core::view;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::Rejection;
use outlive_schemas::event::Event;
use outlive_schemas::id::{JobRef, Namespace, SnapshotName};
use outlive_schemas::life::{RollbackRequest, StartRequest, StopRequest, UpdateRequest};
use outlive_schemas::limits;
use outlive_schemas::snapshot::{
    SnapshotDeleteRequest, SnapshotImportRequest, SnapshotRequest, SnapshotStatus, SnapshotView,
};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::BTreeMap;

/// How often it is looked at which imports are silent.
const IMPORTS_INTERVAL: Millis = Millis::secs(1);

/// After which an executor may have to be told something that only the job's state says.
pub(super) fn may_need_orders(event: &Event) -> bool {
    matches!(
        event,
        Event::SnapshotRequested(_)
            | Event::AttemptStarted(_)
            | Event::StopRequested(_)
            | Event::UpdateRequested(_)
            | Event::RollbackBegun(_)
    )
}

/// After which there is something more, or somewhere more, to place.
pub(super) fn is_for_the_planner(event: &Event) -> bool {
    matches!(
        event,
        Event::JobSubmitted(_)
            | Event::DependenciesMet(_)
            | Event::ArrayAdvanced(_)
            | Event::JobRestarting(_)
            | Event::JobRetried(_)
            | Event::JobFinished(_)
            | Event::JobStopped(_)
            | Event::StartRequested(_)
            | Event::VersionStarted(_)
            | Event::VersionRestored(_)
            | Event::ExecutorJoined(_)
            | Event::ExecutorUndrained(_)
            | Event::ZoneUndrained(_)
            | Event::ZoneLost(_)
            | Event::ZoneSteady(_)
            | Event::JobPreempted(_)
            | Event::QueuePut(_)
            | Event::QueueDeleted(_)
    )
}

impl Leader {
    pub(super) fn life(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        what: LifeAsked,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        match what {
            LifeAsked::Stop(StopRequest { job, force }) => {
                let command = |namespace, job| Command::StopJob { namespace, origin, job, force };
                self.change(namespace, &job, command, now, out)
            }
            LifeAsked::Start(StartRequest { job, restore }) => {
                let command = |namespace, job| Command::StartJob { namespace, origin, job, restore };
                self.change(namespace, &job, command, now, out)
            }
            LifeAsked::Update(UpdateRequest { job, expected_version, spec, allow_lost_state }) => {
                let spec = Box::new(spec);
                let command = |namespace, job| Command::UpdateJob {
                    namespace,
                    origin,
                    job,
                    expected_version,
                    spec,
                    allow_lost_state,
                };
                self.change(namespace, &job, command, now, out)
            }
            LifeAsked::RollBack(RollbackRequest { job, expected_version }) => {
                let command = |namespace, job| Command::RollBackJob { namespace, origin, job, expected_version };
                self.change(namespace, &job, command, now, out)
            }
            LifeAsked::Versions(request) => {
                let (_, job) = self.find(&namespace, &request.job)?;
                view::versions(job, &request).map(|list| Answer::Versions(Box::new(list)))
            }
            LifeAsked::CreateSnapshot(SnapshotRequest { job, name }) => {
                let id = self.find(&namespace, &job)?.0;
                let named = name.clone();
                let command = Command::CreateSnapshot { namespace: namespace.clone(), origin, job, name };
                self.propose(command, now, out)?;
                self.snapshot(&namespace, &JobRef::Id(id), &named)
            }
            LifeAsked::GetSnapshot(SnapshotRequest { job, name }) => self.snapshot(&namespace, &job, &name),
            LifeAsked::ListSnapshots(request) => {
                let (id, job) = self.find(&namespace, &request.job)?;
                view::snapshots(id, job, &request).map(Answer::Snapshots)
            }
            LifeAsked::DeleteSnapshot(request) => self.delete_snapshot(namespace, origin, request, now, out),
            LifeAsked::LocateSnapshot(SnapshotRequest { job, name }) => {
                let (id, job) = self.find(&namespace, &job)?;
                let place = view::snapshot_place(id, job, find_snapshot(id, job, &name)?);
                Ok(Answer::SnapshotPlace(Box::new(place)))
            }
            LifeAsked::ImportSnapshot(SnapshotImportRequest { job, name, content }) => {
                let id = self.find(&namespace, &job)?.0;
                let named = name.clone();
                // Repeating how it began is how a client says that it goes on.
                self.imports.insert((id, name.clone()), now);
                let command = Command::ImportSnapshot { namespace: namespace.clone(), origin, job, name, content };
                self.propose(command, now, out)?;
                self.snapshot(&namespace, &JobRef::Id(id), &named)
            }
        }
    }

    /// Proposes it for the job that is meant, and answers with the job as it is then.
    pub(super) fn change(
        &mut self,
        namespace: Namespace,
        job: &JobRef,
        command: impl FnOnce(Namespace, JobRef) -> Command,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        let id = self.find(&namespace, job)?.0;
        self.propose(command(namespace.clone(), JobRef::Id(id)), now, out)?;
        let (id, job) = self.find(&namespace, &JobRef::Id(id))?;
        Ok(Answer::Job(Box::new(view::job(id, job, now))))
    }

    /// An import ends with the client that does it: one of which nothing is heard has failed. What was heard by the
    /// leader before is not known, so a new one begins to listen anew.
    pub(super) fn give_up_imports(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if now < self.next.imports {
            return;
        }
        self.next.imports = now + IMPORTS_INTERVAL;
        let open = self.state().open_imports();
        let open: BTreeMap<_, _> = open.map(|(id, known)| ((id, known.name.clone()), known.created_at)).collect();
        self.imports.retain(|import, _| open.contains_key(import));
        for ((job, name), begun) in open {
            let heard = self.imports.get(&(job, name.clone())).copied().unwrap_or(begun).max(self.since);
            if now.since(heard) >= Millis(limits::IMPORT_SILENCE_MS_MAX) {
                self.own(Command::GiveUpImport { job, name }, now, out);
            }
        }
    }

    fn snapshot(&self, namespace: &Namespace, job: &JobRef, name: &SnapshotName) -> Result<Answer, Rejection> {
        let (id, job) = self.find(namespace, job)?;
        Ok(Answer::Snapshot(Box::new(view::snapshot(id, find_snapshot(id, job, name)?))))
    }

    fn delete_snapshot(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        request: SnapshotDeleteRequest,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        let SnapshotDeleteRequest { job, name, created_at } = request;
        let id = self.find(&namespace, &job)?.0;
        let job = JobRef::Id(id);
        let (named, asked) = (name.clone(), job.clone());
        let command = Command::DeleteSnapshot { namespace: namespace.clone(), origin, job, name, created_at };
        self.propose(command, now, out)?;
        let (id, job) = self.find(&namespace, &asked)?;
        let known = find_snapshot(id, job, &named).ok().filter(|snapshot| snapshot.created_at == created_at);
        let view = match known {
            Some(snapshot) => view::snapshot(id, snapshot),
            // The same request has been done before, and there is nothing left to show of it.
            None => SnapshotView {
                job: id,
                name: named,
                status: SnapshotStatus::Deleting,
                created_at,
                ready_at: None,
                size_bytes: None,
                job_version: job.version,
                initiator: outlive_schemas::snapshot::Initiator::User,
                error: None,
            },
        };
        Ok(Answer::Snapshot(Box::new(view)))
    }
}
