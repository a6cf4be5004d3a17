//! Outlive's decisions: pure, synchronous, deterministic.
//!
//! A command and the state give events (`decide`), events change the state (`fold`), the state gives plans (`plan`),
//! what is due (`timer`) and who is lost (`detect`). Time, ids and observations come in as arguments. There is no I/O,
//! no clock, no randomness here, and the crate's dependencies prove it.

pub mod queue;
pub mod counts;
pub mod state;
pub mod life;
pub mod when;
pub mod depend;
pub mod array;
pub mod calendar;
pub mod schedule;
pub mod decide;
pub mod fold;
pub mod timer;
pub mod retention;
pub mod referenced;
pub mod detect;
pub mod plan;
pub mod evacuate;
pub mod preempt;
pub mod explain;
pub mod view;
pub mod invariant;

#[cfg(test)]
mod tests;
