//! The rules of every write, generic over schema: prune, default, validate, patch, server-side apply, generation,
//! conflicts, finalizers, owner garbage collection. Knows no kind by name and no wire format.
//!
//! Every write of the process goes through [`Registry`]; nobody else holds the [`Store`](crate::store::Store) for writing.

pub mod error;
pub mod kinds;
pub mod selector;

use std::sync::Arc;

use serde_json::Value;

pub use error::{ApiError, ApiResult, Cause, Reason};
pub use kinds::{Kind, Kinds};
pub use selector::Selector;

use crate::store::{Revision, Store, Version, Watch};

/// Where an object is, in a kind's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// None for cluster-scoped kinds.
    pub namespace: Option<String>,
    pub name: String,
}

/// What to do with unknown and duplicate fields of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    #[default]
    Strict,
    Warn,
    Ignore,
}

/// Which half of the object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subresource {
    /// Everything but `status`.
    #[default]
    Main,
    /// Only `status` (and `metadata.managedFields`).
    Status,
}

/// The query parameters of a write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Who writes, for managedFields. The server fills in the User-Agent up to `/` when the client names none.
    pub field_manager: String,
    /// Everything but the put.
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Server-side apply: take fields from other managers.
    pub force: bool,
    pub subresource: Subresource,
}

#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902, with `test … null` of an absent path holding as in evanphx/json-patch.
    Json(json_patch::Patch),
    /// Only for built-in kinds: a merge patch whose `$…` directives are dropped.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

/// What became of a write.
#[derive(Debug, Clone)]
pub struct Written {
    /// With dry-run: what would have been stored, carrying the present revision.
    pub version: Arc<Version>,
    /// The object did not exist before.
    pub created: bool,
    /// For the client's eyes: unknown fields under `Warn`, deprecated fields.
    pub warnings: Vec<String>,
}

/// What became of a delete.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// It is gone; the final version.
    Gone(Arc<Version>),
    /// Finalizers hold it: `deletionTimestamp` is set.
    Pending(Arc<Version>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub propagation: Propagation,
    /// 409 unless the object has this uid.
    pub uid: Option<String>,
    /// 409 unless the object is at this revision.
    pub resource_version: Option<Revision>,
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub selector: Selector,
    /// Page size; none: everything.
    pub limit: Option<usize>,
    /// From the page before. `Expired` when its snapshot is no longer kept.
    pub continue_token: Option<String>,
}

#[derive(Debug, Clone)]
pub struct List {
    pub revision: Revision,
    pub items: Vec<Arc<Version>>,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

/// The one door to the store.
pub struct Registry {
    #[expect(dead_code)]
    store: Arc<dyn Store>,
}

#[expect(unused_variables, clippy::unused_async)]
impl Registry {
    /// Serves `kinds` over `store` and makes what must exist: the namespaces `default` and `kube-system`, and the
    /// CustomResourceDefinition objects of our own kinds.
    pub async fn open(
        store: Arc<dyn Store>,
        kinds: Kinds,
        clock: Arc<dyn crate::runtime::clock::Clock>,
    ) -> ApiResult<Arc<Self>> {
        unimplemented!()
    }
    /// The kinds served now (CRDs may be added at run time later: take a fresh one per request).
    pub fn kinds(&self) -> Arc<Kinds> {
        unimplemented!()
    }
    pub async fn get(&self, kind: &Kind, name: &ObjectName) -> ApiResult<Arc<Version>> {
        unimplemented!()
    }
    /// `namespace: None` lists all namespaces (or a cluster-scoped kind).
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, options: &ListOptions) -> ApiResult<List> {
        unimplemented!()
    }
    /// A raw cursor of the kind: selectors are applied by [`selector::Filtered`], bookmarks are the server's.
    pub async fn watch(&self, kind: &Kind, namespace: Option<&str>, from: Revision) -> ApiResult<Box<dyn Watch>> {
        unimplemented!()
    }
    pub async fn create(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        object: Value,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        unimplemented!()
    }
    /// Replaces (PUT). Without `metadata.resourceVersion` the last writer wins, as upstream for our kinds.
    pub async fn update(
        &self,
        kind: &Kind,
        name: &ObjectName,
        object: Value,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        unimplemented!()
    }
    /// Retries internally when another writer comes between, unless the patch itself names a resourceVersion.
    pub async fn patch(
        &self,
        kind: &Kind,
        name: &ObjectName,
        patch: Patch,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        unimplemented!()
    }
    pub async fn delete(&self, kind: &Kind, name: &ObjectName, options: &DeleteOptions) -> ApiResult<Deleted> {
        unimplemented!()
    }
    /// The store itself, for reading only (all-kinds watches of /ws/watch, revision).
    pub fn store(&self) -> &Arc<dyn Store> {
        unimplemented!()
    }
}
