//! Whether the process can take work: after everything is started, until it begins to end.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::server::{Check, Readiness};

/// Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    stage: Arc<AtomicU8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Starting = 0,
    Serving = 1,
    Ending = 2,
}

impl Lifecycle {
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Ending,
        }
    }
}

impl Readiness for Lifecycle {
    fn ready(&self) -> Vec<Check> {
        let result = match self.stage() {
            Stage::Starting => Err("the process is starting".to_owned()),
            Stage::Serving => Ok(()),
            Stage::Ending => Err("the process is shutting down".to_owned()),
        };
        vec![Check { name: "lifecycle".to_owned(), result }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_between_start_and_end() {
        let lifecycle = Lifecycle::default();
        let is_ready = || lifecycle.ready().iter().all(|check| check.result.is_ok());
        assert!(!is_ready());
        lifecycle.enter(Stage::Serving);
        assert!(is_ready());
        lifecycle.enter(Stage::Ending);
        assert!(!is_ready());
    }
}
