//! The `outlive` command: every part of Outlive is started by it, and every client request of a person comes from it.
//!
//! `args` is the command line as a whole; each command has a module of its name. Clients' commands go by `connection`,
//! `client` and `output`; a failure, wherever it comes from, leaves through `failure`, which alone knows exit codes.
//!
//! Deliberately not here: behaviour. What a job may do is decided by the scheduler, for every client alike.

mod args;
mod failure;
mod logging;
mod config;
mod connection;
mod nats_context;
mod client;
mod output;
mod human;
mod progress;
mod shutdown;
mod dev;
mod chaos;
mod bench;
mod job;
mod snapshot;
mod schedule;
mod queue;
mod status;
mod probe;
mod overview;
mod top;
mod executor;
mod zone;
mod scheduler;
mod log;
mod backup;
mod keys;
mod config_show;
mod config_check;
mod config_permissions;
mod completions;
mod man;

use crate::args::{Cli, Command, Global};
use crate::failure::Failure;
use crate::logging::Audience;
use anyhow::Context;
use clap::Parser;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Replaying, folding and answering are mostly small allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // There is one of these for every running attempt, so it begins with nothing that it does not need.
    if std::env::args_os().nth(1).is_some_and(|word| word == "shim") {
        return outlive_executor::shim::main();
    }
    let cli = Cli::parse();
    start(cli).unwrap_or_else(|error| failure::report(&error))
}

fn start(Cli { global, command }: Cli) -> anyhow::Result<ExitCode> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("another provider of TLS ciphers was installed before ours");
    }
    match command {
        Command::Shim => Ok(outlive_executor::shim::main()),
        Command::DevChild(args) => match dev::run_child(args)? {},
        Command::Dev(args) => {
            logging::start(Audience::User)?;
            // On this very thread: Linux ends dev's children when the thread that started them ends.
            one_thread()?.block_on(dev::run(args))
        }
        Command::Scheduler(_) => {
            logging::start(Audience::Operator)?;
            many_threads()?.block_on(scheduler::run(&global)).map(|()| ExitCode::SUCCESS)
        }
        Command::Executor(executor::ExecutorArgs { command: None, .. }) => {
            logging::start(Audience::Operator)?;
            many_threads()?.block_on(executor::run_role(&global)).map(|()| ExitCode::SUCCESS)
        }
        command => {
            logging::start(Audience::User)?;
            one_thread()?.block_on(interruptible(ask(command, &global)))
        }
    }
}

/// The commands that ask something and end.
async fn ask(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Job(command) => job::run(command, global).await?,
        Command::Snapshot(command) => snapshot::run(command, global).await?,
        Command::Schedule(command) => schedule::run(command, global).await?,
        Command::Queue(command) => queue::run(command, global).await?,
        Command::Status(_) => status::run(global).await?,
        Command::Top(args) => top::run(args, global).await?,
        Command::Executor(args) => executor::ask(args, global).await?,
        Command::Zone(command) => zone::run(command, global).await?,
        Command::Log(command) => log::run(command, global).await?,
        Command::Backup(args) => backup::run(args, global).await?,
        Command::Restore(args) => backup::restore::run(args, global).await?,
        Command::Keys(command) => keys::run(command, global)?,
        Command::Config(command) => return config_show::run(command, global).await,
        Command::Probe(args) => probe::run(args).await?,
        Command::Bench(args) => bench::run(global, args).await?,
        Command::Completions(args) => completions::run(args)?,
        Command::Man(args) => man::run(args)?,
        Command::Chaos(args) => return chaos::run(args, global).await,
        Command::Shim | Command::DevChild(_) | Command::Dev(_) | Command::Scheduler(_) => {
            unreachable!("these are started before")
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends with the contract's exit code at Ctrl-C, unless the work itself has an answer to it.
async fn interruptible(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::select! {
        biased;
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted("interrupted".to_owned()).into()),
    }
}

fn one_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("the runtime cannot be started")
}

fn many_threads() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")
}
