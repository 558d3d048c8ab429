//! An engine that outlives its store but not its process: for tests, the simulator and `gaia plan`.
//!
//! Handles are clones of one disk, so a crash is: drop the store, open another on a clone. A later opening fences the
//! earlier ones, so that tasks left over from before the crash cannot write any more.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{ChangeKind, Engine, EngineError, Entry, Image, Key, Revision, Row, Snapshot};

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    BeforeEffect,
    /// Everything is written, but the answer is an error.
    AfterEffect,
}

/// A handle on a disk made of memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    disk: Arc<Mutex<Disk>>,
    /// Which opening this handle is; 0 before `load`.
    opening: u64,
}

#[derive(Debug, Default)]
struct Disk {
    revision: Revision,
    compacted: Revision,
    objects: BTreeMap<Key, Row>,
    log: VecDeque<Entry>,
    faults: VecDeque<Fault>,
    commits: u64,
    openings: u64,
}

impl MemoryEngine {
    /// A disk that holds what a snapshot holds, at the same revisions, without history.
    pub fn holding(snapshot: &Snapshot) -> Self {
        let objects = snapshot.items.iter().map(|version| {
            let row = Row { key: version.key.clone(), revision: version.revision, json: version.json.clone() };
            (version.key.clone(), row)
        });
        let disk = Disk {
            revision: snapshot.revision,
            compacted: snapshot.revision,
            objects: objects.collect(),
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(disk)), opening: 0 }
    }

    /// The next `times` commits fail like this, after those asked for before.
    pub fn fail_next(&self, fault: Fault, times: usize) {
        self.disk().faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Takes back the faults that have not struck yet.
    pub fn mend(&self) {
        self.disk().faults.clear();
    }

    /// How many batches were made durable.
    pub fn commits(&self) -> u64 {
        self.disk().commits
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("nothing panics while it holds the disk")
    }
}

impl Engine for MemoryEngine {
    fn load(&mut self) -> Result<Image, EngineError> {
        let mut disk = self.disk.lock().expect("nothing panics while it holds the disk");
        disk.openings += 1;
        self.opening = disk.openings;
        Ok(Image {
            revision: disk.revision,
            compacted: disk.compacted,
            objects: disk.objects.values().cloned().collect(),
        })
    }

    fn commit(&mut self, batch: &[Entry]) -> Result<(), EngineError> {
        let mut disk = self.disk();
        if disk.openings != self.opening {
            return Err(EngineError::Fenced);
        }
        let fault = disk.faults.pop_front();
        if fault == Some(Fault::BeforeEffect) {
            return Err(EngineError::Injected);
        }
        for entry in batch {
            disk.apply(entry);
        }
        disk.commits += 1;
        match fault {
            Some(Fault::AfterEffect) => Err(EngineError::Injected),
            Some(Fault::BeforeEffect) | None => Ok(()),
        }
    }

    fn history(&mut self, from: Revision) -> Result<Vec<Entry>, EngineError> {
        let disk = self.disk();
        if disk.openings != self.opening {
            return Err(EngineError::Fenced);
        }
        Ok(disk.log.iter().filter(|entry| entry.row.revision > from).cloned().collect())
    }

    fn compact(&mut self, to: Revision) -> Result<(), EngineError> {
        let mut disk = self.disk();
        disk.log.retain(|entry| entry.row.revision > to);
        disk.compacted = disk.compacted.max(to);
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl Disk {
    fn apply(&mut self, entry: &Entry) {
        let row = &entry.row;
        match entry.kind {
            ChangeKind::Created | ChangeKind::Updated => {
                self.objects.insert(row.key.clone(), row.clone());
            }
            ChangeKind::Deleted => {
                self.objects.remove(&row.key);
            }
        }
        self.revision = row.revision;
        self.log.push_back(entry.clone());
    }
}
