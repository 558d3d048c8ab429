//! Results and artifacts as files, where MLOC has them: contract sections 5.1 to 5.4.
//!
//! `<root>/<task>/responses.json` and `<root>/<task>/<artifact>`. A file is there whole or not at all, whatever crashes: it is
//! written beside (`<root>/.incoming`), synced, and renamed. Names that lead out of the task's directory are refused, also
//! through links, for others may write below the root on shared storage.

mod keeping;
mod logs;

pub use keeping::{Results, SharedResults, envelope};

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use futures::{Stream, StreamExt};
use serde_json::Value;
use tempfile::TempPath;
use tokio::{fs, io::AsyncWriteExt, sync::broadcast};

/// The result itself.
pub const RESPONSES: &str = "responses.json";
const INCOMING: &str = ".incoming";
/// What tasks printed, a file for each attempt.
const LOGS: &str = "logs";
/// Where later generations of MLOC put uploads.
const ARTIFACTS: &str = "artifacts";
/// Of a file, in bytes, on every file system that counts.
const LONGEST_NAME: usize = 255;
/// Ids that a slow listener may fall behind by; then it looks at everything.
const MOST_BEHIND: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("invalid filename")]
    Name,
    #[error("the file is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// The sender stopped half way.
    #[error("the upload broke off: {0}")]
    BrokenOff(String),
    #[error("cannot {doing}")]
    Io { doing: &'static str, source: io::Error },
}

/// A result that was delivered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub worker: Option<String>,
    pub received_at: Option<String>,
}

/// A directory of results. Clones share it, and hear of what any of them stores.
#[derive(Clone)]
pub struct ResultFiles {
    root: Arc<PathBuf>,
    stored: broadcast::Sender<String>,
}

impl ResultFiles {
    /// The directory is made with the first file in it: one without results is none. What a process before left half written is
    /// removed.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        match std::fs::remove_dir_all(root.join(INCOMING)) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(error),
            _ => Ok(Self { root: Arc::new(root), stored: broadcast::channel(MOST_BEHIND).0 }),
        }
    }

    /// The ids whose results are stored from now on. A lagging reader must look at everything.
    pub fn stored(&self) -> broadcast::Receiver<String> {
        self.stored.subscribe()
    }

    /// Where a task's files are.
    pub fn directory(&self, task: &str) -> PathBuf {
        self.root.join(sanitised(task))
    }

    /// Stores a result in the place of what was there; answers its path.
    pub async fn store(&self, task: &str, document: &Value) -> Result<PathBuf, FileError> {
        let text = serde_json::to_vec_pretty(document).map_err(|error| FileError::BrokenOff(error.to_string()))?;
        let bytes = futures::stream::iter([Ok::<_, io::Error>(text)]);
        let path = self.write(task, RESPONSES, bytes, u64::MAX).await?;
        // Nobody may be listening.
        self.stored.send(task.to_owned()).ok();
        Ok(path)
    }

    /// Stores an artifact as it streams in, in the place of one of the same name.
    pub async fn upload<B: AsRef<[u8]>, E: std::fmt::Display>(
        &self,
        task: &str,
        name: &str,
        bytes: impl Stream<Item = Result<B, E>>,
        limit: u64,
    ) -> Result<PathBuf, FileError> {
        // The result is no artifact: it would be taken for the word of a worker. And where logs are is no place for a file:
        // whoever brings one would be told to try again for ever.
        if name == RESPONSES || name == LOGS {
            return Err(FileError::Name);
        }
        self.write(task, checked(name)?, bytes, limit).await
    }

    async fn write<B: AsRef<[u8]>, E: std::fmt::Display>(
        &self,
        task: &str,
        name: &str,
        bytes: impl Stream<Item = Result<B, E>>,
        limit: u64,
    ) -> Result<PathBuf, FileError> {
        check_id(task)?;
        let directory = self.directory(task);
        if !fs::try_exists(&directory).await.unwrap_or(false) {
            fs::create_dir_all(&directory).await.map_err(io_error("make the directory of a task"))?;
            // Or a power failure takes the directory, with an answered file in it.
            sync_directory(&self.root).await?;
        }
        fs::create_dir_all(self.root.join(INCOMING)).await.map_err(io_error("make a directory for what comes in"))?;
        if self.real_directory(task).await != fs::canonicalize(&directory).await.ok() {
            return Err(FileError::Name);
        }
        let path = directory.join(name);
        // Removed however this ends, also when nobody waits for it any more.
        let beside = TempPath::try_from_path(self.root.join(INCOMING).join(uuid::Uuid::new_v4().to_string()))
            .map_err(io_error("name a file"))?;
        receive(&beside, bytes, limit).await?;
        fs::rename(&beside, &path).await.map_err(io_error("put a file in its place"))?;
        sync_directory(&directory).await?;
        Ok(path)
    }

    /// The stored text of a result.
    pub async fn load(&self, task: &str) -> Result<Option<Vec<u8>>, FileError> {
        match self.find(task, RESPONSES).await? {
            Some(path) => fs::read(path).await.map(Some).map_err(io_error("read a result")),
            None => Ok(None),
        }
    }

    /// The result that was delivered for a task. What a worker wrote itself on shared storage is none: it writes that before it
    /// knows whether it can deliver.
    pub async fn posted(&self, task: &str) -> Result<Option<Posted>, FileError> {
        let Some(text) = self.load(task).await? else { return Ok(None) };
        Ok(envelope(task, &text, self.directory(task).join(RESPONSES)))
    }

    /// A file of a task. None: there is none of this name.
    pub async fn find(&self, task: &str, name: &str) -> Result<Option<PathBuf>, FileError> {
        let name = checked(name)?;
        let Some(directory) = self.real_directory(task).await else { return Ok(None) };
        for path in [directory.join(name), directory.join(ARTIFACTS).join(name)] {
            let Ok(real) = fs::canonicalize(&path).await else { continue };
            if real.starts_with(&directory) && fs::metadata(&real).await.is_ok_and(|file| file.is_file()) {
                return Ok(Some(real));
            }
        }
        Ok(None)
    }

    /// Names and sizes of what was uploaded for a task, by name.
    pub async fn artifacts(&self, task: &str) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let Ok(mut entries) = fs::read_dir(self.directory(task)).await else { return found };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(file) = entry.metadata().await
                && file.is_file()
                && name != RESPONSES
            {
                found.push((name, file.len()));
            }
        }
        found.sort();
        found
    }

    /// Names and metadata of the logs that are kept of a task.
    pub async fn logs(&self, task: &str) -> Vec<(String, std::fs::Metadata)> {
        let mut found = Vec::new();
        let Some(directory) = self.real_directory(task).await else { return found };
        let Ok(mut entries) = fs::read_dir(directory.join(LOGS)).await else { return found };
        while let Ok(Some(entry)) = entries.next_entry().await {
            // Of a link this is the link's own.
            if let Ok(file) = entry.metadata().await
                && file.is_file()
            {
                found.push((entry.file_name().to_string_lossy().into_owned(), file));
            }
        }
        found
    }

    /// A log of a task. None: there is none of this name.
    pub async fn log(&self, task: &str, name: &str) -> Result<Option<PathBuf>, FileError> {
        let name = checked(name)?;
        let Some(directory) = self.real_directory(task).await else { return Ok(None) };
        let Ok(real) = fs::canonicalize(directory.join(LOGS).join(name)).await else { return Ok(None) };
        let is_file = fs::metadata(&real).await.is_ok_and(|file| file.is_file());
        Ok(Some(real).filter(|real| is_file && real.starts_with(&directory)))
    }

    /// Removes everything that is kept of a task. It is gone at once or not at all: moved aside first, from where the next start
    /// removes it if this process ends in between.
    pub async fn remove(&self, task: &str) -> Result<(), FileError> {
        let directory = self.directory(task);
        let found = match fs::symlink_metadata(&directory).await {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("look at the directory of a task")(error)),
        };
        if !found.is_dir() {
            // A link somebody put there: what it leads to is not ours.
            return fs::remove_file(&directory).await.map_err(io_error("remove a link"));
        }
        fs::create_dir_all(self.root.join(INCOMING)).await.map_err(io_error("make a directory for what goes"))?;
        let aside = self.root.join(INCOMING).join(uuid::Uuid::new_v4().to_string());
        // What cannot be moved (a mount) is removed where it is.
        let gone = match fs::rename(&directory, &aside).await {
            Ok(()) => aside,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => directory,
        };
        fs::remove_dir_all(&gone).await.map_err(io_error("remove the directory of a task"))
    }

    /// Where a task's files are when no link leads elsewhere. None: there is no root yet.
    async fn real_directory(&self, task: &str) -> Option<PathBuf> {
        Some(fs::canonicalize(&*self.root).await.ok()?.join(sanitised(task)))
    }
}

async fn receive<B: AsRef<[u8]>, E: std::fmt::Display>(
    path: &Path,
    bytes: impl Stream<Item = Result<B, E>>,
    limit: u64,
) -> Result<(), FileError> {
    let mut file = fs::File::create_new(path).await.map_err(io_error("make a file"))?;
    let mut bytes = std::pin::pin!(bytes);
    let mut length = 0;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|error| FileError::BrokenOff(error.to_string()))?;
        length += chunk.as_ref().len() as u64;
        if length > limit {
            return Err(FileError::TooLarge { limit });
        }
        file.write_all(chunk.as_ref()).await.map_err(io_error("write a file"))?;
    }
    file.flush().await.map_err(io_error("write a file"))?;
    file.sync_all().await.map_err(io_error("sync a file"))
}

async fn sync_directory(directory: &Path) -> Result<(), FileError> {
    let synced = async { fs::File::open(directory).await?.sync_all().await };
    synced.await.map_err(io_error("sync a directory"))
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { doing, source }
}

/// An id as a directory is called.
pub fn sanitised(task: &str) -> String {
    task.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}

/// What cannot be called so is no task of ours, and of nobody's: ids come from whoever delivers.
fn check_id(task: &str) -> Result<(), FileError> {
    let name = sanitised(task);
    if name.is_empty() || name.len() > LONGEST_NAME { Err(FileError::Name) } else { Ok(()) }
}

/// A name that is one, and nothing else of a path.
fn checked(name: &str) -> Result<&str, FileError> {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name);
    (plain && name.len() <= LONGEST_NAME && !name.contains('\0')).then_some(name).ok_or(FileError::Name)
}

#[cfg(test)]
mod tests;
