//! The part of the machine that answers for queues. No rules here: `decide` and the planner have them.

use super::{Answer, Leader, Output};
use crate::dispatch;
use crate::submission::QueueAsked;
use outlive_core::plan::Hints;
use outlive_core::view::queue as view;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::Rejection;
use outlive_schemas::id::{Namespace, QueueName};
use outlive_schemas::time::Timestamp;

impl Leader {
    pub(super) fn queue(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        what: QueueAsked,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        match what {
            QueueAsked::Put(request) => {
                let (settings, name) = (request.settings(), request.name.clone());
                let command = Command::PutQueue { namespace: namespace.clone(), origin, name, settings };
                self.propose(command, now, out)?;
                self.seen(&namespace, &request.name, now)
            }
            QueueAsked::Get(name) => self.seen(&namespace, &name, now),
            QueueAsked::List(only) => Ok(Answer::Queues(view::queues(self.state(), &namespace, only.as_ref(), now))),
            QueueAsked::Delete(name) => {
                self.propose(Command::DeleteQueue { namespace, origin, name }, now, out)?;
                Ok(Answer::Deleted)
            }
        }
    }

    /// What the planner and `why` are to know beside the state.
    pub(super) fn hints(&self, now: Timestamp) -> Hints {
        Hints { reserved: self.claims.reserved(), ..self.watch.hints(now) }
    }

    /// Has jobs give way to more urgent ones.
    pub(super) fn preempt(&mut self, now: Timestamp, orders: &mut dispatch::Orders) {
        let hints = self.watch.hints(now);
        self.claims.renew(self.journal.state(), &hints, now);
        for (executor, release) in self.claims.releases(self.journal.state()) {
            orders.release(executor, release);
        }
    }

    fn seen(&self, namespace: &Namespace, name: &QueueName, now: Timestamp) -> Result<Answer, Rejection> {
        view::queue(self.state(), namespace, name, now).map(|view| Answer::Queue(Box::new(view)))
    }
}
