//! Where objects are kept: versioned, in one total order, watchable. Knows keys and JSON objects, no kinds, no rules.
//!
//! The trait is small enough that etcd can implement it (compare on `mod_revision`, watch from a revision). What it
//! means is not this comment but [`conformance`], one suite that every implementation passes.
//!
//! [`EmbeddedStore`] is the implementation in this process: state and log in memory, an [`Engine`] (SQLite, or memory
//! for tests) that makes batches of writes durable.

mod committer;
pub mod conformance;
mod decoded;
mod embedded;
mod engine;
mod log;
mod memory;
mod object;
mod sqlite;
mod state;
mod watch;

use std::{fmt, sync::Arc};

use axum::body::Bytes;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;

use decoded::Decoded;
pub use embedded::{EmbeddedStore, Options};
pub use engine::{Engine, EngineError, Entry, Image, Row};
pub use memory::{Fault, MemoryEngine};
pub use object::Object;
pub use sqlite::{Backup, Recovery, Restored, Source, SqliteEngine, Wish, recover, restore, verify};

/// Place in the one total order of all writes; `metadata.resourceVersion` on the wire. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an object is: `group/plural/namespace/name`; group empty for the core group, namespace empty for
/// cluster-scoped kinds. Its order is the order of lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(group: &str, plural: &str, namespace: Option<&str>, name: &str) -> Self {
        Self(format!("{group}/{plural}/{}/{name}", namespace.unwrap_or_default()).into())
    }

    /// A key read back from an engine. It must have been made by [`Key::new`].
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a list or a watch covers: one kind, or one namespace of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Arc<str>);

impl Prefix {
    pub fn kind(group: &str, plural: &str) -> Self {
        Self(format!("{group}/{plural}/").into())
    }

    pub fn namespace(group: &str, plural: &str, namespace: &str) -> Self {
        Self(format!("{group}/{plural}/{namespace}/").into())
    }

    /// Every object of every kind.
    pub fn all() -> Self {
        Self("".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn covers(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }
}

/// One version of one object: serialised once, decoded into its type once, shared by every reader and watcher.
#[derive(Debug, PartialEq)]
pub struct Version {
    pub key: Key,
    /// The write that made this version. On the final version of a deleted object: the deletion.
    pub revision: Revision,
    /// The object, `metadata.resourceVersion` filled in.
    pub object: Object,
    /// `object` as compact JSON.
    pub json: Bytes,
    decoded: Decoded,
}

impl Version {
    pub fn new(key: Key, revision: Revision, object: Value, json: Bytes) -> Self {
        let object = Object::whole(object, json.clone());
        Self { key, revision, object, json, decoded: Decoded::default() }
    }

    /// As it was stored. Fails on what is not JSON.
    fn stored(key: Key, revision: Revision, json: Bytes) -> Result<Self, serde_json::Error> {
        Ok(Self { key, revision, object: Object::stored(json.clone())?, json, decoded: Decoded::default() })
    }

    /// The same without its tree; and, of one that is history, without what it was decoded into.
    fn slim(&self, is_present: bool) -> Self {
        Self {
            key: self.key.clone(),
            revision: self.revision,
            object: self.object.text_only(),
            json: self.json.clone(),
            decoded: if is_present { self.decoded.share() } else { Decoded::default() },
        }
    }

    /// The object as a `K`, decoded when it is first asked for.
    pub fn decode<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, serde_json::Error> {
        self.decoded.get(|| match self.object.made() {
            Some(tree) => K::deserialize(tree),
            None => serde_json::from_slice(&self.json),
        })
    }
}

/// Every object a prefix covers, in key order, as of one revision.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub revision: Revision,
    pub items: Vec<Arc<Version>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Created,
    Updated,
    Deleted,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct Change {
    pub kind: ChangeKind,
    /// The new version; for a deletion the last version with the deletion's revision in it.
    pub version: Arc<Version>,
    /// The version before; none for `Created`. A watch with a selector needs it to tell enter from leave.
    pub previous: Option<Arc<Version>>,
}

/// Why the store did not do as asked. Nothing was written unless the variant says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("{0:?} exists already")]
    AlreadyExists(Arc<Version>),
    #[error("no object at {}", .0.as_str())]
    NotFound(Key),
    /// The compare failed; the object as it is now is attached.
    #[error("the object has moved on to revision {}", .0.revision)]
    Conflict(Arc<Version>),
    /// The log no longer reaches back to `asked`: list again. A watch from `oldest` would still have been possible.
    #[error("revision {asked} is gone, the oldest kept is {oldest}")]
    Expired { asked: Revision, oldest: Revision },
    /// A reader asks for what has not been written (a restored database, another server).
    #[error("revision {asked} is in the future, the latest is {latest}")]
    Future { asked: Revision, latest: Revision },
    /// The disk refused or is silent. The write is not acknowledged; it may or may not be found later, then as any other
    /// write: once, in its place in the order.
    #[error("the store cannot write: {0}")]
    Unavailable(String),
    /// There is no room for it. Certainly not written.
    #[error("{0}")]
    Full(String),
    #[error("the store is closed")]
    Closed,
}

pub type StoreResult<T> = Result<T, StoreError>;

/// The versioned store. Every method may be called from any task.
///
/// Guarantees:
/// 1. A write is acknowledged when it is durable; readers and watchers see only durable writes, in revision order.
/// 2. A writer sees its own acknowledged write at once.
/// 3. An update that changes nothing but `metadata.resourceVersion` makes no version and wakes nobody.
pub trait Store: Send + Sync + 'static {
    /// The latest version, or none. Never touches the disk.
    fn get(&self, key: &Key) -> BoxFuture<'_, StoreResult<Option<Arc<Version>>>>;

    /// Everything under `prefix` at one revision, in key order.
    fn list(&self, prefix: &Prefix) -> BoxFuture<'_, StoreResult<Snapshot>>;

    /// Fails with `AlreadyExists`.
    fn create(&self, key: Key, object: Value) -> BoxFuture<'_, StoreResult<Arc<Version>>>;

    /// Replaces the version made by `expected`; else `Conflict` or `NotFound`. An equal object answers the version
    /// that is there.
    fn update(&self, key: Key, object: Value, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>>;

    /// Removes the version made by `expected` and answers the final version, which carries the deletion's revision.
    fn delete(&self, key: Key, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>>;

    /// A cursor that stands right after `from`. `Expired` and `Future` are told at once. It is fine to watch what
    /// does not exist yet.
    fn watch(&self, prefix: Prefix, from: Revision) -> BoxFuture<'_, StoreResult<Box<dyn Watch>>>;

    /// The latest durable revision.
    fn revision(&self) -> BoxFuture<'_, StoreResult<Revision>>;
}

/// A cursor into the log. It holds no buffer: a reader that falls behind the bounded log gets `Expired`.
pub trait Watch: Send {
    /// Waits for the next changes, at least one, at most a bounded number, in revision order. Cancel-safe: a dropped
    /// call loses nothing.
    fn next(&mut self) -> BoxFuture<'_, StoreResult<Vec<Change>>>;

    /// Everything up to here has been told (also what the prefix does not cover): the revision for a bookmark.
    fn position(&self) -> Revision;

    /// The position moved up to the present if no covered change is waiting; for bookmarks of quiet watches.
    fn catch_up(&mut self) -> Revision;
}
