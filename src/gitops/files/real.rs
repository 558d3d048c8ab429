//! Directories of this host, watched through `notify`.
//!
//! A watch on a directory says nothing about what was in it before, and none survives the removal of its directory. So
//! the watches follow the listing: read, watch every directory that was seen, and read again if one of them was not
//! watched before. The nearest existing directory above is watched too, so that a directory that comes (back) is heard;
//! of that one, and of those in which only a file beside lies, no other news counts.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    Directory, Files, Identity, Listing, beside,
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
pub fn read_once(directory: &Path, also: &BTreeSet<PathBuf>) -> Listing {
    let root = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    Listing { beside: beside::read(also), ..scan(&root).listing }
}

struct RealDirectory {
    root: PathBuf,
    wake: Arc<Notify>,
    /// None before the first read, and after a read that was dropped half-way.
    watches: Option<Watches>,
}

impl Directory for RealDirectory {
    fn read<'a>(&'a mut self, also: &'a BTreeSet<PathBuf>) -> BoxFuture<'a, Listing> {
        async move {
            let (root, wake, watches) = (self.root.clone(), self.wake.clone(), self.watches.take());
            let also = also.clone();
            match tokio::task::spawn_blocking(move || read(&root, &also, &wake, watches)).await {
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

fn read(
    root: &Path,
    also: &BTreeSet<PathBuf>,
    wake: &Arc<Notify>,
    mut watches: Option<Watches>,
) -> (Listing, Option<Watches>) {
    let mut round = 0;
    loop {
        // What was told before is in what is read now.
        wake.notified().now_or_never();
        let Scan { listing, mut directories } = scan(root);
        let listing = Listing { beside: beside::read(also), ..listing };
        // Of the directory above only the way to the root matters; it may be as busy as /tmp.
        let (around, files) = beside::places(also);
        let mut heed = Heed { root: root.to_owned(), quiet: BTreeSet::new(), files };
        for (path, identity) in nearest_above(root).into_iter().chain(around) {
            if !directories.contains_key(&path) {
                directories.insert(path.clone(), identity);
                heed.quiet.insert(path);
            }
        }
        let (kept, grown) = Watches::follow(watches, heed, directories, wake);
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
    heed: Heed,
}

/// Which news counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heed {
    root: PathBuf,
    /// Directories of which only the way to the root, and to these files, counts.
    quiet: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Heed {
    fn concerns(&self, paths: &[PathBuf]) -> bool {
        let near = |path: &PathBuf| {
            self.root.starts_with(path)
                || self.files.iter().any(|file| file.starts_with(path))
                || path.parent().is_none_or(|parent| !self.quiet.contains(parent))
        };
        paths.is_empty() || paths.iter().any(near)
    }
}

impl Watches {
    /// Watches exactly `wanted`; true if something is watched now that was not before.
    fn follow(
        before: Option<Self>,
        heed: Heed,
        wanted: BTreeMap<PathBuf, Identity>,
        wake: &Arc<Notify>,
    ) -> (Option<Self>, bool) {
        // A watch of a directory that went away, or became another, cannot be trusted by its path: start afresh.
        let reusable = before.filter(|watches| {
            watches.heed == heed && watches.directories.iter().all(|(path, was)| wanted.get(path) == Some(was))
        });
        let mut watches = match reusable {
            Some(watches) => watches,
            None => match watcher(heed.clone(), wake) {
                Ok(watcher) => Self { watcher, directories: BTreeMap::new(), heed },
                Err(error) => {
                    warn!(directory = %heed.root.display(), %error, "cannot watch for changes, only the interval is left");
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

fn watcher(heed: Heed, wake: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let wake = wake.clone();
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = match event {
            Ok(event) => is_change(event.kind) && heed.concerns(&event.paths),
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
