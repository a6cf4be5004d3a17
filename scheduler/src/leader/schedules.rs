//! The part of the machine that answers for schedules, and takes their ticks.
//!
//! No rules here: `decide` has them.

use super::{Answer, Leader, Output};
use crate::submission::ScheduleAsked;
use outlive_core::{timer, view};
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::Rejection;
use outlive_schemas::id::{Namespace, ScheduleName};
use outlive_schemas::limits;
use outlive_schemas::schedule::ScheduleRequest;
use outlive_schemas::time::Timestamp;

impl Leader {
    pub(super) fn schedule(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        what: ScheduleAsked,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        let (name, command) = match what {
            ScheduleAsked::Get(ScheduleRequest { name }) => return self.shown_schedule(&namespace, &name),
            ScheduleAsked::List(request) => {
                return view::schedules(self.state(), &namespace, &request)
                    .map(|list| Answer::Schedules(Box::new(list)));
            }
            ScheduleAsked::Delete(ScheduleRequest { name }) => {
                let command = Command::DeleteSchedule { namespace, origin, schedule: name };
                return self.propose(command, now, out).map(|()| Answer::Deleted);
            }
            ScheduleAsked::Put(request) => {
                let (name, definition, paused) = request.into_parts();
                let (namespace, schedule, definition) = (namespace.clone(), name.clone(), Box::new(definition));
                (name, Command::PutSchedule { namespace, origin, schedule, definition, paused })
            }
            ScheduleAsked::Pause { name, paused } => {
                let (namespace, schedule) = (namespace.clone(), name.clone());
                (name, Command::PauseSchedule { namespace, origin, schedule, paused })
            }
            ScheduleAsked::Trigger(ScheduleRequest { name }) => {
                let (namespace, schedule, job) = (namespace.clone(), name.clone(), self.ids.next(now));
                (name, Command::TriggerSchedule { namespace, origin, schedule, job })
            }
        };
        self.propose(command, now, out)?;
        self.shown_schedule(&namespace, &name)
    }

    fn shown_schedule(&self, namespace: &Namespace, name: &ScheduleName) -> Result<Answer, Rejection> {
        view::schedule(self.state(), namespace, name).map(|view| Answer::Schedule(Box::new(view)))
    }

    /// Takes the ticks that are due; what is more than a turn's worth waits for the next.
    pub(super) fn tick(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let mut left = limits::TICKS_PER_TURN_MAX;
        while left > 0 && self.journal.has_room() && !self.resigned {
            let due = timer::ticks(self.state(), now, left);
            if due.is_empty() {
                return;
            }
            // A schedule that is behind has several: one of each at a time, so that no schedule waits for another's.
            left -= due.len();
            for (namespace, schedule) in due {
                let job = self.ids.next(now);
                self.own(Command::TickSchedule { namespace, schedule, job }, now, out);
            }
        }
    }
}
