//! What to submit: a file with one specification or many, a command on the command line, and flags over either.
//!
//! Deliberately not here: checking values against their ranges. The scheduler does, for every client alike.

use crate::failure::Failure;
use clap::Args;
use outlive_schemas::codec::Format;
use outlive_schemas::id::{JobName, QueueName, Zone};
use outlive_schemas::job::{Driver, JobKind, JobSpec, Labels, ProcessSpec};
use outlive_schemas::payload::Payload;
use outlive_schemas::queue::{Concurrency, Priority};
use outlive_schemas::request::SubmitManyRequest;
use outlive_schemas::size::ByteSize;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::when::Start;
use std::fs::File;
use std::io::{self, Read};

/// A file of specifications: a hundred thousand jobs of two KiB. More should be several submissions.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, Default, Args)]
pub struct SpecArgs {
    /// A JSON file with one job, an array of jobs, or {"jobs": […]}; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "command", conflicts_with = "command")]
    file: Option<String>,
    /// The command to run, instead of a file
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// The job's name
    #[arg(long)]
    name: Option<JobName>,
    /// Whether the job ends by itself (batch) or runs until it is stopped (service)
    #[arg(long, value_parser = parse_kind, value_name = "batch|service")]
    kind: Option<JobKind>,
    /// A variable of the command's environment; may be repeated
    #[arg(long, short, value_parser = parse_pair, value_name = "KEY=VALUE")]
    env: Vec<(String, String)>,
    /// A file whose contents the job gets as its input; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: Option<String>,
    /// Processor time to set aside, in thousandths of a core
    #[arg(long, value_name = "MILLIS")]
    cpu: Option<u32>,
    /// Memory to set aside, such as 64MiB
    #[arg(long, value_parser = ByteSize::parse, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// A zone where the job may run; may be repeated
    #[arg(long)]
    zone: Vec<Zone>,
    /// Time between two checkpoints, such as 10s
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    checkpoint_interval: Option<Millis>,
    /// How long one attempt may run, such as 1h
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    timeout: Option<Millis>,
    /// How many attempts may fail by the job's own doing; 0 means no end
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// Not before when it begins: a time such as 2026-12-24T18:00:00Z, or so long from now, such as 10m
    #[arg(long, value_parser = parse_start, value_name = "TIME|DURATION")]
    start: Option<Start>,
    /// Give the job up if it is not started within this time
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    start_within: Option<Millis>,
    /// Give the job up if it is not finished within this time
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    finish_within: Option<Millis>,
    /// Restart the job when it has written nothing for so long
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    progress_timeout: Option<Millis>,
    /// An exit code after which there is no other attempt; may be repeated, or given with commas
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..), value_name = "CODE")]
    no_retry_exit_code: Vec<u8>,
    /// Never run two attempts at once, not even through a partition
    #[arg(long)]
    exclusive: bool,
    /// The queue that the job waits in [default: default]
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
    /// How urgent it is in its queue, from 0 to 100 [default: 50]
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u32>,
    /// Give way to jobs of a higher priority that find no room, and go on from the last checkpoint later
    #[arg(long)]
    preemptible: bool,
    /// A key, and how many jobs with this key may run at once
    #[arg(long, value_parser = parse_concurrency, value_name = "KEY=NUMBER")]
    concurrency: Option<Concurrency>,
    /// A label of the job; may be repeated
    #[arg(long, value_parser = parse_pair, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
}

/// What a file holds.
#[derive(Debug, PartialEq)]
pub enum Specs {
    One(Box<JobSpec>),
    Many(Vec<JobSpec>),
}

impl SpecArgs {
    pub fn read(&self) -> Result<Specs, Failure> {
        if self.file.as_deref() == Some("-") && self.input.as_deref() == Some("-") {
            return Err(Failure::usage("both the job and its --input are `-`: standard input can be only one of them"));
        }
        let input = self.input.as_deref().map(|path| read(path, "the input")).transpose()?;
        let specs = match &self.file {
            Some(path) => parse(path, &read(path, "the job file")?)?,
            None => Specs::One(Box::new(JobSpec::new(Driver::Process(ProcessSpec {
                command: self.command.clone(),
                env: Default::default(),
            })))),
        };
        match specs {
            Specs::One(mut spec) => {
                self.apply(&mut spec)?;
                if let Some(input) = input {
                    spec.input = Some(Payload(input.into()));
                }
                Ok(Specs::One(spec))
            }
            Specs::Many(specs) if !self.changes_a_spec() => Ok(Specs::Many(specs)),
            Specs::Many(specs) => Err(Failure::usage(format!(
                "the file holds {} jobs, and flags such as --name are for one: leave them out, or split the file",
                specs.len()
            ))),
        }
    }

    fn changes_a_spec(&self) -> bool {
        self.name.is_some()
            || self.kind.is_some()
            || !self.env.is_empty()
            || self.input.is_some()
            || self.cpu.is_some()
            || self.memory.is_some()
            || !self.zone.is_empty()
            || self.checkpoint_interval.is_some()
            || self.timeout.is_some()
            || self.max_attempts.is_some()
            || self.start.is_some()
            || self.start_within.is_some()
            || self.finish_within.is_some()
            || self.progress_timeout.is_some()
            || !self.no_retry_exit_code.is_empty()
            || self.exclusive
            || self.queue.is_some()
            || self.priority.is_some()
            || self.preemptible
            || self.concurrency.is_some()
            || !self.label.is_empty()
    }

    /// Lays the flags over the specification.
    fn apply(&self, spec: &mut JobSpec) -> Result<(), Failure> {
        if let Some(name) = &self.name {
            spec.name = Some(name.clone());
        }
        if let Some(kind) = self.kind {
            spec.kind = kind;
        }
        match &mut spec.driver {
            Driver::Process(process) => process.env.extend(self.env.iter().cloned()),
            Driver::Noop(_) if self.env.is_empty() => {}
            Driver::Noop(_) => return Err(Failure::usage("--env is given, but a noop job runs no command")),
        }
        if let Some(cpu) = self.cpu {
            spec.resources.cpu_millis = cpu;
        }
        if let Some(memory) = self.memory {
            spec.resources.memory = memory;
        }
        if !self.zone.is_empty() {
            spec.placement.zones.clone_from(&self.zone);
        }
        if let Some(interval) = self.checkpoint_interval {
            spec.checkpoint.interval = interval;
            // Two checkpoints are never closer than the pause, which would silently undo a short interval.
            spec.checkpoint.min_pause = spec.checkpoint.min_pause.min(interval);
        }
        if let Some(timeout) = self.timeout {
            spec.timeout = Some(timeout);
        }
        if let Some(max) = self.max_attempts {
            spec.restart.max_attempts = Some((max > 0).then_some(max));
        }
        spec.start = self.start.or(spec.start);
        if self.start_within.is_some() || self.finish_within.is_some() {
            let deadline = spec.deadline.get_or_insert_default();
            deadline.start_within = self.start_within.or(deadline.start_within);
            deadline.finish_within = self.finish_within.or(deadline.finish_within);
        }
        spec.progress_timeout = self.progress_timeout.or(spec.progress_timeout);
        self.no_retry_exit_code.iter().for_each(|code| spec.restart.no_retry_exit_codes.insert(*code));
        spec.exclusive |= self.exclusive;
        if let Some(queue) = &self.queue {
            spec.queue = queue.clone();
        }
        if let Some(priority) = self.priority {
            spec.priority = Priority(priority);
        }
        spec.preemptible |= self.preemptible;
        if let Some(concurrency) = &self.concurrency {
            spec.concurrency = Some(Box::new(concurrency.clone()));
        }
        spec.labels.extend(self.label.iter().map(|(key, value)| (key.into(), value.into())));
        Ok(())
    }
}

/// `KEY=VALUE` pairs as labels.
pub fn labels(pairs: &[(String, String)]) -> Labels {
    pairs.iter().map(|(key, value)| (key.into(), value.into())).collect()
}

pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn parse_concurrency(text: &str) -> Result<Concurrency, String> {
    let (key, limit) = text.rsplit_once('=').ok_or("write it as KEY=NUMBER, such as customer-42=1")?;
    let limit = limit.parse().map_err(|_| format!("`{limit}` is not a number: write KEY=NUMBER"))?;
    Ok(Concurrency { key: key.into(), limit })
}

fn parse_start(text: &str) -> Result<Start, String> {
    let at = Timestamp::parse(text).map(Start::At);
    at.or_else(|_| Millis::parse(text).map(Start::Delay))
        .map_err(|_| "give a time such as 2026-12-24T18:00:00Z, or a duration such as 10m".to_owned())
}

fn parse_kind(text: &str) -> Result<JobKind, String> {
    match text {
        "batch" => Ok(JobKind::Batch),
        "service" => Ok(JobKind::Service),
        _ => Err("a kind is `batch` or `service`".to_owned()),
    }
}

fn read(path: &str, what: &str) -> Result<Vec<u8>, Failure> {
    let refused = |why: String| Failure::usage(format!("{what} {path} cannot be used: {why}"));
    let source: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin()),
        path => Box::new(File::open(path).map_err(|e| refused(e.to_string()))?),
    };
    let mut bytes = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| refused(e.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("it is larger than {}", ByteSize(FILE_BYTES_MAX))));
    }
    Ok(bytes)
}

fn parse(path: &str, text: &[u8]) -> Result<Specs, Failure> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let parsed = match first {
        None => return Err(Failure::usage(format!("{path} is empty: write a job, such as {EXAMPLE}"))),
        Some(b'[') => Format::Json.decode(text).map(Specs::Many),
        Some(_) if is_list(text) => Format::Json.decode(text).map(|r: SubmitManyRequest| Specs::Many(r.jobs)),
        Some(_) => Format::Json.decode(text).map(|spec| Specs::One(Box::new(spec))),
    };
    match parsed {
        Ok(Specs::Many(specs)) if specs.is_empty() => Err(Failure::usage(format!("{path} holds no job"))),
        Ok(specs) => Ok(specs),
        Err(rejection) => Err(Failure::usage(format!("{path}: {}", rejection.message))),
    }
}

const EXAMPLE: &str = r#"{"driver":{"process":{"command":["sh","-c","echo hello"]}}}"#;

/// Whether the document is `{"jobs": …}`.
fn is_list(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Outline {
        jobs: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Outline>(text).is_ok_and(|outline| outline.jobs.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn from_flags(words: &[&str]) -> JobSpec {
        let line = Line::try_parse_from([&["x"], words].concat()).expect("it parses");
        match line.spec.read().expect("it is read") {
            Specs::One(spec) => *spec,
            Specs::Many(_) => panic!("one job"),
        }
    }

    #[test]
    fn a_command_is_a_job_with_defaults() {
        let spec = from_flags(&["--", "sh", "-c", "echo $1", "--name", "x"]);
        let command = ["sh", "-c", "echo $1", "--name", "x"].map(str::to_owned).to_vec();
        assert_eq!(spec, JobSpec::new(Driver::Process(ProcessSpec { command, env: Default::default() })));
    }

    #[test]
    fn every_flag_reaches_the_specification() {
        let spec = from_flags(&[
            "--name",
            "counter",
            "--kind",
            "service",
            "-e",
            "A=1",
            "--env",
            "B=x=y",
            "--cpu",
            "500",
            "--memory",
            "1GiB",
            "--zone",
            "a",
            "--zone",
            "b",
            "--checkpoint-interval",
            "2s",
            "--timeout",
            "1h",
            "--max-attempts",
            "7",
            "--start",
            "10m",
            "--start-within",
            "1h",
            "--finish-within",
            "6h",
            "--progress-timeout",
            "5m",
            "--no-retry-exit-code",
            "64,2",
            "--exclusive",
            "--queue",
            "mail",
            "--priority",
            "80",
            "--preemptible",
            "--concurrency",
            "customer=42=1",
            "--label",
            "team=data",
            "--",
            "true",
        ]);
        assert_eq!(
            serde_json::to_value(&spec).expect("json"),
            serde_json::json!({
                "name": "counter",
                "kind": "service",
                "driver": {"process": {"command": ["true"], "env": {"A": "1", "B": "x=y"}}},
                "resources": {"cpu_millis": 500, "memory": "1GiB"},
                "placement": {"zones": ["a", "b"]},
                "checkpoint":
                    {"interval": "2s", "min_pause": "2s", "timeout": "10m", "retain": 3, "quiesce": "freeze"},
                "restart": {"max_attempts": 7, "initial_backoff": "1s", "max_backoff": "1m", "multiplier": 1.5,
                    "jitter": 0.1, "reset_after": "10m", "no_retry_exit_codes": [2, 64]},
                "timeout": "1h",
                "start": {"delay": "10m"},
                "deadline": {"start_within": "1h", "finish_within": "6h"},
                "progress_timeout": "5m",
                "exclusive": true,
                "labels": {"team": "data"},
                "queue": "mail",
                "priority": 80,
                "preemptible": true,
                "concurrency": {"key": "customer=42", "limit": 1},
            })
        );
        assert_eq!(from_flags(&["--max-attempts", "0", "--", "true"]).max_attempts(), None);
    }

    fn file(text: &str, flags: &[&str]) -> Result<Specs, Failure> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("job.json");
        std::fs::write(&path, text).expect("written");
        let path = path.display().to_string();
        Line::try_parse_from([&["x", &path], flags].concat()).expect("it parses").spec.read()
    }

    #[test]
    fn flags_are_laid_over_a_file() {
        let read = file(r#"{"name":"a","driver":{"noop":{}},"labels":{"x":"1"}}"#, &["--name", "b", "--label", "y=2"]);
        let Specs::One(spec) = read.expect("it is read") else { panic!("one job") };
        assert_eq!(spec.name.as_ref().map(JobName::as_str), Some("b"));
        assert_eq!(spec.labels.len(), 2);
    }

    #[test]
    fn many_jobs_in_either_shape() {
        for text in [r#"[{"driver":{"noop":{}}},{"driver":{"noop":{}}}]"#, r#" {"jobs":[{"driver":{"noop":{}}}]}"#] {
            assert!(matches!(file(text, &[]).expect("it is read"), Specs::Many(_)), "{text}");
            let refused = file(text, &["--name", "x"]).expect_err("flags are for one job");
            assert!(refused.to_string().contains("--name"));
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let refused = |text: &str, flags: &[&str]| {
            let failure = file(text, flags).expect_err("it is refused");
            assert_eq!(failure.exit_code(), 2);
            failure.to_string()
        };
        assert!(refused(r#"{"driver":{"noop":{}},"colour":1}"#, &[]).contains("`colour`"));
        assert!(refused(r#"{"jobs":[{"driver":7}]}"#, &[]).contains("jobs[0].driver"));
        assert!(refused("", &[]).contains("is empty"));
        assert!(refused("[]", &[]).contains("holds no job"));
        assert!(refused("{", &[]).contains("JSON"));
        assert!(refused(r#"{"driver":{"noop":{}}}"#, &["--env", "A=1"]).contains("--env"));
        assert!(refused(r#"{"driver":{"noop":{}}}"#, &["--input", "/nonexistent/x"]).contains("/nonexistent/x"));
    }

    #[test]
    fn a_file_or_a_command_but_not_both_or_neither() {
        assert!(Line::try_parse_from(["x"]).is_err());
        assert!(Line::try_parse_from(["x", "job.json", "--", "true"]).is_err());
    }
}
