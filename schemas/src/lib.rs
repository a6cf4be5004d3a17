//! What Outlive's parts say to one another and to their users, as pure data.
//!
//! Everything here is shapes, limits and their encodings. Nothing here reads a clock, opens a socket, or decides.
//! The modules stand in the order in which a job meets them.

pub mod limits;
pub mod time;
pub mod id;
pub mod payload;
pub mod size;
pub mod job;
pub mod queue;
pub mod depend;
pub mod array;
pub mod error;
pub mod trace;
pub mod request;
pub mod when;
pub mod schedule;
pub mod command;
pub mod event;
pub mod checkpoint;
pub mod snapshot;
pub mod life;
pub mod executor;
pub mod message;
pub mod view;
pub mod subject;
pub mod permission;
pub mod codec;
