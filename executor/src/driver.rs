//! How an executor runs an attempt: one module per driver.
//!
//! Deliberately not here: which driver a job uses (its specification says so), and what follows from an attempt's end
//! (`attempt`).

pub mod limit;
pub mod process;
pub mod noop;
