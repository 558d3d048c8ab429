//! Routed calls, the latest so many of them: in memory for those who ask, in SQLite for the next process. Beside them the results
//! of calls under a key, for who comes again with it.
//!
//! A thread writes what has come in the meantime as one transaction, so that callers share a sync; who wants to can wait for it. What
//! nobody waits for is gathered for a moment.
//! When the disk falls behind by more than [`MOST_BEHIND`] calls, further ones are not written, and that is counted.

mod disk;
mod memory;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use crate::droplets::{
    idempotency::{Before, Made, Once, Results},
    record::{Filter, Record},
};
use disk::{KeyedResult, Write};
use memory::Memory;

/// Calls that wait for the disk.
const MOST_BEHIND: usize = 10_000;

/// A history. Clones share it.
#[derive(Clone)]
pub struct Calls {
    memory: Arc<Mutex<Memory>>,
    results: Arc<Mutex<Results>>,
    /// None: only in memory.
    disk: Option<Disk>,
}

#[derive(Clone)]
struct Disk {
    sender: mpsc::Sender<Write>,
    writer: std::thread::Thread,
}

impl Disk {
    /// Ready when it is on the disk, with what came before; false: it is not.
    async fn written(&self, write: Write, wait: oneshot::Receiver<bool>) -> bool {
        if self.sender.send(write).await.is_err() {
            return false;
        }
        self.writer.unpark();
        wait.await.unwrap_or(false)
    }
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
        Self { memory: Arc::new(Mutex::new(Memory::new(most))), results: Arc::default(), disk: None }
    }

    /// With what a process before has left in this file. One that cannot be read is put aside. The second value holds calls that
    /// were taken and not ended.
    pub fn open(file: &Path, most: usize) -> io::Result<(Self, Vec<String>)> {
        let left = disk::open(file, most)?;
        let mut memory = Memory::new(most);
        for record in left.records {
            memory.put(Arc::new(record));
        }
        let mut results = Results::default();
        for (once, made) in left.results {
            let free = results.put(&once, made);
            left.desk.forget(&free).map_err(io::Error::other)?;
        }
        let (sender, inbox) = mpsc::channel(MOST_BEHIND);
        let writer = std::thread::Builder::new()
            .name("droplet-history".to_owned())
            .spawn(move || disk::run(left.desk, inbox))?;
        let disk = Disk { sender, writer: writer.thread().clone() };
        let (memory, results) = (Arc::new(Mutex::new(memory)), Arc::new(Mutex::new(results)));
        Ok((Self { memory, results, disk: Some(disk) }, left.queued))
    }

    /// Keeps an ended call in place of what was known of it; `made` is for who comes again with its key. `durable`: ready when it
    /// is on the disk.
    pub async fn put(&self, record: Arc<Record>, made: Option<(Once, Made)>, durable: bool) {
        self.memory().put(record.clone());
        let result = made.map(|(once, made)| {
            let free = self.results().put(&once, made.clone());
            Box::new(KeyedResult { once, made, free })
        });
        let Some(disk) = &self.disk else { return };
        if durable {
            let (done, wait) = oneshot::channel();
            if !disk.written(Write::Record { record, result, done: Some(done) }, wait).await {
                tracing::warn!("a call is missing from the history on disk");
            }
        } else if disk.sender.try_send(Write::Record { record, result, done: None }).is_err() {
            tracing::warn!("a call is missing from the history on disk: the disk is too slow");
        }
    }

    /// Keeps a call that is still to be made, as `text` says. Ready when it is on the disk; false: it is not.
    pub async fn queue(&self, record: Arc<Record>, text: String) -> bool {
        let id = record.id.clone();
        if let Some(disk) = &self.disk {
            let (done, wait) = oneshot::channel();
            if !disk.written(Write::Queued { id, text, done }, wait).await {
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
        if !disk.written(Write::Mark { done }, wait).await {
            tracing::warn!("the history on disk is not complete");
        }
    }

    /// Shows what the process before has left on the disk.
    pub fn remember(&self, record: Arc<Record>) {
        self.memory().put(record);
    }

    /// What came of a call under this key. `now` in Unix seconds.
    pub fn made(&self, once: &Once, now: f64) -> Before {
        self.results().find(once, now)
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

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
