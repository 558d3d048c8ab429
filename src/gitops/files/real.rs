//! Directories of this host, watched through `notify`.
//!
//! A watch on a directory says nothing about what was in it before, and none survives the removal of its directory. So
//! the watches follow the listing: read, watch every directory that was seen, and read again if one of them was not
//! watched before. The nearest existing directory above is watched too, so that a directory that comes (back) is heard.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;
use tracing::warn;

use super::{
    Directory, Files, Identity, Listing,
    scan::{Scan, identity, scan},
};

/// A tree that changes while it is read is read again so often, then its change wakes us.
const MAX_ROUNDS: usize = 4;

/// The file system of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn open(&self, directory: &Path) -> Box<dyn Directory> {
        // A relative path means the working directory of now; it stays that.
        let root = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Box::new(RealDirectory { root, wake: Arc::default(), watches: None })
    }
}

/// Reads once, watches nothing.
pub fn read_once(directory: &Path) -> Listing {
    scan(directory).listing
}

struct RealDirectory {
    root: PathBuf,
    wake: Arc<Notify>,
    /// None before the first read, and after a read that was dropped half-way.
    watches: Option<Watches>,
}

impl Directory for RealDirectory {
    fn read(&mut self) -> BoxFuture<'_, Listing> {
        async move {
            let (root, wake, watches) = (self.root.clone(), self.wake.clone(), self.watches.take());
            match tokio::task::spawn_blocking(move || read(&root, &wake, watches)).await {
                Ok((listing, watches)) => {
                    self.watches = watches;
                    listing
                }
                Err(error) => Listing::unreadable(format!("reading it failed: {error}")),
            }
        }
        .boxed()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        // The permit stays when the future is dropped before it is taken.
        self.wake.notified().boxed()
    }
}

fn read(root: &Path, wake: &Arc<Notify>, mut watches: Option<Watches>) -> (Listing, Option<Watches>) {
    let mut round = 0;
    loop {
        // What was told before is in what is read now.
        wake.notified().now_or_never();
        let Scan { listing, mut directories } = scan(root);
        // Of the directory above only the way to the root matters; it may be as busy as /tmp.
        let mut above = None;
        if let Some((path, identity)) = nearest_above(root)
            && !directories.contains_key(&path)
        {
            directories.insert(path.clone(), identity);
            above = Some(path);
        }
        let (kept, grown) = Watches::follow(watches, root, above, directories, wake);
        watches = kept;
        round += 1;
        if !grown {
            return (listing, watches);
        }
        if round == MAX_ROUNDS {
            wake.notify_one();
            return (listing, watches);
        }
    }
}

fn nearest_above(root: &Path) -> Option<(PathBuf, Identity)> {
    let mut ancestors = root.ancestors().skip(1);
    ancestors.find_map(|path| Some((path.to_owned(), identity(&fs::metadata(path).ok()?))))
}

struct Watches {
    watcher: RecommendedWatcher,
    directories: BTreeMap<PathBuf, Identity>,
    above: Option<PathBuf>,
}

impl Watches {
    /// Watches exactly `wanted`; true if something is watched now that was not before.
    fn follow(
        before: Option<Self>,
        root: &Path,
        above: Option<PathBuf>,
        wanted: BTreeMap<PathBuf, Identity>,
        wake: &Arc<Notify>,
    ) -> (Option<Self>, bool) {
        // A watch of a directory that went away, or became another, cannot be trusted by its path: start afresh.
        let reusable = before.filter(|watches| {
            watches.above == above && watches.directories.iter().all(|(path, was)| wanted.get(path) == Some(was))
        });
        let mut watches = match reusable {
            Some(watches) => watches,
            None => match watcher(root, above.clone(), wake) {
                Ok(watcher) => Self { watcher, directories: BTreeMap::new(), above },
                Err(error) => {
                    warn!(directory = %root.display(), %error, "cannot watch for changes, only the interval is left");
                    return (None, false);
                }
            },
        };
        let mut grown = false;
        for (path, identity) in wanted {
            if watches.directories.contains_key(&path) {
                continue;
            }
            match watches.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => grown = true,
                Err(error) => {
                    warn!(directory = %path.display(), %error, "cannot watch for changes, only the interval is left")
                }
            }
            watches.directories.insert(path, identity);
        }
        (Some(watches), grown)
    }
}

fn watcher(root: &Path, above: Option<PathBuf>, wake: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let (root, wake) = (root.to_owned(), wake.clone());
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = match event {
            Ok(event) => is_change(event.kind) && concerns(&event.paths, &root, above.as_deref()),
            // Something was lost: look.
            Err(_) => true,
        };
        if relevant {
            wake.notify_one();
        }
    })
}

/// Our own reading is told as well; it is no change.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

fn concerns(paths: &[PathBuf], root: &Path, above: Option<&Path>) -> bool {
    let near = |path: &PathBuf| root.starts_with(path) || above.is_none_or(|above| path.parent() != Some(above));
    paths.is_empty() || paths.iter().any(near)
}
