//! A disk that takes its time: whoever is meanwhile on the way may come in between.

use shuttle::thread::yield_now;

use crate::store::{Engine, EngineError, Entry, Image, MemoryEngine, Revision};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    /// Of several writes in one commit the last one is forgotten.
    LosesTheLast,
    /// After a commit that failed it says that nothing is there of it, whatever is.
    HidesWhatFailed,
}

/// Handles on one disk.
#[derive(Debug, Clone)]
pub struct SlowDisk {
    pub memory: MemoryEngine,
    pub planted: Planted,
}

impl Engine for SlowDisk {
    fn load(&mut self) -> Result<Image, EngineError> {
        self.memory.load()
    }

    fn commit(&mut self, batch: &[Entry]) -> Result<(), EngineError> {
        yield_now();
        let kept = match self.planted {
            Planted::LosesTheLast if batch.len() > 1 => &batch[..batch.len() - 1],
            Planted::Nothing | Planted::LosesTheLast | Planted::HidesWhatFailed => batch,
        };
        let done = self.memory.commit(kept);
        yield_now();
        done
    }

    fn history(&mut self, from: Revision) -> Result<Vec<Entry>, EngineError> {
        yield_now();
        match self.planted {
            Planted::HidesWhatFailed if from > Revision(0) => Ok(Vec::new()),
            Planted::Nothing | Planted::LosesTheLast | Planted::HidesWhatFailed => self.memory.history(from),
        }
    }

    fn compact(&mut self, to: Revision) -> Result<(), EngineError> {
        yield_now();
        self.memory.compact(to)
    }

    fn blocks(&self) -> bool {
        true
    }
}
