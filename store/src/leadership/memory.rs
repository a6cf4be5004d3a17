//! Leadership in memory, for tests and simulations. Time stands still until it is told to pass, so that a test can
//! let a lease run out when it wants to.

use super::{Holder, Leadership, LeadershipError, Reign, Tenure, VALID_TENTHS};
use async_trait::async_trait;
use outlive_schemas::id::Term;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// An election that every clone takes part in.
#[derive(Clone, Debug)]
pub struct MemoryLeadership(Arc<World>);

#[derive(Debug)]
struct World {
    ttl: Duration,
    state: Mutex<State>,
    /// Counts changes of the reign.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    now: Duration,
    revision: u64,
    /// Added to revisions to make terms.
    base: u64,
    reign: Option<(Reign, watch::Sender<bool>)>,
    /// Of the reign: when it was renewed last, and whether it still is.
    renewed: Duration,
    silent: bool,
    witness: Option<Vec<u8>>,
    out_of_reach: bool,
}

impl State {
    fn holds(&self, term: Term) -> bool {
        self.reign.as_ref().is_some_and(|(reign, _)| reign.term == term)
    }
}

impl MemoryLeadership {
    pub fn new(ttl: Duration) -> MemoryLeadership {
        MemoryLeadership(Arc::new(World { ttl, state: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    /// Lets time pass. The lease is renewed at its end, unless its holder is silent, and else may run out.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.lock();
        state.now += by;
        if !state.silent {
            state.renewed = state.now;
        } else if state.now - state.renewed >= self.0.ttl {
            self.0.end(&mut state);
        }
    }

    /// Fault: from now on the leader's renewals are lost, until this is called with `false`. A new reign begins
    /// without this fault.
    pub fn set_silent(&self, silent: bool) {
        self.0.lock().silent = silent;
    }

    /// Fault: every request is `Unavailable`, until this is called with `false`.
    pub fn set_out_of_reach(&self, out_of_reach: bool) {
        self.0.lock().out_of_reach = out_of_reach;
    }

    /// Whether this term is the one that holds, past all faults.
    pub fn holds(&self, term: Term) -> bool {
        self.0.lock().holds(term)
    }

    /// Ends the reign, as if its lease had run out.
    pub fn expire(&self) {
        self.0.end(&mut self.0.lock());
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this lock")
    }

    fn reach(&self) -> Result<MutexGuard<'_, State>, LeadershipError> {
        let state = self.lock();
        if state.out_of_reach { Err(LeadershipError::Unavailable { reason: "injected".to_owned() }) } else { Ok(state) }
    }

    fn end(&self, state: &mut State) {
        if let Some((_, over)) = state.reign.take() {
            over.send_replace(true);
            state.revision += 1;
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

#[async_trait]
impl Leadership for MemoryLeadership {
    async fn campaign(&self, holder: Holder) -> Result<Option<Arc<dyn Tenure>>, LeadershipError> {
        let mut state = self.0.reach()?;
        if state.reign.is_some() {
            return Ok(None);
        }
        state.revision += 1;
        let term = Term(state.base + state.revision);
        let over = watch::Sender::new(false);
        let reign = Reign { term, holder, lease: i64::try_from(state.revision).unwrap_or(i64::MAX) };
        state.reign = Some((reign, over.clone()));
        state.renewed = state.now;
        state.silent = false;
        Ok(Some(Arc::new(MemoryTenure { world: Arc::clone(&self.0), term, over })))
    }

    async fn reign(&self) -> Result<Option<Reign>, LeadershipError> {
        Ok(self.0.reach()?.reign.as_ref().map(|(reign, _)| reign.clone()))
    }

    async fn vacancy(&self, term: Term) -> Result<(), LeadershipError> {
        let mut changed = self.0.changed.subscribe();
        while self.0.reach()?.holds(term) {
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
        Ok(())
    }

    async fn depose(&self, reign: &Reign) -> Result<(), LeadershipError> {
        let mut state = self.0.reach()?;
        if state.holds(reign.term) {
            self.0.end(&mut state);
        }
        Ok(())
    }

    async fn read_witness(&self) -> Result<Option<Vec<u8>>, LeadershipError> {
        Ok(self.0.reach()?.witness.clone())
    }

    async fn overwrite_witness(&self, body: Vec<u8>) -> Result<(), LeadershipError> {
        let mut state = self.0.reach()?;
        state.revision += 1;
        state.witness = Some(body);
        Ok(())
    }

    async fn begin_generation(&self, above: Term) -> Result<Term, LeadershipError> {
        let mut state = self.0.reach()?;
        if let Some((Reign { holder, term, .. }, _)) = &state.reign {
            return Err(LeadershipError::Held { scheduler: holder.scheduler.clone(), term: *term });
        }
        let base = above.max(Term(state.base)).next_generation();
        state.revision += 1;
        state.base = base.0;
        Ok(base)
    }
}

#[derive(Debug)]
struct MemoryTenure {
    world: Arc<World>,
    term: Term,
    over: watch::Sender<bool>,
}

#[async_trait]
impl Tenure for MemoryTenure {
    fn term(&self) -> Term {
        self.term
    }

    fn is_valid(&self) -> bool {
        let state = self.world.lock();
        state.holds(self.term) && state.now - state.renewed < self.world.ttl * VALID_TENTHS / 10
    }

    async fn lost(&self) {
        // The sender is our own.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    async fn resign(&self) {
        let mut state = self.world.lock();
        if state.holds(self.term) {
            self.world.end(&mut state);
        }
    }

    async fn witness(&self, body: Vec<u8>) -> Result<(), LeadershipError> {
        let mut state = self.world.reach()?;
        if !state.holds(self.term) {
            return Err(LeadershipError::Deposed { term: self.term });
        }
        state.revision += 1;
        state.witness = Some(body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder { scheduler: "scheduler-a".parse().expect("a name"), zone: "a".parse().expect("a zone") }
    }

    #[tokio::test]
    async fn memory_conforms() {
        super::super::conformance::conforms(&MemoryLeadership::new(Duration::from_secs(5))).await;
    }

    #[tokio::test]
    async fn a_silent_leader_stops_before_its_lease_is_over() {
        let election = MemoryLeadership::new(Duration::from_secs(5));
        let tenure = election.campaign(holder()).await.expect("reachable").expect("vacant");
        election.advance(Duration::from_secs(60));
        assert!(tenure.is_valid(), "renewed");
        election.set_silent(true);
        election.advance(Duration::from_millis(2_999));
        assert!(tenure.is_valid());
        election.advance(Duration::from_millis(1));
        assert!(!tenure.is_valid(), "0.6 of the lease's time");
        assert!(election.campaign(holder()).await.expect("reachable").is_none(), "the lease still stands");
        election.advance(Duration::from_secs(2));
        tenure.lost().await;
        assert!(election.campaign(holder()).await.expect("reachable").is_some());
    }

    #[tokio::test]
    async fn out_of_reach_is_an_error() {
        let election = MemoryLeadership::new(Duration::from_secs(5));
        let tenure = election.campaign(holder()).await.expect("reachable").expect("vacant");
        election.set_out_of_reach(true);
        assert!(matches!(election.reign().await, Err(LeadershipError::Unavailable { .. })));
        assert!(matches!(tenure.witness(vec![]).await, Err(LeadershipError::Unavailable { .. })));
        election.set_out_of_reach(false);
        election.expire();
        assert!(matches!(tenure.witness(vec![]).await, Err(LeadershipError::Deposed { .. })));
    }
}
