//! The calls on disk: one thread, one transaction for everything that waits, and one row for its calls. A row for each call would
//! cost the processor more than the rest of most calls does.

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::droplets::{
    idempotency::{Fingerprint, Made, Once},
    record::Record,
};

/// Calls of one transaction.
const MOST_AT_ONCE: usize = 1_000;
/// What nobody waits for is gathered so long: a sync for every call would cost more than most calls do.
const GATHER: Duration = Duration::from_millis(50);

/// Of one row.
const BATCH_BYTES: usize = 256 * 1024;

/// How calls were kept before 2026-12: a row for each.
const OLD: &str = "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'calls'";
const FROM_OLD: &str = "
    BEGIN IMMEDIATE;
    INSERT INTO batches (calls, records) SELECT 1, CAST(record AS BLOB) FROM calls ORDER BY seq;
    DROP TABLE calls;
    COMMIT;
";

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS batches (seq INTEGER PRIMARY KEY AUTOINCREMENT, calls INTEGER NOT NULL, records BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS queued (id TEXT PRIMARY KEY, call TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS results (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, scope BLOB NOT NULL UNIQUE, payload BLOB NOT NULL, made TEXT NOT NULL);
";

pub enum Write {
    /// An ended call; it is no longer queued.
    Record {
        record: Arc<Record>,
        result: Option<Box<KeyedResult>>,
        done: Option<oneshot::Sender<bool>>,
    },
    Queued {
        id: String,
        text: String,
        done: oneshot::Sender<bool>,
    },
    /// Nothing: tells when everything before it is written.
    Mark {
        done: oneshot::Sender<bool>,
    },
}

/// What came of a call under a key, and which keys are free for it.
pub struct KeyedResult {
    pub once: Once,
    pub made: Made,
    pub free: Vec<Fingerprint>,
}

impl Write {
    /// Somebody waits until it is on the disk.
    fn is_awaited(&self) -> bool {
        match self {
            Write::Record { done, .. } => done.is_some(),
            Write::Queued { .. } | Write::Mark { .. } => true,
        }
    }
}

pub struct Left {
    pub desk: Desk,
    /// The oldest first.
    pub results: Vec<(Once, Made)>,
    /// The oldest first.
    pub records: Vec<Record>,
    pub queued: Vec<String>,
}

/// Where calls are written.
pub struct Desk {
    connection: Connection,
    /// Calls that are kept, about: a row stays as long as one of its calls does.
    most: usize,
    /// Numbers of rows, and how many calls each holds; the oldest first.
    rows: VecDeque<(i64, usize)>,
    /// Calls that are promised and have not ended. Of all others there is nothing to delete.
    queued: HashSet<String>,
    /// JSON, value by value. Kept for its memory.
    records: Vec<u8>,
}

/// A file that is no history is put aside: calls of the past are worth less than those to come.
pub fn open(file: &Path, most: usize) -> io::Result<Left> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match read(file, most) {
        Ok(left) => Ok(left),
        Err(error) => {
            let aside = file.with_extension("damaged");
            tracing::warn!(file = %file.display(), %error, aside = %aside.display(), "the history of calls cannot be read and begins anew");
            std::fs::rename(file, aside)?;
            for journal in ["-wal", "-shm"] {
                let mut name = file.as_os_str().to_owned();
                name.push(journal);
                std::fs::remove_file(name).ok();
            }
            read(file, most).map_err(io::Error::other)
        }
    }
}

fn read(file: &Path, most: usize) -> rusqlite::Result<Left> {
    let connection = Connection::open(file)?;
    connection.execute_batch(SCHEMA)?;
    if connection.query_row(OLD, [], |row| row.get::<_, i64>(0))? > 0 {
        connection.execute_batch(FROM_OLD)?;
    }
    let mut records = Vec::new();
    let mut rows = VecDeque::new();
    let mut statement = connection.prepare("SELECT seq, calls, records FROM batches ORDER BY seq DESC")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.push_front((row.get(0)?, usize::try_from(row.get::<_, i64>(1)?).unwrap_or_default()));
        if records.len() < most {
            records.extend(read_batch(row.get_ref(2)?.as_bytes()?).into_iter().rev());
        }
    }
    records.truncate(most);
    records.reverse();
    drop(found);
    drop(statement);
    let mut statement = connection.prepare("SELECT id, call FROM queued")?;
    let queued = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (ids, queued) = queued.collect::<rusqlite::Result<Vec<(String, String)>>>()?.into_iter().unzip();
    drop(statement);
    let mut statement = connection.prepare("SELECT scope, payload, made FROM results ORDER BY seq")?;
    let kept = statement
        .query_map([], |row| Ok((Once { scope: row.get(0)?, payload: row.get(1)? }, row.get::<_, String>(2)?)))?;
    let mut results = Vec::new();
    for row in kept {
        let (once, text) = row?;
        match serde_json::from_str::<Made>(&text) {
            Ok(made) => results.push((once, made)),
            Err(error) => tracing::warn!(%error, "the result of a call under a key cannot be read"),
        }
    }
    drop(statement);
    let desk = Desk { connection, most, rows, queued: ids, records: Vec::new() };
    Ok(Left { desk, results, records, queued })
}

/// In the order in which they were written.
fn read_batch(bytes: &[u8]) -> Vec<Record> {
    let values = serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    let read = values.map(|value| value.and_then(|value| serde_json::from_str::<Record>(value.get())));
    let told = |read: serde_json::Result<Record>| match read {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(%error, "a call in the history cannot be read");
            None
        }
    };
    read.filter_map(told).collect()
}

/// Until nobody can send any more. Whoever waits for what he sends unparks this thread.
pub fn run(mut desk: Desk, mut inbox: mpsc::Receiver<Write>) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if futures::executor::block_on(inbox.recv_many(&mut batch, MOST_AT_ONCE)) == 0 {
            return;
        }
        gather(&mut inbox, &mut batch);
        let written = desk.write(&batch);
        if let Err(error) = &written {
            tracing::warn!(%error, calls = batch.len(), "calls cannot be written to the history on disk");
        }
        for write in batch.drain(..) {
            // Who no longer waits need not be told.
            match write {
                Write::Record { done: Some(done), .. } | Write::Queued { done, .. } | Write::Mark { done } => {
                    done.send(written.is_ok()).ok();
                }
                Write::Record { done: None, .. } => {}
            }
        }
    }
}

/// What else comes, until somebody waits or it has been long enough.
fn gather(inbox: &mut mpsc::Receiver<Write>, batch: &mut Vec<Write>) {
    let until = Instant::now() + GATHER;
    let mut awaited = batch.iter().any(Write::is_awaited);
    while batch.len() < MOST_AT_ONCE && !awaited {
        match inbox.try_recv() {
            Ok(write) => {
                awaited = write.is_awaited();
                batch.push(write);
            }
            Err(mpsc::error::TryRecvError::Disconnected) => return,
            Err(mpsc::error::TryRecvError::Empty) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                thread::park_timeout(left);
            }
        }
    }
}

impl Desk {
    /// Results of these keys are no longer wanted.
    pub fn forget(&self, keys: &[Fingerprint]) -> rusqlite::Result<()> {
        forget(&self.connection, keys)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), Box<dyn std::error::Error>> {
        let Self { connection, most, rows, queued, records } = self;
        let transaction = connection.transaction()?;
        let mut added = Vec::new();
        let mut calls = 0;
        records.clear();
        for write in batch {
            match write {
                Write::Record { record, result, .. } => {
                    serde_json::to_writer(&mut *records, &**record)?;
                    calls += 1;
                    if records.len() >= BATCH_BYTES {
                        added.push(add(&transaction, std::mem::take(&mut calls), records)?);
                        records.clear();
                    }
                    if queued.remove(&record.id) {
                        transaction.prepare_cached("DELETE FROM queued WHERE id = ?1")?.execute([&record.id])?;
                    }
                    if let Some(result) = result {
                        let KeyedResult { once, made, free } = &**result;
                        let insert = "INSERT OR REPLACE INTO results (scope, payload, made) VALUES (?1, ?2, ?3)";
                        let made = serde_json::to_string(made)?;
                        transaction.prepare_cached(insert)?.execute(params![once.scope, once.payload, made])?;
                        forget(&transaction, free)?;
                    }
                }
                Write::Queued { id, text, .. } => {
                    queued.insert(id.clone());
                    let mut insert =
                        transaction.prepare_cached("INSERT OR REPLACE INTO queued (id, call) VALUES (?1, ?2)")?;
                    insert.execute(params![id, text])?;
                }
                Write::Mark { .. } => {}
            }
        }
        if calls > 0 {
            added.push(add(&transaction, calls, records)?);
        }
        let mut kept: usize = rows.iter().chain(&added).map(|(_, calls)| calls).sum();
        let mut gone = 0;
        while let Some((seq, calls)) = rows.get(gone)
            && kept - calls >= *most
        {
            transaction.prepare_cached("DELETE FROM batches WHERE seq = ?1")?.execute([seq])?;
            kept -= calls;
            gone += 1;
        }
        transaction.commit()?;
        rows.drain(..gone);
        rows.extend(added);
        Ok(())
    }
}

/// A row of so many calls.
fn add(connection: &Connection, calls: usize, records: &[u8]) -> rusqlite::Result<(i64, usize)> {
    let mut insert = connection.prepare_cached("INSERT INTO batches (calls, records) VALUES (?1, ?2)")?;
    insert.execute(params![i64::try_from(calls).unwrap_or(i64::MAX), records])?;
    Ok((connection.last_insert_rowid(), calls))
}

fn forget(connection: &Connection, keys: &[Fingerprint]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM results WHERE scope = ?1")?;
    keys.iter().try_for_each(|key| delete.execute([key]).map(|_| ()))
}
