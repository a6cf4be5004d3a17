//! The command line as a whole: the flags that every command takes, and the commands. Each command's own flags stand
//! beside what it does.

use crate::output::Output;
use crate::{
    backup, bench, chaos, completions, config_show, dev, executor, job, keys, log, man, probe, queue, schedule,
    scheduler, snapshot, status, top, zone,
};
use clap::{Args, Parser, Subcommand};
use outlive_schemas::id::Namespace;
use outlive_schemas::time::Millis;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  outlive dev --zones 3                            three zones on this machine
  outlive job run -- sh -c 'echo hello'            run a command, follow its output, exit as it does
  outlive job submit job.json                      submit and return
  outlive job list --status running
  outlive status

Exit codes: 0 ok; 1 internal; 2 usage or bad spec; 3 not found; 4 conflict; 5 denied or quota; 6 unavailable;
7 timeout; 10 the job failed; 130 interrupted.";

/// Jobs that outlive the machines they run on.
#[derive(Debug, Parser)]
#[command(name = "outlive", version, after_help = EXAMPLES, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// NATS servers, separated by commas [default: nats.servers of the configuration]
    #[arg(long, short, global = true, env = "NATS_URL", value_name = "URL")]
    pub server: Option<String>,
    /// A NATS credentials file
    #[arg(long, global = true, env = "NATS_CREDS", hide_env = true, value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// A NATS context, as made by `nats context add`
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace of the jobs
    #[arg(long, short, global = true, env = "OUTLIVE_NAMESPACE", default_value = "default", value_name = "NAME")]
    pub namespace: Namespace,
    /// A configuration file, read after /etc/outlive/outlive.toml and the user's
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are written to standard output
    #[arg(long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// How long to go on trying while nobody answers
    #[arg(long, global = true, default_value = "30s", value_parser = Millis::parse, value_name = "DURATION")]
    pub request_timeout: Millis,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system on this machine, with real parts
    Dev(dev::DevArgs),
    /// Submit, follow and end jobs
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Take, list and delete named versions of a job's state
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Run jobs at set times
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Set queues up, pause them, and see what waits
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Say how the cluster is
    Status(status::StatusArgs),
    /// Show how the cluster is, again and again
    Top(top::TopArgs),
    /// Run an executor in the foreground, or ask about executors
    Executor(executor::ExecutorArgs),
    /// Ask about zones, and empty them
    #[command(subcommand)]
    Zone(zone::ZoneCommand),
    /// Run a scheduler in the foreground
    Scheduler(scheduler::SchedulerArgs),
    /// Check the log, or accept that it lost something
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Copy the whole cluster into a directory, while it runs
    Backup(backup::BackupArgs),
    /// Fill an empty cluster from a backup
    Restore(backup::restore::RestoreArgs),
    /// Make the keys that everything is sealed with
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show the configuration, and where it comes from
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
    /// Break parts of a running `outlive dev`, and see what happens
    Chaos(chaos::ChaosArgs),
    /// Measure the system, beside the limits it stands on
    Bench(bench::BenchArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    Man(man::ManArgs),
    /// Ask a page such as /readyz, and end with 0 if it answers 200: for health checks
    Probe(probe::ProbeArgs),
    /// The process between an executor and one attempt; started by executors only
    #[command(hide = true)]
    Shim,
    /// Becomes a program that ends with `outlive dev`; started by it only
    #[command(hide = true)]
    DevChild(dev::DevChildArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                let examples = sub.get_after_help().or(sub.get_after_long_help()).map(ToString::to_string);
                assert!(
                    sub.has_subcommands() || examples.is_some_and(|text| text.contains("outlive")),
                    "`{path} --help` shows no example"
                );
                check(sub, &path);
            }
        }
        check(&Cli::command(), "outlive");
    }

    #[test]
    fn global_flags_stand_before_and_after_the_command() {
        for line in [
            &["outlive", "-s", "nats://h:1", "-n", "team-a", "--output", "json", "job", "list"][..],
            &["outlive", "job", "list", "--output", "json", "--namespace", "team-a", "--server", "nats://h:1"][..],
        ] {
            let cli = Cli::try_parse_from(line).expect("it parses");
            assert_eq!(cli.global.server.as_deref(), Some("nats://h:1"));
            assert_eq!(cli.global.namespace.as_str(), "team-a");
            assert_eq!(cli.global.output, Output::Json);
        }
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_value() {
        for (line, value) in [
            (&["outlive", "-n", "Team_A", "job", "list"][..], "Team_A"),
            (&["outlive", "job", "get", "../x"][..], "../x"),
            (&["outlive", "job", "wait", "a", "--timeout", "soon"][..], "soon"),
            (&["outlive", "job", "run", "--memory", "lots", "--", "true"][..], "lots"),
            (&["outlive", "job", "run", "--env", "KEY", "--", "true"][..], "KEY"),
        ] {
            let error = Cli::try_parse_from(line).expect_err("it is refused");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(value), "{error}");
        }
    }
}
