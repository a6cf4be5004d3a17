//! Whether an executor can take a job at all, and if not, why.
//!
//! The planner and `why` ask the same question here, so that they cannot disagree.

use crate::queue::Shape;
use outlive_schemas::executor::{Capacity, Registration};
use std::fmt;

/// Why an executor cannot take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Infeasible {
    Driver,
    Zone,
    Label { key: String, wanted: String, found: Option<String> },
    Cpu { need: u64, free: u64 },
    Memory { need: u64, free: u64 },
    Slots,
}

/// Whether it can take the job now.
///
/// Errors: the first reason that is found, the lasting ones before the passing ones.
pub fn fits(shape: &Shape, executor: &Registration, free: &Capacity) -> Result<(), Infeasible> {
    suits(shape, executor)?;
    let need = &shape.need;
    if free.cpu_millis < need.cpu_millis {
        return Err(Infeasible::Cpu { need: need.cpu_millis, free: free.cpu_millis });
    }
    if free.memory_bytes < need.memory_bytes {
        return Err(Infeasible::Memory { need: need.memory_bytes, free: free.memory_bytes });
    }
    if free.slots < need.slots {
        return Err(Infeasible::Slots);
    }
    Ok(())
}

/// Whether it could take the job if it had room.
pub(crate) fn suits(shape: &Shape, executor: &Registration) -> Result<(), Infeasible> {
    if !executor.drivers.contains(&shape.driver) {
        return Err(Infeasible::Driver);
    }
    if !shape.placement.zones.is_empty() && !shape.placement.zones.contains(&executor.zone) {
        return Err(Infeasible::Zone);
    }
    for (key, wanted) in &shape.placement.labels {
        let found = executor.labels.get(key);
        if found != Some(wanted) {
            let found = found.map(ToString::to_string);
            return Err(Infeasible::Label { key: key.to_string(), wanted: wanted.to_string(), found });
        }
    }
    Ok(())
}

impl fmt::Display for Infeasible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self {
            Infeasible::Driver => f.write_str("it does not have the job's driver"),
            Infeasible::Zone => f.write_str("it is in none of the job's zones"),
            Infeasible::Label { key, wanted, found: None } => write!(f, "it has no label {key}={wanted}"),
            Infeasible::Label { key, wanted, found: Some(found) } => {
                write!(f, "its label {key} is {found}, not {wanted}")
            }
            Infeasible::Cpu { need, free } => write!(f, "cpu: {need} millicores needed, {free} free"),
            Infeasible::Memory { need, free } => {
                write!(f, "memory: {} MiB needed, {} MiB free", need.div_ceil(MIB), free / MIB)
            }
            Infeasible::Slots => f.write_str("all its slots are taken"),
        }
    }
}
