//! Hears when somebody else changes what a Source applied. A hint: the pass that follows looks for itself.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{apply::kind_of, load::ObjectId};
use crate::{
    registry::Registry,
    store::{Change, ChangeKind, Key, Prefix, Revision, StoreResult, Watch},
};

/// A cursor over everything, of which only applied objects matter.
pub struct ObjectChanges {
    registry: Arc<Registry>,
    cursor: Option<Box<dyn Watch>>,
}

/// Which objects matter, and the revision each had when it was applied.
pub type Watched = BTreeMap<Key, Revision>;

pub fn watched<'a>(registry: &Registry, inventory: impl Iterator<Item = (&'a ObjectId, Revision)>) -> Watched {
    inventory
        .filter_map(|(id, revision)| {
            let kind = kind_of(registry, id, None)?;
            Some((Key::new(&kind.group, &kind.plural, id.namespace.as_deref(), &id.name), revision))
        })
        .collect()
}

impl ObjectChanges {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, cursor: None }
    }

    /// Changes from here on will be told. Called before a pass, so that none falls between the pass and the wait.
    pub async fn begin(&mut self) -> StoreResult<()> {
        if self.cursor.is_none() {
            let store = self.registry.store();
            let now = store.revision().await?;
            self.cursor = Some(store.watch(Prefix::all(), now).await?);
        }
        Ok(())
    }

    /// Completes when an object was changed by somebody else, or may have been. Cancel-safe: what a dropped call read is
    /// not lost, for a dropped call read nothing.
    pub async fn next(&mut self, watched: &Watched) {
        loop {
            let Some(cursor) = &mut self.cursor else { return };
            match cursor.next().await {
                Ok(changes) if changes.iter().any(|change| concerns(change, watched)) => return,
                Ok(_) => {}
                // Fell behind, or the store is in trouble: look, then begin again.
                Err(_) => self.cursor = None,
            }
        }
    }
}

fn concerns(change: &Change, watched: &Watched) -> bool {
    let Some(applied) = watched.get(&change.version.key) else { return false };
    if change.version.revision <= *applied {
        return false;
    }
    match (change.kind, &change.previous) {
        (ChangeKind::Created | ChangeKind::Deleted, _) | (ChangeKind::Updated, None) => true,
        (ChangeKind::Updated, Some(previous)) => wishes(&previous.object) != wishes(&change.version.object),
    }
}

/// Everything but what controllers write all day.
pub(super) fn wishes(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        }
    }
    object
}
