//! The rules of every write, generic over schema: prune, default, validate, patch, server-side apply, generation,
//! conflicts, finalizers, owner garbage collection. Knows no kind by name and no wire format.
//!
//! Every write of the process goes through [`Registry`]; nobody else holds the [`Store`](crate::store::Store) for writing.

mod apply;
mod builtin;
mod cel;
mod collect;
mod definitions;
mod delete;
pub mod error;
mod events;
mod fields;
pub mod ids;
pub mod kinds;
mod metadata;
mod names;
mod nesting;
mod patch;
mod read;
pub mod same;
mod schema;
pub mod selector;
pub mod size;
mod status;
#[cfg(test)]
mod tests;
mod write;

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use error::{ApiError, ApiResult, Cause, Reason};
pub use fields::{MOST_COMPLAINTS, Place};
pub use ids::{Ids, RandomIds, SeededIds};
pub use kinds::{Kind, Kinds};
pub use selector::{Filtered, Selector};

use crate::{
    runtime::clock::Clock,
    store::{Revision, Store, StoreError, Version},
};

/// Where an object is, in a kind's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// None for cluster-scoped kinds.
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectName {
    /// The name an object gives itself.
    pub fn of(object: &Value) -> Self {
        Self {
            namespace: metadata::text(object, "namespace").map(str::to_owned),
            name: metadata::text(object, "name").unwrap_or_default().to_owned(),
        }
    }
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
    /// Only for built-in kinds: a merge patch that knows how lists merge.
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
    /// What others had applied and this write changed. Who applies again and again will set it back.
    pub taken: Vec<Taken>,
}

/// A field that changed hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Whose it was.
    pub manager: String,
    /// `spec.live.container.image`
    pub field: String,
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

/// The kind in whose form an object is kept.
enum Stored<'k> {
    Itself(&'k Kind),
    Core(Arc<Kind>),
}

impl std::ops::Deref for Stored<'_> {
    type Target = Kind;

    fn deref(&self) -> &Kind {
        match self {
            Stored::Itself(kind) => kind,
            Stored::Core(kind) => kind,
        }
    }
}

/// The one door to the store.
pub struct Registry {
    store: Arc<dyn Store>,
    kinds: RwLock<Arc<Kinds>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    pages: read::Pages,
}

/// Who writes what must exist.
const SELF: &str = "gaia";
/// On the definitions of our kinds: which text they were written from.
const DIGEST: &str = "gaia.dev/definition-digest";

fn digest(definition: &Value) -> String {
    Sha256::digest(definition.to_string()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn is_established_by(definition: &Value, digest: &str) -> bool {
    definition["metadata"]["annotations"][DIGEST] == digest && definition["status"]["conditions"].is_array()
}

impl Registry {
    /// Serves `kinds` over `store` and makes what must exist: the namespaces `default` and `kube-system`, and the
    /// CustomResourceDefinition objects of our own kinds.
    pub async fn open(
        store: Arc<dyn Store>,
        kinds: Kinds,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> ApiResult<Arc<Self>> {
        let registry =
            Arc::new(Self { store, kinds: RwLock::new(Arc::new(kinds)), clock, ids, pages: read::Pages::default() });
        registry.make_namespaces().await?;
        registry.make_definitions().await?;
        registry.settle_all_definitions().await?;
        Ok(registry)
    }

    async fn make_namespaces(&self) -> ApiResult<()> {
        let kind = self.builtin("", "Namespace")?;
        for name in ["default", "kube-system"] {
            let options = WriteOptions { field_manager: SELF.to_owned(), ..WriteOptions::default() };
            match self.create(&kind, None, json!({"metadata": {"name": name}}), &options).await {
                Ok(_) => {}
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The definitions on disk may be those of an older binary: ours replace them.
    async fn make_definitions(&self) -> ApiResult<()> {
        let kind = self.builtin(builtin::EXTENSIONS, "CustomResourceDefinition")?;
        for crd in self.kinds().crds() {
            self.make_definition(&kind, serde_json::to_value(crd).map_err(ApiError::internal)?).await?;
        }
        Ok(())
    }

    async fn make_definition(&self, kind: &Kind, mut definition: Value) -> ApiResult<()> {
        // Start-up is the path of every restart: what this very binary wrote is not put through every check again.
        let digest = digest(&definition);
        definition["metadata"]["annotations"][DIGEST] = json!(digest);
        let name = ObjectName::of(&definition);
        let options = WriteOptions { field_manager: SELF.to_owned(), ..WriteOptions::default() };
        match self.get(kind, &name).await {
            Ok(live) if is_established_by(&live.object, &digest) => return Ok(()),
            Ok(_) => self.update(kind, &name, definition, &options).await?,
            Err(error) if error.reason == Reason::NotFound => self.create(kind, None, definition, &options).await?,
            Err(error) => return Err(error),
        };
        self.write_conditions(kind, &name.name, &definitions::Standing::served()).await
    }

    fn builtin(&self, group: &str, kind: &str) -> ApiResult<Arc<Kind>> {
        let found = self.kinds().by_kind(group, "v1", kind);
        found.ok_or_else(|| ApiError::internal(format!("built-in kind {kind} is missing")))
    }

    /// The kind in whose form objects of `kind` are stored. A kind that is no longer served is as good as ever for the
    /// request that has it in hand.
    fn stored<'k>(&self, kind: &'k Kind) -> Stored<'k> {
        if !kind.view {
            return Stored::Itself(kind);
        }
        let core = self.kinds().by_kind("", &kind.version, &kind.kind);
        Stored::Core(core.expect("the core kind of every view is built in"))
    }

    /// The kinds served now. Definitions come and go at run time: take a fresh one per request.
    pub fn kinds(&self) -> Arc<Kinds> {
        // Kinds are replaced whole: a panic elsewhere cannot have left them half done.
        Arc::clone(&self.kinds.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Swaps the kinds served for others, unless `next` sees nothing to change. True when it was done.
    fn replace_kinds(&self, next: impl Fn(&Kinds) -> Option<Kinds>) -> bool {
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        match next(&kinds) {
            Some(next) => *kinds = Arc::new(next),
            None => return false,
        }
        true
    }

    /// The store itself, for reading only (all-kinds watches of /ws/watch, revision).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

/// What a client is told of a store's refusal.
pub(crate) fn store_error(kind: &Kind, name: &str, error: StoreError) -> ApiError {
    match error {
        StoreError::AlreadyExists(_) => ApiError::already_exists(kind, name),
        StoreError::NotFound(_) => ApiError::not_found(kind, name),
        StoreError::Conflict(_) => ApiError::modified(kind, name),
        StoreError::Expired { asked, oldest } => ApiError::too_old(asked, oldest),
        StoreError::Future { asked, latest } => ApiError::too_large(asked, latest),
        StoreError::Full(_) => ApiError::new(Reason::InsufficientStorage, error.to_string()),
        StoreError::Unavailable(_) | StoreError::Closed => ApiError::new(Reason::ServiceUnavailable, error.to_string()),
    }
}
