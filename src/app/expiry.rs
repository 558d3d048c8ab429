//! Events are kept for an hour, as upstream does; then they go.

use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    registry::{ApiResult, DeleteOptions, ListOptions, ObjectName, Reason, Registry},
    runtime::clock::Clock,
};

/// How long after it was last seen.
const TTL: SignedDuration = SignedDuration::from_hours(1);
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);

/// Sweeps until shutdown. A round that fails is made up for by the next.
pub async fn run(
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut rounds = tokio::time::interval(BETWEEN_ROUNDS);
    let sweeps = async {
        loop {
            rounds.tick().await;
            match sweep(&registry, clock.now()).await {
                Ok(0) => {}
                Ok(count) => debug!(count, "old events removed"),
                Err(error) => warn!(%error, "old events not removed"),
            }
        }
    };
    shutdown.run_until_cancelled(sweeps).await;
    Ok(())
}

/// Removes what is too old at `now`; answers how many.
async fn sweep(registry: &Registry, now: Timestamp) -> ApiResult<usize> {
    let Some(kind) = registry.kinds().by_kind("", "v1", "Event") else { return Ok(0) };
    let events = registry.list(&kind, None, &ListOptions::default()).await?;
    let mut removed = 0;
    for version in events.items.iter().filter(|version| is_old(&version.object.peek(), now)) {
        // Counted up in the meantime: it has been seen again, and stays.
        let options = DeleteOptions { resource_version: Some(version.revision), ..DeleteOptions::default() };
        match registry.delete(&kind, &ObjectName::of(&version.object), &options).await {
            Ok(_) => removed += 1,
            Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// An event that says nowhere when it was is as old as its object.
fn is_old(event: &Value, now: Timestamp) -> bool {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let last = times.iter().filter_map(|path| event.pointer(path)?.as_str()?.parse::<Timestamp>().ok()).max();
    last.is_some_and(|last| now.duration_since(last) > TTL)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        registry::WriteOptions,
        runtime::clock::SystemClock,
        store::{EmbeddedStore, MemoryEngine, Options},
    };

    fn old(event: Value) -> bool {
        is_old(&event, "2026-11-20T12:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn the_last_sighting_counts() {
        let made = json!({"creationTimestamp": "2026-11-20T09:00:00Z"});
        assert!(old(json!({"metadata": made})));
        assert!(old(json!({"metadata": made, "lastTimestamp": "2026-11-20T10:59:59Z"})));
        assert!(!old(json!({"metadata": made, "lastTimestamp": "2026-11-20T11:00:00Z"})));
        assert!(!old(json!({"metadata": made, "series": {"lastObservedTime": "2026-11-20T11:59:00.000000Z"}})));
    }

    /// A registry in memory with one event of each age, in hours before noon.
    async fn registry_with(ages: &[i64]) -> Arc<Registry> {
        let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("memory opens");
        let registry =
            crate::app::open_registry(store, crate::app::own_kinds().expect("our kinds"), Arc::new(SystemClock))
                .await
                .expect("opens");
        let kind = registry.kinds().by_kind("", "v1", "Event").expect("served");
        for age in ages {
            let last = noon() - SignedDuration::from_hours(*age);
            let event = json!({"metadata": {"name": format!("age-{age}")}, "lastTimestamp": last.to_string(),
                "involvedObject": {"kind": "Workload", "name": "web", "namespace": "default"}});
            let written = registry.create(&kind, Some("default"), event, &WriteOptions::default()).await;
            written.expect("a valid event");
        }
        registry
    }

    fn noon() -> Timestamp {
        // After the events were made, whenever the test runs: their creation counts too.
        "2126-11-20T12:00:00Z".parse().expect("a time")
    }

    #[tokio::test]
    async fn a_sweep_removes_old_events_and_nothing_else() {
        let registry = registry_with(&[0, 2, 30]).await;
        assert_eq!(sweep(&registry, noon()).await.expect("sweeps"), 2);
        let kind = registry.kinds().by_kind("", "v1", "Event").expect("served");
        let left = registry.list(&kind, None, &ListOptions::default()).await.expect("lists").items;
        let names: Vec<_> = left.iter().map(|version| ObjectName::of(&version.object).name).collect();
        assert_eq!(names, ["age-0"]);
        assert_eq!(sweep(&registry, noon()).await.expect("sweeps"), 0);
    }

    #[test]
    fn without_any_time_nothing_is_old() {
        assert!(!old(json!({"metadata": {}, "lastTimestamp": null})));
    }
}
