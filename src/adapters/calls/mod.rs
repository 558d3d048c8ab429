//! Routed calls, the latest so many of them: in memory for those who ask, in SQLite for the next process.
//!
//! A thread writes what has come in the meantime as one transaction, so that callers share a sync; who wants to can wait for it.
//! When the disk falls behind by more than [`MOST_BEHIND`] calls, further ones are not written, and that is counted.

mod disk;
mod memory;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use crate::droplets::record::{Filter, Record};
use disk::Write;
use memory::Memory;

/// Calls that wait for the disk.
const MOST_BEHIND: usize = 10_000;

/// A history. Clones share it.
#[derive(Clone)]
pub struct Calls {
    memory: Arc<Mutex<Memory>>,
    /// None: only in memory.
    disk: Option<mpsc::Sender<Write>>,
}

/// A page of a history, the newest first.
#[derive(Debug)]
pub struct Page {
    pub records: Vec<Arc<Record>>,
    /// All that match.
    pub total: usize,
}

impl Calls {
    /// Keeps `most` calls, in memory only.
    pub fn in_memory(most: usize) -> Self {
        Self { memory: Arc::new(Mutex::new(Memory::new(most))), disk: None }
    }

    /// With what a process before has left in this file. One that cannot be read is put aside. The second value holds calls that
    /// were taken and not ended.
    pub fn open(file: &Path, most: usize) -> io::Result<(Self, Vec<String>)> {
        let left = disk::open(file, most)?;
        let mut memory = Memory::new(most);
        for record in left.records {
            memory.put(Arc::new(record));
        }
        let (sender, inbox) = mpsc::channel(MOST_BEHIND);
        std::thread::Builder::new()
            .name("droplet-history".to_owned())
            .spawn(move || disk::run(left.connection, inbox, most))?;
        Ok((Self { memory: Arc::new(Mutex::new(memory)), disk: Some(sender) }, left.queued))
    }

    /// Keeps an ended call in place of what was known of it. `durable`: ready when it is on the disk.
    pub async fn put(&self, record: Arc<Record>, durable: bool) {
        self.memory().put(record.clone());
        let Some(disk) = &self.disk else { return };
        if durable {
            let (done, wait) = oneshot::channel();
            if disk.send(Write::Record { record, done: Some(done) }).await.is_ok() {
                wait.await.ok();
            }
        } else if disk.try_send(Write::Record { record, done: None }).is_err() {
            tracing::warn!("a call is missing from the history on disk: the disk is too slow");
        }
    }

    /// Keeps a call that is still to be made, as `text` says. Ready when it is on the disk; false: it is not.
    pub async fn queue(&self, record: Arc<Record>, text: String) -> bool {
        let id = record.id.clone();
        if let Some(disk) = &self.disk {
            let (done, wait) = oneshot::channel();
            let sent = disk.send(Write::Queued { id, text, done }).await.is_ok();
            if !sent || !wait.await.unwrap_or(false) {
                return false;
            }
        }
        self.memory().put(record);
        true
    }

    /// Ready when what was put so far is on the disk, or could not be written.
    pub async fn flush(&self) {
        let Some(disk) = &self.disk else { return };
        let (done, wait) = oneshot::channel();
        if disk.send(Write::Mark { done }).await.is_ok() {
            wait.await.ok();
        }
    }

    /// Shows what the process before has left on the disk.
    pub fn remember(&self, record: Arc<Record>) {
        self.memory().put(record);
    }

    pub fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.memory().get(id)
    }

    pub fn page(&self, filter: &Filter, limit: usize) -> Page {
        self.memory().page(filter, limit)
    }

    pub fn len(&self) -> usize {
        self.memory().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
