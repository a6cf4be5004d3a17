//! Appending, as `store::log::jetstream` does it: the same bytes at the same position until the answer is definite.

use super::{CALL_TIMEOUT, Call, Phase, SchedulerNode};
use crate::sim::env::{Env, MS, Micros, Reply, Request, SECOND, Timer};
use crate::sim::log::{LogReply, LogRequest};
use crate::sim::sabotage::Sabotage;
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_store::log::AppendError;
use outlive_store::log::bridged::Input;

/// As there: how long the log may seem to end before what an append is to follow, until that is taken for a loss.
const BEHIND_MAX: Micros = 30 * SECOND;

#[derive(Clone, Debug)]
pub struct Appending {
    pub expected: Sequence,
    pub body: Bytes,
    behind_since: Option<Micros>,
}

impl Appending {
    pub fn new(expected: Sequence, body: Bytes) -> Appending {
        Appending { expected, body, behind_since: None }
    }
}

impl SchedulerNode {
    fn appending(&mut self) -> Option<&mut Appending> {
        match &mut self.phase {
            Phase::Acceding { appending, .. } => appending.as_mut(),
            Phase::Leading(leading) => leading.appending.as_mut(),
            _ => None,
        }
    }

    /// Whether what is to be appended is what follows this position.
    pub(super) fn appends_after(&mut self, after: Sequence) -> bool {
        self.appending().is_some_and(|appending| appending.expected == after)
    }

    /// Publishes what is to be appended, for the first time or again.
    pub(super) fn publish(&mut self, env: &mut Env) {
        let Some(Appending { expected, body, .. }) = self.appending().cloned() else { return };
        let request = Request::Log(LogRequest::Append { expected, body });
        let call = env.ask(self.node(), self.run, CALL_TIMEOUT, request);
        self.calls.insert(call, Call::Publish(expected));
    }

    pub(super) fn published(&mut self, reply: Reply, env: &mut Env) {
        match reply {
            Reply::Log(LogReply::Stored) => self.settled(Ok(()), env),
            Reply::Log(LogReply::Settle) if self.is(Sabotage::ConflictTakenForSuccess, env) => {
                self.settled(Ok(()), env)
            }
            Reply::Log(LogReply::Settle) => {
                let Some(expected) = self.appending().map(|a| a.expected) else { return };
                let read = Request::Log(LogRequest::Read { from: expected.next() });
                let call = env.ask(self.node(), self.run, CALL_TIMEOUT, read);
                self.calls.insert(call, Call::Standing(expected));
            }
            Reply::Log(LogReply::NoResponders) => self.publish_later(250 * MS, env),
            _ => self.publish_later(0, env),
        }
    }

    fn publish_later(&mut self, pause: Micros, env: &mut Env) {
        let pause = pause.max(env.chance.between(5 * MS, 50 * MS));
        env.timer(self.node(), self.run, pause, Timer::Retry);
    }

    pub(super) fn standing(&mut self, reply: Reply, env: &mut Env) {
        let Some(appending) = self.appending() else { return };
        let Reply::Log(LogReply::Messages(found)) = reply else {
            appending.behind_since = None;
            return self.publish_later(0, env);
        };
        let expected = appending.expected;
        match found.first() {
            Some(stored) if stored.body == appending.body => self.settled(Ok(()), env),
            Some(_) => self.settled(Err(AppendError::Conflict { at: expected.next() }), env),
            None => {
                let call = env.ask(self.node(), self.run, CALL_TIMEOUT, Request::Log(LogRequest::Extent));
                self.calls.insert(call, Call::StandingExtent(expected));
            }
        }
    }

    pub(super) fn standing_extent(&mut self, reply: Reply, env: &mut Env) {
        let now = self.micros(env);
        let Some(appending) = self.appending() else { return };
        match reply {
            Reply::Log(LogReply::Extent(last)) if last < appending.expected => {
                let since = *appending.behind_since.get_or_insert(now);
                if now - since > BEHIND_MAX {
                    let reason = format!("the log ends at {last}, before {}: it has lost commits", appending.expected);
                    return self.settled(Err(AppendError::Refused { reason }), env);
                }
            }
            _ => appending.behind_since = None,
        }
        self.publish_later(0, env);
    }

    fn settled(&mut self, result: Result<(), AppendError>, env: &mut Env) {
        match &mut self.phase {
            Phase::Acceding { .. } => self.barrier_appended(result, env),
            Phase::Leading(leading) => {
                let Some(appending) = leading.appending.take() else { return };
                self.bridging_input(Input::Streamed { at: appending.expected.next(), result }, env);
            }
            _ => {}
        }
    }
}
