//! `outlive keys`: the master keys that wrap all others.

use crate::args::Global;
use crate::failure::Failure;
use crate::output::{self, Output};
use anyhow::Context;
use clap::{Args, Subcommand};
use outlive_store::keyring::{self, GenerateError};
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Write a new master key to a file that must not exist yet
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive keys generate /etc/outlive/master.key

Name the file in `keys.files` of every scheduler and executor, and keep a copy elsewhere: what is sealed with it is lost
with it.")]
pub struct GenerateArgs {
    /// Where to write the key; only its owner may read it
    file: PathBuf,
}

pub fn run(command: KeysCommand, global: &Global) -> anyhow::Result<()> {
    let KeysCommand::Generate(GenerateArgs { file }) = command;
    let id = match keyring::generate_file(&file) {
        Ok(id) => id,
        Err(error @ GenerateError::Exists { .. }) => return Err(Failure::usage(error.to_string()).into()),
        Err(error) => return Err(error).context(Failure::usage("no key was made")),
    };
    match global.output {
        Output::Json => output::line(json!({"id": id.to_string(), "file": file}).to_string())?,
        Output::Table => output::line(format!("key {id} is in {}", file.display()))?,
    }
    Ok(())
}
