//! What a job's processes find in their environment (contract, section 2).
//!
//! Deliberately not here: `PATH` and the like, which the process driver adds where a job does not set them.

use crate::runner::directory::AttemptDirectory;
use outlive_schemas::id::{ExecutorName, Zone};
use outlive_schemas::job::{Driver, JobSpec};
use outlive_schemas::message::Assignment;
use outlive_schemas::trace::Step;

/// Where an attempt runs, as its job may know it.
#[derive(Clone, Debug)]
pub struct Place {
    pub zone: Zone,
    pub executor: ExecutorName,
}

/// The whole environment of one attempt: the job's own variables and Outlive's. A specification cannot hold names that
/// begin with `OUTLIVE_`, so neither hides the other.
pub fn variables(assignment: &Assignment, place: &Place, directory: &AttemptDirectory) -> Vec<(String, String)> {
    let Assignment { job, attempt, namespace, name, version, restore, spec, trace, .. } = assignment;
    let restored = restore.map(|from| from.number.to_string()).unwrap_or_default();
    let ours = [
        ("OUTLIVE_NAMESPACE", namespace.to_string()),
        ("OUTLIVE_JOB_ID", job.to_string()),
        ("OUTLIVE_JOB_NAME", name.to_string()),
        ("OUTLIVE_JOB_VERSION", version.to_string()),
        ("OUTLIVE_ATTEMPT", attempt.to_string()),
        ("OUTLIVE_ZONE", place.zone.to_string()),
        ("OUTLIVE_EXECUTOR", place.executor.to_string()),
        ("OUTLIVE_STATE_DIR", shown(&directory.state())),
        ("OUTLIVE_RESTORED_CHECKPOINT", restored),
        ("OUTLIVE_INPUT", shown(&directory.input())),
        ("OUTLIVE_INPUTS", shown(&directory.inputs())),
        ("OUTLIVE_RESULT", shown(&directory.result())),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value));
    // So that what the job does can go on in the trace of its submission.
    let start = trace.map(|place| place.at(*job, *attempt, Step::Start));
    let traced = start.map(|start| ("TRACEPARENT".to_owned(), start.to_string()));
    let index = assignment.array_index.map(|index| ("OUTLIVE_ARRAY_INDEX".to_owned(), index.to_string()));
    own(spec).chain(traced).chain(index).chain(ours).collect()
}

fn own(spec: &JobSpec) -> impl Iterator<Item = (String, String)> {
    let env = match &spec.driver {
        Driver::Process(process) => Some(&process.env),
        Driver::Noop(_) => None,
    };
    env.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()))
}

/// The data directory was checked to be UTF-8 at the start, and what is below it are ids.
fn shown(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::tests::assignment;
    use outlive_schemas::checkpoint::{BlobName, CheckpointRef};
    use outlive_schemas::id::CheckpointNumber;
    use std::collections::BTreeMap;

    #[test]
    fn a_job_learns_who_and_where_it_is() {
        let mut given = assignment(r#"{"driver":{"process":{"command":["x"],"env":{"KEY":"value"}}}}"#);
        let place = Place { zone: Zone::new("a").expect("zone"), executor: ExecutorName::new("e-1").expect("name") };
        let directory = AttemptDirectory::new("/data".as_ref(), given.job, given.attempt);
        let all: BTreeMap<_, _> = variables(&given, &place, &directory).into_iter().collect();
        assert_eq!(all["KEY"], "value");
        assert_eq!(all["OUTLIVE_JOB_ID"], given.job.to_string());
        assert_eq!(all["OUTLIVE_ATTEMPT"], given.attempt.to_string());
        assert_eq!(all["OUTLIVE_STATE_DIR"], format!("/data/attempts/{}-{}/state", given.job, given.attempt));
        assert_eq!(all["OUTLIVE_RESTORED_CHECKPOINT"], "");
        assert_eq!(all.keys().filter(|name| name.starts_with("OUTLIVE_")).count(), 12);

        assert!(!all.contains_key("TRACEPARENT"));
        given.array_index = Some(7);
        let task: BTreeMap<_, _> = variables(&given, &place, &directory).into_iter().collect();
        assert_eq!(task["OUTLIVE_ARRAY_INDEX"], "7");
        let span = outlive_schemas::trace::TraceContext { trace: 7, span: 9, sampled: true };
        given.trace = Some(span);
        let traced: BTreeMap<_, _> = variables(&given, &place, &directory).into_iter().collect();
        assert_eq!(traced["TRACEPARENT"], span.at(given.job, given.attempt, Step::Start).to_string());

        given.restore = Some(CheckpointRef { number: CheckpointNumber(12), manifest: BlobName([0; 32]) });
        let all: BTreeMap<_, _> = variables(&given, &place, &directory).into_iter().collect();
        assert_eq!(all["OUTLIVE_RESTORED_CHECKPOINT"], "12");
    }
}
