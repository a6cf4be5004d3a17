//! Runs the simulation for many seeds. Exits with 1 at the first violation, and tells how it came about.

use outlive_tests::sim::{self, Kind, Options, Sabotage};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str =
    "usage: simulate [--seeds N] [--first-seed S] [--steps K] [--trace] [--keep-going] [--life] [--drains] [--schedules]
                [--lose-tail] [--focus KIND,…] [--sabotage NAME]

  --seeds N        how many seeds to run (100)
  --first-seed S   the first of them (0)
  --steps K        events before everything is healed (20000)
  --trace          tell what happens, also where nothing is wrong
  --keep-going     tell what is wrong with each seed, and go on
  --life           with stops, starts, updates, rollbacks and snapshots
  --drains         with operators who drain executors and zones
  --schedules      with users who make schedules
  --lose-tail      the log loses acknowledged commits in every run
  --focus KIND,…   with faults of these kinds only, as `sim::Kind` names them
  --sabotage NAME  with a deliberate bug";

struct Wanted {
    seeds: u64,
    first: u64,
    trace: bool,
    keep_going: bool,
    options: Options,
    /// The words that say how each seed is run, to run one of them again.
    again: String,
}

fn wanted() -> Result<Wanted, String> {
    let (options, again) = (Options::default(), String::new());
    let mut wanted = Wanted { seeds: 100, first: 0, trace: false, keep_going: false, options, again };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let given = words.next().ok_or(format!("{word} needs a number"))?;
            given.parse().map_err(|_| format!("{word} needs a number, and `{given}` is none"))
        };
        match word.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--first-seed" => wanted.first = number()?,
            "--steps" => wanted.options.steps = number()?,
            "--trace" => wanted.trace = true,
            "--keep-going" => wanted.keep_going = true,
            "--life" => wanted.options.life = true,
            "--drains" => wanted.options.drains = true,
            "--schedules" => wanted.options.schedules = true,
            "--focus" => {
                let names = words.next().ok_or("--focus needs kinds of faults")?;
                let kind = |name| Kind::named(name).ok_or(format!("`{name}` is no kind of fault"));
                wanted.options.focus = names.split(',').map(kind).collect::<Result<Vec<_>, _>>()?.leak();
            }
            "--lose-tail" => wanted.options.lose_tail = true,
            "--sabotage" => {
                let name = words.next().ok_or("--sabotage needs a name")?;
                let known = || Sabotage::ALL.map(Sabotage::name).join(", ");
                wanted.options.sabotage =
                    Some(Sabotage::named(&name).ok_or_else(|| format!("`{name}` is none of {}", known()))?);
            }
            other => return Err(format!("`{other}` is not known")),
        }
    }
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seeds" | "--first-seed" => drop(words.next()),
            "--trace" | "--keep-going" => {}
            how => wanted.again.extend([" ", how]),
        }
    }
    Ok(wanted)
}

fn main() -> ExitCode {
    let Wanted { seeds, first, trace, keep_going, options, again } = match wanted() {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let (mut commits, mut jobs, mut seconds, mut violations) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let report = if trace { sim::run_traced(seed, &options) } else { sim::run(seed, &options) };
        commits += report.commits;
        jobs += report.jobs;
        seconds += report.virtual_seconds;
        for line in &report.lines {
            println!("{line}");
        }
        if let Some(violation) = report.violation {
            violations += 1;
            if keep_going {
                println!("seed {seed}: {violation}");
                continue;
            }
            if !trace {
                for line in sim::run_traced(seed, &options).lines {
                    println!("{line}");
                }
            }
            println!("\nVIOLATION with seed {seed}: {violation}");
            println!("again: simulate --seeds 1 --first-seed {seed}{again} --trace");
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{seeds} seeds from {first}, {} steps each: {violations} violations; {jobs} jobs, {commits} commits, \
         {seconds} s of virtual time in {:.1} s",
        options.steps,
        begun.elapsed().as_secs_f64()
    );
    if violations > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
