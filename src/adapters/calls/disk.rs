//! The calls on disk: one thread, one transaction for everything that waits.

use std::{
    io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use crate::droplets::{
    idempotency::{Fingerprint, Made, Once},
    record::Record,
};

/// Calls of one transaction.
const MOST_AT_ONCE: usize = 1_000;
/// What nobody waits for is gathered so long: a sync for every call would cost more than most calls do.
const GATHER: Duration = Duration::from_millis(50);

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS calls (seq INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);
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
    pub connection: Connection,
    /// The oldest first.
    pub results: Vec<(Once, Made)>,
    /// The oldest first.
    pub records: Vec<Record>,
    pub queued: Vec<String>,
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
    let mut statement = connection.prepare("SELECT record FROM calls ORDER BY seq DESC LIMIT ?1")?;
    let texts = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get::<_, String>(0))?;
    let mut records = Vec::new();
    for text in texts {
        match serde_json::from_str::<Record>(&text?) {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!(%error, "a call in the history cannot be read"),
        }
    }
    records.reverse();
    drop(statement);
    let mut statement = connection.prepare("SELECT call FROM queued")?;
    let queued = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    let mut statement = connection.prepare("SELECT scope, payload, made FROM results ORDER BY seq")?;
    let rows = statement
        .query_map([], |row| Ok((Once { scope: row.get(0)?, payload: row.get(1)? }, row.get::<_, String>(2)?)))?;
    let mut results = Vec::new();
    for row in rows {
        let (once, text) = row?;
        match serde_json::from_str::<Made>(&text) {
            Ok(made) => results.push((once, made)),
            Err(error) => tracing::warn!(%error, "the result of a call under a key cannot be read"),
        }
    }
    drop(statement);
    Ok(Left { connection, results, records, queued })
}

/// Results of these keys are no longer wanted.
pub fn forget(connection: &Connection, keys: &[Fingerprint]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM results WHERE scope = ?1")?;
    keys.iter().try_for_each(|key| delete.execute([key]).map(|_| ()))
}

/// Until nobody can send any more. Whoever waits for what he sends unparks this thread.
pub fn run(mut connection: Connection, mut inbox: mpsc::Receiver<Write>, most: usize) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if futures::executor::block_on(inbox.recv_many(&mut batch, MOST_AT_ONCE)) == 0 {
            return;
        }
        gather(&mut inbox, &mut batch);
        let written = write(&mut connection, &batch, most);
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

fn write(connection: &mut Connection, batch: &[Write], most: usize) -> Result<(), Box<dyn std::error::Error>> {
    let transaction = connection.transaction()?;
    for write in batch {
        match write {
            Write::Record { record, result, .. } => {
                let text = serde_json::to_string(&**record)?;
                transaction.prepare_cached("INSERT INTO calls (record) VALUES (?1)")?.execute([text])?;
                transaction.prepare_cached("DELETE FROM queued WHERE id = ?1")?.execute([&record.id])?;
                if let Some(result) = result {
                    let KeyedResult { once, made, free } = &**result;
                    let insert = "INSERT OR REPLACE INTO results (scope, payload, made) VALUES (?1, ?2, ?3)";
                    let made = serde_json::to_string(made)?;
                    transaction.prepare_cached(insert)?.execute(params![once.scope, once.payload, made])?;
                    forget(&transaction, free)?;
                }
            }
            Write::Queued { id, text, .. } => {
                let mut insert =
                    transaction.prepare_cached("INSERT OR REPLACE INTO queued (id, call) VALUES (?1, ?2)")?;
                insert.execute(params![id, text])?;
            }
            Write::Mark { .. } => {}
        }
    }
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut bound =
        transaction.prepare_cached("DELETE FROM calls WHERE seq <= (SELECT COALESCE(MAX(seq), 0) FROM calls) - ?1")?;
    bound.execute([most])?;
    drop(bound);
    transaction.commit()?;
    Ok(())
}
