//! What every election must do. For tests: it panics at the first thing that is not so.

use super::{Holder, Leadership, LeadershipError, Reign, Tenure};
use futures::future::join_all;
use outlive_schemas::id::Term;
use std::sync::Arc;
use std::time::Duration;

/// What takes longer than this does not happen.
const BOUND: Duration = Duration::from_secs(30);

fn holder(name: &str) -> Holder {
    Holder {
        scheduler: name.parse().expect("the suite's names are names"),
        zone: "a".parse().expect("the suite's zone is a zone"),
    }
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"))
}

async fn won(election: &dyn Leadership, name: &str) -> Arc<dyn Tenure> {
    let campaign = within("a campaign", election.campaign(holder(name))).await;
    campaign.expect("in reach").expect("vacant, so the campaign is won")
}

async fn reign(election: &dyn Leadership) -> Option<Reign> {
    election.reign().await.expect("in reach")
}

/// Runs the whole suite against an election that is vacant and has no witness, and leaves it vacant.
pub async fn conforms(election: &dyn Leadership) {
    one_leads(election).await;
    of_many_one_wins(election).await;
    deposing_ends_one_reign_only(election).await;
    the_witness_is_guarded(election).await;
    vacancy_is_noticed(election).await;
    a_generation_is_above_all_before_it(election).await;
}

async fn one_leads(election: &dyn Leadership) {
    assert_eq!(reign(election).await, None);
    let first = won(election, "one").await;
    assert!(first.is_valid());
    let seen = reign(election).await.expect("somebody leads");
    assert_eq!((seen.term, &seen.holder), (first.term(), &holder("one")));
    assert!(election.campaign(holder("two")).await.expect("in reach").is_none(), "held");
    assert!(election.campaign(holder("one")).await.expect("in reach").is_none(), "held, by itself");
    first.resign().await;
    within("a resigned term is lost", first.lost()).await;
    assert!(!first.is_valid());
    let second = won(election, "two").await;
    assert!(second.term() > first.term(), "terms rise");
    assert!(!first.is_valid());
    first.resign().await;
    assert!(second.is_valid(), "an old leader's second farewell is not the new one's");
    assert_eq!(reign(election).await.expect("somebody leads").term, second.term());
    second.resign().await;
    assert_eq!(reign(election).await, None);
}

async fn of_many_one_wins(election: &dyn Leadership) {
    for _ in 0..3 {
        let names: Vec<_> = (0..8).map(|n| format!("scheduler-{n}")).collect();
        let all = join_all(names.iter().map(|name| election.campaign(holder(name)))).await;
        let winners: Vec<_> = all.into_iter().filter_map(|campaign| campaign.expect("in reach")).collect();
        assert_eq!(winners.len(), 1, "exactly one of many wins");
        assert_eq!(reign(election).await.expect("somebody leads").term, winners[0].term());
        winners[0].resign().await;
    }
}

async fn deposing_ends_one_reign_only(election: &dyn Leadership) {
    let first = won(election, "one").await;
    let seen = reign(election).await.expect("somebody leads");
    election.depose(&seen).await.expect("in reach");
    within("the deposed leader notices", first.lost()).await;
    assert!(!first.is_valid());
    let second = won(election, "two").await;
    election.depose(&seen).await.expect("deposing what is over is a success");
    assert!(second.is_valid());
    assert_eq!(reign(election).await.map(|reign| reign.term), Some(second.term()));
    second.resign().await;
}

async fn the_witness_is_guarded(election: &dyn Leadership) {
    assert_eq!(election.read_witness().await.expect("in reach"), None);
    let first = won(election, "one").await;
    first.witness(b"first".to_vec()).await.expect("it leads");
    assert_eq!(election.read_witness().await.expect("in reach").as_deref(), Some(b"first".as_slice()));
    let seen = reign(election).await.expect("somebody leads");
    election.depose(&seen).await.expect("in reach");
    let vacant = first.witness(b"late".to_vec()).await;
    assert!(matches!(vacant, Err(LeadershipError::Deposed { term }) if term == first.term()), "{vacant:?}");
    let second = won(election, "two").await;
    let stale = first.witness(b"stale".to_vec()).await;
    assert!(matches!(stale, Err(LeadershipError::Deposed { term }) if term == first.term()), "{stale:?}");
    assert_eq!(election.read_witness().await.expect("in reach").as_deref(), Some(b"first".as_slice()));
    second.witness(b"second".to_vec()).await.expect("it leads");
    assert_eq!(election.read_witness().await.expect("in reach").as_deref(), Some(b"second".as_slice()));
    second.resign().await;
    election.overwrite_witness(b"accepted".to_vec()).await.expect("needs no term");
    assert_eq!(election.read_witness().await.expect("in reach").as_deref(), Some(b"accepted".as_slice()));
}

async fn vacancy_is_noticed(election: &dyn Leadership) {
    let first = won(election, "one").await;
    let resigning = async {
        // By now the other side waits, or will find the key gone: both are fine.
        tokio::task::yield_now().await;
        first.resign().await;
    };
    let (vacant, ()) = within("vacancy", async { tokio::join!(election.vacancy(first.term()), resigning) }).await;
    vacant.expect("in reach");
    assert_eq!(reign(election).await, None);
    within("a term that is over is vacant", election.vacancy(first.term())).await.expect("in reach");
    let second = won(election, "two").await;
    within("another's term is not ours", election.vacancy(first.term())).await.expect("in reach");
    second.resign().await;
}

async fn a_generation_is_above_all_before_it(election: &dyn Leadership) {
    let first = won(election, "one").await;
    let refused = election.begin_generation(first.term()).await;
    assert!(matches!(refused, Err(LeadershipError::Held { term, .. }) if term == first.term()), "{refused:?}");
    assert!(first.is_valid());
    first.resign().await;

    let base = election.begin_generation(first.term()).await.expect("nobody leads");
    assert!(base.generation() == first.term().generation() + 1 && base > first.term());
    let second = won(election, "two").await;
    assert!(second.term() > base && second.term().generation() == base.generation(), "{:?}", second.term());
    assert_eq!(reign(election).await.map(|reign| reign.term), Some(second.term()));
    second.witness(b"of the new generation".to_vec()).await.expect("it leads");
    assert!(election.campaign(holder("one")).await.expect("in reach").is_none(), "held");
    second.resign().await;
    within("its end is noticed", election.vacancy(second.term())).await.expect("in reach");

    // However low the log's own terms are, a generation never comes back; however high, it is passed.
    let next = election.begin_generation(Term(3)).await.expect("nobody leads");
    assert!(next > second.term(), "{next:?}");
    let far = Term(next.0 << 1);
    assert!(election.begin_generation(far).await.expect("nobody leads") > far);
}
