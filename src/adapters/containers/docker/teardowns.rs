//! Stops whose container has ended and whose network Docker still takes down, some 40 ms each. What is started meanwhile takes
//! longer than both one after the other (266 to 332 ms, where the start alone takes 246), so a start waits for them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use crate::adapters::containers::ContainerId;

/// The most that a start waits. An engine that takes longer is stuck with one container, and the start is another's.
const LIMIT: Duration = Duration::from_millis(250);

#[derive(Clone, Default)]
pub(super) struct Teardowns(Arc<watch::Sender<HashMap<ContainerId, Stopping>>>);

#[derive(Default)]
struct Stopping {
    /// Stops of it that Docker has been asked for and has not answered.
    asked: usize,
    has_ended: bool,
}

/// A stop that Docker has not answered yet.
pub(super) struct Stop<'a> {
    teardowns: &'a Teardowns,
    id: &'a ContainerId,
}

impl Teardowns {
    pub(super) fn stop<'a>(&'a self, id: &'a ContainerId) -> Stop<'a> {
        self.0.send_modify(|stopping| stopping.entry(id.clone()).or_default().asked += 1);
        Stop { teardowns: self, id }
    }

    /// Docker tells that the container's process has ended.
    pub(super) fn ended(&self, id: &ContainerId) {
        self.0.send_if_modified(|stopping| match stopping.get_mut(id) {
            Some(stop) => !std::mem::replace(&mut stop.has_ended, true),
            None => false,
        });
    }

    /// Returns when Docker is at none, or after [`LIMIT`].
    pub(super) async fn over(&self) {
        let mut stopping = self.0.subscribe();
        let over = stopping.wait_for(|stopping| !stopping.values().any(|stop| stop.has_ended));
        // The sender is ours: the only other end is that the time is up.
        drop(timeout(LIMIT, over).await);
    }
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.teardowns.0.send_modify(|stopping| {
            if let Some(stop) = stopping.get_mut(self.id) {
                stop.asked -= 1;
                if stop.asked == 0 {
                    stopping.remove(self.id);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn id(name: &str) -> ContainerId {
        ContainerId(name.to_owned())
    }

    async fn waited(teardowns: &Teardowns) -> Duration {
        let begun = Instant::now();
        teardowns.over().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_has_ended_and_is_not_down_is_waited_for() {
        let (teardowns, a, b) = (Teardowns::default(), id("a"), id("b"));
        teardowns.ended(&a);
        assert_eq!(waited(&teardowns).await, Duration::ZERO, "it died by itself");
        let stop = teardowns.stop(&a);
        let lives_on = teardowns.stop(&b);
        assert_eq!(waited(&teardowns).await, Duration::ZERO, "nobody knows how long they take to end");
        teardowns.ended(&a);
        assert_eq!(teardowns.over().now_or_never(), None);
        let down = async {
            sleep(Duration::from_millis(40)).await;
            drop(stop);
        };
        assert_eq!(tokio::join!(waited(&teardowns), down).0, Duration::from_millis(40));
        drop(lives_on);
        assert!(teardowns.0.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_stuck_holds_no_start_up_for_long() {
        let (teardowns, a) = (Teardowns::default(), id("a"));
        let (stop, again) = (teardowns.stop(&a), teardowns.stop(&a));
        teardowns.ended(&a);
        drop(again);
        assert_eq!(waited(&teardowns).await, LIMIT);
        drop(stop);
        assert_eq!(waited(&teardowns).await, Duration::ZERO);
    }
}
