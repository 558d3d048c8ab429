//! The data directory: made, locked, and given an empty database once. What a crash may leave in it is told apart here.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{DATABASE, EngineError, SCHEMA};

/// Held as long as the database is open; the system releases it even when the process is killed.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory if need be, for its owner's eyes only (objects may hold secrets), and locks it.
    pub fn acquire(directory: &Path) -> Result<Self, EngineError> {
        make_directory(directory).map_err(|source| io("make the data directory", directory, source))?;
        let path = directory.join("gaia.lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(|source| io("open the lock file", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(EngineError::Locked { directory: directory.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &path, source)),
        }
        match file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
            // Only names us to whom we keep out.
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            written => written.map_err(|source| io("write the lock file", &path, source))?,
        }
        Ok(Self { _file: file })
    }
}

/// Durably: each directory that is made is an entry of the one above it.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for made in missing {
        let above = made.parent().filter(|path| *path != Path::new("")).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes the directory's database if there is none. It is made under another name and renamed when whole,
/// so that a file of the right name that is empty or headless is known to be damaged.
pub(super) fn database(directory: &Path) -> Result<(), EngineError> {
    finish_recovery(directory)?;
    let path = directory.join(DATABASE);
    if path.try_exists().map_err(|source| io("look for", &path, source))? {
        return Ok(());
    }
    let journal = directory.join(format!("{DATABASE}-wal"));
    if journal.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        return Err(EngineError::Damaged {
            what: format!("the data directory {}", directory.display()),
            help: format!(
                "{DATABASE} is missing, but its journal {} holds writes. Restore a backup into a new directory (gaia \
                 restore FILE --data-dir DIR), or move the journal away to start empty.",
                journal.display()
            ),
        });
    }
    let restoring = directory.join(RESTORING);
    if restoring.try_exists().map_err(|source| io("look for", &restoring, source))? {
        return Err(EngineError::Damaged {
            what: format!("the data directory {}", directory.display()),
            help: format!(
                "A restore into it did not finish. Run it again: gaia restore FILE --data-dir {}",
                directory.display()
            ),
        });
    }
    let unfinished = directory.join(format!("{DATABASE}.new"));
    // What an earlier attempt left may be torn.
    discard(&unfinished);
    make_private(&unfinished)?;
    make(&unfinished).map_err(|source| EngineError::Sqlite { doing: "make a new database", source })?;
    rename(&unfinished, &path, directory)
}

/// What was recovered, whole, before it has the database's name.
pub(super) const RECOVERED: &str = "gaia.db.recovered";

/// The last steps of a recovery, once the damaged database is out of the way: its journal must not meet the new one.
pub(super) fn finish_recovery(directory: &Path) -> Result<(), EngineError> {
    let (path, recovered) = (directory.join(DATABASE), directory.join(RECOVERED));
    if path.exists() || !recovered.exists() {
        return Ok(());
    }
    discard(&path);
    rename(&recovered, &path, directory)
}

/// What is still being restored.
pub(super) const RESTORING: &str = "gaia.db.restoring";

/// Gives a file that is whole and synced its name, durably.
pub(super) fn rename(from: &Path, to: &Path, directory: &Path) -> Result<(), EngineError> {
    std::fs::rename(from, to).map_err(|source| io("rename the new database to", to, source))?;
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(|source| io("sync", directory, source))
}

/// Removes a database that is not in use, and what SQLite keeps beside it. A leftover that cannot be removed is in the way
/// of what comes next, which then says so.
pub(super) fn discard(path: &Path) {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let path = beside(path, ending);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a leftover");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// For its owner's eyes only, whatever the directory allows; SQLite gives its journal the same mode.
pub(super) fn make_private(path: &Path) -> Result<(), EngineError> {
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    open.map(drop).map_err(|source| io("make", path, source))
}

fn make(path: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)
}

pub(super) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> EngineError {
    EngineError::Io { doing, path: path.to_owned(), source }
}
