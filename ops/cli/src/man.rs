//! `outlive man`.

use crate::args::Cli;
use crate::failure::Failure;
use anyhow::Context;
use clap::{Args, CommandFactory};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive man | man -l -\n  outlive man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for every command into this directory, instead of one to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: ManArgs) -> anyhow::Result<()> {
    let Some(directory) = args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        crate::output::line(page.trim_ascii_end())?;
        return Ok(());
    };
    let refused = || Failure::usage(format!("the manual pages cannot be written to {}", directory.display()));
    std::fs::create_dir_all(&directory).with_context(refused)?;
    clap_mangen::generate_to(Cli::command(), &directory).with_context(refused)
}
