//! Who waits for whom, told at submission; and what becomes of those who have waited.

use super::{Refusal, fact};
use crate::depend::Verdict;
use crate::state::State;
use outlive_schemas::depend::{Condition, DependenciesMet, JobDepends};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, JobFinished};
use outlive_schemas::id::{JobId, JobName, JobRef, Namespace};
use outlive_schemas::job::{JobKind, JobSpec, invalid};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which jobs the new ones wait for: jobs of the same request by name, in any order, and jobs that are there.
///
/// Errors: `not_found` for a job that is neither; `in_use` for one that has failed already where its success is asked
/// for; `invalid_argument` for the same job twice and for a circle; `unsupported` for what can never be.
pub(super) fn declared(
    state: &State,
    namespace: &Namespace,
    jobs: &[(JobId, Arc<JobSpec>)],
) -> Result<Vec<JobDepends>, Rejection> {
    if jobs.iter().all(|(_, spec)| spec.depends_on.is_empty()) {
        return Ok(Vec::new());
    }
    let names: BTreeMap<&JobName, usize> =
        jobs.iter().enumerate().filter_map(|(i, (_, spec))| Some((spec.name.as_ref()?, i))).collect();
    let mut declared = Vec::new();
    // Of each job of the request, those of the request that it waits for.
    let mut within: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (position, (id, spec)) in jobs.iter().enumerate().filter(|(_, (_, spec))| !spec.depends_on.is_empty()) {
        let field = |i: usize| match jobs.len() {
            1 => format!("depends_on[{i}].job"),
            _ => format!("jobs[{position}].depends_on[{i}].job"),
        };
        let mut parents = Vec::with_capacity(spec.depends_on.len());
        let mut seen = BTreeSet::new();
        for (i, dependency) in spec.depends_on.iter().enumerate() {
            let fellow = match &dependency.job {
                JobRef::Name(name) => names.get(name).copied(),
                JobRef::Id(_) => None,
            };
            let (parent, kind) = match fellow {
                Some(fellow) => {
                    within[position].push(fellow);
                    (jobs[fellow].0, jobs[fellow].1.kind)
                }
                None => {
                    let (parent, job) = state.resolve(namespace, &dependency.job).map_err(|missing| Rejection {
                        message: format!("`{}`: {}", field(i), missing.message),
                        ..missing
                    })?;
                    let is_lost = matches!(job.status, Status::Failed | Status::Cancelled);
                    if is_lost && dependency.until == Condition::Succeeded {
                        let message = format!(
                            "`{}` is job `{}`, which {} already: retry it first, or say `\"until\":\"finished\"`",
                            field(i),
                            dependency.job,
                            if job.status == Status::Failed { "failed" } else { "was cancelled" }
                        );
                        return Err(Rejection::new(ErrorCode::InUse, message));
                    }
                    if let Some(task) = job.task {
                        let message = format!("`{}` is a task of array {}: depend on the whole", field(i), task.array);
                        return Err(Rejection::new(ErrorCode::Unsupported, message));
                    }
                    (parent, job.spec.kind)
                }
            };
            if kind == JobKind::Service && dependency.until == Condition::Succeeded {
                let message = format!(
                    "`{}` is the service `{}`, which never succeeds: say `\"until\":\"finished\"`",
                    field(i),
                    dependency.job
                );
                return Err(Rejection::new(ErrorCode::Unsupported, message));
            }
            if !seen.insert(parent) {
                return Err(invalid(&field(i), &format!("is `{}`, which is in the list already", dependency.job)));
            }
            parents.push(parent);
        }
        declared.push(JobDepends { job: *id, parents });
    }
    match circle(&within) {
        None => Ok(declared),
        Some(circle) => {
            let name = |i: &usize| jobs[*i].1.name.as_ref().map_or_else(String::new, ToString::to_string);
            let shown: Vec<String> = circle.iter().map(name).collect();
            let message = format!("goes in a circle, so that none of these could begin: {}", shown.join(" → "));
            Err(invalid("depends_on", &message))
        }
    }
}

/// The first circle there is, closed. Without recursion: it may have as many links as a request has jobs.
fn circle(waits_for: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        OnTheWay,
        Done,
    }
    let mut seen = vec![Seen::Not; waits_for.len()];
    for start in 0..waits_for.len() {
        if seen[start] != Seen::Not {
            continue;
        }
        seen[start] = Seen::OnTheWay;
        let mut way = vec![(start, 0)];
        while let Some((at, next)) = way.last_mut() {
            let at = *at;
            let Some(&to) = waits_for[at].get(*next) else {
                seen[at] = Seen::Done;
                way.pop();
                continue;
            };
            *next += 1;
            match seen[to] {
                Seen::Done => {}
                Seen::Not => {
                    seen[to] = Seen::OnTheWay;
                    way.push((to, 0));
                }
                Seen::OnTheWay => {
                    let links = way.iter().map(|(at, _)| *at).skip_while(|at| *at != to);
                    return Some(links.chain([to]).collect());
                }
            }
        }
    }
    None
}

/// Each of these jobs once, in their order but that none comes before one of them that it depends on: tried again after
/// it, a job waits for it, and would find it as it ended before.
pub(super) fn parents_first(state: &State, jobs: &[JobId]) -> Vec<JobId> {
    let among: BTreeSet<JobId> = jobs.iter().copied().collect();
    let depends = |id: &JobId| state.jobs.get(id).and_then(|job| job.depends.as_deref());
    let (mut done, mut order) = (BTreeSet::new(), Vec::with_capacity(among.len()));
    for id in jobs {
        let mut way = vec![(*id, 0)];
        while let Some((at, next)) = way.last_mut() {
            let at = *at;
            if done.contains(&at) {
                way.pop();
            } else if let Some(parent) = depends(&at).and_then(|depends| depends.parents.get(*next)) {
                *next += 1;
                way.extend(among.contains(&parent.job).then_some((parent.job, 0)));
            } else {
                way.pop();
                done.insert(at);
                order.push(at);
            }
        }
    }
    order
}

/// Lets a job be placed that has waited for others, or ends it where one of them did not end as it had to.
pub(super) fn settle(state: &State, id: JobId, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let event = match job.verdict().ok_or(Refusal::Stale)? {
        Verdict::Met => Event::DependenciesMet(DependenciesMet { job: id }),
        Verdict::Failed(reason) => Event::JobFinished(JobFinished {
            job: id,
            attempt: job.attempt,
            status: Status::Failed,
            reason: Some(reason),
            exit_code: None,
            started_at: None,
            result: None,
            request_id: None,
        }),
    };
    Ok(fact(now, event))
}

#[cfg(test)]
mod tests {
    use super::circle;

    #[test]
    fn a_circle_is_found_wherever_it_is() {
        assert_eq!(circle(&[vec![1], vec![2], vec![]]), None);
        assert_eq!(circle(&[vec![0]]), Some(vec![0, 0]));
        assert_eq!(circle(&[vec![1, 2], vec![3], vec![3], vec![]]), None, "a diamond is none");
        assert_eq!(circle(&[vec![], vec![2], vec![3], vec![1], vec![1]]), Some(vec![1, 2, 3, 1]));
        let long: Vec<Vec<usize>> = (0..100_000).map(|i| vec![(i + 1) % 100_000]).collect();
        assert_eq!(circle(&long).map(|links| links.len()), Some(100_001));
    }
}
