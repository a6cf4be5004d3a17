//! The job files under `ops/examples/`, and jobs that tests need.

use crate::command::repository;
use serde_json::{Value, json};

/// The job of one example, as a user would submit it.
pub fn example(name: &str) -> Value {
    let path = repository().join("ops/examples").join(name).join("job.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A shell script as a batch job.
pub fn script(name: &str, script: &str) -> Value {
    json!({"name": name, "driver": {"process": {"command": ["sh", "-c", script]}}})
}

/// A Python program as a batch job.
pub fn python(name: &str, program: &str) -> Value {
    json!({"name": name, "driver": {"process": {"command": ["python3", "-c", program]}}})
}

pub fn noop(input: &str) -> Value {
    json!({"driver": {"noop": {}}, "input": input})
}
