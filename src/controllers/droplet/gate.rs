//! The way to one droplet: so many calls at once, so many waiting, and the circuit.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::figures::OfDroplet;
use crate::{
    api::droplet::{Circuit, DropletLimits},
    droplets::breaker::{Breaker, Passage},
};

pub struct Gate {
    places: Arc<Semaphore>,
    /// How many places there are.
    size: u32,
    waiting: AtomicU32,
    breaker: Arc<Mutex<Breaker>>,
    pub figures: Arc<OfDroplet>,
}

/// Why nobody is let through, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub why: String,
    pub retry_after: Duration,
}

impl Gate {
    pub fn new(limits: &DropletLimits, figures: Arc<OfDroplet>) -> Self {
        let size = limits.max_concurrent;
        let places = Arc::new(Semaphore::new(size as usize));
        Self { places, size, waiting: AtomicU32::new(0), breaker: Arc::default(), figures }
    }

    /// None where it is as wide already. Calls under way in the old one are not counted in the new one.
    pub fn resized(&self, limits: &DropletLimits) -> Option<Self> {
        (self.size != limits.max_concurrent)
            .then(|| Self { breaker: self.breaker.clone(), ..Self::new(limits, self.figures.clone()) })
    }

    /// A place, after those who came before; at most `patience` is waited for it.
    pub async fn enter(&self, limits: &DropletLimits, patience: Duration) -> Result<OwnedSemaphorePermit, Refused> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let refused = |why: String| Refused { why, retry_after: Duration::from_secs(1) };
        let waiting = Waiting::new(&self.waiting);
        if waiting.place > limits.max_queued {
            let why = format!("{} calls are under way and {} wait", self.size, limits.max_queued);
            return Err(refused(why));
        }
        match tokio::time::timeout(patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                Err(refused(format!("{} calls were under way for {} s", self.size, patience.as_secs_f64())))
            }
        }
    }

    pub fn pass(&self, limits: &DropletLimits, now: Timestamp) -> Result<(), Refused> {
        match self.breaker().pass(limits, now) {
            Passage::Free | Passage::Trial => Ok(()),
            Passage::Barred { retry_after } => {
                Err(Refused { why: "its circuit is open after failures in a row".to_owned(), retry_after })
            }
        }
    }

    pub fn ended(&self, well: bool, limits: &DropletLimits, now: Timestamp) {
        match well {
            true => self.breaker().succeeded(),
            false => self.breaker().failed(limits, now),
        }
    }

    pub fn circuit(&self, limits: &DropletLimits, now: Timestamp) -> Circuit {
        self.breaker().circuit(limits, now)
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one who waits, however the wait ends.
struct Waiting<'a> {
    count: &'a AtomicU32,
    place: u32,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        Self { count, place: count.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::droplet::figures::Figures;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_so_many_wait_and_the_rest_is_told_to_come_again() {
        let limits = DropletLimits { max_concurrent: 1, max_queued: 1, ..DropletLimits::default() };
        let figures = Arc::new(Figures::default().of(&"a".into()));
        let gate = Arc::new(Gate::new(&limits, figures));
        let first = gate.enter(&limits, SOON).await.expect("a place");
        let second = tokio::spawn({
            let (gate, limits) = (gate.clone(), limits.clone());
            async move { gate.enter(&limits, SOON).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        let third = gate.enter(&limits, SOON).await.expect_err("one waits already");
        assert_eq!(third.why, "1 calls are under way and 1 wait");
        drop(first);
        assert_eq!(second.await.expect("no panic"), Ok(()));
        let _held = gate.enter(&limits, SOON).await.expect("a place");
        assert_eq!(gate.enter(&limits, SOON).await.expect_err("too long").why, "1 calls were under way for 5 s");
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }
}
