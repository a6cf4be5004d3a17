//! Cron expressions in time zones → points in time.
//!
//! The zones are those that are built in, so that every scheduler knows the same, whatever is installed on its host:
//! nothing is read from there. A decision puts the times it finds into its events, so that a fold needs none of this.
//!
//! When clocks change it does what `croner` does. A fixed time of day (one hour, one minute, one second) that is left out
//! comes at the first moment after the gap, and one that comes twice counts the first time only. All others (wildcards,
//! steps, ranges, lists) follow the clock on the wall: what is left out does not come, what comes twice counts twice.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use outlive_schemas::error::Rejection;
use outlive_schemas::job::invalid;
use outlive_schemas::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

const SHAPE: &str = "give minute, hour, day of month, month and day of week, such as `30 4 * * MON-FRI`, with seconds \
                     before them if you like, or one of @hourly, @daily, @weekly, @monthly and @yearly";

impl Calendar {
    pub fn of(cron: &str, time_zone: &str) -> Result<Calendar, Rejection> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let shown = |text: &str| text.chars().take(80).collect::<String>().escape_default().to_string();
        let refused =
            |why: &str| invalid("cron", &format!("is `{}`, which cannot be read ({why}): {SHAPE}", shown(cron)));
        // Its parser takes an `@` anywhere.
        if cron.contains('@') && !cron.trim_start().starts_with('@') {
            return Err(refused("`@` within an expression"));
        }
        let parsed = parser.parse(cron).map_err(|error| refused(&error.to_string()))?;
        let zone = TimeZoneDatabase::bundled().get(time_zone).map_err(|_| {
            let what =
                format!("is `{}`, which is no time zone: give a name such as UTC or Europe/Berlin", shown(time_zone));
            invalid("time_zone", &what)
        })?;
        Ok(Calendar { cron: parsed, zone })
    }

    /// The first tick after that moment; nothing where there is none in sight.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = self.local(moment)?;
        let found = self.cron.find_next_occurrence(&from, false).ok()?;
        timestamp(&found).filter(|tick| *tick > moment)
    }

    /// The newest tick at that moment or before it.
    pub fn last_until(&self, moment: Timestamp) -> Option<Timestamp> {
        let from = self.local(moment)?;
        let found = self.cron.find_previous_occurrence(&from, true).ok()?;
        timestamp(&found).filter(|tick| *tick <= moment)
    }

    /// The ticks from that one on, itself among them.
    pub fn from(&self, tick: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(Some(tick), move |tick| self.next_after(*tick))
    }

    /// In whole seconds, as ticks are.
    fn local(&self, moment: Timestamp) -> Option<jiff::Zoned> {
        let seconds = i64::try_from(moment.0 / 1_000).ok()?;
        Some(jiff::Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }
}

fn timestamp(found: &jiff::Zoned) -> Option<Timestamp> {
    u64::try_from(found.timestamp().as_second()).ok().map(|seconds| Timestamp(seconds * 1_000))
}

/// `20260101t000000z`, as in the names of jobs.
pub fn in_a_name(tick: Timestamp) -> String {
    let at = i64::try_from(tick.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime("%Y%m%dt%H%M%Sz").to_string()
}
