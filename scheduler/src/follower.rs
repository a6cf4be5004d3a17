//! The log, or an image and the log's tail → state. What a standby does all day, and a leader before it leads.
//!
//! Bulk replay runs in three stages at once: one reads, one opens, one folds.

use crate::error::ReplayError;
use crate::metrics;
use crate::readiness::Readiness;
use crate::stores::{EMPTY, Stores};
use futures::StreamExt as _;
use outlive_core::fold::fold;
use outlive_core::state::State;
use outlive_schemas::codec::{self, DecodeError};
use outlive_schemas::id::Sequence;
use outlive_store::frame::{ChainHash, Commit, FrameOpener, open_header};
use outlive_store::log::{Extent, ReadError, Stored};
use std::collections::VecDeque;
use std::io::BufRead;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes of commits asked for at once.
const READ_BYTES: usize = 8 << 20;
/// Chunks between two stages of a replay.
const STAGES_QUEUE: usize = 2;
/// Opened commits that wait to be folded: of a few thousand events each at most.
const OPENED_QUEUE: usize = 16;
/// Positions whose chain hash is remembered, to be held against the witness. The witness lags by 200 ms at most
/// while a leader lives, which is a few hundred commits.
const CHAINS_REMEMBERED: usize = 4_096;
/// How often the log is read although no tail message asked for it.
const POLL: Duration = Duration::from_millis(1_000);

/// A state, and where in the log it stands.
pub struct Follower {
    stores: Stores,
    opener: Option<FrameOpener>,
    pub state: State,
    pub seq: Sequence,
    pub chain: ChainHash,
    chains: VecDeque<(Sequence, ChainHash)>,
    /// Events folded since the image it began from.
    pub events_since_image: u64,
    pub events: u64,
    /// Who is told of progress, where this is the scheduler's own follower and not an imager's.
    pub told: Option<Readiness>,
}

impl Follower {
    /// Begins at the log's beginning, whatever images there are.
    pub async fn from_the_beginning(stores: &Stores) -> Result<Follower, ReplayError> {
        let keys = stores.keys.log_keys().await.map_err(ReplayError::Key)?;
        Ok(Follower {
            stores: stores.clone(),
            opener: Some(FrameOpener::new(&keys)),
            state: State::default(),
            seq: EMPTY,
            chain: ChainHash::default(),
            chains: VecDeque::new(),
            events_since_image: 0,
            events: 0,
            told: None,
        })
    }

    /// Begins at the newest image that can be read, or at the log's beginning.
    pub async fn begin(stores: &Stores) -> Result<Follower, ReplayError> {
        let mut follower = Follower::from_the_beginning(stores).await?;
        let extent = stores.log.extent().await.map_err(ReplayError::Read)?;
        for head in stores.images.list().await.map_err(ReplayError::Images)? {
            if head.seq > extent.last && extent.first > Sequence(1) {
                // Without this image there may be nothing to begin with; and whoever answered may be behind.
                let reason = format!("the log ends at {}, before the image at {}", extent.last, head.seq);
                return Err(ReplayError::Read(ReadError::Unavailable { reason }));
            }
            if let Err(why) = belongs_to_the_log(stores, extent, head.seq, ChainHash(head.chain)).await {
                tracing::warn!(seq = %head.seq, why, "an image is left aside; trying an older one");
                continue;
            }
            let read = |from: &mut dyn BufRead| {
                let mut state: State = codec::unpack_from("an image of the state", from)?;
                state.rebuild_index();
                Ok::<_, DecodeError>(state)
            };
            match stores.images.load(&head, read).await {
                Ok(Ok(state)) => {
                    follower.state = state;
                    (follower.seq, follower.chain) = (head.seq, ChainHash(head.chain));
                    break;
                }
                Ok(Err(error)) => {
                    tracing::warn!(seq = %head.seq, %error, "an image is another version's; trying an older one")
                }
                Err(error) => tracing::warn!(seq = %head.seq, %error, "an image cannot be read; trying an older one"),
            }
        }
        if extent.first > follower.seq.next() {
            return Err(ReplayError::NothingToBeginWith { first: extent.first });
        }
        Ok(follower)
    }

    /// The chain's hash right after a position, if it is remembered.
    pub fn chain_at(&self, seq: Sequence) -> Option<ChainHash> {
        self.chains.iter().rev().find(|(at, _)| *at == seq).map(|(_, chain)| *chain)
    }

    /// Reads on until a replica has no more. Another replica may have.
    pub async fn catch_up(&mut self) -> Result<(), ReplayError> {
        let first = self.read().await?;
        if first.is_empty() {
            return Ok(());
        }
        let (to_open, mut opened_from) = mpsc::channel::<Vec<Stored>>(STAGES_QUEUE);
        let (to_fold, fold_from) = mpsc::channel::<Result<Commit, ReplayError>>(OPENED_QUEUE);
        let log = self.stores.log.clone();
        let reading = async move {
            let mut chunk = first;
            loop {
                let next = chunk.last().map_or(EMPTY, |stored| stored.seq).next();
                // Whoever opens has failed, and says why.
                if to_open.send(chunk).await.is_err() {
                    return Ok(());
                }
                chunk = log.read(next, READ_BYTES).await.map_err(ReplayError::Read)?;
                if chunk.is_empty() {
                    return Ok(());
                }
            }
        };
        let mut opener = self.opener.take().expect("an opener is put back after each use");
        let (mut seq, mut chain) = (self.seq, self.chain);
        let opening = tokio::task::spawn_blocking(move || {
            // One by one, for a chunk may be the whole log: whoever folds begins with its first commit.
            while let Some(chunk) = opened_from.blocking_recv() {
                for stored in chunk {
                    let opened = open(&mut opener, &stored, &mut seq, &mut chain);
                    let failed = opened.is_err();
                    if to_fold.blocking_send(opened).is_err() || failed {
                        return opener;
                    }
                }
            }
            opener
        });
        let state = std::mem::take(&mut self.state);
        let folding = tokio::task::spawn_blocking(move || fold_all(state, fold_from));
        let (read, opener, folded) = tokio::join!(reading, opening, folding);
        self.opener = Some(opener.expect("opening commits does not panic"));
        let (state, progress, result) = folded.expect("folding events does not panic");
        self.state = state;
        for (seq, chain, events) in progress {
            self.note(seq, chain, events);
        }
        result.and(read)
    }

    async fn read(&self) -> Result<Vec<Stored>, ReplayError> {
        self.stores.log.read(self.seq.next(), READ_BYTES).await.map_err(ReplayError::Read)
    }

    /// Takes one commit in that follows directly.
    fn apply(&mut self, stored: Stored) -> Result<(), ReplayError> {
        let opener = self.opener.as_mut().expect("an opener is put back after each use");
        let commit = open(opener, &stored, &mut self.seq.clone(), &mut self.chain.clone())?;
        let seq = commit.header.expected.next();
        for envelope in &commit.events {
            fold(&mut self.state, seq, envelope).map_err(ReplayError::Fold)?;
        }
        self.note(seq, commit.chain, commit.events.len() as u64);
        Ok(())
    }

    fn note(&mut self, seq: Sequence, chain: ChainHash, events: u64) {
        (self.seq, self.chain) = (seq, chain);
        self.events += events;
        self.events_since_image += events;
        if let Some(told) = &self.told {
            told.folded(seq, events);
        }
        self.chains.push_back((seq, chain));
        if self.chains.len() > CHAINS_REMEMBERED {
            self.chains.pop_front();
        }
    }

    /// Follows the log until `until` is ready. What the tail leaves out is read.
    pub async fn follow<T>(&mut self, until: impl Future<Output = T>) -> Result<T, ReplayError> {
        tokio::pin!(until);
        loop {
            let mut tail = self.stores.log.tail().await.map_err(ReplayError::Read)?;
            self.catch_up_patiently().await?;
            let mut poll = tokio::time::interval(POLL);
            poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    done = &mut until => return Ok(done),
                    stored = tail.next() => match stored {
                        Some(stored) if stored.seq == self.seq.next() => self.apply(stored)?,
                        Some(stored) if stored.seq <= self.seq => {}
                        Some(_) => self.catch_up_patiently().await?,
                        None => break,
                    },
                    _ = poll.tick() => self.catch_up_patiently().await?,
                }
            }
        }
    }

    /// As [`Follower::catch_up`]; a log out of reach is no reason to give up following it.
    async fn catch_up_patiently(&mut self) -> Result<(), ReplayError> {
        match self.catch_up().await {
            Ok(()) => {
                if let Some(told) = &self.told {
                    told.at_head();
                }
                if let Some((term, _)) = &self.state.term {
                    metrics::term(term.term);
                }
                Ok(())
            }
            Err(ReplayError::Read(ReadError::Unavailable { reason })) => {
                tracing::warn!(%reason, "the log is out of reach; trying again");
                Ok(())
            }
            other => other,
        }
    }

    /// Takes the commit in that this scheduler has just appended itself.
    pub fn appended(&mut self, stored: Stored) -> Result<(), ReplayError> {
        self.apply(stored)
    }
}

/// Whether the log holds the commit that an image was made at. One that was made of commits which the log has lost
/// since would hide that they are lost, and break at the first commit that follows.
async fn belongs_to_the_log(stores: &Stores, extent: Extent, seq: Sequence, chain: ChainHash) -> Result<(), String> {
    if seq > extent.last {
        return Err(format!("the log ends at {}", extent.last));
    }
    // An image at the commit before the log's first is followed by that one, which names its chain.
    let (wanted, follows) = if seq >= extent.first { (seq, false) } else { (seq.next(), true) };
    if wanted < extent.first {
        return Err(format!("the log begins at {}", extent.first));
    }
    let stored = stores.log.read(wanted, 1).await.unwrap_or_default().into_iter().next();
    // What cannot be read now is read soon, and the chain is held against it then.
    let Some(stored) = stored.filter(|stored| stored.seq == wanted) else { return Ok(()) };
    let header = open_header(&stored.body, wanted).map_err(|error| error.to_string())?;
    let found = if follows { header.previous } else { header.previous.then(&stored.body) };
    if found == chain { Ok(()) } else { Err("it was made of another log".to_owned()) }
}

fn open(
    opener: &mut FrameOpener,
    stored: &Stored,
    seq: &mut Sequence,
    chain: &mut ChainHash,
) -> Result<Commit, ReplayError> {
    let commit = opener.open(&stored.body, *seq, *chain).map_err(|source| {
        metrics::did_not_open();
        ReplayError::Frame { seq: stored.seq, source }
    })?;
    (*seq, *chain) = (stored.seq, commit.chain);
    Ok(commit)
}

type Progress = Vec<(Sequence, ChainHash, u64)>;

fn fold_all(
    mut state: State,
    mut from: mpsc::Receiver<Result<Commit, ReplayError>>,
) -> (State, Progress, Result<(), ReplayError>) {
    let mut progress = Progress::new();
    while let Some(opened) = from.blocking_recv() {
        let commit = match opened {
            Ok(commit) => commit,
            Err(error) => return (state, progress, Err(error)),
        };
        let seq = commit.header.expected.next();
        for envelope in &commit.events {
            if let Err(error) = fold(&mut state, seq, envelope) {
                return (state, progress, Err(ReplayError::Fold(error)));
            }
        }
        progress.push((seq, commit.chain, commit.events.len() as u64));
    }
    (state, progress, Ok(()))
}
