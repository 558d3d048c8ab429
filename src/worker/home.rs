//! The directory of a worker: of one user, of one process at a time. In it each attempt has a directory of its own, which goes with
//! its end; what a worker left there that was killed is cleared away by the next one.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::{info, warn};

use super::{WorkerError, processes::Tree};

/// How directories of attempts begin.
const ATTEMPT: &str = "task-";
const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
/// For processes that an earlier worker left.
const GRACE: Duration = Duration::from_secs(5);

/// A directory that is this process's alone, as long as this lives.
#[derive(Debug)]
pub struct Home {
    /// Without links.
    pub directory: PathBuf,
    /// The same for every worker in this directory, and no other's. Marks what is outside of it.
    pub identity: String,
    /// Held; the kernel lets go of it with the process, however that ends.
    _lock: File,
}

impl Home {
    /// Makes it if there is none. Refused: it is a link or of another user, others may write there, or another worker uses it.
    pub fn open(path: &Path) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError::Directory { path: path.to_owned(), source };
        let unsafe_because = |why: &'static str| WorkerError::Unsafe { path: path.to_owned(), why };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let found = fs::symlink_metadata(path).map_err(failed)?;
        if !found.is_dir() {
            return Err(unsafe_because("it is no directory"));
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(unsafe_because("it belongs to another user"));
        }
        if found.mode() & 0o022 != 0 {
            return Err(unsafe_because("others may write there"));
        }
        let directory = fs::canonicalize(path).map_err(failed)?;
        let lock = File::create(directory.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(unsafe_because("another worker uses it")),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let identity = identity(&directory.join(IDENTITY)).map_err(failed)?;
        Ok(Self { directory, identity, _lock: lock })
    }

    /// A directory for an attempt, removed when it is dropped.
    pub fn attempt(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix(ATTEMPT).tempdir_in(&self.directory)
    }

    /// Ends the processes of attempts of an earlier worker, and removes their directories.
    pub async fn clear(&self) {
        let (found, left) = Tree::below(&self.directory).end(GRACE).await;
        if found > 0 {
            warn!(found, left, "processes of an earlier run of this worker were ended");
        }
        let directory = self.directory.clone();
        if tokio::task::spawn_blocking(move || remove_attempts(&directory)).await.is_err() {
            warn!("directories of an earlier run of this worker were not removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if uuid::Uuid::parse_str(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
        // One that was cut off by a crash means nothing.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let identity = uuid::Uuid::new_v4().to_string();
    fs::write(path, &identity)?;
    Ok(identity)
}

fn remove_attempts(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(ATTEMPT)) {
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => info!(path = %entry.path().display(), "the directory of an earlier attempt is removed"),
            Err(error) => warn!(path = %entry.path().display(), %error, "the directory of an earlier attempt stays"),
        }
    }
}

/// Where a worker has its directory unless it is told: below `$XDG_STATE_HOME`, else `~/.local/state`. None: the user has no home.
/// Never below the directory for temporary files, where somebody else could be first.
pub fn usual(id: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // A relative one is to be passed over, as its specification says.
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("gaia/workers").join(crate::adapters::results::sanitised(id)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        Home::open(path).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_directory_is_of_one_worker_and_keeps_its_identity() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("a/b");
        let home = Home::open(&path).expect("it is made");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o700);
        assert!(refusal(&path).contains("another worker uses it"));
        let identity = home.identity.clone();
        drop(home);
        assert_eq!(Home::open(&path).expect("it is free").identity, identity);
    }

    #[test]
    fn what_others_could_have_laid_there_is_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        let (open, link) = (parent.path().join("open"), parent.path().join("link"));
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
        assert!(refusal(&open).contains("others may write there"));
        symlink(parent.path(), &link).expect("made");
        assert!(refusal(&link).contains("it is no directory"));
    }

    #[tokio::test]
    async fn attempts_of_an_earlier_run_are_removed() {
        let parent = tempfile::tempdir().expect("a directory");
        let home = Home::open(parent.path()).expect("opened");
        let kept = home.attempt().expect("made").keep();
        fs::write(kept.join("file"), "x").expect("written");
        home.clear().await;
        assert!(!kept.exists());
        assert_eq!(Home::open(parent.path()).map(|home| home.directory).ok(), None, "it is still held");
    }

    #[test]
    fn the_usual_place_is_in_the_home_of_the_user() {
        let at = |state: Option<&str>, home: Option<&str>| {
            usual("a/b", |name| match name {
                "XDG_STATE_HOME" => state.map(PathBuf::from),
                _ => home.map(PathBuf::from),
            })
        };
        assert_eq!(at(Some("/s"), Some("/h")), Some("/s/gaia/workers/a_b".into()));
        assert_eq!(at(Some("relative"), Some("/h")), Some("/h/.local/state/gaia/workers/a_b".into()));
        assert_eq!(at(None, None), None);
    }
}
