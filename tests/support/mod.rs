//! What several test targets share. Each uses a part of it.
#![allow(dead_code, reason = "compiled into every target that uses some of it")]

pub mod certificates;
pub mod dockerd;
pub mod fixture;
pub mod port;
pub mod registry;

use std::time::Duration;

/// Waits until `look` finds something, for real or paused time.
pub async fn eventually<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            // tidy: this is the poll helper, for things that tell nobody of their changes.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(deadline, search).await;
    found.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"))
}
