//! Logs: on standard error, for people on a terminal and as JSON lines elsewhere, filtered by OUTLIVE_LOG.

use crate::failure::Failure;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

const VARIABLE: &str = "OUTLIVE_LOG";

/// Who reads the logs where OUTLIVE_LOG does not say what to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Of a long-running role: wants to know what happens.
    Operator,
    /// Of a command: wants its result, and to hear of what is wrong.
    User,
}

impl Audience {
    fn filter(self) -> &'static str {
        match self {
            Audience::Operator => "info",
            Audience::User => "error",
        }
    }
}

/// Starts logging, once.
pub fn start(audience: Audience) -> Result<(), Failure> {
    let given = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = parse(given.as_deref().unwrap_or(audience.filter()))?;
    let terminal = std::io::stderr().is_terminal();
    let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if terminal {
        lines.with_ansi(coloured).try_init()
    } else {
        lines.json().flatten_event(true).with_ansi(false).try_init()
    };
    started.map_err(|error| Failure::usage(format!("logging cannot be started: {error}")))
}

fn parse(filter: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!(
            "{VARIABLE} is `{filter}`: {error}. Give a level such as `debug`, or `info,outlive=debug`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in [Audience::Operator.filter(), Audience::User.filter(), "warn,outlive_scheduler=debug"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let refused = parse("outlive=loud").expect_err("it is refused");
        assert!(refused.to_string().contains("outlive=loud"));
    }
}
