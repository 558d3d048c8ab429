//! An engine that commits when the test says so, counts, and can refuse to answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    mpsc::{Receiver, Sender, channel},
};

use gaia::store::{Engine, EngineError, Entry, Image, Revision};

/// Wraps an engine so that each commit waits for one permission.
pub struct Gated<E> {
    engine: E,
    permissions: Receiver<()>,
    commits: Arc<AtomicUsize>,
    mute: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

/// The test's end of a [`Gated`] engine. Dropping it lets everything through.
pub struct Gate {
    permit: Sender<()>,
    commits: Arc<AtomicUsize>,
    mute: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

pub fn gated<E: Engine>(engine: E) -> (Gated<E>, Gate) {
    let (permit, permissions) = channel();
    let (commits, mute) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let broken = Arc::<AtomicBool>::default();
    let gate = Gate { permit, commits: commits.clone(), mute: mute.clone(), broken: broken.clone() };
    (Gated { engine, permissions, commits, mute, broken }, gate)
}

impl Gate {
    /// Lets one commit through.
    pub fn permit(&self) {
        self.permit.send(()).unwrap();
    }

    /// Commits that were begun after their permission.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// Commits panic from now on.
    pub fn break_down(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// The next `times` questions for history fail.
    pub fn mute(&self, times: usize) {
        self.mute.store(times, Ordering::SeqCst);
    }
}

impl<E: Engine> Engine for Gated<E> {
    fn load(&mut self) -> Result<Image, EngineError> {
        self.engine.load()
    }

    fn commit(&mut self, batch: &[Entry]) -> Result<(), EngineError> {
        // An error means that the gate was dropped: go.
        self.permissions.recv().ok();
        self.commits.fetch_add(1, Ordering::SeqCst);
        assert!(!self.broken.load(Ordering::SeqCst), "the test asked for a panic");
        self.engine.commit(batch)
    }

    fn history(&mut self, from: Revision) -> Result<Vec<Entry>, EngineError> {
        let mute = self.mute.load(Ordering::SeqCst);
        if mute > 0 {
            self.mute.store(mute - 1, Ordering::SeqCst);
            return Err(EngineError::Injected);
        }
        self.engine.history(from)
    }

    fn compact(&mut self, to: Revision) -> Result<(), EngineError> {
        self.engine.compact(to)
    }

    fn blocks(&self) -> bool {
        true
    }
}
