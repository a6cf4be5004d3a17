//! The report as people read it.

use super::{JobReport, LeaderReport, LogReport, Report};
use crate::human;
use crate::output::{self, Table};
use outlive_schemas::time::Millis;

/// Jobs shown one by one; of more, those that were away the longest.
const SHOWN_MAX: usize = 20;

impl Report {
    pub fn render(&self) -> String {
        let mut lines = vec![String::new()];
        lines.push(leader(&self.leader));
        lines.extend(jobs(&self.jobs));
        lines.push(log(&self.log));
        lines.join("\n")
    }
}

fn leader(LeaderReport { before, after, away_ms }: &LeaderReport) -> String {
    match (after, away_ms) {
        (None, _) => format!("Leader: {before} is gone, and nobody leads yet"),
        (Some(after), Some(ms)) => format!("Leader: {after} leads instead of {before}, after {}", length(*ms)),
        (Some(after), None) => format!("Leader: {after}, as before"),
    }
}

fn jobs(jobs: &[JobReport]) -> Vec<String> {
    if jobs.is_empty() {
        return vec!["Jobs: none was away".to_owned()];
    }
    let mut table = Table::new(&["JOB", "STATUS", "FROM", "TO", "AWAY", "CAUSE", "CHECKPOINT", "REDONE"]);
    let mut slowest: Vec<&JobReport> = jobs.iter().collect();
    slowest.sort_by_key(|job| std::cmp::Reverse(job.away_ms.unwrap_or(u64::MAX)));
    for job in slowest.iter().take(SHOWN_MAX) {
        table.row(vec![
            output::cell(&job.name),
            output::status(job.status),
            output::maybe(job.from.as_ref()),
            output::maybe(job.to.as_ref()),
            output::maybe(job.away_ms.map(length)),
            output::maybe(job.cause.map(|cause| cause.as_str())),
            output::maybe(job.restored_checkpoint.as_ref()),
            output::maybe(job.redone_ms.map(length)),
        ]);
    }
    let mut lines = vec![table.render()];
    if jobs.len() > SHOWN_MAX {
        lines.push(format!("… and {} more, which were back sooner", jobs.len() - SHOWN_MAX));
    }
    let still: Vec<&JobReport> = jobs.iter().filter(|job| job.to.is_none() && !job.status.is_final()).collect();
    for job in still.iter().take(SHOWN_MAX) {
        let why = job.reason.as_deref().map(|reason| format!(": {}", human::printable(reason))).unwrap_or_default();
        lines.push(format!("{} is not back yet ({}{why}); see: outlive job why {}", job.name, job.status, job.name));
    }
    lines
}

fn log(log: &LogReport) -> String {
    let seq = log.acknowledged_before;
    match log.lost() {
        Some(false) => {
            let after = log.acknowledged_after.unwrap_or(seq);
            format!(
                "Log: nothing acknowledged was lost; commit {seq} stands as it stood, and the log goes on to {after}"
            )
        }
        Some(true) => format!("Log: ACKNOWLEDGED COMMITS ARE LOST, up to {seq}: run `outlive log verify`"),
        None => {
            format!("Log: it cannot be read yet; whether all up to commit {seq} stands, `outlive log verify` will say")
        }
    }
}

fn length(ms: u64) -> String {
    human::rough(Millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::event::Cause;
    use outlive_schemas::id::{CheckpointNumber, JobId, Sequence};
    use outlive_schemas::view::Status;

    fn report() -> Report {
        let job = JobReport {
            job: "01970000-0000-7000-8000-000000000001".parse::<JobId>().expect("an id"),
            name: "counter".parse().expect("a name"),
            status: Status::Running,
            from: Some("executor-a-1".parse().expect("a name")),
            to: Some("executor-b-1".parse().expect("a name")),
            cause: Some(Cause::ExecutorLost),
            away_ms: Some(640),
            restored_checkpoint: Some(CheckpointNumber(7)),
            redone_ms: Some(1_200),
            reason: None,
        };
        let log = LogReport {
            acknowledged_before: Sequence(41),
            acknowledged_after: Some(Sequence(45)),
            intact: Some(true),
            jobs_missing: vec![],
            finished_before: 3,
            finished_after: Some(3),
        };
        let before = "scheduler-a".parse().expect("a name");
        let leader = LeaderReport { before, after: Some("scheduler-b".parse().expect("a name")), away_ms: Some(700) };
        Report { jobs: vec![job], leader, lost: log.lost(), log, waited_ms: 900 }
    }

    #[test]
    fn it_says_what_was_lost_and_how_long_each_job_was_away() {
        let text = report().render();
        for part in ["scheduler-b leads instead of scheduler-a, after 700ms", "640ms", "1.2s", "executor_lost", "41"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(text.contains("nothing acknowledged was lost"), "{text}");
    }

    #[test]
    fn a_loss_is_not_overlooked() {
        let mut log = report().log;
        assert_eq!(log.lost(), Some(false));
        log.intact = Some(false);
        assert_eq!(log.lost(), Some(true));
        log.intact = Some(true);
        log.acknowledged_after = Some(Sequence(40));
        assert_eq!(log.lost(), Some(true));
        log.acknowledged_after = None;
        assert_eq!(log.lost(), None, "not known is neither");
    }

    #[test]
    fn who_is_not_back_is_named() {
        let mut report = report();
        report.jobs[0].to = None;
        report.jobs[0].status = Status::Restarting;
        report.jobs[0].reason = Some("no room".to_owned());
        let text = report.render();
        assert!(text.contains("counter is not back yet (restarting: no room)"), "{text}");
    }
}
