//! How files are reached: a trait, the real file system beneath it, a simulated one beside it.

mod beside;
pub mod real;
pub(super) mod scan;
pub mod simulated;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;

use super::git::Known;

/// Where directories are.
pub trait Files: Send + Sync + 'static {
    /// It need not exist: that is for [`Directory::read`] to find out, each time.
    fn open(&self, directory: &Path) -> Box<dyn Directory>;
}

/// One directory tree, read and watched.
pub trait Directory: Send + Sync {
    /// Everything under the directory now, and the files of `also`, wherever they are (absolute paths). Those are watched too
    /// until the next read.
    fn read<'a>(&'a mut self, also: &'a BTreeSet<PathBuf>) -> BoxFuture<'a, Listing>;

    /// Completes when something may have changed since the last `read` began, also when nothing has. A hint: not every
    /// file system tells. Cancel-safe.
    fn changed(&mut self) -> BoxFuture<'_, ()>;

    /// What the Source asks for, whenever it is looked at: another request than the last one means that what was found before
    /// does not do. A directory is found anew by every read.
    fn request(&mut self, _request: Option<&str>) {}
}

/// What was found in a directory tree. Only desired files are in it: `.yaml`, `.yml` and `.json`, not hidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Which directory it was, or why it could not be read.
    pub root: Result<Identity, String>,
    /// By path.
    pub files: Vec<File>,
    /// Places that could not be read.
    pub problems: Vec<Problem>,
    /// Where it is: an absolute path.
    pub directory: PathBuf,
    /// The files that were asked for beside those.
    pub beside: BTreeMap<PathBuf, Beside>,
    /// Of a git repository: which commit this is.
    pub git: Option<Known>,
}

/// Below it nothing of this host lies: files of a commit seem to be there.
pub const NO_HOST: &str = "/gaia.git";

/// A file's text; `None`: there is no such file. Or why it cannot be read.
pub type Beside = Result<Option<String>, String>;

impl Listing {
    pub fn unreadable(why: impl Into<String>) -> Self {
        Self { root: Err(why.into()), ..Self::empty(Identity(String::new()), Path::new("/")) }
    }

    /// Nothing is in it.
    pub fn empty(identity: Identity, directory: &Path) -> Self {
        Self {
            root: Ok(identity),
            files: Vec::new(),
            problems: Vec::new(),
            directory: directory.to_owned(),
            beside: BTreeMap::new(),
            git: None,
        }
    }

    /// Everything was read: what is not here is not there.
    pub fn is_complete(&self) -> bool {
        self.root.is_ok() && self.problems.is_empty()
    }
}

/// Tells a directory from another one of the same path: device and inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the directory, with `/`.
    pub path: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: String,
    pub message: String,
}

/// Whether an entry of a directory is a desired file, by its name. Left out: hidden ones (`..data` of a mounted
/// ConfigMap, `.#x` locks and `.x.swp` of editors), backups (`x.yaml~`), and whatever is not called YAML or JSON.
pub fn is_desired(name: &str) -> bool {
    let extension = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}
