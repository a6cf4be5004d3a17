//! Command and state → events, or a refusal. Nothing is changed here, and nothing waited for.

mod submit;
mod depend;
mod array;
mod stop;
mod report;
mod recover;
mod executor;
mod place;
mod keep;
mod drain;
mod zone;
mod snapshot;
mod life;
mod queue;
mod when;
mod schedule;

pub use recover::backoff;
pub use snapshot::find as find_snapshot;
pub use when::may_retry;

use crate::state::State;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::Rejection;
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::Namespace;
use outlive_schemas::time::Timestamp;

/// Why a command led to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What a user is told.
    Rejected(Rejection),
    /// It speaks of an attempt that is not the job's current one on that executor, or of an executor that is not
    /// there any more. Whoever sent it has to stop that attempt.
    Superseded,
    /// It was overtaken by other events; nothing needs to be done.
    Stale,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        Refusal::Rejected(rejection)
    }
}

/// What a command leads to. No events means that it is done already, which is a success.
///
/// The events of one command stand in one commit: all of them happen, or none.
pub fn decide(state: &State, command: Command, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let events = events_of(state, command, now)?;
    Ok(snapshot::settle(state, events))
}

fn events_of(state: &State, command: Command, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    match command {
        Command::SubmitJobs { namespace, origin, jobs } => submit::submit(state, namespace, origin, jobs, now),
        Command::CancelJob { namespace, origin, job, how } => stop::cancel(state, &namespace, origin, &job, how, now),
        Command::CancelTasks { namespace, origin, job, tasks, how } => {
            array::cancel_tasks(state, &namespace, origin, &job, &tasks, how, now)
        }
        Command::DeleteJob { namespace, origin, job } => stop::delete(state, &namespace, origin, &job, now),
        Command::PutSchedule { namespace, origin, schedule, definition, paused } => {
            schedule::put(state, namespace, origin, schedule, *definition, paused, now)
        }
        Command::DeleteSchedule { namespace, origin, schedule } => {
            schedule::delete(state, namespace, origin, schedule, now)
        }
        Command::PauseSchedule { namespace, origin, schedule, paused } => {
            schedule::pause(state, namespace, origin, schedule, paused, now)
        }
        Command::TriggerSchedule { namespace, origin, schedule, job } => {
            schedule::trigger(state, namespace, origin, schedule, job, now)
        }
        Command::TickSchedule { namespace, schedule, job } => schedule::tick(state, &namespace, &schedule, job, now),
        Command::DeleteJobs { namespace, origin, jobs } => when::delete(state, &namespace, origin, &jobs, now),
        Command::RetryJobs { namespace, origin, jobs } => when::retry(state, &namespace, origin, &jobs, now),
        Command::RetryTasks { namespace, origin, job, tasks } => {
            array::retry_tasks(state, &namespace, origin, &job, tasks, now)
        }
        Command::GiveUpJob { job } => when::give_up(state, job, now),
        Command::ExpireJob { job } => keep::expire(state, job, now),
        Command::ConfirmErasure { job } => keep::erased(state, job, now),
        Command::HoldCollection { by, until } => keep::hold(state, by, until, now),
        Command::StopJob { namespace, origin, job, force } => life::stop(state, &namespace, origin, &job, force, now),
        Command::StartJob { namespace, origin, job, restore } => {
            life::start(state, &namespace, origin, &job, restore, now)
        }
        Command::UpdateJob { namespace, origin, job, expected_version, spec, allow_lost_state } => {
            let (namespace, job, spec) = (&namespace, &job, *spec);
            let asked = life::Update { namespace, origin, job, expected_version, spec, allow_lost_state };
            life::update(state, asked, now)
        }
        Command::RollBackJob { namespace, origin, job, expected_version } => {
            life::roll_back(state, &namespace, origin, &job, expected_version, now)
        }
        Command::CreateSnapshot { namespace, origin, job, name } => {
            snapshot::create(state, &namespace, origin, &job, name, now)
        }
        Command::DeleteSnapshot { namespace, origin, job, name, created_at } => {
            snapshot::delete(state, &namespace, origin, &job, &name, created_at, now)
        }
        Command::ImportSnapshot { namespace, origin, job, name, content } => {
            snapshot::import(state, &namespace, origin, &job, name, content, now)
        }
        Command::GiveUpImport { job, name } => snapshot::give_up_import(state, job, name, now),
        Command::AttendArray { job } => array::attend(state, job, now),
        Command::SettleDependencies { job } => depend::settle(state, job, now),
        Command::AttendJob { job } => life::attend(state, job, now),
        Command::AbandonAttempt { job, attempt } => stop::abandon(state, job, attempt, now),
        Command::DrainExecutor { origin, executor, deadline } => {
            drain::executor(state, origin, &executor, deadline, now)
        }
        Command::UndrainExecutor { origin, executor } => drain::undrain_executor(state, origin, &executor, now),
        Command::DrainZone { origin, zone, deadline } => drain::zone(state, origin, zone, deadline, now),
        Command::UndrainZone { origin, zone } => drain::undrain_zone(state, origin, zone, now),
        Command::AdmitExecutor(registration) => executor::admit(state, registration, now),
        Command::LoseExecutor { executor, reason, last_seen } => {
            executor::lose(state, executor, reason, last_seen, now)
        }
        Command::EvictAttempt { job, attempt, cause } => recover::evict(state, job, attempt, cause, now),
        Command::LoseZone { zone } => zone::lose(state, zone, now),
        Command::SettleZone { zone } => zone::settle(state, zone, now),
        Command::WithdrawAttempt { job, attempt, cause } => recover::withdraw(state, job, attempt, cause, now),
        Command::Report { executor, report } => report::report(state, executor, report, now),
        Command::PutQueue { namespace, origin, name, settings } => {
            queue::put(state, namespace, origin, name, settings, now)
        }
        Command::DeleteQueue { namespace, origin, name } => queue::delete(state, namespace, origin, name, now),
        Command::PlaceJob { job, attempt, executor } => place::place(state, job, attempt, executor, now),
    }
}

/// Whether a request of this id has done already what it asks for. Asked again by name it might meet another.
fn is_done(state: &State, namespace: &Namespace, origin: &Origin) -> bool {
    origin.request_id.as_ref().is_some_and(|id| state.is_spent(namespace, id))
}

/// One event of the system's own.
fn fact(at: Timestamp, event: Event) -> Vec<Envelope> {
    vec![Envelope { at, by: None, event }]
}
