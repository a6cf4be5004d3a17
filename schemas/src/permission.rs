//! What each kind of user of the NATS account may publish and subscribe to, made from the subjects themselves.
//!
//! `ops/nats/accounts.conf` and the table in `ops/docs/security.md` are held to it by tests. Deliberately not here: who
//! a user is; that is the NATS server's.

use crate::id::Namespace;
use crate::subject::{
    API, BLOB_STREAM, HEARTBEAT, JOB_LOG_SUBJECTS, KEY_STREAM, LEADER_BEAT, LOG_TAIL_SUBJECT, REPORT,
};

/// Where the answers to a scheduler's requests go. Each kind of user has its own inboxes, for whoever may subscribe to
/// all of them reads everybody's answers.
pub const SCHEDULER_INBOX: &str = "_INBOX.scheduler";
pub const EXECUTOR_INBOX: &str = "_INBOX.executor";
pub const OPERATOR_INBOX: &str = "_INBOX.operator";

/// A kind of user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Scheduler,
    Executor,
    /// A person or program that looks after the cluster.
    Operator,
    /// Users of one namespace.
    Namespace(Namespace),
}

/// Subjects, with wildcards as NATS writes them. What is not listed is forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

impl Who {
    /// `nats.inbox_prefix` of such a user.
    pub fn inbox_prefix(&self) -> String {
        match self {
            Who::Scheduler => SCHEDULER_INBOX.to_owned(),
            Who::Executor => EXECUTOR_INBOX.to_owned(),
            Who::Operator => OPERATOR_INBOX.to_owned(),
            Who::Namespace(namespace) => format!("_INBOX.ns.{namespace}"),
        }
    }

    pub fn permissions(&self) -> Permissions {
        let own = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect::<Vec<_>>();
        let inbox = format!("{}.>", self.inbox_prefix());
        let (publish, mut subscribe) = match self {
            Who::Scheduler => (
                // The log, blobs, keys, orders, the feed; the streams' API; and answers, which go to anybody's inbox.
                own(&["outlive.>", "$JS.API.>", "_INBOX.>"]),
                // Never the log's own subject: a subscriber there would hide that no stream answers.
                own(&["outlive.v1.>", "outlive.internal.>", LOG_TAIL_SUBJECT, "$SRV.>"]),
            ),
            Who::Executor => {
                let mut publish =
                    own(&[HEARTBEAT, REPORT, "outlive.blob.job.>", "outlive.key.job.*", JOB_LOG_SUBJECTS]);
                publish.push(format!("{API}.*.log.>"));
                for stream in [BLOB_STREAM, KEY_STREAM] {
                    publish.push(format!("$JS.API.DIRECT.GET.{stream}.>"));
                    publish.push(format!("$JS.API.STREAM.MSG.GET.{stream}"));
                }
                // Chunks that no checkpoint needs are found and let go of by the attempt that made them.
                publish.push(format!("$JS.API.STREAM.INFO.{BLOB_STREAM}"));
                publish.push(format!("$JS.API.STREAM.MSG.DELETE.{BLOB_STREAM}"));
                // Answers to schedulers' probes.
                publish.push(format!("{SCHEDULER_INBOX}.>"));
                // Its id is another after each start, so it cannot be part of a lasting permission.
                let orders = own(&[
                    LEADER_BEAT,
                    "outlive.internal.executor.*.orders",
                    "outlive.internal.executor.*.probe",
                    "outlive.internal.zone.*.probe",
                ]);
                (publish, orders)
            }
            Who::Operator => {
                let publish = vec![format!("{API}.sys.>"), "$SRV.>".to_owned()];
                (publish, vec![format!("{API}.*.event.>")])
            }
            Who::Namespace(namespace) => {
                let publish =
                    ["job", "snapshot", "schedule", "queue"].map(|what| format!("{API}.{namespace}.{what}.>"));
                let subscribe = ["event", "log"].map(|what| format!("{API}.{namespace}.{what}.>"));
                (publish.to_vec(), subscribe.to_vec())
            }
        };
        subscribe.push(inbox);
        Permissions { publish, subscribe }
    }
}

impl Permissions {
    /// As nats-server's configuration writes them.
    pub fn to_conf(&self, indent: &str) -> String {
        let list = |subjects: &[String]| {
            let quoted: Vec<String> = subjects.iter().map(|subject| format!("{indent}    \"{subject}\"\n")).collect();
            quoted.concat()
        };
        format!(
            "{indent}permissions: {{\n{indent}  publish: {{ allow: [\n{}{indent}  ] }}\n{indent}  subscribe: {{ allow: [\n{}{indent}  ] }}\n{indent}}}\n",
            list(&self.publish),
            list(&self.subscribe),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ExecutorId, JobId};
    use crate::subject::*;

    /// Whether a subject is matched by a pattern.
    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return false,
            }
        }
    }

    fn may(subjects: &[String], subject: &str) -> bool {
        subjects.iter().any(|pattern| matches(pattern, subject))
    }

    fn team() -> Who {
        Who::Namespace("team-a".parse().expect("a namespace"))
    }

    #[test]
    fn only_schedulers_write_the_log_and_rule_streams() {
        for who in [Who::Executor, Who::Operator, team()] {
            let allowed = who.permissions();
            for forbidden in [
                LOG_SUBJECT,
                "$JS.API.STREAM.CREATE.OUTLIVE_LOG",
                "$JS.API.STREAM.PURGE.OUTLIVE_BLOB",
                "$JS.API.STREAM.DELETE.OUTLIVE_LOG",
                "$JS.API.STREAM.UPDATE.OUTLIVE_LOG",
                "$JS.API.DIRECT.GET.OUTLIVE_LOG",
                "$JS.API.STREAM.LEADER.STEPDOWN.OUTLIVE_LOG",
                LEADER_BEAT,
            ] {
                assert!(!may(&allowed.publish, forbidden), "{who:?} may publish {forbidden}");
            }
            assert!(!may(&allowed.subscribe, LOG_SUBJECT) && !may(&allowed.subscribe, LOG_TAIL_SUBJECT));
        }
        let scheduler = Who::Scheduler.permissions();
        assert!(may(&scheduler.publish, LOG_SUBJECT) && may(&scheduler.subscribe, LOG_TAIL_SUBJECT));
        assert!(!may(&scheduler.subscribe, LOG_SUBJECT), "it would hide that no stream answers");
    }

    #[test]
    fn a_namespace_reaches_its_own_subjects_and_no_others() {
        let Permissions { publish, subscribe } = team().permissions();
        let (own, other) = ("team-a".parse().expect("a namespace"), "team-b".parse().expect("a namespace"));
        for asked in ["job.submit", "job.get", "snapshot.create", "schedule.put", "queue.list"] {
            assert!(may(&publish, &operation(&own, asked)));
            assert!(!may(&publish, &operation(&other, asked)));
        }
        assert!(!may(&publish, &system_operation("status")));
        let job = JobId(uuid::Uuid::nil());
        assert!(may(&subscribe, &event(&own, job, "job_placed")));
        assert!(!may(&subscribe, &event(&other, job, "job_placed")));
        assert!(may(&subscribe, &live_log(&own, job, "out")));
        assert!(!may(&publish, &event(&own, job, "job_placed")), "the feed cannot be forged");
        for inbox in ["_INBOX.ns.team-b.x", "_INBOX.scheduler.x", "_INBOX.executor.x", "_INBOX.x"] {
            assert!(!may(&subscribe, inbox), "{inbox}");
        }
    }

    #[test]
    fn an_executor_may_do_its_work() {
        let Permissions { publish, subscribe } = Who::Executor.permissions();
        let (executor, job) = (ExecutorId(uuid::Uuid::nil()), JobId(uuid::Uuid::nil()));
        let namespace = "team-a".parse().expect("a namespace");
        for needed in [
            HEARTBEAT.to_owned(),
            REPORT.to_owned(),
            job_key(job),
            job_log(&namespace, job),
            live_log(&namespace, job, "err"),
            format!("outlive.blob.job.{job}.00"),
            format!("$JS.API.DIRECT.GET.OUTLIVE_KEYS.{}", log_key(1)),
            "$JS.API.STREAM.INFO.OUTLIVE_BLOB".to_owned(),
            "$JS.API.STREAM.MSG.DELETE.OUTLIVE_BLOB".to_owned(),
        ] {
            assert!(may(&publish, &needed), "{needed}");
        }
        for needed in [executor_orders(executor), executor_probe(executor), LEADER_BEAT.to_owned()] {
            assert!(may(&subscribe, &needed), "{needed}");
        }
        assert!(!may(&publish, &executor_orders(executor)), "it cannot order another");
        assert!(!may(&publish, &log_key(1)), "it cannot replace the log's key");
        assert!(!may(&publish, "outlive.blob.image.00"));
    }
}
