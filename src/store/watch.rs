//! A watch: a cursor into the log, without a buffer.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Change, Prefix, Revision, StoreError, StoreResult, Watch, committer::Shared, log::Found};

/// The most changes one call answers.
const MOST: usize = 256;
/// The most log entries looked at under one hold of the lock.
const SPAN: usize = 1024;

pub(super) struct Cursor {
    shared: Arc<Shared>,
    prefix: Prefix,
    position: Revision,
    news: watch::Receiver<Revision>,
}

impl Cursor {
    pub fn new(shared: Arc<Shared>, prefix: Prefix, from: Revision) -> StoreResult<Self> {
        let news = shared.news.subscribe();
        {
            let state = shared.state();
            if from > state.revision {
                return Err(StoreError::Future { asked: from, latest: state.revision });
            }
            state.log.after(from, &prefix, 0, 0)?;
        }
        Ok(Self { shared, prefix, position: from, news })
    }

    /// One look into the log, and whether there will be no more news. A store that closes still commits what is queued.
    fn look(&self, most: usize) -> StoreResult<(Found, bool)> {
        let state = self.shared.state();
        Ok((state.log.after(self.position, &self.prefix, most, SPAN)?, state.is_over()))
    }
}

impl Watch for Cursor {
    /// Cancel-safe: the position moves only together with the answer, past changes that the prefix does not cover, or
    /// not at all.
    fn next(&mut self) -> BoxFuture<'_, StoreResult<Vec<Change>>> {
        Box::pin(async move {
            loop {
                // Marked as seen before looking, so that what comes after the look wakes us.
                self.news.borrow_and_update();
                let (found, over) = self.look(MOST)?;
                self.position = found.upto;
                if !found.changes.is_empty() {
                    return Ok(found.changes);
                }
                if found.end {
                    if over {
                        return Err(StoreError::Closed);
                    }
                    self.news.changed().await.map_err(|_| StoreError::Closed)?;
                }
            }
        })
    }

    fn position(&self) -> Revision {
        self.position
    }

    fn catch_up(&mut self) -> Revision {
        // An expired cursor stays where it is; `next` will say so.
        while let Ok((found, _)) = self.look(1)
            && found.changes.is_empty()
        {
            self.position = found.upto;
            if found.end {
                break;
            }
        }
        self.position
    }
}
