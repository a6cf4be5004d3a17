//! How long jobs, and the leader, are away after each kind of loss; every row beside its aim.
//!
//! A system of three zones of its own, real servers and real kills. What is measured is the contract's `recovery_ms`:
//! from the last sign of life of the old attempt until the new one's process is started. `from_kill_ms` is the same
//! as the job itself sees it, by the clock on the wall, and proves the former.

mod field;
mod sleepers;
mod tries;

use crate::args::Global;
use crate::progress::Progress;
use clap::{Args, ValueEnum};
use field::Field;
use outlive_schemas::time::Millis;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  outlive bench recovery --json\n  outlive bench recovery --row executor --row leader \
                        --tries 20 --json"
)]
pub struct RecoveryArgs {
    /// Print the figures as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Tries of each row
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub tries: u32,
    /// Only these rows [default: all]
    #[arg(long = "row", value_enum, value_name = "NAME")]
    pub rows: Vec<Loss>,
    /// Stop a row after so long, with the tries that there are
    #[arg(long, default_value = "1h", value_parser = Millis::parse, value_name = "DURATION")]
    pub at_most: Millis,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The job's process is killed
    Process,
    /// An executor is killed
    Executor,
    /// An executor is frozen
    Silent,
    /// A zone is killed that holds neither leader
    Zone,
    /// A zone is killed that holds the leader of the log's stream
    ZoneStream,
    /// A zone is killed that holds the leading scheduler
    ZoneScheduler,
    /// The leading scheduler is killed
    Leader,
    /// The leading scheduler is asked to stop
    HandOver,
    /// An executor with a thousand running jobs is killed
    Sleepers,
}

/// Added to the aim of a killed process, and taken off what is measured: the job's own backoff.
const BACKOFF_MS: u64 = 100;

impl Loss {
    fn aim_ms(self) -> u64 {
        match self {
            Loss::Process => 100,
            Loss::Executor => 500,
            Loss::Silent | Loss::Zone | Loss::ZoneStream => 3_000,
            Loss::ZoneScheduler => 4_000,
            Loss::Leader | Loss::HandOver => 1_000,
            Loss::Sleepers => 2_000,
        }
    }

    fn measures(self) -> &'static str {
        match self {
            Loss::Process => "the process's exit until its next one is started, without the configured backoff",
            Loss::Leader => "the kill until the first answer of another leader",
            Loss::HandOver => "the old leader's last answer until the new one's first",
            Loss::Sleepers => "the verdict until the last of 1,000 jobs is placed again",
            _ => "the last sign of life until the next process is started",
        }
    }
}

/// One try: what counts, and where its time went.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    pub ms: u64,
    pub parts: BTreeMap<&'static str, u64>,
    /// Things acknowledged that were not there afterwards.
    pub lost: u64,
}

#[derive(Debug, Serialize)]
pub struct Row {
    row: Loss,
    measures: &'static str,
    aim_ms: u64,
    tries: usize,
    median_ms: u64,
    worst_ms: u64,
    within_aim: bool,
    lost: u64,
    /// Medians of the parts.
    parts_ms: BTreeMap<&'static str, u64>,
    /// The parts of the worst try.
    worst_parts_ms: BTreeMap<&'static str, u64>,
    all_ms: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: usize,
    rows: Vec<Row>,
}

impl Row {
    fn of(row: Loss, tried: &[Tried]) -> Row {
        let all_ms: Vec<u64> = tried.iter().map(|tried| tried.ms).collect();
        let mut parts: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        for (name, ms) in tried.iter().flat_map(|tried| &tried.parts) {
            parts.entry(name).or_default().push(*ms);
        }
        let worst = tried.iter().max_by_key(|tried| tried.ms);
        let worst_ms = worst.map_or(0, |tried| tried.ms);
        Row {
            row,
            measures: row.measures(),
            aim_ms: row.aim_ms(),
            tries: tried.len(),
            median_ms: median(all_ms.clone()),
            worst_ms,
            within_aim: worst_ms <= row.aim_ms(),
            lost: tried.iter().map(|tried| tried.lost).sum(),
            parts_ms: parts.into_iter().map(|(name, all)| (name, median(all))).collect(),
            worst_parts_ms: worst.map_or_else(BTreeMap::new, |tried| tried.parts.clone()),
            all_ms,
        }
    }
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

pub async fn run(global: &Global, args: &RecoveryArgs) -> anyhow::Result<Figures> {
    let mut field = Field::open(global).await?;
    let wanted = if args.rows.is_empty() { Loss::value_variants().to_vec() } else { args.rows.clone() };
    let mut rows = Vec::new();
    for row in wanted {
        let progress = Progress::start(format!("{row:?}"));
        let (begun, at_most) = (Instant::now(), Duration::from(args.at_most));
        let mut tried = Vec::new();
        while tried.len() < args.tries as usize && begun.elapsed() < at_most {
            progress.say(format!("{row:?}: try {} of {}", tried.len() + 1, args.tries));
            tried.push(field.attempt(row).await?);
        }
        progress.clear();
        field.after(row).await?;
        rows.push(Row::of(row, &tried));
    }
    Ok(Figures { zones: field.stage.zones.len(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_median_and_worst_beside_its_aim() {
        let tried = [700, 300, 400].map(|ms| Tried { ms, parts: BTreeMap::from([("noticed", ms / 2)]), lost: 0 });
        let row = Row::of(Loss::Executor, &tried);
        assert_eq!((row.median_ms, row.worst_ms, row.within_aim), (400, 700, false));
        assert_eq!((row.parts_ms["noticed"], row.worst_parts_ms["noticed"]), (200, 350));
        assert_eq!(Row::of(Loss::Zone, &tried).aim_ms, 3_000);
        assert!(Row::of(Loss::Zone, &tried).within_aim);
    }
}
