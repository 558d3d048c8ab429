//! Files beside a directory of desired ones: read and watched because something in it names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    Beside, Identity,
    scan::{describe, identity, text},
};

/// What each of them says now.
pub fn read(paths: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Beside> {
    paths.iter().map(|path| (path.clone(), read_one(path))).collect()
}

fn read_one(path: &Path) -> Beside {
    match fs::metadata(path) {
        Ok(metadata) => text(path, &metadata).map(Some),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(describe(&error)),
    }
}

/// Where to listen for their changes, and which paths are theirs: a link and where it leads.
pub fn places(paths: &BTreeSet<PathBuf>) -> (BTreeMap<PathBuf, Identity>, BTreeSet<PathBuf>) {
    let mut files = paths.clone();
    files.extend(paths.iter().filter(|path| path.is_symlink()).filter_map(|path| fs::canonicalize(path).ok()));
    // Of one whose directory is not there yet: the nearest above, where it will appear.
    let directory = |file: &PathBuf| {
        file.ancestors().skip(1).find_map(|above| Some((above.to_owned(), identity(&fs::metadata(above).ok()?))))
    };
    (files.iter().filter_map(directory).collect(), files)
}
