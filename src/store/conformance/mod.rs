//! What [`Store`] means, as a suite that every implementation passes. Shipped with the library so that integration
//! tests can run it.
//!
//! It assumes only what the trait promises: revisions grow but need not be consecutive, other processes may write
//! elsewhere in the same store, and a watch may be told later than the writer.

mod watches;
mod writes;

use std::{future::Future, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Change, Key, Store, StoreResult, Watch};

/// No single wait of the suite is longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// The fewest changes a store must keep for the suite.
pub const LEAST_HISTORY: usize = 16;

/// Runs every case, each on a fresh and empty store from `make`. `history` is the number of changes after which a
/// revision is gone, at least [`LEAST_HISTORY`]. Panics on the first promise that does not hold.
pub async fn run<F, Fut>(make: F, history: usize)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    assert!(history >= LEAST_HISTORY, "the suite needs a store that keeps {LEAST_HISTORY} changes");

    writes::a_created_object_can_be_read(make().await).await;
    writes::an_object_is_created_once(make().await).await;
    writes::lists_are_in_key_order_and_cover_their_prefix_only(make().await).await;
    writes::an_update_replaces_the_version_it_names(make().await).await;
    writes::an_update_of_nothing_is_refused(make().await).await;
    writes::an_equal_update_makes_no_version(make().await).await;
    writes::a_deletion_makes_a_final_version(make().await).await;
    writes::one_of_many_creators_wins(make().await).await;
    writes::no_update_is_lost_among_concurrent_writers(make().await).await;

    watches::tells_what_comes_after_now(make().await).await;
    watches::tells_the_past(make().await).await;
    watches::covers_its_prefix_only(make().await).await;
    watches::catches_up_when_nothing_waits(make().await).await;
    watches::the_future_is_refused(make().await).await;
    watches::a_long_gone_revision_is_expired(make().await, history).await;
    watches::a_dropped_call_loses_nothing(make().await).await;
    watches::list_and_watch_follow_concurrent_writers(make().await).await;
}

fn key(name: &str) -> Key {
    Key::new("gaia.dev", "workloads", Some("default"), name)
}

fn object(name: &str, size: u64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"size": size}})
}

/// The answer of a call that must not take for ever.
async fn soon<T>(what: &str, call: impl Future<Output = T>) -> T {
    timeout(DEADLINE, call).await.unwrap_or_else(|_| panic!("{what}: no answer within {DEADLINE:?}"))
}

/// Exactly the next `count` changes.
async fn told(watch: &mut dyn Watch, count: usize) -> StoreResult<Vec<Change>> {
    let mut changes = Vec::new();
    while changes.len() < count {
        let more = soon("a watch with changes waiting", watch.next()).await?;
        assert!(!more.is_empty(), "a watch answers at least one change");
        changes.extend(more);
    }
    assert_eq!(changes.len(), count, "no more changes than were written");
    Ok(changes)
}
