//! Makes queued writes durable, one batch after the other, and only then shows and acknowledges them.
//!
//! Flow of a batch: (1) everything queued is taken, (2) committed as one transaction, (3) published to readers and
//! watchers, (4) acknowledged. When (2) fails, nobody knows at first what the disk holds. The head goes back to the
//! published state, all writers of the batch and of the queue (they were compared with the batch) are told
//! `Unavailable`, and before anything else is committed the engine is asked what it has: what did take effect is then
//! published like any other write, so that no watch has a gap. While the engine does not even answer that, no batch is
//! committed; each asks again. When a sync fails, nothing more is asked or committed: the store ends, see
//! [`EngineError::Lost`].

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::watch;

use super::{
    Change, Engine, EngineError, Revision, StoreError,
    state::{State, Ticket, entry},
};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// What writers, readers, watchers and the committer have in common.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Tells the committer's thread of writes or of the end.
    pub work: Condvar,
    /// Wakes watchers: the last published revision.
    pub news: watch::Sender<Revision>,
    /// Why the store ended although nobody closed it.
    pub broken: watch::Sender<Option<String>>,
}

impl Shared {
    pub fn new(state: State) -> Self {
        let news = watch::Sender::new(state.revision);
        Self { state: Mutex::new(state), work: Condvar::new(), news, broken: watch::Sender::new(None) }
    }

    /// Held for the length of a statement, never across an await or a commit.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }

    /// Refuses all further writes and wakes everybody to notice.
    pub fn end(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.closed = true;
        }
        self.work.notify_all();
        self.news.send_modify(|_| {});
    }
}

/// The one user of the engine.
pub(super) struct Committer {
    engine: Box<dyn Engine>,
    /// How many log entries the engine holds.
    logged: usize,
    /// A commit failed and the engine could not be asked yet what became of it.
    doubt: bool,
    /// Commits fail at present; told once, for a full disk is told by every writer.
    failing: bool,
    /// The engine must not be used any more.
    dead: bool,
}

impl Committer {
    pub fn new(engine: Box<dyn Engine>, logged: usize) -> Self {
        Self { engine, logged, doubt: false, failing: false, dead: false }
    }

    /// Works until the store is closed and the queue is empty.
    pub fn run(mut self, shared: &Arc<Shared>) {
        let mut farewell = Farewell { shared: shared.clone(), orderly: false };
        while !self.dead {
            let mut state = shared.state();
            while state.queue.is_empty() && !state.closed {
                state = shared.work.wait(state).expect("nothing panics while it holds the state");
            }
            drop(state);
            if !self.settle(shared) {
                break;
            }
        }
        farewell.orderly = true;
    }

    /// Commits what is queued now; false if that is nothing.
    pub fn settle(&mut self, shared: &Shared) -> bool {
        let batch = std::mem::take(&mut shared.state().queue);
        if batch.is_empty() {
            return false;
        }
        let changes: Vec<Change> = batch.iter().filter_map(|ticket| ticket.change.clone()).collect();
        match self.commit(&changes) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("commits succeed again");
                }
                self.publish(shared, changes);
                for ticket in batch {
                    answer(ticket, None);
                }
                self.compact_if_long(shared);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(error = %error.chain(), "commit failed");
                }
                let queued = if error.is_final() { self.give_up(shared, &error) } else { self.retreat(shared) };
                let refusal = refusal(&error);
                for ticket in batch.into_iter().chain(queued) {
                    answer(ticket, Some(&refusal));
                }
            }
        }
        true
    }

    /// Ends the store. What was published was durable before; what this batch came to, the next start finds out.
    fn give_up(&mut self, shared: &Shared, error: &EngineError) -> VecDeque<Ticket> {
        self.dead = true;
        let queued = {
            let mut state = shared.state();
            state.closed = true;
            state.roll_back()
        };
        shared.broken.send_replace(Some(error.chain()));
        shared.end();
        queued
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), EngineError> {
        if self.doubt {
            return Err(EngineError::Unsettled);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let entries: Vec<_> = changes.iter().map(entry).collect();
        self.engine.commit(&entries)
    }

    fn publish(&mut self, shared: &Shared, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.logged += changes.len();
        let revision = shared.state().publish(changes);
        shared.news.send_replace(revision);
    }

    /// Sets the head back to what is durable, and publishes what a failed commit did write. Answers the writers that
    /// were queued on top of it.
    fn retreat(&mut self, shared: &Shared) -> VecDeque<Ticket> {
        let published = shared.state().revision;
        let history = self.engine.history(published);
        // One hold of the lock, so that no writer is compared with the state in between.
        let mut state = shared.state();
        let queued = state.roll_back();
        match history.and_then(|entries| state.revive(&entries)) {
            Ok(changes) => {
                self.doubt = false;
                self.logged += changes.len();
                let revision = state.publish(changes);
                drop(state);
                shared.news.send_replace(revision);
            }
            Err(error) => {
                self.doubt = true;
                drop(state);
                // Nothing is on its way now: of a closed store there is no more to come.
                shared.news.send_modify(|_| {});
                tracing::error!(error = %error.chain(), "cannot tell what became of the failed commit");
            }
        }
        queued
    }

    /// Keeps the engine's log near its bound. Not on every batch, because forgetting is a transaction too.
    pub fn compact_if_long(&mut self, shared: &Shared) {
        let (kept, forgotten) = {
            let state = shared.state();
            (state.log.len(), state.log.forgotten())
        };
        if self.logged <= kept + kept / 8 {
            return;
        }
        match self.engine.compact(forgotten) {
            Ok(()) => self.logged = kept,
            Err(error) if error.is_final() => {
                for ticket in self.give_up(shared, &error) {
                    answer(ticket, Some(&refusal(&error)));
                }
            }
            Err(error) => tracing::warn!(error = %error.chain(), "cannot compact the log, will try again"),
        }
    }
}

/// What writers are told of a commit that failed.
fn refusal(error: &EngineError) -> StoreError {
    match error {
        EngineError::Full { .. } => StoreError::Full(error.to_string()),
        error => StoreError::Unavailable(error.chain()),
    }
}

/// Tells a writer its verdict, or why nothing came of it. A writer that does not wait any more is fine.
fn answer(ticket: Ticket, refusal: Option<&StoreError>) {
    let verdict = match refusal {
        None => ticket.verdict,
        Some(refusal) => Err(refusal.clone()),
    };
    ticket.reply.send(verdict).ok();
    drop(ticket.place);
}

/// However the committer's thread ends, also by a panic: nobody waits for it. Dropped tickets tell their writers.
struct Farewell {
    shared: Arc<Shared>,
    orderly: bool,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if !self.orderly {
            self.shared.broken.send_replace(Some("the thread that writes has panicked".to_owned()));
        }
        if let Ok(mut state) = self.shared.state.lock() {
            state.roll_back();
        }
        self.shared.end();
    }
}
