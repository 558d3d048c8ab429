//! Hears when somebody else changes what a Source applied. A hint: the pass that follows looks for itself.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{apply::kind_of, load::ObjectId};
use crate::{
    registry::{Registry, same::same_without},
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
        (ChangeKind::Updated, Some(previous)) => !same_wishes(&previous.object, &change.version.object),
    }
}

/// Is the same wished of both? Everything counts but what controllers write all day.
pub(super) fn same_wishes(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let same_metadata = match (a.get("metadata"), b.get("metadata")) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            same_without(a, b, |field| matches!(field, "resourceVersion" | "managedFields"))
        }
        (a, b) => a == b,
    };
    same_metadata && same_without(a, b, |field| matches!(field, "status" | "metadata"))
}

/// And are they owned alike? Then applying to the one does what it does to the other.
pub(super) fn is_left_alone(before: &Value, now: &Value) -> bool {
    same_wishes(before, now) && owners(before).eq(owners(now))
}

/// Who owns what of it, but for the status.
fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.filter(|entry| entry["subresource"] != "status")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// With `pointer` set to `value` in it.
    fn object(pointer: &str, value: Value) -> Value {
        let mut object = json!({
            "kind": "Workload",
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": "1"}, "managedFields": [
                {"manager": "gitops", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
                {"manager": "gaia", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ]},
            "spec": {"active": "Live"},
            "status": {"ready": false},
        });
        *object.pointer_mut(pointer).expect("a field that is there") = value;
        object
    }

    #[rstest]
    #[case::nothing("/kind", json!("Workload"), true, true)]
    #[case::status("/status/ready", json!(true), true, true)]
    #[case::revision("/metadata/resourceVersion", json!("8"), true, true)]
    #[case::the_owner_of_status("/metadata/managedFields/1/fieldsV1", json!({}), true, true)]
    #[case::an_owner("/metadata/managedFields/0/manager", json!("somebody"), true, false)]
    #[case::what_is_owned("/metadata/managedFields/0/fieldsV1", json!({}), true, false)]
    #[case::spec("/spec/active", json!("Candidate"), false, false)]
    #[case::metadata("/metadata/labels", json!({}), false, false)]
    fn they_differ_in(#[case] pointer: &str, #[case] value: Value, #[case] wishes: bool, #[case] left_alone: bool) {
        let (before, now) = (object("/kind", json!("Workload")), object(pointer, value));
        assert_eq!((same_wishes(&before, &now), is_left_alone(&before, &now)), (wishes, left_alone));
    }
}
