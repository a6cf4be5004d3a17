//! `outlive completions`.

use crate::args::Cli;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive completions bash > /etc/bash_completion.d/outlive")]
pub struct CompletionsArgs {
    shell: Shell,
}

pub fn run(args: CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "outlive", &mut text);
    crate::output::line(text.trim_ascii_end())?;
    Ok(())
}
