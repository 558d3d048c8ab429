//! A backup becomes the database of a new data directory.
//!
//! Flow: (1) the directory is locked and found empty, (2) the backup is copied beside its later name, (3) read and verified
//! whole, (4) given a new revision and no history, (5) synced and renamed, (6) opened as a server would and verified again.
//!
//! Of (4): after the backup was made, revisions went on, and clients have seen some. Were they given out a second time, a
//! client that resumes its watch would silently miss what the first of them had meant. So the restored store goes on behind
//! every revision that can have been given out: at the present in microseconds, which no rate of writes overtakes, whichever
//! backup is restored, and however often. It keeps no history, so every watch and every `continue` from before is told 410 and
//! lists again. Objects keep the `resourceVersion` they had in the backup: a compare-and-swap holds only for who has seen
//! exactly that version.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use rusqlite::{TransactionBehavior, params};

use super::{
    super::{Engine, EngineError, Revision, state::State},
    DATABASE, SqliteEngine, connect, damaged_or,
    directory::{DirectoryLock, RESTORING, beside, discard, io, make_private, rename},
    integer, journal,
};

/// Further apart than any backup and the crash after it, where the clock of the host is of no use.
const LEAST_STEP: u64 = 1_000_000_000;

/// What a restore came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub objects: usize,
    /// The revision of the backup.
    pub backup: Revision,
    /// Where the restored store goes on.
    pub revision: Revision,
}

/// Where a backup lies.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// For messages.
    pub name: &'a Path,
    pub database: &'a [u8],
    /// The `-wal` beside the copy of a data directory; empty for what `gaia backup` made.
    pub journal: &'a [u8],
}

/// Restores into a directory that is empty or missing; `now` is the time since 1970. What fails leaves no database behind.
pub fn restore(source: Source<'_>, directory: &Path, now: Duration) -> Result<Restored, EngineError> {
    let lock = DirectoryLock::acquire(directory)?;
    if let Some(found) = occupant(directory)? {
        return Err(EngineError::Occupied { directory: directory.to_owned(), found });
    }
    let scratch = directory.join(RESTORING);
    let restored = place(source, &scratch, now).and_then(|restored| {
        rename(&scratch, &directory.join(DATABASE), directory)?;
        Ok(restored)
    });
    let restored = restored.inspect_err(|_| discard(&scratch))?;
    // Verified once more where it lies, under the same lock.
    let (state, _) = State::load(&mut SqliteEngine::open_locked(lock, directory)?, 1)?;
    if (state.revision, state.objects.len()) != (restored.revision, restored.objects) {
        return Err(EngineError::Damaged {
            what: format!("what was restored into {}", directory.display()),
            help: "It reads back as something else: do not trust this disk.".into(),
        });
    }
    Ok(restored)
}

/// The first thing in the way. An earlier attempt is not.
fn occupant(directory: &Path) -> Result<Option<String>, EngineError> {
    let failed = |source| io("list", directory, source);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name != "gaia.lock" && name != "lost+found" && !name.starts_with(RESTORING) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn place(source: Source<'_>, scratch: &Path, now: Duration) -> Result<Restored, EngineError> {
    discard(scratch);
    for (path, bytes) in [(scratch.to_owned(), source.database), (beside(scratch, "-wal"), source.journal)] {
        make_private(&path)?;
        fs::write(&path, bytes).map_err(|source| io("write", &path, source))?;
    }
    journal::check(scratch)?;
    let connection = connect(scratch).map_err(|error| damaged_or(source.name, "open the backup", error))?;
    // From here on messages name the file that the operator knows.
    let mut engine = SqliteEngine::over(connection, source.name.to_owned(), None)?;
    let (state, _) = State::load(&mut engine, 1)?;
    let revision = next(state.revision, now);
    engine.begin_anew(revision)?;
    engine.accept()?;
    let SqliteEngine { connection, .. } = engine;
    // Also moves what a journal holds into the file.
    connection.close().map_err(|(_, error)| damaged_or(source.name, "close the backup", error))?;
    let sync = File::open(scratch).and_then(|file| file.sync_all());
    sync.map_err(|source| io("sync", scratch, source))?;
    Ok(Restored { objects: state.objects.len(), backup: state.revision, revision })
}

/// A revision that nobody can have been given yet.
pub(super) fn next(backup: Revision, now: Duration) -> Revision {
    let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    // Engines keep revisions as signed numbers.
    let latest = i64::MAX.cast_unsigned() / 2;
    Revision(backup.0.saturating_add(LEAST_STEP).max(micros).min(latest).max(backup.0 + 1))
}

impl SqliteEngine {
    /// The same objects at a later revision, and no history before it.
    fn begin_anew(&mut self, revision: Revision) -> Result<(), EngineError> {
        let path = &self.path;
        let failed = |error| damaged_or(path, "give the restored objects a new revision", error);
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute("DELETE FROM log", []).map_err(failed)?;
        let sql = "UPDATE totals SET revision = ?1, compacted = ?1, entries = 0 WHERE id = 1";
        transaction.execute(sql, params![integer(revision)]).map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_revision_is_given_out_twice() {
        let in_2026 = Duration::from_secs(1_795_000_000);
        assert_eq!(next(Revision(17), in_2026), Revision(1_795_000_000_000_000));
        let first = next(Revision(17), in_2026);
        let busy = Revision(first.0 + 20_000 * 60);
        assert!(
            next(Revision(17), in_2026 + Duration::from_secs(60)) > busy,
            "an older backup, a minute of writes later"
        );
        assert_eq!(next(Revision(17), Duration::ZERO), Revision(1_000_000_017), "a clock that was never set");
        assert!(next(Revision(i64::MAX.cast_unsigned() / 2), in_2026).0 <= i64::MAX.cast_unsigned());
    }
}
