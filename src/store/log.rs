//! The bounded log of changes that watches are cursors into. It knows order, not readers.

use std::collections::VecDeque;

use super::{Change, Prefix, Revision, StoreError, StoreResult};

/// The latest changes, at most `capacity` of them, by revision.
#[derive(Debug)]
pub(super) struct Log {
    capacity: usize,
    /// Everything after this revision is here.
    forgotten: Revision,
    changes: VecDeque<Change>,
}

/// What one look into the log found.
pub(super) struct Found {
    pub changes: Vec<Change>,
    /// Everything up to here was looked at.
    pub upto: Revision,
    /// There was no more to look at.
    pub end: bool,
}

impl Log {
    pub fn new(capacity: usize, forgotten: Revision) -> Self {
        Self { capacity: capacity.max(1), forgotten, changes: VecDeque::new() }
    }

    pub fn push(&mut self, change: Change) {
        if self.changes.len() == self.capacity
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.version.revision;
        }
        self.changes.push_back(change);
    }

    /// The revision before the oldest change that is kept: the earliest that a watch may start from.
    pub fn forgotten(&self) -> Revision {
        self.forgotten
    }

    /// The changes under `prefix` after `from`: at most `most` of them, out of at most `span` that are looked at.
    pub fn after(&self, from: Revision, prefix: &Prefix, most: usize, span: usize) -> StoreResult<Found> {
        if from < self.forgotten {
            return Err(StoreError::Expired { asked: from, oldest: self.forgotten });
        }
        let start = self.changes.partition_point(|change| change.version.revision <= from);
        let mut found = Found { changes: Vec::new(), upto: from, end: true };
        for (looked, change) in self.changes.range(start..).enumerate() {
            if looked == span || found.changes.len() == most {
                found.end = false;
                break;
            }
            found.upto = change.version.revision;
            if prefix.covers(&change.version.key) {
                found.changes.push(change.clone());
            }
        }
        Ok(found)
    }
}
