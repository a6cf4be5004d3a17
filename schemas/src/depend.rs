//! Jobs that wait for other jobs (contract, section 8): what is asked for, what is told of it, and what reaches the child.

use crate::error::{ErrorCode, Rejection};
use crate::id::{JobId, JobRef};
use crate::job::invalid;
use crate::limits;
use crate::payload::Payload;
use serde::{Deserialize, Serialize};

/// One job that another waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// In the same namespace. A name means the job of the same request that has it, or else the newest.
    pub job: JobRef,
    #[serde(default, skip_serializing_if = "is_succeeded")]
    pub until: Condition,
}

/// How the other job has to have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    #[default]
    Succeeded,
    /// However it ended.
    Finished,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_succeeded(condition: &Condition) -> bool {
    *condition == Condition::Succeeded
}

/// Checks what can be said of the list alone.
///
/// Errors: `limit_exceeded` for too many, `invalid_argument` for a job that is named twice in the same words.
pub fn validate(dependencies: &[Dependency]) -> Result<(), Rejection> {
    if dependencies.len() > limits::DEPENDENCIES_MAX {
        let message = format!(
            "`depends_on` has {} jobs; the limit is {}: let some of them be waited for by a job in between",
            dependencies.len(),
            limits::DEPENDENCIES_MAX
        );
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    let mut named: Vec<String> = dependencies.iter().map(|dependency| dependency.job.to_string()).collect();
    named.sort_unstable();
    match named.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid("depends_on", &format!("has job `{}` twice: once is enough", pair[0]))),
        None => Ok(()),
    }
}

/// Which jobs a new job waits for, in the order of its `depends_on`. In the commit of its submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobDepends {
    pub job: JobId,
    pub parents: Vec<JobId>,
}

/// Every job that it waited for has ended as it had to; its results are kept with it from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependenciesMet {
    pub job: JobId,
}

/// A file that an attempt finds under `$OUTLIVE_INPUTS`: the result of a job that its job waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// What `depends_on` calls the job; so it is an id or a name, and never a path.
    pub name: JobRef,
    pub content: Payload,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Vec<Dependency> {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn success_is_what_is_waited_for_unless_it_is_said() {
        let given = list(r#"[{"job":"extract"},{"job":"load","until":"finished"}]"#);
        assert_eq!([given[0].until, given[1].until], [Condition::Succeeded, Condition::Finished]);
        assert_eq!(serde_json::to_string(&given[0]).expect("json"), r#"{"job":"extract"}"#);
        validate(&given).expect("valid");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let twice = validate(&list(r#"[{"job":"a"},{"job":"b"},{"job":"a","until":"finished"}]"#)).expect_err("twice");
        assert!(twice.message.contains("`depends_on` has job `a` twice"), "{}", twice.message);
        let many: Vec<_> = (0..=limits::DEPENDENCIES_MAX)
            .map(|i| Dependency { job: format!("job-{i}").parse().expect("a name"), until: Condition::Finished })
            .collect();
        assert_eq!(validate(&many).expect_err("too many").code, ErrorCode::LimitExceeded);
        for text in [r#"[{"job":"../etc"}]"#, r#"[{"job":"a","until":"started"}]"#, r#"[{"job":"a","x":1}]"#, r#"[{}]"#]
        {
            assert!(serde_json::from_str::<Vec<Dependency>>(text).is_err(), "{text}");
        }
    }
}
