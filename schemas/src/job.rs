//! A job's specification: what a user asks for, and what is said where they are silent.

use crate::array::ArraySpec;
use crate::depend::{self, Dependency};
use crate::error::{ErrorCode, Rejection};
use crate::id::{JobName, QueueName, Zone};
use crate::limits;
use crate::payload::Payload;
use crate::queue::{self, Concurrency, Priority};
use crate::size::ByteSize;
use crate::time::Millis;
use crate::when::{self, ExitCodes, GiveUp, Start};
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

pub type Labels = BTreeMap<CompactString, CompactString>;

/// What a user asks to have run (contract, section 2). Only `driver` is required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<JobName>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: JobKind,
    pub driver: Driver,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoint: CheckpointPolicy,
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// How long one attempt may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// Not before when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<GiveUp>,
    /// After so long without output an attempt is ended, and followed by another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_timeout: Option<Millis>,
    /// Whether two attempts must never overlap, not even through a partition.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exclusive: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    #[serde(default, skip_serializing_if = "is_default")]
    pub queue: QueueName,
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Whether it gives way to a job of a higher priority that finds no room.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preemptible: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Box<Concurrency>>,
    /// Jobs that have to end before this one begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Many tasks in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArraySpec>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Ends by itself.
    #[default]
    Batch,
    /// Runs until it is stopped.
    Service,
}

/// How an executor runs an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    Process(ProcessSpec),
    Noop(NoopSpec),
}

/// Any command, run in the job's state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Succeeds at once, inside the executor, with its input as its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoopSpec {}

/// What an attempt has set aside for it on its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub cpu_millis: u32,
    pub memory: ByteSize,
}

impl Default for Resources {
    fn default() -> Self {
        Resources { cpu_millis: 100, memory: ByteSize::mib(64) }
    }
}

/// Where a job may run. Empty means anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<Zone>,
    /// Every one of these must be among the executor's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiesce {
    /// Stop the job's processes while their files are read.
    #[default]
    Freeze,
    /// Read the files as they are.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointPolicy {
    /// From the beginning of one checkpoint to the beginning of the next.
    pub interval: Millis,
    /// From the end of one checkpoint to the beginning of the next, at least.
    pub min_pause: Millis,
    /// How long one checkpoint may take.
    pub timeout: Millis,
    /// How many completed checkpoints are kept.
    pub retain: u32,
    pub quiesce: Quiesce,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        CheckpointPolicy {
            interval: Millis::secs(60),
            min_pause: Millis::secs(5),
            timeout: Millis::minutes(10),
            retain: 3,
            quiesce: Quiesce::Freeze,
        }
    }
}

/// A factor in thousandths, so that the core computes in whole numbers. People write it as a decimal: `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(pub u32);

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(f64::from(self.0) / 1_000.0)
        } else {
            serializer.serialize_u32(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u32::deserialize(deserializer).map(Factor);
        }
        let given = f64::deserialize(deserializer)?;
        if (0.0..=1_000.0).contains(&given) {
            Ok(Factor((given * 1_000.0).round() as u32))
        } else {
            Err(serde::de::Error::custom(format_args!("{given} is a factor{NOT_WITHIN}0 to 1000")))
        }
    }
}

/// How a failed attempt is followed by another. What is not given is filled in by [`JobSpec::restart_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    /// Attempts that may fail by the job's own doing. A batch job has so many in all; of a service they count in a
    /// row. Absent: by the job's kind. `null`: no end.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub max_attempts: Option<Option<u32>>,
    pub initial_backoff: Millis,
    pub max_backoff: Millis,
    pub multiplier: Factor,
    pub jitter: Factor,
    /// An attempt that ran for this long wipes out the delays that have grown before it, and, for a service, the
    /// attempts that have failed.
    pub reset_after: Millis,
    /// An attempt that ends with one of these is the last. A death by signal n counts as 128 + n.
    #[serde(skip_serializing_if = "ExitCodes::is_empty")]
    pub no_retry_exit_codes: ExitCodes,
}

impl Default for Restart {
    fn default() -> Self {
        Restart {
            max_attempts: None,
            initial_backoff: Millis::secs(1),
            max_backoff: Millis::minutes(1),
            multiplier: Factor(1_500),
            jitter: Factor(100),
            reset_after: Millis::minutes(10),
            no_retry_exit_codes: ExitCodes::default(),
        }
    }
}

/// Tells `null` from absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::<u32>::deserialize(deserializer).map(Some)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Attempts a batch job gets when its spec does not say (contract).
const BATCH_MAX_ATTEMPTS: u32 = 3;

impl JobSpec {
    /// A job with every default, for tests and benchmarks.
    pub fn new(driver: Driver) -> JobSpec {
        JobSpec {
            name: None,
            kind: JobKind::default(),
            driver,
            input: None,
            resources: Resources::default(),
            placement: Placement::default(),
            checkpoint: CheckpointPolicy::default(),
            restart: Restart::default(),
            timeout: None,
            start: None,
            deadline: None,
            progress_timeout: None,
            exclusive: false,
            labels: Labels::new(),
            queue: QueueName::default(),
            priority: Priority::default(),
            preemptible: false,
            concurrency: None,
            depends_on: Vec::new(),
            array: None,
        }
    }

    /// How many attempts may fail by the job's own doing before the job has failed; nothing means no end.
    pub fn max_attempts(&self) -> Option<u32> {
        self.restart.max_attempts.unwrap_or(match self.kind {
            JobKind::Batch => Some(BATCH_MAX_ATTEMPTS),
            JobKind::Service => None,
        })
    }

    /// Whether attempts have a state directory, logs and a data key.
    pub fn keeps_state(&self) -> bool {
        matches!(self.driver, Driver::Process(_))
    }

    /// Checks every value against its range.
    ///
    /// Errors: `invalid_argument` naming the field, the value and the range; `limit_exceeded` for what is too large;
    /// `unsupported` for what does not go together.
    pub fn validate(&self) -> Result<(), Rejection> {
        if self.name.as_ref().is_some_and(JobName::is_reserved) {
            return Err(invalid(
                "name",
                "looks like a job id; Outlive keeps such names for itself: choose another, or give none",
            ));
        }
        if let Some(input) = &self.input {
            at_most("input", "bytes", input.0.len(), limits::INPUT_BYTES_MAX)?;
        }
        match &self.driver {
            Driver::Process(process) => process.validate()?,
            Driver::Noop(_) if self.kind == JobKind::Service => {
                return Err(Rejection::new(
                    ErrorCode::Unsupported,
                    "`kind` is service, but a noop job ends at once: use kind batch, or the process driver",
                ));
            }
            Driver::Noop(_) => {}
        }
        in_range("resources.cpu_millis", self.resources.cpu_millis, 1, limits::CPU_MILLIS_MAX)?;
        size_in_range("resources.memory", self.resources.memory, ByteSize::mib(1), ByteSize(limits::MEMORY_BYTES_MAX))?;
        at_most("placement.zones", "zones", self.placement.zones.len(), limits::PLACEMENT_ZONES_MAX)?;
        validate_labels("placement.labels", &self.placement.labels)?;
        validate_labels("labels", &self.labels)?;
        depend::validate(&self.depends_on)?;
        if let Some(array) = &self.array {
            array.validate(self)?;
        }
        self.checkpoint.validate()?;
        self.restart.validate()?;
        if let Some(timeout) = self.timeout {
            duration_in_range("timeout", timeout, Millis(1), Millis(limits::DURATION_MS_MAX))?;
        }
        when::validate(self)?;
        queue::validate(self)
    }
}

impl ProcessSpec {
    fn validate(&self) -> Result<(), Rejection> {
        let first = self.command.first().map(String::as_str).unwrap_or_default();
        if first.is_empty() {
            return Err(invalid(
                "driver.process.command",
                "is empty: give the program and its arguments, such as [\"sh\", \"-c\", \"…\"]",
            ));
        }
        at_most("driver.process.command", "words", self.command.len(), limits::COMMAND_ARGS_MAX)?;
        at_most(
            "driver.process.command",
            "bytes",
            self.command.iter().map(String::len).sum(),
            limits::COMMAND_BYTES_MAX,
        )?;
        at_most("driver.process.env", "variables", self.env.len(), limits::ENV_VARS_MAX)?;
        at_most(
            "driver.process.env",
            "bytes",
            self.env.iter().map(|(k, v)| k.len() + v.len()).sum(),
            limits::ENV_BYTES_MAX,
        )?;
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err(invalid("driver.process.command", "holds a NUL byte, which no command line can"));
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Err(invalid(
                    "driver.process.env",
                    &format!(
                        "variable `{}`: a name is not empty and holds no `=`; neither holds a NUL byte",
                        key.escape_default()
                    ),
                ));
            }
            if key.starts_with("OUTLIVE_") {
                return Err(invalid(
                    "driver.process.env",
                    &format!("variable `{key}`: names beginning with OUTLIVE_ are set by Outlive"),
                ));
            }
        }
        Ok(())
    }
}

impl CheckpointPolicy {
    fn validate(&self) -> Result<(), Rejection> {
        let longest = Millis(limits::CHECKPOINT_INTERVAL_MS_MAX);
        duration_in_range("checkpoint.interval", self.interval, Millis(limits::CHECKPOINT_INTERVAL_MS_MIN), longest)?;
        duration_in_range("checkpoint.min_pause", self.min_pause, Millis::ZERO, longest)?;
        duration_in_range("checkpoint.timeout", self.timeout, Millis(100), longest)?;
        in_range("checkpoint.retain", self.retain, 1, limits::CHECKPOINT_RETAIN_MAX)
    }
}

impl Restart {
    fn validate(&self) -> Result<(), Rejection> {
        if let Some(Some(max_attempts)) = self.max_attempts {
            in_range("restart.max_attempts", max_attempts, 1, limits::RESTART_ATTEMPTS_MAX)?;
        }
        let longest = Millis(limits::DURATION_MS_MAX);
        duration_in_range("restart.initial_backoff", self.initial_backoff, Millis::ZERO, longest)?;
        duration_in_range("restart.max_backoff", self.max_backoff, self.initial_backoff, longest)?;
        duration_in_range("restart.reset_after", self.reset_after, Millis::ZERO, longest)?;
        if self.multiplier < Factor(1_000) || self.multiplier > Factor(100_000) {
            return Err(invalid(
                "restart.multiplier",
                &format!("is {}, not within 1 to 100", f64::from(self.multiplier.0) / 1e3),
            ));
        }
        if self.jitter > Factor(1_000) {
            return Err(invalid(
                "restart.jitter",
                &format!("is {}, not within 0 to 1", f64::from(self.jitter.0) / 1e3),
            ));
        }
        Ok(())
    }
}

fn validate_labels(field: &'static str, labels: &Labels) -> Result<(), Rejection> {
    at_most(field, "labels", labels.len(), limits::LABELS_MAX)?;
    for (key, value) in labels {
        at_most(field, "bytes in a label", key.len().max(value.len()), limits::LABEL_BYTES_MAX)?;
        if key.is_empty() || key.chars().chain(value.chars()).any(char::is_control) {
            return Err(invalid(
                field,
                &format!(
                    "label `{}`: a key is not empty, and neither part holds control characters",
                    key.escape_default()
                ),
            ));
        }
    }
    Ok(())
}

/// Between a value and its range, in what is said of a value that is out of it.
pub(crate) const NOT_WITHIN: &str = ", not within ";

/// A refusal that names the field.
pub fn invalid(field: &str, what: &str) -> Rejection {
    Rejection::new(ErrorCode::InvalidArgument, format!("`{field}` {what}"))
}

/// Checks a number against its range.
pub fn in_range(field: &str, given: u32, min: u32, max: u32) -> Result<(), Rejection> {
    if (min..=max).contains(&given) {
        Ok(())
    } else {
        Err(invalid(field, &format!("is {given}, not within {min} to {max}")))
    }
}

/// Checks a length of time against its range.
pub fn duration_in_range(field: &str, given: Millis, min: Millis, max: Millis) -> Result<(), Rejection> {
    if (min..=max).contains(&given) {
        Ok(())
    } else {
        Err(invalid(field, &format!("is {given}, not within {min} to {max}")))
    }
}

fn size_in_range(field: &str, given: ByteSize, min: ByteSize, max: ByteSize) -> Result<(), Rejection> {
    if (min..=max).contains(&given) {
        Ok(())
    } else {
        Err(invalid(field, &format!("is {given}, not within {min} to {max}")))
    }
}

fn at_most(field: &str, unit: &str, given: usize, max: usize) -> Result<(), Rejection> {
    if given <= max {
        Ok(())
    } else {
        Err(Rejection::new(ErrorCode::LimitExceeded, format!("`{field}` has {given} {unit}; the limit is {max}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> JobSpec {
        serde_json::from_str(json).expect(json)
    }

    fn refused(json: &str) -> String {
        let rejection = spec(json).validate().expect_err(json);
        format!("{}: {}", rejection.code.as_str(), rejection.message)
    }

    #[test]
    fn only_the_driver_is_required() {
        let noop = spec(r#"{"driver":{"noop":{}}}"#);
        assert_eq!(noop, JobSpec::new(Driver::Noop(NoopSpec {})));
        assert_eq!(noop.max_attempts(), Some(3));
        assert_eq!(serde_json::to_string(&noop).expect("json"), r#"{"driver":{"noop":{}}}"#);
    }

    #[test]
    fn the_contracts_example_is_taken() {
        let text = r#"{
          "name": "counter", "kind": "service",
          "driver": {"process": {"command": ["sh", "-c", "…"], "env": {"KEY": "value"}}},
          "input": "text", "resources": {"cpu_millis": 100, "memory": "64MiB"},
          "placement": {"zones": ["a", "b"], "labels": {"disk": "ssd"}},
          "checkpoint": {"interval": "10s", "min_pause": "5s", "timeout": "10m", "retain": 3, "quiesce": "freeze"},
          "restart": {"max_attempts": null, "initial_backoff": "1s", "max_backoff": "1m", "multiplier": 1.5, "jitter": 0.1, "reset_after": "10m"},
          "timeout": "1h", "exclusive": false, "labels": {"team": "data"}
        }"#;
        let counter = spec(text);
        counter.validate().expect("valid");
        assert_eq!(counter.max_attempts(), None);
        let binary = rmp_serde::to_vec_named(&counter).expect("msgpack");
        assert_eq!(rmp_serde::from_slice::<JobSpec>(&binary).expect("back"), counter);
    }

    #[test]
    fn values_out_of_range_name_the_field_the_value_and_the_range() {
        assert_eq!(
            refused(r#"{"driver":{"noop":{}},"checkpoint":{"interval":"50ms"}}"#),
            "invalid_argument: `checkpoint.interval` is 50ms, not within 100ms to 24h"
        );
        assert_eq!(
            refused(r#"{"driver":{"noop":{}},"resources":{"cpu_millis":4000000000}}"#),
            "invalid_argument: `resources.cpu_millis` is 4000000000, not within 1 to 1000000"
        );
        assert!(
            refused(r#"{"driver":{"process":{"command":[]}}}"#)
                .starts_with("invalid_argument: `driver.process.command`")
        );
        assert!(refused(r#"{"driver":{"process":{"command":["a"],"env":{"A=B":"c"}}}}"#).contains("A=B"));
        assert!(
            refused(r#"{"driver":{"process":{"command":["a"],"env":{"OUTLIVE_ATTEMPT":"9"}}}}"#).contains("OUTLIVE_")
        );
        assert!(refused(r#"{"driver":{"noop":{}},"kind":"service"}"#).starts_with("unsupported"));
        assert!(refused(r#"{"driver":{"noop":{}},"restart":{"multiplier":0.5}}"#).contains("restart.multiplier"));
        assert!(refused(r#"{"driver":{"noop":{}},"name":"0197f3c8-0000-7000-8000-000000000001"}"#).contains("`name`"));
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_refused() {
        for text in [
            r#"{"driver":{"noop":{}},"colour":"red"}"#,
            r#"{"driver":{"noop":{"x":1}}}"#,
            r#"{"driver":{"docker":{}}}"#,
            r#"{"driver":{"noop":{}},"resources":{"cpu_millis":-1}}"#,
            r#"{"driver":{"noop":{}},"resources":{"cpu_millis":1e99}}"#,
            r#"{"driver":{"noop":{}},"restart":{"jitter":-1}}"#,
            r#"{"driver":{"noop":{}},"name":"../etc"}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<JobSpec>(text).is_err(), "{text}");
        }
    }
}
