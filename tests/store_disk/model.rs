//! What a power failure can leave of a disk: from the operations that a program did, every state that its syncs allow.
//!
//! Pessimistic, as ALICE and CrashMonkey are: what was written is certain once its file was synced, a name once its directory
//! was. Of the rest, each sector of each write may be there or not, in any order; of names a first part.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const SECTOR: usize = 512;

/// One operation, as `tests/fixtures/disk` wrote it down.
#[derive(Debug, Clone)]
pub enum Operation {
    Name { inode: u64, path: PathBuf },
    Write { inode: u64, offset: usize, data: Vec<u8> },
    Truncate { inode: u64, length: usize },
    Sync { inode: u64 },
    SyncDirectory,
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

/// Reads a whole log.
pub fn operations(mut log: &[u8]) -> Vec<Operation> {
    let mut operations = Vec::new();
    while let Some((head, rest)) = log.split_at_checked(21) {
        let inode = u64::from_le_bytes(head[1..9].try_into().unwrap());
        let number = usize::try_from(u64::from_le_bytes(head[9..17].try_into().unwrap())).unwrap();
        let (data, rest) = rest.split_at(u32::from_le_bytes(head[17..].try_into().unwrap()) as usize);
        let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        operations.push(match head[0] {
            b'N' => Operation::Name { inode, path: path(data) },
            b'W' => Operation::Write { inode, offset: number, data: data.to_vec() },
            b'T' => Operation::Truncate { inode, length: number },
            b'S' => Operation::Sync { inode },
            b'D' => Operation::SyncDirectory,
            b'R' => {
                let middle = data.iter().position(|byte| *byte == 0).expect("two paths");
                Operation::Rename { from: path(&data[..middle]), to: path(&data[middle + 1..]) }
            }
            b'U' => Operation::Remove { path: path(data) },
            other => panic!("an unknown operation {other}"),
        });
        log = rest;
    }
    assert!(log.is_empty(), "the log is whole");
    operations
}

/// Which file, all through: numbers of inodes are given out again.
type Id = usize;

#[derive(Debug, Clone)]
enum Change {
    Data { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum Entry {
    Link(PathBuf, Id),
    Unlink(PathBuf),
    /// At once: a rename is never seen by half.
    Move(PathBuf, PathBuf),
}

/// The disk and what is on its way to it.
#[derive(Debug, Default)]
pub struct Disk {
    /// What is certain.
    files: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, Id>,
    /// What is not.
    changes: Vec<Vec<Change>>,
    entries: Vec<Entry>,
    /// As the program sees it.
    inodes: BTreeMap<u64, Id>,
    seen: BTreeMap<PathBuf, Id>,
}

/// How much of what was not synced a power failure leaves.
#[derive(Debug, Clone, Copy)]
pub enum Leaves {
    Nothing,
    Everything,
    /// Sectors and names, by this seed.
    Some(u64),
}

impl Disk {
    /// A file that was there, safely, before everything else.
    pub fn hold(&mut self, path: &Path) {
        let inode = std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("the file is there"));
        let id = self.id(inode);
        self.files[id] = fs::read(path).expect("the file is there");
        self.names.insert(path.to_owned(), id);
        self.seen.insert(path.to_owned(), id);
    }

    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Name { inode, path } => {
                let id = self.id(*inode);
                if self.seen.insert(path.clone(), id) != Some(id) {
                    self.entries.push(Entry::Link(path.clone(), id));
                }
            }
            Operation::Write { inode, offset, data } => {
                let id = self.id(*inode);
                self.changes[id].push(Change::Data { offset: *offset, data: data.clone() });
            }
            Operation::Truncate { inode, length } => {
                let id = self.id(*inode);
                self.changes[id].push(Change::Length(*length));
            }
            Operation::Sync { inode } => {
                let id = self.id(*inode);
                for change in std::mem::take(&mut self.changes[id]) {
                    write(&mut self.files[id], &change, |_| true);
                }
            }
            Operation::SyncDirectory => {
                for entry in std::mem::take(&mut self.entries) {
                    enter(&mut self.names, &entry);
                }
            }
            Operation::Rename { from, to } => {
                let id = self.seen.remove(from).expect("what is renamed was named");
                if let Some(replaced) = self.seen.insert(to.clone(), id) {
                    self.inodes.retain(|_, known| *known != replaced);
                }
                self.entries.push(Entry::Move(from.clone(), to.clone()));
            }
            Operation::Remove { path } => {
                if let Some(id) = self.seen.remove(path) {
                    self.inodes.retain(|_, known| *known != id);
                }
                self.entries.push(Entry::Unlink(path.clone()));
            }
        }
    }

    fn id(&mut self, inode: u64) -> Id {
        *self.inodes.entry(inode).or_insert_with(|| {
            self.files.push(Vec::new());
            self.changes.push(Vec::new());
            self.files.len() - 1
        })
    }

    /// Writes into an empty directory what the failure left of `root`.
    pub fn fail(&self, leaves: Leaves, root: &Path, into: &Path) {
        let mut random = fastrand::Rng::with_seed(match leaves {
            Leaves::Nothing | Leaves::Everything => 0,
            Leaves::Some(seed) => seed,
        });
        let kept = match leaves {
            Leaves::Nothing => 0,
            Leaves::Everything => self.entries.len(),
            Leaves::Some(_) => random.usize(..=self.entries.len()),
        };
        let mut names = self.names.clone();
        self.entries[..kept].iter().for_each(|entry| enter(&mut names, entry));
        for (path, id) in names {
            let Ok(inside) = path.strip_prefix(root) else { continue };
            let mut content = self.files[id].clone();
            for change in &self.changes[id] {
                let odds = random.u8(..5);
                match leaves {
                    Leaves::Nothing => {}
                    Leaves::Everything => write(&mut content, change, |_| true),
                    // Whole, not at all, or sector by sector.
                    Leaves::Some(_) => write(&mut content, change, |_| odds == 0 || odds > 2 && random.bool()),
                }
            }
            let path = into.join(inside);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("a temporary directory");
            fs::write(path, content).expect("a temporary directory");
        }
    }
}

fn enter(names: &mut BTreeMap<PathBuf, Id>, entry: &Entry) {
    match entry {
        Entry::Link(path, id) => {
            names.insert(path.clone(), *id);
        }
        Entry::Unlink(path) => {
            names.remove(path);
        }
        Entry::Move(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

/// A file that grows has zeros where nothing was written.
fn write(file: &mut Vec<u8>, change: &Change, mut survives: impl FnMut(usize) -> bool) {
    match change {
        Change::Length(length) => {
            if survives(0) {
                file.resize(*length, 0);
            }
        }
        Change::Data { offset, data } => {
            let mut at = 0;
            while at < data.len() {
                // Up to the end of the sector.
                let next = data.len().min(at + SECTOR - (offset + at) % SECTOR);
                if survives(offset + at) {
                    let end = offset + next;
                    if file.len() < end {
                        file.resize(end, 0);
                    }
                    file[offset + at..end].copy_from_slice(&data[at..next]);
                }
                at = next;
            }
        }
    }
}
