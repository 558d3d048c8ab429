//! What a commit says, as a listing: read from the objects of the repository, never from files that somebody could be writing.
//! Blocks: for a thread that may.
//!
//! Under the Source's path everything counts as it does in a directory, but for links and submodules. A link is not followed, for
//! it may lead out of the repository, and a submodule is another repository: where desired files may be behind one, it is a
//! problem, and nothing is pruned. Files that others name (Compose files) are read from anywhere in the same commit.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use gix::{ObjectId, Repository, Tree, bstr::ByteSlice, object::tree::EntryKind};

use super::super::files::{
    Beside, File, Identity, Listing, Problem, is_desired,
    scan::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, decoded},
};

/// Which part of a repository a Source means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where the repository's root seems to be: an absolute path that no host has.
    pub root: PathBuf,
    /// Relative to the root; empty: all of it.
    pub path: String,
    /// Tells it from another repository or path.
    pub identity: String,
}

/// Everything under the path at this commit, and the files of `also`. An error: the repository is damaged.
pub fn read(repository: &Repository, commit: &str, place: &Place, also: &BTreeSet<PathBuf>) -> gix::Result<Listing> {
    let root = repository.find_commit(ObjectId::from_hex(commit.as_bytes())?)?.tree()?;
    let directory = if place.path.is_empty() { place.root.clone() } else { place.root.join(&place.path) };
    let mut listing = match at(&root, &place.path)? {
        Some((EntryKind::Tree, id)) => {
            let mut walk = Walk { repository, root: &root, files: Vec::new(), problems: Vec::new(), bytes: 0 };
            walk.tree(id, &place.path, "", 0)?;
            let mut listing = Listing::empty(Identity(place.identity.clone()), &directory);
            walk.files.sort_by(|a, b| a.path.cmp(&b.path));
            walk.problems.sort_by(|a, b| a.path.cmp(&b.path));
            (listing.files, listing.problems) = (walk.files, walk.problems);
            listing
        }
        Some(_) => Listing::unreadable("is not a directory"),
        None => Listing::unreadable("does not exist"),
    };
    listing.directory = directory;
    for path in also {
        listing.beside.insert(path.clone(), beside(repository, &root, place, path)?);
    }
    Ok(listing)
}

/// What is at a path below a tree; the tree itself at the empty one.
fn at(root: &Tree<'_>, path: &str) -> gix::Result<Option<(EntryKind, ObjectId)>> {
    if path.is_empty() {
        return Ok(Some((EntryKind::Tree, root.id)));
    }
    Ok(root.lookup_entry_by_path(path)?.map(|entry| (entry.mode().kind(), entry.object_id())))
}

fn beside(repository: &Repository, root: &Tree<'_>, place: &Place, path: &Path) -> gix::Result<Beside> {
    let Some(inside) = path.strip_prefix(&place.root).ok().and_then(Path::to_str) else {
        return Ok(Err("is not in the repository: what its files name must be in it".to_owned()));
    };
    Ok(match at(root, inside)? {
        None => Ok(None),
        Some((EntryKind::Blob | EntryKind::BlobExecutable, id)) => text(repository, id)?.map(Some),
        Some((kind, _)) => Err(refusal(kind).to_owned()),
    })
}

fn refusal(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Link => "is a symbolic link, and in a git repository none is followed",
        EntryKind::Commit => "is a submodule, and none is fetched",
        EntryKind::Tree => "is a directory",
        EntryKind::Blob | EntryKind::BlobExecutable => "is a file",
    }
}

/// The inner error is the file's, the outer one the repository's.
fn text(repository: &Repository, id: ObjectId) -> gix::Result<Result<String, String>> {
    // Looked at before it is unpacked into memory.
    if repository.find_header(id)?.size() > MAX_FILE_BYTES {
        return Ok(Err(format!("is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(decoded(repository.find_blob(id)?.take_data()))
}

struct Walk<'a> {
    repository: &'a Repository,
    root: &'a Tree<'a>,
    files: Vec<File>,
    problems: Vec<Problem>,
    bytes: u64,
}

impl Walk<'_> {
    /// `above`: from the repository's root; `below`: from the Source's path.
    fn tree(&mut self, id: ObjectId, above: &str, below: &str, depth: usize) -> gix::Result<()> {
        if depth >= MAX_DEPTH {
            self.problem(below, format!("more than {MAX_DEPTH} directories deep"));
            return Ok(());
        }
        let tree = self.repository.find_tree(id)?;
        for entry in tree.iter() {
            let entry = entry?;
            let name = entry.filename().to_str_lossy();
            if name.starts_with('.') {
                continue;
            }
            let (above, below) = (join(above, &name), join(below, &name));
            match entry.mode().kind() {
                EntryKind::Tree => self.tree(entry.object_id(), &above, &below, depth + 1)?,
                EntryKind::Blob | EntryKind::BlobExecutable if is_desired(&name) => {
                    self.file(entry.object_id(), below)?;
                }
                EntryKind::Blob | EntryKind::BlobExecutable => {}
                EntryKind::Link if !is_desired(&name) && self.leads_to_a_file(entry.object_id(), &above)? => {}
                kind @ (EntryKind::Link | EntryKind::Commit) => self.problem(&below, refusal(kind).to_owned()),
            }
        }
        Ok(())
    }

    fn file(&mut self, id: ObjectId, path: String) -> gix::Result<()> {
        if self.files.len() >= MAX_FILES {
            self.problem(&path, format!("more than {MAX_FILES} files"));
            return Ok(());
        }
        match text(self.repository, id)? {
            Ok(text) => {
                self.bytes += text.len() as u64;
                match self.bytes > MAX_TOTAL_BYTES {
                    true => {
                        self.problem(&path, format!("all files together are larger than {} MiB", MAX_TOTAL_BYTES >> 20))
                    }
                    false => self.files.push(File { path, text }),
                }
            }
            Err(message) => self.problem(&path, message),
        }
        Ok(())
    }

    /// A link that is no concern of ours: `CLAUDE.md -> README.md`.
    fn leads_to_a_file(&self, link: ObjectId, above: &str) -> gix::Result<bool> {
        let target = self.repository.find_blob(link)?.take_data();
        let Ok(target) = String::from_utf8(target) else { return Ok(false) };
        let from = Path::new("/").join(above);
        let target = crate::compose::resolve(from.parent().unwrap_or(Path::new("/")), &target);
        let Some(inside) = target.strip_prefix("/").ok().and_then(Path::to_str) else { return Ok(false) };
        Ok(matches!(at(self.root, inside)?, Some((EntryKind::Blob | EntryKind::BlobExecutable, _))))
    }

    fn problem(&mut self, path: &str, message: String) {
        let path = if path.is_empty() { "." } else { path };
        self.problems.push(Problem { path: path.to_owned(), message });
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}
