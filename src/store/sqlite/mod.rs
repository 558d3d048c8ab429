//! The engine that lasts: one SQLite file in a locked directory, WAL, an fsync per commit, a checksum per row.
//!
//! Damage is noticed when the database is opened, not when a row is asked for: every row is read and verified, the rows
//! are counted, and SQLite checks its own structure. Nothing is ever repaired by leaving something out.

mod backup;
mod directory;
mod journal;
mod recover;
mod restore;
mod rows;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, MAIN_DB, Transaction, TransactionBehavior, config::DbConfig, ffi, hooks::Wal, params,
    wal::CheckpointMode,
};

pub use backup::{Backup, verify};
pub use recover::{Recovery, Wish, recover};
pub use restore::{Restored, Source, restore};

use self::{
    directory::DirectoryLock,
    rows::{Bad, entry_checksum, integer, object_checksum, read_entry, read_object, text, word},
};
use super::{ChangeKind, Engine, EngineError, Entry, Image, Revision, Row};

const DATABASE: &str = "gaia.db";
const SCHEMA_VERSION: i64 = 1;
/// How long the journal may get before it is moved into the database: SQLite's own default.
const CHECKPOINT_PAGES: std::ffi::c_int = 1000;

/// `totals` is one row: what the other tables must add up to.
const SCHEMA: &str = "
    PRAGMA application_id = 0x67616961;
    PRAGMA user_version = 1;
    CREATE TABLE IF NOT EXISTS objects (
        key TEXT NOT NULL PRIMARY KEY, rv INTEGER NOT NULL, value TEXT NOT NULL, checksum INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS log (
        rv INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
        prev_rv INTEGER, prev TEXT, checksum INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS totals (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        revision INTEGER NOT NULL, compacted INTEGER NOT NULL, objects INTEGER NOT NULL, entries INTEGER NOT NULL
    );
    INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0, 0);
";

/// One open database.
#[derive(Debug)]
pub struct SqliteEngine {
    // Before the lock, so that it is closed before the directory is free.
    connection: Connection,
    /// How messages name it.
    path: PathBuf,
    /// Why the last checkpoint could not be synced; the commit that led to it does not tell.
    lost: Arc<Mutex<Option<rusqlite::Error>>>,
    _lock: Option<DirectoryLock>,
}

struct Totals {
    revision: Revision,
    compacted: Revision,
    objects: i64,
    entries: i64,
}

/// The good rows, and the bad ones with their rowids.
type Scan<T> = (Vec<T>, Vec<(i64, Bad)>);

type Parse<T> = fn(&rusqlite::Row<'_>) -> rusqlite::Result<Result<T, Bad>>;

impl SqliteEngine {
    /// Locks `directory` and opens its database; makes both if they are missing.
    pub fn open_dir(directory: &Path) -> Result<Self, EngineError> {
        let lock = DirectoryLock::acquire(directory)?;
        directory::database(directory)?;
        Self::open_locked(lock, directory)
    }

    fn open_locked(lock: DirectoryLock, directory: &Path) -> Result<Self, EngineError> {
        let path = directory.join(DATABASE);
        journal::check(&path)?;
        let connection = connect(&path).map_err(|error| damaged_or(&path, "open the database", error))?;
        let mut engine = Self::over(connection, path, Some(lock))?;
        engine.tune().map_err(|error| engine.failed("set up the database", error))?;
        Ok(engine)
    }

    /// Over a connection that was only opened. What writes comes later, so that a file that is not ours stays as it is.
    fn over(connection: Connection, path: PathBuf, lock: Option<DirectoryLock>) -> Result<Self, EngineError> {
        let engine = Self { connection, path, lost: Arc::default(), _lock: lock };
        engine.check_version()?;
        Ok(engine)
    }

    fn check_version(&self) -> Result<(), EngineError> {
        let number = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let application = number("application_id").map_err(|error| self.failed("read the schema version", error))?;
        let version = number("user_version").map_err(|error| self.failed("read the schema version", error))?;
        if application != 0x6761_6961 || version < 1 {
            return Err(self.damaged("it does not have the mark of our databases"));
        }
        if version > SCHEMA_VERSION {
            return Err(EngineError::Newer { path: self.path.clone(), found: version, known: SCHEMA_VERSION });
        }
        Ok(())
    }

    fn check_structure(&self) -> Result<(), EngineError> {
        let mut problems = Vec::new();
        let checked = self.connection.pragma_query(None, "integrity_check", |row| {
            problems.push(row.get::<_, String>(0)?);
            Ok(())
        });
        checked.map_err(|error| self.failed("check the database", error))?;
        if problems != ["ok"] {
            problems.truncate(3);
            return Err(self.damaged(&format!("SQLite finds: {}", problems.join("; "))));
        }
        Ok(())
    }

    fn totals(&self) -> Result<Totals, EngineError> {
        let sql = "SELECT revision, compacted, objects, entries FROM totals WHERE id = 1";
        let totals = self.connection.query_row(sql, [], |row| {
            Ok(Totals {
                revision: Revision(row.get::<_, i64>(0)?.cast_unsigned()),
                compacted: Revision(row.get::<_, i64>(1)?.cast_unsigned()),
                objects: row.get(2)?,
                entries: row.get(3)?,
            })
        });
        totals.map_err(|error| self.failed("read the totals", error))
    }

    fn objects(&self) -> Result<Vec<Row>, EngineError> {
        // By rowid, not through the index: a damaged index must not hide a row.
        let sql = "SELECT key, rv, value, checksum, rowid FROM objects NOT INDEXED WHERE rowid > ?1";
        let mut rows = self.read("objects", sql, Revision(0), read_object)?;
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    fn entries(&self, from: Revision) -> Result<Vec<Entry>, EngineError> {
        let sql = "SELECT key, rv, value, checksum, kind, prev_rv, prev, rv FROM log WHERE rv > ?1 ORDER BY rv";
        self.read("log", sql, from, read_entry)
    }

    /// Reads a whole table, and on damage goes on to the end, so that the error can tell how much it is. The last column
    /// is the rowid.
    fn read<T>(&self, table: &str, sql: &str, from: Revision, parse: Parse<T>) -> Result<Vec<T>, EngineError> {
        let (good, bad) = self.scan(sql, from, parse).map_err(|error| self.failed("read the rows", error))?;
        match bad.first() {
            None => Ok(good),
            Some((rowid, Bad { key, why })) => Err(EngineError::Damaged {
                what: format!("row {rowid} of table {table} (key `{key}`) in {}", self.path.display()),
                help: format!(
                    "{why}; damaged rows in this table: {}. {} Or look at it: sqlite3 {} \"SELECT * FROM {table} WHERE rowid \
                     = {rowid}\"",
                    bad.len(),
                    advice(&self.path),
                    self.path.display()
                ),
            }),
        }
    }

    fn scan<T>(&self, sql: &str, from: Revision, parse: Parse<T>) -> rusqlite::Result<Scan<T>> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let sql = sql.replace("?1", &from.to_string());
        self.scan_each(&sql, parse, |rowid, row| match row {
            Ok(value) => good.push(value),
            Err(damage) => bad.push((rowid, damage)),
        })?;
        Ok((good, bad))
    }

    /// Row by row; the last column is the rowid.
    fn scan_each<T>(
        &self,
        sql: &str,
        parse: Parse<T>,
        mut each: impl FnMut(i64, Result<T, Bad>),
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        let rowid = statement.column_count() - 1;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row.get(rowid)?, parse(row)?);
        }
        Ok(())
    }

    fn tune(&mut self) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |row| row.get::<_, i64>(0))?;
        // As SQLite does by itself, but that we see what becomes of it. No room is fine: the journal keeps everything.
        let lost = self.lost.clone();
        connection.wal_hook(Some(move |journal: &mut Wal, pages| {
            if pages >= CHECKPOINT_PAGES
                && let Err(error) = journal.checkpoint_v2(CheckpointMode::PASSIVE)
                && is_unsynced(&error)
            {
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            Ok(())
        }))
    }

    /// What the hook found after the last transaction.
    fn still_kept(&self) -> Result<(), EngineError> {
        match self.lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(source) => Err(EngineError::Lost { path: self.path.clone(), source }),
        }
    }

    fn failed(&self, doing: &'static str, error: rusqlite::Error) -> EngineError {
        damaged_or(&self.path, doing, error)
    }

    fn damaged(&self, why: &str) -> EngineError {
        damaged(&self.path, why)
    }
}

impl Engine for SqliteEngine {
    fn load(&mut self) -> Result<Image, EngineError> {
        let totals = self.totals()?;
        let objects = self.objects()?;
        let entries = self.entries(Revision(0))?;
        // Last, because what it finds names no row.
        self.check_structure()?;
        for (table, counted, expected) in
            [("objects", objects.len(), totals.objects), ("log", entries.len(), totals.entries)]
        {
            if i64::try_from(counted) != Ok(expected) {
                return Err(self.damaged(&format!("table {table} has {counted} rows where {expected} were written")));
            }
        }
        let kept = totals.revision.0.checked_sub(totals.compacted.0);
        if kept != u64::try_from(totals.entries).ok() {
            return Err(self.damaged("its totals contradict each other"));
        }
        Ok(Image { revision: totals.revision, compacted: totals.compacted, objects })
    }

    fn commit(&mut self, batch: &[Entry]) -> Result<(), EngineError> {
        let Some(last) = batch.last() else { return Ok(()) };
        let path = &self.path;
        let failed = |error| damaged_or(path, "commit", error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut growth = 0;
        for entry in batch {
            let touched = apply(&transaction, entry).map_err(failed)?;
            if touched != 1 {
                let why = format!("the row of {} is not the one that was written last", entry.row.key.as_str());
                return Err(damaged(path, &why));
            }
            growth += match entry.kind {
                ChangeKind::Created => 1,
                ChangeKind::Updated => 0,
                ChangeKind::Deleted => -1,
            };
        }
        let sql = "UPDATE totals SET revision = ?1, objects = objects + ?2, entries = entries + ?3 WHERE id = 1";
        let sums = params![integer(last.row.revision), growth, count(batch.len())];
        transaction.execute(sql, sums).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.still_kept()
    }

    fn history(&mut self, from: Revision) -> Result<Vec<Entry>, EngineError> {
        self.entries(from)
    }

    fn compact(&mut self, to: Revision) -> Result<(), EngineError> {
        let path = &self.path;
        let forget = |transaction: Transaction<'_>| {
            let gone = transaction.execute("DELETE FROM log WHERE rv <= ?1", [integer(to)])?;
            let sql = "UPDATE totals SET compacted = max(compacted, ?1), entries = entries - ?2 WHERE id = 1";
            transaction.execute(sql, params![integer(to), count(gone)])?;
            transaction.commit()
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        transaction.and_then(forget).map_err(|error| damaged_or(path, "compact the log", error))?;
        self.still_kept()
    }

    /// The journal may hold what a process wrote and could not sync, be it killed or told so: until it is in the database
    /// and synced, it is only in the memory of the kernel.
    fn accept(&mut self) -> Result<(), EngineError> {
        match self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE) {
            Ok(_) => {}
            // No room to move it, or an operator's sqlite3 reads it.
            Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy)) => {
                journal::sync(&self.path)?;
            }
            Err(error) => return Err(self.failed("move the journal into the database", error)),
        }
        let keep_journal = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        keep_journal.map_err(|error| self.failed("set up the database", error))?;
        Ok(())
    }

    fn blocks(&self) -> bool {
        true
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Only an operator's sqlite3 could hold the file.
    connection.busy_timeout(Duration::from_secs(5))?;
    // What is refused is left as it is, journal and all, until it is accepted.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Writes one entry; answers how many object rows it touched, which must be one.
fn apply(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<usize> {
    let Row { key, revision, json } = &entry.row;
    let previous = entry.previous.as_ref();
    transaction.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
        integer(*revision),
        key.as_str(),
        word(entry.kind),
        text(json),
        previous.map(|(revision, _)| integer(*revision)),
        previous.map(|(_, json)| text(json)),
        entry_checksum(entry),
    ])?;
    let replaced = previous.map_or(Revision(0), |(revision, _)| *revision);
    match entry.kind {
        ChangeKind::Created => transaction
            .prepare_cached("INSERT INTO objects (key, rv, value, checksum) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![key.as_str(), integer(*revision), text(json), object_checksum(&entry.row)]),
        ChangeKind::Updated => transaction
            .prepare_cached("UPDATE objects SET rv = ?2, value = ?3, checksum = ?4 WHERE key = ?1 AND rv = ?5")?
            .execute(params![
                key.as_str(),
                integer(*revision),
                text(json),
                object_checksum(&entry.row),
                integer(replaced)
            ]),
        ChangeKind::Deleted => transaction
            .prepare_cached("DELETE FROM objects WHERE key = ?1 AND rv = ?2")?
            .execute(params![key.as_str(), integer(replaced)]),
    }
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).expect("no table has 2^63 rows")
}

/// The error by what can be done about it.
fn damaged_or(path: &Path, doing: &'static str, error: rusqlite::Error) -> EngineError {
    if is_unsynced(&error) {
        return EngineError::Lost { path: path.to_owned(), source: error };
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            EngineError::Full { directory: path.parent().unwrap_or(Path::new(".")).to_owned() }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &format!("SQLite finds: {error}")),
        _ => EngineError::Sqlite { doing, source: error },
    }
}

fn is_unsynced(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

fn damaged(path: &Path, why: &str) -> EngineError {
    EngineError::Damaged {
        what: format!("the database {}", path.display()),
        help: format!("{why}. {} Or look at it: sqlite3 {} \"PRAGMA integrity_check\"", advice(path), path.display()),
    }
}

/// What helps with a damaged database: of a data directory another than of a backup.
fn advice(path: &Path) -> String {
    match path.parent() {
        Some(directory) if path.file_name().is_some_and(|name| name == DATABASE) => format!(
            "Restore a backup into a new directory (gaia restore FILE --data-dir DIR). Or see what can be had of this one: \
             gaia recover --data-dir {} --dry-run.",
            directory.display()
        ),
        Some(_) | None => "Take another backup.".to_owned(),
    }
}
