//! The core, told as stories: `given` what has happened, `when` something is asked, `then` this follows.
//!
//! One file per decision. Every fold on the way is followed by a check of the whole state (`scene`); random stories
//! are in `properties`.

mod scene;

mod submit;
mod depend;
mod array;
mod stop;
mod delete;
mod repeat;
mod keep;
mod report;
mod restart;
mod restore;
mod snapshots;
mod life;
mod executor;
mod place;
mod planner;
mod preempt;
mod queues;
mod drain;
mod zones;
mod when;
mod schedule;
mod why;
mod views;
mod detector;
mod folding;
mod properties;
