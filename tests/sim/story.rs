//! What happened, in order, with the virtual time: printed when a seed fails.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tokio::{sync::watch, time::Instant};

/// A story longer than this goes round in circles.
const MOST_LINES: usize = 20_000;

/// Clones tell the same story.
#[derive(Debug, Clone, Default)]
pub struct Story {
    lines: Arc<Mutex<Vec<String>>>,
    begun: Arc<Mutex<Option<Instant>>>,
    endless: watch::Sender<bool>,
}

impl Story {
    pub fn tell(&self, line: impl fmt::Display) {
        let now = Instant::now();
        let begun = *self.begun.lock().expect("never poisoned").get_or_insert(now);
        let at = (now - begun).as_secs_f64();
        let mut lines = self.lines.lock().expect("never poisoned");
        if lines.len() < MOST_LINES {
            lines.push(format!("{at:>9.3}  {line}"));
        } else {
            self.endless.send_replace(true);
        }
    }

    /// It goes round in circles.
    pub fn is_endless(&self) -> bool {
        *self.endless.borrow()
    }

    /// Ready when it goes round in circles.
    pub async fn endless(&self) {
        let mut endless = self.endless.subscribe();
        endless.wait_for(|endless| *endless).await.expect("the sender is ours");
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
