//! From a won election to the barrier: the witness, the bridge and what has been read of the log → what is next. Pure.
//!
//! Who carries it out reads on until a replica has no more, asks, does what it is told, and reads on again.
//! Deliberately not here: how often something that is out of reach is tried. Then the term is given up.

use crate::journal::SHARD;
use outlive_schemas::event::{Envelope, Event, TermStarted};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_store::frame::{ChainHash, Place, SealError, Sealed, seal_commit};
use outlive_store::log::Stored;
use outlive_store::log::bridged::{Inherited, Step};
use outlive_store::seal::Key;
use outlive_store::witness::{LogLostAcknowledgedCommits, Witness, judge};

/// Tries to append the barrier while the last commits of earlier leaders still land.
const TRIES_MAX: u32 = 1_000;
/// A log that ends too early must say so for this long, before what is missing counts as lost. A server that was cut off
/// leads the stream in its own opinion until it hears of its successor, and a new one may still be reading its own log.
pub const LOST_AFTER: Millis = Millis(2_000);

/// The log as far as it has been read.
#[derive(Clone, Copy, Debug)]
pub struct LogEnd {
    pub seq: Sequence,
    pub chain: ChainHash,
    /// The newest term in it.
    pub term: Option<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Append this to the stream, right after the log's end. At a conflict an earlier leader's commit has landed there.
    Drain(Stored),
    /// The log must hold this, which a replica may not have yet: ask where it ends, by one that most replicas answer
    /// to, and say so with [`Accession::ends_at`].
    MustHold(Witness),
    /// All that was acknowledged is there: append the barrier as [`Next::Drain`] says, and lead.
    Barrier,
    /// The log has seen a term that is not below this one: somebody won after it, or etcd counts from an earlier time.
    Outdone(Term),
    /// It cannot be read to its end, or others append to it without one.
    GiveUp,
}

#[derive(Debug)]
pub struct Accession {
    term: Term,
    witness: Option<Witness>,
    inherited: Inherited,
    tries: u32,
    missing_since: Option<Timestamp>,
}

impl Accession {
    /// `inherited` was read after the election was won: nobody else can add to it from then on.
    pub fn new(term: Term, witness: Option<Witness>, inherited: Inherited) -> Accession {
        Accession { term, witness, inherited, tries: 0, missing_since: None }
    }

    /// What is next, now that a replica has no more than this. `chain_at` gives the chain's hash right after positions
    /// that are remembered.
    pub fn next(
        &mut self,
        end: LogEnd,
        chain_at: impl Fn(Sequence) -> Option<ChainHash>,
    ) -> Result<Next, LogLostAcknowledgedCommits> {
        self.tries += 1;
        if self.tries > TRIES_MAX {
            return Ok(Next::GiveUp);
        }
        if let Some(seen) = end.term.filter(|seen| *seen >= self.term) {
            return Ok(Next::Outdone(seen));
        }
        let chain_at = |seq| if seq == end.seq { Some(end.chain) } else { chain_at(seq) };
        match self.inherited.next(end.seq, chain_at) {
            Step::Append(commit) => return Ok(Next::Drain(commit)),
            Step::ReadUpTo(seq) => return Ok(Next::MustHold(Witness { seq, chain: ChainHash::default() })),
            Step::Lost(lost) => return Err(lost),
            Step::Done => {}
        }
        if let Some(beyond) = self.witness.filter(|witness| witness.seq > end.seq) {
            return Ok(Next::MustHold(beyond));
        }
        judge(self.witness, end.seq, chain_at).map(|()| Next::Barrier)
    }

    /// The log ends at `last`, and must hold this. Read on, unless it has said for too long that it does not.
    pub fn ends_at(
        &mut self,
        last: Sequence,
        must_hold: Witness,
        now: Timestamp,
    ) -> Result<(), LogLostAcknowledgedCommits> {
        if last >= must_hold.seq {
            self.missing_since = None;
        } else if now.since(*self.missing_since.get_or_insert(now)) >= LOST_AFTER {
            return Err(LogLostAcknowledgedCommits::Missing { witness: must_hold, log_end: last });
        }
        Ok(())
    }

    /// What stands in the bridge, and in the stream once the barrier is in.
    pub fn drained(&self) -> impl Iterator<Item = Sequence> {
        self.inherited.positions()
    }
}

/// The barrier that follows on the log's end.
pub fn barrier(key: &Key, started: TermStarted, at: Timestamp, end: LogEnd) -> Result<Sealed, SealError> {
    let place = Place { shard: SHARD, expected: end.seq, term: started.term, previous: end.chain };
    seal_commit(key, place, &[Envelope { at, by: None, event: Event::TermStarted(started) }])
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: LogEnd = LogEnd { seq: Sequence(7), chain: ChainHash([7; 32]), term: Some(Term(3)) };

    fn accession(witness: Option<Witness>) -> Accession {
        Accession::new(Term(4), witness, Inherited::default())
    }

    fn next(accession: &mut Accession, end: LogEnd) -> Result<Next, LogLostAcknowledgedCommits> {
        accession.next(end, |_| None)
    }

    #[test]
    fn a_log_that_holds_what_was_witnessed_gets_its_barrier() {
        let witness = Witness { seq: END.seq, chain: END.chain };
        assert_eq!(next(&mut accession(None), END), Ok(Next::Barrier));
        assert_eq!(next(&mut accession(Some(witness)), END), Ok(Next::Barrier));
        let another = Witness { chain: ChainHash([8; 32]), ..witness };
        assert!(next(&mut accession(Some(another)), END).is_err());
    }

    #[test]
    fn a_term_that_is_not_above_the_logs_is_outdone() {
        for seen in [4, 5] {
            let end = LogEnd { term: Some(Term(seen)), ..END };
            assert_eq!(next(&mut accession(None), end), Ok(Next::Outdone(Term(seen))));
        }
    }

    #[test]
    fn what_is_missing_is_lost_once_the_log_has_said_so_for_long_enough() {
        let beyond = Witness { seq: Sequence(9), chain: ChainHash([9; 32]) };
        let mut accession = accession(Some(beyond));
        assert_eq!(next(&mut accession, END), Ok(Next::MustHold(beyond)));
        let at = |ms: u64| Timestamp(10_000 + ms);
        assert_eq!(accession.ends_at(Sequence(7), beyond, at(0)), Ok(()));
        assert_eq!(accession.ends_at(Sequence(7), beyond, at(1_999)), Ok(()));
        assert_eq!(accession.ends_at(Sequence(9), beyond, at(2_000)), Ok(()), "there it is");
        assert_eq!(accession.ends_at(Sequence(8), beyond, at(2_100)), Ok(()));
        let lost = accession.ends_at(Sequence(8), beyond, at(4_100));
        assert_eq!(lost, Err(LogLostAcknowledgedCommits::Missing { witness: beyond, log_end: Sequence(8) }));
    }

    #[test]
    fn it_does_not_try_for_ever() {
        let mut accession = accession(Some(Witness { seq: Sequence(9), chain: ChainHash([9; 32]) }));
        for _ in 0..TRIES_MAX {
            assert!(matches!(next(&mut accession, END), Ok(Next::MustHold(_))));
        }
        assert_eq!(next(&mut accession, END), Ok(Next::GiveUp));
    }
}
