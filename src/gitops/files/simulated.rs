//! Files in memory: for the simulator and for tests that need odd moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use super::{Directory, File, Files, Identity, Listing, Problem, is_desired};

/// A file system of text files. Clones share it.
#[derive(Debug, Clone)]
pub struct SimulatedFiles {
    tree: Arc<Mutex<Tree>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Content>,
    /// Mounted directories and which one each is.
    directories: BTreeMap<PathBuf, u64>,
    next_identity: u64,
}

#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Unreadable(String),
}

impl Default for SimulatedFiles {
    fn default() -> Self {
        Self { tree: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl SimulatedFiles {
    /// Makes a directory: a new one, also where there was one before.
    pub fn make_directory(&self, path: impl Into<PathBuf>) {
        self.edit(|tree| {
            tree.next_identity += 1;
            tree.directories.insert(path.into(), tree.next_identity);
        });
    }

    /// The directory and everything under it is gone.
    pub fn remove_directory(&self, path: impl AsRef<Path>) {
        self.edit(|tree| {
            tree.directories.remove(path.as_ref());
            tree.files.retain(|file, _| !file.starts_with(path.as_ref()));
        });
    }

    pub fn write(&self, path: impl Into<PathBuf>, text: impl Into<String>) {
        self.edit(|tree| tree.files.insert(path.into(), Content::Text(text.into())));
    }

    /// The file is there and reading it fails.
    pub fn make_unreadable(&self, path: impl Into<PathBuf>, why: &str) {
        self.edit(|tree| tree.files.insert(path.into(), Content::Unreadable(why.to_owned())));
    }

    pub fn remove(&self, path: impl AsRef<Path>) {
        self.edit(|tree| tree.files.remove(path.as_ref()));
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut Tree) -> T) {
        edit(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        // Plain data, whole after every statement: a panic elsewhere leaves it usable.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, directory: &Path, also: &BTreeSet<PathBuf>) -> Listing {
        let tree = self.lock();
        let Some(identity) = tree.directories.get(directory) else {
            return Listing::unreadable("no such directory");
        };
        let mut listing = Listing::empty(Identity(format!("simulated:{identity}")), directory);
        for path in also {
            let found = match tree.files.get(path) {
                Some(Content::Text(text)) => Ok(Some(text.clone())),
                Some(Content::Unreadable(why)) => Err(why.clone()),
                None => Ok(None),
            };
            listing.beside.insert(path.clone(), found);
        }
        for (path, content) in &tree.files {
            let Ok(relative) = path.strip_prefix(directory) else { continue };
            let path = relative.to_string_lossy().into_owned();
            let hidden = path.split('/').any(|part| part.starts_with('.'));
            if hidden || !is_desired(path.rsplit('/').next().unwrap_or(&path)) {
                continue;
            }
            match content.clone() {
                Content::Text(text) => listing.files.push(File { path, text }),
                Content::Unreadable(message) => listing.problems.push(Problem { path, message }),
            }
        }
        listing
    }
}

impl Files for SimulatedFiles {
    fn open(&self, directory: &Path) -> Box<dyn Directory> {
        let changes = self.changes.subscribe();
        Box::new(SimulatedDirectory { files: self.clone(), path: directory.to_owned(), changes })
    }
}

struct SimulatedDirectory {
    files: SimulatedFiles,
    path: PathBuf,
    changes: watch::Receiver<u64>,
}

impl Directory for SimulatedDirectory {
    fn read<'a>(&'a mut self, also: &'a BTreeSet<PathBuf>) -> BoxFuture<'a, Listing> {
        self.changes.mark_unchanged();
        let listing = self.files.list(&self.path, also);
        async move { listing }.boxed()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        async move {
            if self.changes.changed().await.is_err() {
                // The sender lives in `self.files`.
                unreachable!("the simulated files are held by this directory");
            }
        }
        .boxed()
    }
}
