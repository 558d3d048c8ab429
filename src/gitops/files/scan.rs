//! One look at a real directory tree. Blocks: for a thread that may.
//!
//! Symbolic links are followed, so that a mounted ConfigMap (`x.yaml -> ..data/x.yaml`) and a shared directory work. A
//! link back to a directory that is being read is passed over.

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry, Metadata},
    io::{self, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{File, Identity, Listing, Problem, is_desired};

/// Bounds. What lies beyond makes the listing incomplete, so that nothing is pruned for it.
pub const MAX_FILES: usize = 10_000;
pub const MAX_DEPTH: usize = 32;
pub const MAX_FILE_BYTES: u64 = 4 << 20;
pub const MAX_TOTAL_BYTES: u64 = 64 << 20;

/// A listing and the directories that must be watched to hear of its changes.
pub struct Scan {
    pub listing: Listing,
    pub directories: BTreeMap<PathBuf, Identity>,
}

/// Reads everything under `root`.
pub fn scan(root: &Path) -> Scan {
    let mut scanner = Scanner { root, files: Vec::new(), problems: Vec::new(), directories: BTreeMap::new(), bytes: 0 };
    let mut listing = match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => {
            let identity = identity(&metadata);
            // The root's own failure is told apart: nothing at all is known then.
            match fs::read_dir(root) {
                Ok(_) => {
                    scanner.directory(root, &identity, &mut Vec::new());
                    Listing::empty(identity, root)
                }
                Err(error) => Listing::unreadable(describe(&error)),
            }
        }
        Ok(_) => Listing::unreadable("is not a directory"),
        Err(error) => Listing::unreadable(describe(&error)),
    };
    scanner.files.sort_by(|a, b| a.path.cmp(&b.path));
    scanner.problems.sort_by(|a, b| a.path.cmp(&b.path));
    listing.files = scanner.files;
    listing.problems = scanner.problems;
    Scan { listing, directories: scanner.directories }
}

struct Scanner<'a> {
    root: &'a Path,
    files: Vec<File>,
    problems: Vec<Problem>,
    directories: BTreeMap<PathBuf, Identity>,
    bytes: u64,
}

impl Scanner<'_> {
    /// `above`: the directories that are being read now.
    fn directory(&mut self, path: &Path, identity: &Identity, above: &mut Vec<Identity>) {
        if above.contains(identity) {
            return;
        }
        if above.len() >= MAX_DEPTH {
            return self.problem(path, format!("more than {MAX_DEPTH} directories deep"));
        }
        self.directories.insert(path.to_owned(), identity.clone());
        above.push(identity.clone());
        match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(mut entries) => {
                entries.sort_by_key(DirEntry::file_name);
                entries.iter().for_each(|entry| self.entry(entry, above));
            }
            Err(error) => self.problem(path, describe(&error)),
        }
        above.pop();
    }

    fn entry(&mut self, entry: &DirEntry, above: &mut Vec<Identity>) {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            return;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.directory(&path, &identity(&metadata), above),
            Ok(_) if !is_desired(&name) => {}
            Ok(metadata) => match self.read(&path, &metadata) {
                Ok(text) => self.files.push(File { path: self.relative(&path), text }),
                Err(message) => self.problem(&path, message),
            },
            // Links to nowhere that are no concern of ours: locks of editors.
            Err(_) if !is_desired(&name) => {}
            Err(error) => self.problem(&path, describe(&error)),
        }
    }

    fn read(&mut self, path: &Path, metadata: &Metadata) -> Result<String, String> {
        if self.files.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
        self.watch_target(path);
        let text = text(path, metadata)?;
        self.bytes += text.len() as u64;
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(format!("all files together are larger than {} MiB", MAX_TOTAL_BYTES >> 20));
        }
        Ok(text)
    }

    /// Where a link leads is watched too.
    fn watch_target(&mut self, path: &Path) {
        if !path.is_symlink() {
            return;
        }
        let target = fs::canonicalize(path).ok().and_then(|target| Some(target.parent()?.to_owned()));
        if let Some(directory) = target
            && let Ok(metadata) = fs::metadata(&directory)
        {
            self.directories.insert(directory, identity(&metadata));
        }
    }

    fn problem(&mut self, path: &Path, message: String) {
        self.problems.push(Problem { path: self.relative(path), message });
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// What a file says, or why that cannot be known.
pub(super) fn text(path: &Path, metadata: &Metadata) -> Result<String, String> {
    // A pipe would block for ever.
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // Bounded by what is read, not by what the metadata said: the file may grow meanwhile.
    let file = fs::File::open(path).map_err(|error| describe(&error))?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| describe(&error))?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    decoded(bytes)
}

/// The text of a file.
pub fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("line {line} is not UTF-8")
    })
}

pub fn identity(metadata: &Metadata) -> Identity {
    Identity(format!("{}:{}", metadata.dev(), metadata.ino()))
}

pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "does not exist".to_owned(),
        ErrorKind::PermissionDenied => "may not be read".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
