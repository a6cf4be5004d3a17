//! All processes of one `dev`, dead or alive, and the record of them on disk.
//!
//! What is done here is done at once; waiting is the supervisor's.

use crate::dev::directory::{Directory, write_whole};
use crate::dev::process::{Child, Exited, bound_log};
use crate::dev::record::{ProcessRecord, Record, State};
use crate::dev::settings::Process;
use anyhow::Context as _;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// A log that gets longer is cut; what was said before is kept once.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub struct Fleet {
    directory: Directory,
    outlive: PathBuf,
    record: Record,
    entries: Vec<Entry>,
    ended: mpsc::Sender<Exited>,
    /// Ids of processes that were told to end, so that their end is no news.
    told_to_end: BTreeSet<u32>,
}

#[derive(Debug)]
struct Entry {
    process: Process,
    child: Option<Child>,
    paused: bool,
}

impl Entry {
    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::pid)
    }

    fn state(&self) -> State {
        match (self.pid(), self.paused) {
            (None, _) => State::Dead,
            (Some(_), true) => State::Paused,
            (Some(_), false) => State::Running,
        }
    }
}

impl Fleet {
    /// `record` says what is always so; its processes are filled in here.
    pub fn new(
        directory: Directory,
        outlive: PathBuf,
        record: Record,
        processes: Vec<Process>,
        ended: mpsc::Sender<Exited>,
    ) -> Fleet {
        let entries = processes.into_iter().map(|process| Entry { process, child: None, paused: false }).collect();
        Fleet { directory, outlive, record, entries, ended, told_to_end: BTreeSet::new() }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.entries.iter().map(|entry| &entry.process)
    }

    pub fn state(&self, name: &str) -> Option<State> {
        Some(self.entry(name)?.state())
    }

    pub fn pid(&self, name: &str) -> Option<u32> {
        self.entry(name)?.pid()
    }

    pub fn child(&self, name: &str) -> Option<&Child> {
        self.entry(name)?.child.as_ref()
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.process.member.name == name)
    }

    /// Starts a process that does not run.
    pub fn start(&mut self, name: &str) -> anyhow::Result<u32> {
        let Fleet { directory, outlive, entries, ended, .. } = self;
        let entry = entries
            .iter_mut()
            .find(|entry| entry.process.member.name == name)
            .with_context(|| format!("there is no process {name}"))?;
        debug_assert!(entry.pid().is_none(), "{name} runs");
        let child = Child::start(&entry.process, outlive, &directory.log(name), ended.clone())?;
        let pid = child.pid().with_context(|| format!("{name} ended as it was started"))?;
        entry.child = Some(child);
        entry.paused = false;
        self.save()?;
        Ok(pid)
    }

    /// Sends a signal, and remembers what it means. Says to which process it went, if there was one.
    pub fn signal(&mut self, name: &str, signal: Signal) -> Option<u32> {
        let entry = self.entries.iter_mut().find(|entry| entry.process.member.name == name)?;
        let pid = entry.pid()?;
        if !entry.child.as_ref()?.signal(signal) {
            return None;
        }
        match signal {
            Signal::STOP => entry.paused = true,
            Signal::CONT => entry.paused = false,
            _ => drop(self.told_to_end.insert(pid)),
        }
        self.save_or_say();
        Some(pid)
    }

    /// Whether the end of this process was asked for.
    pub fn was_told_to_end(&mut self, exited: &Exited) -> bool {
        self.told_to_end.remove(&exited.pid)
    }

    pub fn record(&self) -> Record {
        let processes = self.entries.iter().map(|entry| ProcessRecord {
            name: entry.process.member.name.clone(),
            role: entry.process.member.role,
            zone: entry.process.member.zone.to_owned(),
            state: entry.state(),
            pid: entry.pid(),
            metrics: entry.process.metrics.clone(),
        });
        Record { processes: processes.collect(), ..self.record.clone() }
    }

    /// Writes `processes.json`.
    pub fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&self.record()).context("writing processes.json")?;
        write_whole(&self.directory.processes(), &text)
    }

    /// The same, where what was done cannot be undone for it.
    pub fn save_or_say(&self) {
        if let Err(error) = self.save() {
            eprintln!("outlive dev: {error:#}");
        }
    }

    pub fn bound_logs(&self) {
        for Process { member, .. } in self.processes() {
            let log = self.directory.log(&member.name);
            if let Err(error) = bound_log(&log, LOG_BYTES_MAX) {
                eprintln!("outlive dev: cannot bound {}: {error}", log.display());
            }
        }
    }
}
