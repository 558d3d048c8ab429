//! Backups, restores and recoveries without a server: of a data directory that nobody serves, into one that nobody serves yet.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::store::{Backup, Recovery, Restored};
use crate::{
    runtime::clock::{Clock, SystemClock},
    store::{self, EmbeddedStore, EngineError, Options, Source, Wish},
};

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no database in {}", .0.display())]
    Nothing(PathBuf),
    #[error("cannot back up {} (leave --data-dir out to ask the server that uses it)", directory.display())]
    InUse { directory: PathBuf, source: Box<EngineError> },
    #[error("cannot back up {}", directory.display())]
    Directory { directory: PathBuf, source: Box<EngineError> },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("this is not a backup that could be restored")]
    Unusable(#[source] Box<EngineError>),
    #[error("cannot recover {}", directory.display())]
    Recover { directory: PathBuf, source: Box<EngineError> },
    #[error("cannot restore {} into {}", file.display(), directory.display())]
    Restore { file: PathBuf, directory: PathBuf, source: Box<EngineError> },
}

/// A backup of a directory that no server uses.
pub fn of_directory(directory: &Path) -> Result<Backup, BackupError> {
    if !directory.join("gaia.db").exists() {
        return Err(BackupError::Nothing(directory.to_owned()));
    }
    let directory = directory.to_owned();
    let made = EmbeddedStore::open_dir(&directory, Options::default()).and_then(|store| {
        let made = store.backup();
        store.close();
        made
    });
    made.map_err(|source| match source {
        EngineError::Locked { .. } => BackupError::InUse { directory, source: Box::new(source) },
        source => BackupError::Directory { directory, source: Box::new(source) },
    })
}

/// What came over the wire, read as a restore would read it. A backup that nobody has read is none.
pub fn verified(bytes: Vec<u8>) -> Result<Backup, BackupError> {
    let (revision, objects) =
        store::verify(&bytes, Path::new("that came")).map_err(|error| BackupError::Unusable(Box::new(error)))?;
    Ok(Backup { revision, objects, bytes })
}

/// Restores a file, be it of `gaia backup` or the `gaia.db` of a stopped directory with its `-wal` beside it.
pub fn restore_file(file: &Path, directory: &Path) -> Result<Restored, BackupError> {
    let database = read(file)?;
    let mut journal = file.as_os_str().to_owned();
    journal.push("-wal");
    let journal = match read(Path::new(&journal)) {
        Err(BackupError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
        journal => journal?,
    };
    restore(Source { name: file, database: &database, journal: &journal }, directory)
}

/// Restores what was read elsewhere.
pub fn restore_bytes(bytes: &[u8], directory: &Path) -> Result<Restored, BackupError> {
    restore(Source { name: Path::new("standard input"), database: bytes, journal: &[] }, directory)
}

/// Makes a damaged directory usable again; none if it is not damaged.
pub fn recover(directory: &Path, leave_out: bool, dry_run: bool) -> Result<Option<Recovery>, BackupError> {
    if !directory.is_dir() {
        return Err(BackupError::Nothing(directory.to_owned()));
    }
    let wish = Wish { directory, now: now(), leave_out, dry_run };
    store::recover(wish)
        .map_err(|source| BackupError::Recover { directory: directory.to_owned(), source: Box::new(source) })
}

/// Before 1970 is a clock that was never set.
fn now() -> Duration {
    Duration::try_from(SystemClock.now().as_duration()).unwrap_or_default()
}

fn restore(source: Source<'_>, directory: &Path) -> Result<Restored, BackupError> {
    store::restore(source, directory, now()).map_err(|error| BackupError::Restore {
        file: source.name.to_owned(),
        directory: directory.to_owned(),
        source: Box::new(error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    fs::read(path).map_err(|source| BackupError::Read { path: path.to_owned(), source })
}
