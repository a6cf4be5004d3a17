//! `outlive keys`: the master keys that wrap all others, and nkeys for NATS.

use crate::args::Global;
use crate::failure::Failure;
use crate::output::{self, Output};
use anyhow::Context;
use clap::{Args, Subcommand};
use outlive_store::keyring::{self, GenerateError};
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Write a new master key to a file that must not exist yet
    Generate(GenerateArgs),
    /// Write a new NATS nkey of a user to a file that must not exist yet, and print its public half
    Nkey(NkeyArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive keys generate /etc/outlive/master.key

Name the file in `keys.files` of every scheduler and executor, and keep a copy elsewhere: what is sealed with it is lost
with it.")]
pub struct GenerateArgs {
    /// Where to write the key; only its owner may read it
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive keys nkey /etc/outlive/scheduler.nk

Name the file in `nats.nkey_file`, and the printed public key in the NATS servers' configuration (ops/nats/accounts.conf).")]
pub struct NkeyArgs {
    /// Where to write the seed; only its owner may read it
    file: PathBuf,
}

pub fn run(command: KeysCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate(args) => generate(args, global),
        KeysCommand::Nkey(args) => nkey(args, global),
    }
}

fn nkey(NkeyArgs { file }: NkeyArgs, global: &Global) -> anyhow::Result<()> {
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().context("a new nkey has a seed")?;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut opened| opened.write_all(seed.as_bytes()))
        .with_context(|| Failure::usage(format!("no nkey was written to {}", file.display())))?;
    match global.output {
        Output::Json => output::line(json!({"public_key": pair.public_key(), "file": file}).to_string())?,
        Output::Table => output::line(pair.public_key())?,
    }
    Ok(())
}

fn generate(GenerateArgs { file }: GenerateArgs, global: &Global) -> anyhow::Result<()> {
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
