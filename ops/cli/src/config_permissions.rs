//! `outlive config permissions`: what a kind of user may publish and subscribe to, as nats-server's configuration has it.

use crate::args::Global;
use crate::output::{self, Output};
use clap::{Args, ValueEnum};
use outlive_schemas::permission::Who;
use serde_json::json;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive config permissions executor
  outlive --namespace team-b config permissions namespace    for a further user in ops/nats/accounts.conf")]
pub struct PermissionsArgs {
    /// Whose permissions; `namespace` means the users of --namespace
    #[arg(value_enum)]
    who: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Scheduler,
    Executor,
    Operator,
    Namespace,
}

pub fn run(args: &PermissionsArgs, global: &Global) -> anyhow::Result<()> {
    let who = match args.who {
        Kind::Scheduler => Who::Scheduler,
        Kind::Executor => Who::Executor,
        Kind::Operator => Who::Operator,
        Kind::Namespace => Who::Namespace(global.namespace.clone()),
    };
    let permissions = who.permissions();
    match global.output {
        Output::Json => {
            let (prefix, publish, subscribe) = (who.inbox_prefix(), permissions.publish, permissions.subscribe);
            output::line(json!({"inbox_prefix": prefix, "publish": publish, "subscribe": subscribe}).to_string())?;
        }
        Output::Table => {
            output::line(format!("# nats.inbox_prefix = \"{}\"", who.inbox_prefix()))?;
            output::line(permissions.to_conf("").trim_end())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What operators copy from, and what the live test starts, is what the code says.
    #[test]
    fn the_committed_accounts_and_docs_are_those_of_the_code() {
        let accounts = include_str!("../../nats/accounts.conf");
        let docs = include_str!("../../docs/security.md");
        let team = Who::Namespace("team-a".parse().expect("a namespace"));
        for who in [Who::Scheduler, Who::Executor, Who::Operator, team] {
            let permissions = who.permissions();
            let block = permissions.to_conf("        ");
            assert!(accounts.contains(&block), "{who:?}: put this into ops/nats/accounts.conf:\n{block}");
            for subject in permissions.publish.iter().chain(&permissions.subscribe) {
                let shown = subject.replace("team-a", "NAMESPACE");
                assert!(docs.contains(&format!("`{shown}`")), "ops/docs/security.md lacks `{shown}` of {who:?}");
            }
            assert!(docs.contains(&format!("`{}`", who.inbox_prefix().replace("team-a", "NAMESPACE"))));
        }
    }
}
