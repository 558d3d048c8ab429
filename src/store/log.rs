//! The bounded log of changes that watches are cursors into. It knows order, not readers.

use std::{collections::VecDeque, sync::Arc};

use super::{Change, Prefix, Revision, StoreError, StoreResult, Version};

/// As JSON. In memory objects take several times as much; thousands of changes of a large one must not take a host's.
const MOST_BYTES: usize = 32 << 20;

/// The latest changes, at most `capacity` of them and [`MOST_BYTES`], by revision.
#[derive(Debug)]
pub(super) struct Log {
    capacity: usize,
    bytes: usize,
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
        Self { capacity: capacity.max(1), bytes: 0, forgotten, changes: VecDeque::new() }
    }

    pub fn push(&mut self, change: Change) {
        self.bytes += change.version.json.len();
        self.changes.push_back(change);
        // The newest one stays whatever its size.
        let full = |log: &Self| log.changes.len() > log.capacity || log.bytes > MOST_BYTES;
        while self.changes.len() > 1
            && full(self)
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.version.json.len();
            self.forgotten = oldest.version.revision;
        }
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Where the change that made this version is, if it is kept.
    pub fn place_of(&self, revision: Revision) -> Option<usize> {
        self.changes.binary_search_by_key(&revision, |change| change.version.revision).ok()
    }

    pub fn version_at(&self, place: usize) -> Option<&Arc<Version>> {
        self.changes.get(place).map(|change| &change.version)
    }

    /// Puts another copy of the same version in its place, and texts alone in that of the one before it.
    pub fn replace(&mut self, place: usize, version: Arc<Version>) {
        let before = self.changes.get(place).and_then(|change| change.previous.clone());
        // The change that made it has a copy already, unless that is forgotten.
        let kept = before.as_ref().and_then(|before| self.version_at(self.place_of(before.revision)?)).cloned();
        let previous = before.map(|before| kept.unwrap_or_else(|| Arc::new(before.slim(false))));
        if let Some(change) = self.changes.get_mut(place) {
            (change.version, change.previous) = (version, previous);
        }
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

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::store::{ChangeKind, Key};

    #[test]
    fn large_changes_are_forgotten_sooner() {
        let mut log = Log::new(1000, Revision(0));
        let large = Bytes::from(vec![b' '; 1 << 20]);
        for revision in 1..=100 {
            let version = Version::new(Key::from_stored("a/b/c/d"), Revision(revision), Value::Null, large.clone());
            log.push(Change { kind: ChangeKind::Updated, version: Arc::new(version), previous: None });
        }
        assert_eq!((log.len(), log.forgotten()), (32, Revision(68)));
        assert!(log.after(Revision(67), &Prefix::all(), 1, 1).is_err());
        assert_eq!(log.after(Revision(68), &Prefix::all(), 100, 100).expect("kept").changes.len(), 32);
    }
}
