//! What the store asks of a disk: six blocking methods over plain rows. An engine knows keys, bytes and revisions; it
//! does not parse objects, compare revisions or wake anybody.

use std::path::PathBuf;

use axum::body::Bytes;

use super::{ChangeKind, Key, Revision};

/// One object as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    pub revision: Revision,
    pub json: Bytes,
}

/// One write as it lies in the log. `row` is the new version; of a deletion, the final one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: ChangeKind,
    pub row: Row,
    /// The version that this write replaced; none for `Created`.
    pub previous: Option<(Revision, Bytes)>,
}

/// Everything an engine holds but its log.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The last committed write.
    pub revision: Revision,
    /// [`Engine::history`] is complete from here on.
    pub compacted: Revision,
    /// In key order.
    pub objects: Vec<Row>,
}

/// Keeps rows durably. Called by one thread at a time, always with the next revisions, without a gap.
pub trait Engine: Send + 'static {
    /// The state as of the last commit, every row verified: damage is an error, never a missing or wrong row.
    fn load(&mut self) -> Result<Image, EngineError>;

    /// Makes all entries durable, or none. After an error the caller does not know which; [`Engine::history`] tells.
    fn commit(&mut self, batch: &[Entry]) -> Result<(), EngineError>;

    /// The committed entries after `from`, in order.
    fn history(&mut self, from: Revision) -> Result<Vec<Entry>, EngineError>;

    /// Forgets the log up to and including `to`. Objects stay.
    fn compact(&mut self, to: Revision) -> Result<(), EngineError>;

    /// What was loaded was found right, so what is there is built upon from here on. Before this nothing may be changed that
    /// a person might want to look at. Afterwards all that was loaded is durable, whatever became of the process that wrote it.
    fn accept(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether a commit waits for a device. If so it gets a thread of its own, else the writer commits by itself (which
    /// makes a simulation repeatable).
    fn blocks(&self) -> bool;
}

/// Why an engine could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "the data directory {} is in use by {}: stop it, or choose another directory",
        .directory.display(),
        .holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked { directory: PathBuf, holder: Option<u32> },
    #[error("cannot {doing} {}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start the thread that writes")]
    Thread(#[source] std::io::Error),
    #[error("cannot {doing}")]
    Sqlite {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    #[error(
        "the database {} is of schema {found}, this program knows up to {known}: start the newer program again, or \
         restore a backup made before the upgrade",
        .path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// Nothing was written. It mends by itself once there is room.
    #[error(
        "the disk is full, nothing was written; reads and watches go on, and so will writes once there is room. Make some \
         where {} is (df -h {})",
        .directory.display(),
        .directory.display()
    )]
    Full { directory: PathBuf },
    /// A sync failed. The kernel then forgets what it could not write, and the next sync would succeed without it: nothing
    /// that this process does can be trusted to last, and what it reads back may be in memory only.
    #[error(
        "the disk failed to keep what was written to {} (look at it: dmesg, smartctl -a; every row is verified when gaia \
         starts again)",
        .path.display()
    )]
    Lost {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// Nothing was changed or deleted.
    #[error("{what} is damaged; nothing was changed. {help}")]
    Damaged { what: String, help: String },
    #[error(
        "{} is not empty (it holds {found}): restore into a directory of its own, or move what is there away first",
        .directory.display()
    )]
    Occupied { directory: PathBuf, found: String },
    /// The engine was opened again elsewhere; this handle may not write any more.
    #[error("the engine was taken over by a later opening")]
    Fenced,
    /// Nothing can be committed on top of a state that is not known: try again.
    #[error("it is not known yet what became of an earlier commit that failed")]
    Unsettled,
    /// A [`Fault`](super::Fault) that a test asked for.
    #[error("injected fault")]
    Injected,
}

impl EngineError {
    /// The engine must not be used any more.
    pub fn is_final(&self) -> bool {
        matches!(self, EngineError::Lost { .. })
    }

    /// The message with its causes, for an operator.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
