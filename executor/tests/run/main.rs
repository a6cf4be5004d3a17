//! A whole executor on a real nats-server and a real etcd, led by a leader that says what a case wants it to say.

#[path = "../../../store/tests/support/mod.rs"]
mod support;
mod leader;
mod world;

mod again;
mod ending;
mod moving;
mod orders;
mod starting;
