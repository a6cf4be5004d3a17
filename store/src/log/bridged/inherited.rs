//! What earlier leaders have left in the bridge, and what a new one does with it before its barrier.
//!
//! It was read after the election was won, so nobody adds to it. Each commit of it was acknowledged, so it must come
//! to stand in the stream, or the log has lost what it promised. Pure: the next step follows from where the log ends.

use crate::frame::{ChainHash, open_header};
use crate::log::Stored;
use crate::witness::{LogLostAcknowledgedCommits, Witness};
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use std::collections::BTreeMap;

/// The bridge as a new leader found it.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    commits: BTreeMap<Sequence, Bytes>,
}

/// What to do next, given where the log ends as far as the new leader has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything stands in the log: the barrier may follow.
    Done,
    /// Append this right after the log's end; at a conflict read on, and ask again.
    Append(Stored),
    /// The log must hold more than was read, up to and including this position: read on. If the log itself ends before it,
    /// acknowledged commits are lost.
    ReadUpTo(Sequence),
    /// The log does not hold what was acknowledged. Nobody leads until an operator has looked.
    Lost(LogLostAcknowledgedCommits),
}

impl Inherited {
    pub fn new(commits: impl IntoIterator<Item = Stored>) -> Inherited {
        Inherited { commits: commits.into_iter().map(|commit| (commit.seq, commit.body)).collect() }
    }

    /// Every position that the bridge holds: to be removed once the barrier is in.
    pub fn positions(&self) -> impl Iterator<Item = Sequence> {
        self.commits.keys().copied()
    }

    /// `chain_at` gives the chain's hash right after a position that was read, where it is remembered; of the log's
    /// end it always is.
    pub fn next(&self, log_end: Sequence, chain_at: impl Fn(Sequence) -> Option<ChainHash>) -> Step {
        for (&seq, body) in self.commits.range(..=log_end) {
            // Below an image nothing is remembered. What stands there was folded, and folding would have failed.
            let before = Sequence(seq.0.saturating_sub(1));
            if let (Some(before), Some(found)) = (chain_at(before), chain_at(seq))
                && before.then(body) != found
            {
                let witness = Witness { seq, chain: before.then(body) };
                return Step::Lost(LogLostAcknowledgedCommits::Replaced { witness, log_end, found });
            }
        }
        let Some((&seq, body)) = self.commits.range(log_end.next()..).next() else { return Step::Done };
        if seq > log_end.next() {
            return Step::ReadUpTo(Sequence(seq.0 - 1));
        }
        match (open_header(body, seq), chain_at(log_end)) {
            (Ok(header), Some(end)) if header.expected == log_end && header.previous == end => {
                Step::Append(Stored { seq, body: body.clone() })
            }
            // It was made to follow another log.
            (_, end) => {
                let chain = end.unwrap_or_default().then(body);
                Step::Lost(LogLostAcknowledgedCommits::Missing { witness: Witness { seq, chain }, log_end })
            }
        }
    }

    /// Commits that can never be drained behind a log that ends here: what `outlive log accept-loss` gives up.
    pub fn stranded(&self, log_end: Sequence, chain: ChainHash) -> Vec<Sequence> {
        let (mut end, mut chain) = (log_end, chain);
        let mut stranded = Vec::new();
        for (&seq, body) in self.commits.range(log_end.next()..) {
            let follows = open_header(body, seq).is_ok_and(|header| header.expected == end && header.previous == chain);
            if stranded.is_empty() && seq == end.next() && follows {
                (end, chain) = (seq, chain.then(body));
            } else {
                stranded.push(seq);
            }
        }
        stranded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Batch, FrameSealer, Place};
    use crate::seal::Key;
    use outlive_schemas::event::{Envelope, Event, TermStarted};
    use outlive_schemas::id::Term;
    use outlive_schemas::time::Timestamp;

    /// A log's commits and the chain after each, from the beginning.
    fn chained(terms: &[u64]) -> (Vec<Stored>, Vec<ChainHash>) {
        let key = Key::generate();
        let mut sealer = FrameSealer::new(&key);
        let (mut commits, mut chains) = (Vec::new(), vec![ChainHash::START]);
        for (&term, expected) in terms.iter().zip(0..) {
            let mut batch = Batch::default();
            let (scheduler, zone) = ("s".parse().expect("a name"), "a".parse().expect("a zone"));
            let started = TermStarted { term: Term(term), scheduler, zone, version: "1".into() };
            batch.push(&Envelope { at: Timestamp(1), by: None, event: Event::TermStarted(started) });
            let previous = chains[chains.len() - 1];
            let place = Place { shard: 0, expected: Sequence(expected), term: Term(term), previous };
            let sealed = sealer.seal(place, &batch).expect("sealed");
            chains.push(sealed.chain);
            commits.push(Stored { seq: Sequence(expected + 1), body: sealed.body });
        }
        (commits, chains)
    }

    #[test]
    fn what_is_missing_is_appended_in_order() {
        let (commits, chains) = chained(&[1, 1, 1, 1]);
        let inherited = Inherited::new(commits[1..4].iter().cloned());
        let next = |end: usize| inherited.next(Sequence(end as u64), |seq| chains[..=end].get(seq.0 as usize).copied());
        assert_eq!(next(1), Step::Append(commits[1].clone()));
        assert_eq!(next(2), Step::Append(commits[2].clone()));
        assert_eq!(next(3), Step::Append(commits[3].clone()));
        assert_eq!(next(4), Step::Done);
        assert_eq!(next(0), Step::ReadUpTo(Sequence(1)), "the log must hold the first");
        assert_eq!(inherited.stranded(Sequence(1), chains[1]), []);
        assert_eq!(inherited.stranded(Sequence(0), chains[0]), [Sequence(2), Sequence(3), Sequence(4)]);
        let nothing = Inherited::default();
        assert_eq!(nothing.next(Sequence(0), |_| None), Step::Done);
    }

    #[test]
    fn another_log_is_lost_commits() {
        let (ours, chains) = chained(&[1, 1, 1]);
        let (others, _) = chained(&[1, 1, 1]);
        let replaced = Inherited::new([others[1].clone()]).next(Sequence(3), |seq| chains.get(seq.0 as usize).copied());
        assert!(
            matches!(replaced, Step::Lost(LogLostAcknowledgedCommits::Replaced { witness, .. }) if witness.seq == Sequence(2))
        );
        let foreign = Inherited::new([others[2].clone()]);
        let step = foreign.next(Sequence(2), |seq| chains[..3].get(seq.0 as usize).copied());
        assert!(
            matches!(step, Step::Lost(LogLostAcknowledgedCommits::Missing { witness, .. }) if witness.seq == Sequence(3))
        );
        assert_eq!(foreign.stranded(Sequence(2), chains[2]), [Sequence(3)]);
        // Below what is remembered there is nothing to compare.
        let old = Inherited::new([ours[0].clone()]);
        assert_eq!(old.next(Sequence(3), |seq| (seq.0 == 3).then(|| chains[3])), Step::Done);
    }
}
