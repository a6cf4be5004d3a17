//! How jobs end, counted beside the system: what is over stays over until somebody asks for it to be tried again; who
//! waits for others begins when these have ended as they had to; and an array lets each of its tasks go once, and no
//! more at a time than it may.

use super::executor::short;
use outlive_core::state::State;
use outlive_schemas::array::{ArrayAdvanced, task_id};
use outlive_schemas::depend::{Condition, JobDepends};
use outlive_schemas::event::{Event, JobFinished};
use outlive_schemas::id::JobId;
use outlive_schemas::view::Status;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Jobs that are over, and tasks that are.
    over: BTreeMap<JobId, Status>,
    /// How each has ended so far, also those that were tried again since.
    ever: BTreeMap<JobId, BTreeSet<Status>>,
    /// Tasks that each array has let go, and that are not to be let go again.
    released: BTreeMap<JobId, BTreeSet<u32>>,
    /// What each job waits for.
    awaited: BTreeMap<JobId, Vec<Awaited>>,
}

/// A job that another one waits for. How it ended stays with who waits, whatever becomes of it afterwards.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    parent: JobId,
    until: Condition,
    end: Option<Status>,
}

impl Awaited {
    fn is_met(&self) -> bool {
        match self.until {
            Condition::Succeeded => self.end == Some(Status::Succeeded),
            Condition::Finished => self.end.is_some(),
        }
    }
}

impl Ends {
    /// Whether a job has ever been over, whatever became of it since.
    pub fn was_over(&self, job: JobId) -> bool {
        self.ever.contains_key(&job)
    }

    /// Whether a job has ever ended like this.
    pub fn ended_as(&self, job: JobId, status: Status) -> bool {
        self.ever.get(&job).is_some_and(|ends| ends.contains(&status))
    }

    /// Before an event is folded.
    pub fn hold(&mut self, state: &State, event: &Event) -> Result<(), String> {
        let is_over = event.job().is_some_and(|job| self.over.contains_key(&job));
        let may_follow = matches!(
            event,
            Event::JobRetried(_) | Event::ArrayTasksRetried(_) | Event::JobDeleted(_) | Event::JobErased(_)
        );
        if is_over && !may_follow {
            return Err(format!("something happened to a job that was over: {event:?}"));
        }
        match event {
            Event::JobDepends(e) => self.waits(state, e),
            Event::JobPlaced(e) => self.may_begin(e.job)?,
            Event::ArrayAdvanced(e) => self.advanced(state, e)?,
            Event::JobFinished(e) => {
                self.array_is_over(state, e)?;
                self.ended(e.job, e.status);
            }
            Event::JobRetried(e) => {
                let count = state.jobs.get(&e.job).and_then(|job| job.spec.array).map_or(0, |array| array.count);
                self.retried(e.job)?;
                self.wait_again(e.job, 0..count);
            }
            Event::ArrayTasksRetried(e) => {
                if is_over {
                    self.retried(e.job)?;
                }
                if let Some(well) = e.tasks.iter().find(|index| self.is_well(e.job, *index)) {
                    return Err(format!("task {well} of {} is tried again, and it has succeeded", short(e.job)));
                }
                self.wait_again(e.job, e.tasks.iter());
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether all that a job waits for has ended as it had to.
    pub fn may_begin(&self, job: JobId) -> Result<(), String> {
        match self.awaited.get(&job).into_iter().flatten().find(|awaited| !awaited.is_met()) {
            None => Ok(()),
            Some(Awaited { parent, end, .. }) => {
                let (job, parent) = (short(job), short(*parent));
                Err(format!("{job} begins, and {parent}, for which it waits, is {end:?}"))
            }
        }
    }

    fn waits(&mut self, state: &State, e: &JobDepends) {
        let spec = state.jobs.get(&e.job).map(|job| job.spec.clone());
        let until = spec.iter().flat_map(|spec| &spec.depends_on).map(|dependency| dependency.until);
        let parents = e.parents.iter().copied().zip(until);
        let awaited = parents.map(|(parent, until)| Awaited { parent, until, end: self.over.get(&parent).copied() });
        let awaited = awaited.collect();
        self.awaited.insert(e.job, awaited);
    }

    fn advanced(&mut self, state: &State, e: &ArrayAdvanced) -> Result<(), String> {
        if !e.released.is_empty() {
            self.may_begin(e.job)?;
        }
        let spec = state.jobs.get(&e.job).and_then(|job| job.spec.array);
        let spec = spec.ok_or(format!("{} is no array", short(e.job)))?;
        let released = self.released.entry(e.job).or_default();
        if let Some(twice) = e.released.iter().find(|index| !released.insert(*index) || *index >= spec.count) {
            return Err(format!("task {twice} of {} is let go twice, or is none", short(e.job)));
        }
        let over = &self.over;
        let open = released.iter().filter(|index| !over.contains_key(&task_id(e.job, **index))).count();
        if open > spec.parallel() as usize {
            return Err(format!("{open} tasks of {} are on their way at once", short(e.job)));
        }
        Ok(())
    }

    /// Where it is an array that is said to be over: its tasks are, and as many are well as it says.
    fn array_is_over(&self, state: &State, e: &JobFinished) -> Result<(), String> {
        let array = state.jobs.get(&e.job).filter(|job| job.array.is_some()).and_then(|job| job.spec.array);
        let Some(count) = array.map(|array| array.count) else { return Ok(()) };
        let how = |index| self.over.get(&task_id(e.job, index));
        let mut released = self.released.get(&e.job).into_iter().flatten().copied();
        if let Some(open) = released.find(|index| how(*index).is_none()) {
            return Err(format!("{} is over, and its task {open} is not", short(e.job)));
        }
        let well = (0..count).filter(|index| how(*index) == Some(&Status::Succeeded)).count();
        if (e.status == Status::Succeeded) != (well == count as usize) && e.status != Status::Cancelled {
            return Err(format!("{} is {}, and of {count} tasks {well} are well", short(e.job), e.status));
        }
        Ok(())
    }

    fn ended(&mut self, job: JobId, status: Status) {
        self.over.insert(job, status);
        self.ever.entry(job).or_default().insert(status);
        for awaited in self.awaited.values_mut().flatten().filter(|awaited| awaited.parent == job) {
            awaited.end.get_or_insert(status);
        }
    }

    /// It begins anew, and what it waits for is looked at again, as far as that has not ended as it had to.
    fn retried(&mut self, job: JobId) -> Result<(), String> {
        let end = self.over.remove(&job);
        if !matches!(end, Some(Status::Failed | Status::Cancelled)) {
            return Err(format!("{} is tried again, and it is {end:?}", short(job)));
        }
        for awaited in self.awaited.get_mut(&job).into_iter().flatten().filter(|awaited| !awaited.is_met()) {
            awaited.end = self.over.get(&awaited.parent).copied();
        }
        Ok(())
    }

    fn is_well(&self, array: JobId, index: u32) -> bool {
        self.over.get(&task_id(array, index)) == Some(&Status::Succeeded)
    }

    /// Those of these tasks that are not well: they may be let go again.
    fn wait_again(&mut self, array: JobId, tasks: impl Iterator<Item = u32>) {
        for index in tasks {
            if !self.is_well(array, index) {
                self.over.remove(&task_id(array, index));
                self.released.entry(array).or_default().remove(&index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_core::fold::fold;
    use outlive_schemas::array::{ArraySpec, Indexes};
    use outlive_schemas::depend::Dependency;
    use outlive_schemas::event::{Envelope, JobSubmitted};
    use outlive_schemas::id::{Attempt, JobRef, Sequence};
    use outlive_schemas::job::{Driver, JobSpec, NoopSpec};
    use outlive_schemas::time::Timestamp;
    use outlive_schemas::when::JobRetried;
    use std::sync::Arc;

    /// Arrays of three tasks, of which two may be on their way at once; and jobs.
    #[derive(Default)]
    struct Scene {
        state: State,
        ends: Ends,
        events: u64,
    }

    fn id(number: u8) -> JobId {
        JobId(uuid::Uuid::from_u128(u128::from(number) << 64))
    }

    impl Scene {
        /// What the checker says of an event; it is folded whatever that is, if it can be.
        fn sees(&mut self, event: Event) -> Result<(), String> {
            let said = self.ends.hold(&self.state, &event);
            self.events += 1;
            let at = Timestamp(1_000_000 + self.events);
            let _ = fold(&mut self.state, Sequence(self.events), &Envelope { at, by: None, event });
            said
        }

        fn submitted(&mut self, number: u8, array: bool, parent: Option<(u8, Condition)>) -> &mut Scene {
            let mut spec = JobSpec::new(Driver::Noop(NoopSpec {}));
            spec.array = array.then_some(ArraySpec { count: 3, parallel: Some(2) });
            spec.depends_on =
                parent.map(|(on, until)| Dependency { job: JobRef::Id(id(on)), until }).into_iter().collect();
            let (namespace, spec) = ("default".parse().unwrap(), Arc::new(spec));
            self.sees(Event::JobSubmitted(JobSubmitted { job: id(number), namespace, request_id: None, spec }))
                .unwrap();
            let parents: Vec<JobId> = parent.map(|(on, _)| id(on)).into_iter().collect();
            if !parents.is_empty() {
                self.sees(Event::JobDepends(JobDepends { job: id(number), parents })).unwrap();
            }
            self
        }

        fn finished(&mut self, job: JobId, status: Status) -> Result<(), String> {
            let attempt = self.state.jobs.get(&job).map_or(Attempt(0), |job| job.attempt);
            self.sees(Event::JobFinished(JobFinished {
                job,
                attempt,
                status,
                reason: None,
                exit_code: None,
                started_at: None,
                result: None,
                request_id: None,
            }))
        }

        fn retried(&mut self, number: u8) -> Result<(), String> {
            self.sees(Event::JobRetried(JobRetried { job: id(number), attempt: Attempt(0), request_id: None }))
        }

        fn advanced(&mut self, number: u8, ended: &[u32], released: &[u32]) -> Result<(), String> {
            let indexes = |of: &[u32]| {
                let mut set = Indexes::default();
                of.iter().for_each(|index| set.insert(*index));
                set
            };
            let (ended, released, told) = (indexes(ended), indexes(released), Indexes::default());
            self.sees(Event::ArrayAdvanced(ArrayAdvanced { job: id(number), ended, released, told }))
        }
    }

    #[test]
    fn only_a_retry_begins_anew_what_is_over() {
        let mut scene = Scene::default();
        scene.submitted(1, false, None).finished(id(1), Status::Failed).unwrap();
        assert!(scene.finished(id(1), Status::Failed).is_err(), "it ends twice");
        scene.retried(1).unwrap();
        assert!(scene.retried(1).is_err(), "it is not over");
        scene.finished(id(1), Status::Succeeded).unwrap();
        assert!(scene.retried(1).is_err(), "it is well");
        assert!(scene.ends.ended_as(id(1), Status::Failed) && scene.ends.was_over(id(1)));
    }

    #[test]
    fn who_waits_keeps_how_others_ended() {
        let mut scene = Scene::default();
        scene.submitted(1, false, None).submitted(2, false, Some((1, Condition::Succeeded)));
        assert!(scene.ends.may_begin(id(2)).is_err(), "not yet");
        scene.finished(id(1), Status::Failed).unwrap();
        assert!(scene.ends.may_begin(id(2)).is_err(), "not as it had to");
        scene.finished(id(2), Status::Failed).unwrap();
        scene.retried(1).unwrap();
        scene.retried(2).unwrap();
        assert!(scene.ends.may_begin(id(2)).is_err(), "it waits again");
        scene.finished(id(1), Status::Succeeded).unwrap();
        assert_eq!(scene.ends.may_begin(id(2)), Ok(()));
        scene.submitted(3, false, None).submitted(4, false, Some((3, Condition::Finished)));
        scene.finished(id(3), Status::Cancelled).unwrap();
        scene.retried(3).unwrap();
        assert_eq!(scene.ends.may_begin(id(4)), Ok(()), "what ended once has ended");
    }

    #[test]
    fn tasks_are_let_go_once_and_no_more_than_may() {
        let mut scene = Scene::default();
        scene.submitted(1, true, None).advanced(1, &[], &[0, 1]).unwrap();
        assert!(scene.advanced(1, &[], &[2]).is_err(), "three at once");
        let mut scene = Scene::default();
        scene.submitted(1, true, None).advanced(1, &[], &[0, 1]).unwrap();
        scene.finished(task_id(id(1), 0), Status::Succeeded).unwrap();
        scene.finished(task_id(id(1), 1), Status::Failed).unwrap();
        assert!(scene.finished(id(1), Status::Succeeded).is_err(), "one is not well");
        let mut scene = Scene::default();
        scene.submitted(1, true, None).advanced(1, &[], &[0, 1]).unwrap();
        scene.finished(task_id(id(1), 0), Status::Succeeded).unwrap();
        scene.finished(task_id(id(1), 1), Status::Failed).unwrap();
        scene.advanced(1, &[0, 1], &[2]).unwrap();
        assert!(scene.finished(id(1), Status::Failed).is_err(), "one is on its way");
        let mut scene = Scene::default();
        scene.submitted(1, true, None).advanced(1, &[], &[0, 1]).unwrap();
        scene.finished(task_id(id(1), 0), Status::Succeeded).unwrap();
        scene.finished(task_id(id(1), 1), Status::Failed).unwrap();
        scene.advanced(1, &[0, 1], &[2]).unwrap();
        scene.finished(task_id(id(1), 2), Status::Succeeded).unwrap();
        scene.advanced(1, &[2], &[]).unwrap();
        scene.finished(id(1), Status::Failed).unwrap();
        scene.retried(1).unwrap();
        assert!(scene.advanced(1, &[], &[2]).is_err(), "that one was well");
        scene.advanced(1, &[], &[1]).unwrap();
        assert!(scene.finished(id(1), Status::Failed).is_err(), "it is on its way again");
    }
}
