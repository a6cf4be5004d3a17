//! `outlive schedule`: jobs at set times.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::failure::Failure;
use crate::human::{self, relative};
use crate::job::spec::{SpecArgs, Specs};
use crate::output::{self, Details, Output, Table};
use clap::{Args, Subcommand};
use outlive_core::calendar::Calendar;
use outlive_schemas::id::ScheduleName;
use outlive_schemas::limits;
use outlive_schemas::schedule::{CatchUp, Overlap, PutRequest, ScheduleListRequest, ScheduleRequest, ScheduleView};
use outlive_schemas::time::{Millis, Timestamp};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Make a schedule, or change one, and show its next ten times
    Put(PutArgs),
    /// Show the next ten times of an expression, without a server
    Next(NextArgs),
    /// Show a schedule
    #[command(after_help = "Examples:\n  outlive schedule get nightly")]
    Get(Which),
    /// List schedules
    List(ListArgs),
    /// Forget a schedule; the jobs that it has started stay
    #[command(after_help = "Examples:\n  outlive schedule delete nightly")]
    Delete(Which),
    /// Start nothing until it is resumed
    #[command(after_help = "Examples:\n  outlive schedule pause nightly")]
    Pause(Which),
    /// Go on; what would have come meanwhile does not come
    #[command(after_help = "Examples:\n  outlive schedule resume nightly")]
    Resume(Which),
    /// Start a job now, beside those of its times
    #[command(after_help = "Examples:\n  outlive schedule trigger nightly")]
    Trigger(Which),
}

const PUT_EXAMPLES: &str = "\
Examples:
  outlive schedule put nightly '30 2 * * *' --time-zone Europe/Berlin -- /opt/report.sh
  outlive schedule put nightly '30 2 * * *' --time-zone Europe/Berlin --dry-run -- /opt/report.sh
  outlive schedule put poll '*/10 * * * * *' --overlap queue --catch-up none -- /opt/poll.sh
  outlive schedule put weekly @weekly --jitter 30m job.json

CRON is minute, hour, day of month, month and day of week, with seconds before them if you
like; names such as MON and JAN, and @hourly, @daily, @weekly, @monthly and @yearly are known.";

#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub struct PutArgs {
    /// The schedule's name; its jobs are named after it and their times
    #[arg(value_name = "NAME")]
    schedule: ScheduleName,
    /// When: an expression such as '30 2 * * MON-FRI'
    cron: String,
    /// Where the clock hangs that it means, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// What becomes of a time while the job of an earlier one is not over [default: skip]
    #[arg(long, value_parser = parse_overlap, value_name = "skip|queue|replace")]
    overlap: Option<Overlap>,
    /// What becomes of times at which no scheduler led [default: one]
    #[arg(long, value_parser = parse_catch_up, value_name = "none|one|all")]
    catch_up: Option<CatchUp>,
    /// Put each time off by up to this, so that schedules of one time do not come at once
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    jitter: Option<Millis>,
    /// Make it, but start nothing until it is resumed
    #[arg(long)]
    paused: bool,
    /// Only show what would be put, and its next ten times
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive schedule next '30 2 * * *' --time-zone America/New_York
  outlive schedule next '0 9 * * MON#1' --after 2027-01-01T00:00:00Z")]
pub struct NextArgs {
    /// When: an expression such as '30 2 * * MON-FRI'
    cron: String,
    /// Where the clock hangs that it means, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// From when on [default: now]
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    after: Option<Timestamp>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive schedule list\n  outlive schedule list --name-prefix nightly-")]
pub struct ListArgs {
    /// Only schedules whose names begin so
    #[arg(long, value_name = "TEXT")]
    name_prefix: Option<String>,
}

#[derive(Debug, Args)]
pub struct Which {
    /// The schedule's name
    #[arg(value_name = "NAME")]
    name: ScheduleName,
}

fn parse_overlap(text: &str) -> Result<Overlap, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| "it is `skip`, `queue` or `replace`".to_owned())
}

fn parse_catch_up(text: &str) -> Result<CatchUp, String> {
    serde_json::from_value(Value::from(text)).map_err(|_| "it is `none`, `one` or `all`".to_owned())
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

pub async fn run(command: ScheduleCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        ScheduleCommand::Put(args) => put(args, global).await,
        ScheduleCommand::Next(NextArgs { cron, time_zone, after }) => {
            let times = next(&cron, &time_zone, after.unwrap_or_else(human::now))?;
            match global.output {
                Output::Json => output::line(json!({ "next": times }).to_string())?,
                Output::Table => output::line(lines(&times))?,
            }
            Ok(())
        }
        ScheduleCommand::Get(which) => {
            let client = Client::connect(global).await?;
            let reply = client.ask::<ScheduleView>("schedule.get", &ScheduleRequest { name: which.name }).await?;
            show(&reply.raw, &reply.body, global)
        }
        ScheduleCommand::List(args) => list(args, global).await,
        ScheduleCommand::Delete(Which { name }) => {
            let client = Client::connect(global).await?;
            let request = ScheduleRequest { name };
            let reply = client.change::<Value>("schedule.delete", &request, &new_request_id()).await?;
            match global.output {
                Output::Json => output::line(&reply.raw)?,
                Output::Table => output::line(format!("schedule {} is deleted; its jobs stay", request.name))?,
            }
            Ok(())
        }
        ScheduleCommand::Pause(which) => change("schedule.pause", which, global).await,
        ScheduleCommand::Resume(which) => change("schedule.resume", which, global).await,
        ScheduleCommand::Trigger(which) => change("schedule.trigger", which, global).await,
    }
}

async fn change(operation: &str, which: Which, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let request = ScheduleRequest { name: which.name };
    let reply = client.change::<ScheduleView>(operation, &request, &new_request_id()).await?;
    show(&reply.raw, &reply.body, global)
}

/// As a scheduler would compute them.
fn next(cron: &str, time_zone: &str, after: Timestamp) -> anyhow::Result<Vec<Timestamp>> {
    let calendar = Calendar::of(cron, time_zone).map_err(|rejection| Failure::usage(rejection.message))?;
    let first = calendar.next_after(after);
    Ok(first.into_iter().flat_map(|first| calendar.from(first)).take(limits::NEXT_TICKS_SHOWN).collect())
}

fn lines(times: &[Timestamp]) -> String {
    times.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

async fn put(args: PutArgs, global: &Global) -> anyhow::Result<()> {
    let spec = match args.spec.read()? {
        Specs::One(spec) => *spec,
        Specs::Many(_) => return Err(Failure::usage("a schedule submits one job: give a file with one").into()),
    };
    let request = PutRequest {
        name: args.schedule,
        cron: args.cron.as_str().into(),
        time_zone: args.time_zone.as_str().into(),
        overlap: args.overlap.unwrap_or_default(),
        catch_up: args.catch_up.unwrap_or_default(),
        jitter: args.jitter,
        spec,
        paused: args.paused,
    };
    if args.dry_run {
        let times = next(&args.cron, &args.time_zone, human::now())?;
        let (name, definition, _) = request.clone().into_parts();
        definition.validate(&name).map_err(|rejection| Failure::usage(rejection.message))?;
        match global.output {
            Output::Json => output::line(json!({"put": request, "next": times}).to_string())?,
            Output::Table => output::line(format!("{name} would run at\n{}", lines(&times)))?,
        }
        return Ok(());
    }
    let client = Client::connect(global).await?;
    let reply = client.change::<ScheduleView>("schedule.put", &request, &new_request_id()).await?;
    show(&reply.raw, &reply.body, global)
}

async fn list(args: ListArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let mut request = ScheduleListRequest { name_prefix: args.name_prefix, ..ScheduleListRequest::default() };
    let mut schedules: Vec<Value> = Vec::new();
    loop {
        let page = client.ask::<Value>("schedule.list", &request).await?.body;
        if let Value::Object(mut page) = page {
            if let Some(Value::Array(found)) = page.remove("schedules") {
                schedules.extend(found);
            }
            request.cursor = page.remove("cursor").and_then(|c| c.as_str().map(str::to_owned));
        }
        if request.cursor.is_none() {
            break;
        }
    }
    match global.output {
        Output::Json => output::line(json!({"schedules": schedules, "cursor": null}).to_string())?,
        Output::Table => {
            let read = schedules.into_iter().map(serde_json::from_value).collect::<Result<Vec<ScheduleView>, _>>()?;
            output::line(table(&read, human::now()).render())?;
        }
    }
    Ok(())
}

fn table(schedules: &[ScheduleView], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "CRON", "TIME ZONE", "NEXT", "LAST", "OUTCOME", "SKIPPED", "MISSED"]);
    for schedule in schedules {
        let next = match schedule.next.first() {
            _ if schedule.paused => Some("paused".to_owned()),
            next => next.map(ToString::to_string),
        };
        table.row(vec![
            output::cell(&schedule.name),
            output::cell(&schedule.cron),
            output::cell(&schedule.time_zone),
            output::maybe(next),
            output::maybe(schedule.last.as_ref().map(|last| relative(last.tick, now))),
            output::maybe(schedule.last.as_ref().map(|last| last.outcome.as_str())),
            output::cell(schedule.skipped),
            output::cell(schedule.missed),
        ]);
    }
    table
}

fn show(raw: &[u8], schedule: &ScheduleView, global: &Global) -> anyhow::Result<()> {
    match global.output {
        Output::Json => output::line(raw)?,
        Output::Table => output::line(details(schedule, human::now()).render())?,
    }
    Ok(())
}

fn details(schedule: &ScheduleView, now: Timestamp) -> Details {
    let word = |value: Result<Value, serde_json::Error>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut details = Details::new();
    details.line("Name", &schedule.name);
    details.line("Cron", format!("{} ({})", schedule.cron, schedule.time_zone));
    details.line("Overlap", word(serde_json::to_value(schedule.overlap)));
    details.line("Catch-up", word(serde_json::to_value(schedule.catch_up)));
    if let Some(jitter) = schedule.jitter {
        details.line("Jitter", jitter);
    }
    if let Some(last) = &schedule.last {
        let job = last.name.as_ref().map(|name| format!(", job {name}")).unwrap_or_default();
        let reason = last.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        details.line(
            "Last",
            format!("{} ({}), {}{job}{reason}", last.tick, relative(last.tick, now), last.outcome.as_str()),
        );
    }
    details.line("Started", schedule.started);
    details.line("Skipped", schedule.skipped);
    details.line("Missed", schedule.missed);
    if !schedule.queued.is_empty() {
        details.line("Waiting", schedule.queued.len());
    }
    if schedule.paused {
        details.line("Next", "paused; `outlive schedule resume` goes on");
    }
    for (position, next) in schedule.next.iter().enumerate() {
        details.line(if position == 0 { "Next" } else { "" }, next);
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_ten_times_need_no_server() {
        let after = Timestamp::parse("2026-03-28T12:00:00Z").expect("a time");
        let times = next("30 2 * * *", "Europe/Berlin", after).expect("an expression");
        let shown = lines(&times);
        let mut shown = shown.lines();
        // The clock goes from 2 to 3 on that day: right after the gap, and then at the usual time, in summer.
        assert_eq!(shown.next(), Some("2026-03-29T01:00:00.000Z"));
        assert_eq!(shown.next(), Some("2026-03-30T00:30:00.000Z"));
        assert_eq!(times.len(), 10);
        let refused = next("30 25 * * *", "UTC", after).expect_err("an hour that no day has");
        assert!(refused.to_string().contains("`cron` is `30 25 * * *`"), "{refused}");
        assert!(next("@daily", "Mars/Olympus", after).is_err());
    }

    #[test]
    fn words_are_those_of_the_contract() {
        assert_eq!(parse_overlap("replace"), Ok(Overlap::Replace));
        assert_eq!(parse_catch_up("all"), Ok(CatchUp::All));
        assert!(parse_overlap("none").is_err() && parse_catch_up("skip").is_err());
    }
}
