//! A damaged data directory made usable again, as far as that is honest.
//!
//! Flow: (1) the directory is locked and its files copied, (2) whatever can be read of the copy is read, (3) from that the state
//! as of one revision is put together, or it is refused, (4) the damaged files are kept in a directory of their own, (5) the
//! state becomes the database, under a new revision as after a restore. Until (5) the directory is as it was, and a crash within
//! it is finished by the next start.
//!
//! Every write is there twice, in `objects` and, while it is in the history, in `log`. So a damaged row of one is mended from
//! the other without loss. What the journal had behind a damaged frame is lost: the state is then that of an earlier revision.
//! An object that is nowhere whole belongs to every revision: there is none to go back to, and only who asked for it goes on
//! without.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::{ChangeKind, EngineError, Entry, Image, Key, Revision, Row, state::State},
    Backup, DATABASE, Parse, SqliteEngine, connect,
    directory::{DirectoryLock, RECOVERED, beside, discard, finish_recovery, io, make_private, rename},
    journal, read_entry, read_object,
    restore::next,
};

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub directory: &'a Path,
    /// Time since 1970.
    pub now: Duration,
    /// Go on without objects that are nowhere whole.
    pub leave_out: bool,
    /// Only say what would come of it.
    pub dry_run: bool,
}

/// What came of it, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub objects: usize,
    /// The state is that of this revision.
    pub revision: Revision,
    pub goes_on_at: Revision,
    /// What is lost, in words; empty when that is nothing.
    pub losses: Vec<String>,
    /// Where the damaged files are.
    pub kept: PathBuf,
}

/// Recovers a directory that no server uses. None: nothing is wrong with it.
pub fn recover(wish: Wish<'_>) -> Result<Option<Recovery>, EngineError> {
    let lock = DirectoryLock::acquire(wish.directory)?;
    finish_recovery(wish.directory)?;
    let path = wish.directory.join(DATABASE);
    let copy = wish.directory.join("gaia.db.recovering");
    discard(&copy);
    let survey = copy_files(&path, &copy).and_then(|()| survey(&path, &copy));
    discard(&copy);
    let Some(Survey { image, losses, missing }) = survey? else { return Ok(None) };
    if missing && !wish.leave_out {
        return Err(EngineError::Damaged {
            what: format!("the database {}", path.display()),
            help: format!(
                "{}. No revision is whole without that. Restore a backup, or go on without: gaia recover --data-dir {} \
                 --leave-out-damaged",
                losses.join("; "),
                wish.directory.display()
            ),
        });
    }
    let recovery = Recovery {
        objects: image.objects.len(),
        revision: image.revision,
        goes_on_at: next(image.revision, wish.now),
        losses,
        kept: wish.directory.join(format!("damaged-{}", wish.now.as_secs())),
    };
    if !wish.dry_run {
        replace(&image, &recovery, wish.directory)?;
        State::load(&mut SqliteEngine::open_locked(lock, wish.directory)?, 1)?;
    }
    Ok(Some(recovery))
}

struct Survey {
    image: Image,
    losses: Vec<String>,
    /// Objects are among the losses.
    missing: bool,
}

/// What a copy holds; none if it is whole. `path` is for messages.
fn survey(path: &Path, copy: &Path) -> Result<Option<Survey>, EngineError> {
    let cut = journal::check(copy).is_err();
    let unreadable = || EngineError::Damaged {
        what: format!("the database {}", path.display()),
        help: "Nothing of it can be read. Restore a backup into a new directory: gaia restore FILE --data-dir DIR"
            .into(),
    };
    let connection = connect(copy).map_err(|_| unreadable())?;
    let opened = SqliteEngine::over(connection, path.to_owned(), None);
    let mut engine = opened.map_err(|error| match error {
        EngineError::Damaged { .. } => unreadable(),
        other => other,
    })?;
    let whole = State::load(&mut engine, 1).is_ok();
    if whole && !cut {
        return Ok(None);
    }
    let totals = engine.totals().ok();
    let objects: Found<Row> = rescue(&engine, "objects", "key, rv, value, checksum, rowid", read_object);
    let log = rescue(&engine, "log", "key, rv, value, checksum, kind, prev_rv, prev, rowid", read_entry);
    let written = totals.as_ref().map_or(Revision(0), |totals| totals.revision);
    let revision = log.rows.last().map_or(written, |entry: &Entry| entry.row.revision.max(written));
    let first = log.rows.first().map_or(revision, |entry| Revision(entry.row.revision.0 - 1));
    let compacted =
        totals.as_ref().map(|totals| totals.compacted).filter(|compacted| *compacted <= first).unwrap_or(first);
    let expected = totals.and_then(|totals| usize::try_from(totals.objects).ok());
    let mut state = overlay(objects.rows, &log.rows);
    if Some(state.len()) > expected {
        bury(&mut state, &log.bad);
    }
    let mut losses = Vec::new();
    if cut {
        losses.push(format!("every write after revision {revision}, for the journal is damaged behind it"));
    }
    let overwritten = unexplained(&state, &log, compacted, revision);
    let missing = expected != Some(state.len()) || overwritten > 0;
    if missing {
        losses.push(lost(expected, state.len(), overwritten, objects.bad.values()));
    }
    let objects = state.into_values().collect();
    Ok(Some(Survey { image: Image { revision, compacted: revision, objects }, losses, missing }))
}

fn lost<'a>(expected: Option<usize>, found: usize, overwritten: u64, bad: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = bad.take(20).map(String::as_str).collect();
    let names = if names.is_empty() { String::new() } else { format!(" (damaged: {})", names.join(", ")) };
    let objects = match expected {
        Some(expected) if expected > found => format!("{} of {expected} objects", expected - found),
        Some(expected) if expected == found => "no object as a whole".to_owned(),
        Some(expected) => format!("how {found} objects came to be there where {expected} were written"),
        None => format!("how many objects there were beside the {found} found"),
    };
    match overwritten {
        0 => format!("{objects}{names}"),
        writes => format!("{objects}{names}, and what {writes} writes changed"),
    }
}

/// What can be read of a table.
struct Found<T> {
    /// By rowid.
    rows: Vec<T>,
    /// Keys of rows that are not what was written, as they read now, by rowid.
    bad: BTreeMap<i64, String>,
}

/// Reads from either end up to where SQLite cannot go on.
fn rescue<T>(engine: &SqliteEngine, table: &str, columns: &str, parse: Parse<T>) -> Found<T> {
    let (mut rows, mut bad) = (BTreeMap::new(), BTreeMap::new());
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT {columns} FROM {table} NOT INDEXED ORDER BY rowid {order}");
        // An error is where the damage begins; what was read before it has its checksums.
        let _damage = engine.scan_each(&sql, parse, |rowid, row| match row {
            Ok(row) => {
                rows.insert(rowid, row);
            }
            Err(damage) => {
                bad.insert(rowid, damage.key);
            }
        });
    }
    Found { rows: rows.into_values().collect(), bad }
}

/// Objects as the log says where it is newer: both were written at once, and each has its checksum.
fn overlay(objects: Vec<Row>, log: &[Entry]) -> BTreeMap<Key, Row> {
    let mut state: BTreeMap<Key, Row> = objects.into_iter().map(|row| (row.key.clone(), row)).collect();
    for entry in log {
        let known = state.get(&entry.row.key).map(|row| row.revision);
        match entry.kind {
            ChangeKind::Created | ChangeKind::Updated if known < Some(entry.row.revision) => {
                state.insert(entry.row.key.clone(), entry.row.clone());
            }
            ChangeKind::Deleted if known < Some(entry.row.revision) => {
                state.remove(&entry.row.key);
            }
            ChangeKind::Created | ChangeKind::Updated | ChangeKind::Deleted => {}
        }
    }
    state
}

/// Where there are too many: what the log brought back, though a later entry of it, damaged, was its deletion.
fn bury(state: &mut BTreeMap<Key, Row>, bad: &BTreeMap<i64, String>) {
    for (revision, key) in bad {
        let key = Key::from_stored(key);
        if state.get(&key).is_some_and(|row| row.revision.0 < revision.cast_unsigned()) {
            state.remove(&key);
        }
    }
}

/// Writes of which nothing is left: neither in the log, nor as an object, nor as what a later write replaced. Each may have been
/// the last of an object that is now an old one. A damaged entry whose object is not there was its deletion.
fn unexplained(state: &BTreeMap<Key, Row>, log: &Found<Entry>, compacted: Revision, revision: Revision) -> u64 {
    let mut known: BTreeSet<Revision> = log.rows.iter().map(|entry| entry.row.revision).collect();
    known.extend(log.rows.iter().filter_map(|entry| entry.previous.as_ref().map(|(revision, _)| *revision)));
    known.extend(state.values().map(|row| row.revision));
    let gone = log.bad.iter().filter(|(_, key)| !state.contains_key(&Key::from_stored(key)));
    known.extend(gone.map(|(revision, _)| Revision(revision.cast_unsigned())));
    let known = known.range(Revision(compacted.0 + 1)..=revision.max(compacted)).count() as u64;
    revision.0.saturating_sub(compacted.0).saturating_sub(known)
}

fn copy_files(from: &Path, to: &Path) -> Result<(), EngineError> {
    for ending in ["", "-wal"] {
        let (from, to) = (beside(from, ending), beside(to, ending));
        if ending.is_empty() || from.exists() {
            make_private(&to)?;
            let copied =
                fs::read(&from).and_then(|bytes| fs::write(&to, bytes)).and_then(|()| File::open(&to)?.sync_all());
            copied.map_err(|source| io("copy", &from, source))?;
        }
    }
    Ok(())
}

fn replace(image: &Image, recovery: &Recovery, directory: &Path) -> Result<(), EngineError> {
    let path = directory.join(DATABASE);
    DirBuilder::new().mode(0o700).create(&recovery.kept).map_err(|source| io("make", &recovery.kept, source))?;
    copy_files(&path, &recovery.kept.join(DATABASE))?;
    let synced = File::open(&recovery.kept).and_then(|kept| kept.sync_all());
    synced.map_err(|source| io("sync", &recovery.kept, source))?;
    let (unfinished, recovered) = (directory.join("gaia.db.recovering"), directory.join(RECOVERED));
    let made = Backup::of(&Image { revision: recovery.goes_on_at, compacted: recovery.goes_on_at, ..image.clone() })?;
    make_private(&unfinished)?;
    let written = fs::write(&unfinished, &made.bytes).and_then(|()| File::open(&unfinished)?.sync_all());
    written.map_err(|source| io("write", &unfinished, source))?;
    rename(&unfinished, &recovered, directory)?;
    fs::remove_file(&path).map_err(|source| io("remove", &path, source))?;
    finish_recovery(directory)
}
