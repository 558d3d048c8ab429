//! What happened, in order, with the virtual time: printed when a seed fails.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

/// A story longer than this goes round in circles.
const MOST_LINES: usize = 20_000;

/// Clones tell the same story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    lines: Arc<Mutex<Vec<String>>>,
    begun: Arc<Mutex<Option<Instant>>>,
}

impl Story {
    pub fn tell(&self, line: impl fmt::Display) {
        let now = Instant::now();
        let begun = *self.begun.lock().expect("never poisoned").get_or_insert(now);
        let at = (now - begun).as_secs_f64();
        let mut lines = self.lines.lock().expect("never poisoned");
        lines.push(format!("{at:>9.3}  {line}"));
        assert!(lines.len() < MOST_LINES, "no end to it, at last:\n{}", lines[MOST_LINES - 60..].join("\n"));
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock().expect("never poisoned");
        for line in lines.iter() {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
