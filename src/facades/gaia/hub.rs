//! Hands every notification to whoever listens. Publishing waits for nobody: a listener who falls behind loses the thread,
//! and is told so.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::broadcast;

use super::notification::{HaStatus, News};
use crate::runtime::clock::Clock;

/// How far a listener may fall behind.
const BEHIND: usize = 256;
/// How many are kept for who comes later, as GAIA's own service kept them. Gone with the process.
const RECENT: usize = 100;

/// A notification as JSON, made once for all listeners.
pub type Frame = Arc<str>;

/// Clones share everything.
#[derive(Clone)]
pub struct Hub {
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

struct Shared {
    listeners: broadcast::Sender<Frame>,
    /// Also held while something is sent, so that a new listener gets each one once.
    recent: Mutex<VecDeque<Frame>>,
    /// What was concluded last of core and its standby.
    availability: Mutex<Option<HaStatus>>,
}

impl Hub {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (listeners, _) = broadcast::channel(BEHIND);
        Self { clock, shared: Arc::new(Shared { listeners, recent: Mutex::default(), availability: Mutex::default() }) }
    }

    pub fn publish(&self, news: News) {
        let notification = news.at(self.clock.now());
        let frame: Frame = match serde_json::to_string(&notification) {
            Ok(text) => text.into(),
            Err(error) => {
                tracing::error!(%error, "a notification cannot be written as JSON");
                return;
            }
        };
        let mut recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(frame.clone());
        // Refused only when nobody listens.
        self.shared.listeners.send(frame).ok();
    }

    pub fn set_availability(&self, now: Option<HaStatus>) {
        *self.shared.availability.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// None: nothing is known of core yet.
    pub fn availability(&self) -> Option<HaStatus> {
        *self.shared.availability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many listen now.
    pub fn listeners(&self) -> usize {
        self.shared.listeners.receiver_count()
    }

    /// What comes from now on, and before it the last `replay` there were.
    pub fn listen(&self, replay: usize) -> (Vec<Frame>, broadcast::Receiver<Frame>) {
        let recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = recent.len().saturating_sub(replay);
        (recent.iter().skip(skipped).cloned().collect(), self.shared.listeners.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::notification::gpu_acquired, *};
    use crate::runtime::clock::SystemClock;

    #[tokio::test]
    async fn a_listener_gets_the_last_ones_and_then_each_once() {
        let hub = Hub::new(Arc::new(SystemClock));
        for n in 0..RECENT + 5 {
            hub.publish(gpu_acquired(&format!("holder-{n}"), ""));
        }
        let (before, mut after) = hub.listen(2);
        let names: Vec<bool> = before.iter().zip([103, 104]).map(|(f, n)| f.contains(&format!("holder-{n}"))).collect();
        assert_eq!(names, [true, true]);
        assert_eq!(hub.listen(usize::MAX).0.len(), RECENT);
        hub.publish(gpu_acquired("next", ""));
        assert!(after.recv().await.expect("told").contains("\"next\""));
        assert!(after.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_listener_that_sleeps_is_told_that_it_missed_something() {
        let hub = Hub::new(Arc::new(SystemClock));
        let (_, mut sleeper) = hub.listen(0);
        for _ in 0..=BEHIND {
            hub.publish(gpu_acquired("gaia-core", ""));
        }
        assert!(matches!(sleeper.recv().await, Err(broadcast::error::RecvError::Lagged(1))));
    }
}
