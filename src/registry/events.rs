//! Events are served in two forms over one storage: core `v1` is kept, `events.k8s.io/v1` is a view with seven fields
//! renamed. The translation happens at the registry's boundary, for reads, writes, lists and watches alike.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Kind, metadata};
use crate::store::{Change, Revision, StoreResult, Version, Watch};

/// Core name, name in the view.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An `events.k8s.io/v1` Event as core `v1`.
pub fn to_stored(mut object: Value) -> Value {
    rename(&mut object, RENAMED.map(|(core, view)| (view, core)), "v1");
    object
}

fn to_view(mut object: Value) -> Value {
    rename(&mut object, RENAMED, "events.k8s.io/v1");
    object
}

fn rename(object: &mut Value, names: [(&str, &str); 7], api_version: &str) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), json!(api_version));
}

/// The object in the form of `kind`.
pub fn shown_object(kind: &Kind, object: &Value) -> Value {
    if kind.view { to_view(object.clone()) } else { object.clone() }
}

/// The version in the form of `kind`.
pub fn shown(kind: &Kind, version: Arc<Version>) -> Arc<Version> {
    if !kind.view {
        return version;
    }
    Arc::new(metadata::version(version.key.clone(), version.revision, to_view(version.object.clone())))
}

/// A watch of the view.
pub struct Translated {
    inner: Box<dyn Watch>,
    kind: Arc<Kind>,
}

impl Translated {
    pub fn new(inner: Box<dyn Watch>, kind: Arc<Kind>) -> Self {
        Self { inner, kind }
    }

    fn translate(&self, change: Change) -> Change {
        let previous = change.previous.map(|p| shown(&self.kind, p));
        Change { kind: change.kind, version: shown(&self.kind, change.version), previous }
    }
}

impl Watch for Translated {
    fn next(&mut self) -> BoxFuture<'_, StoreResult<Vec<Change>>> {
        Box::pin(async move {
            let changes = self.inner.next().await?;
            Ok(changes.into_iter().map(|c| self.translate(c)).collect())
        })
    }

    fn position(&self) -> Revision {
        self.inner.position()
    }

    fn catch_up(&mut self) -> Revision {
        self.inner.catch_up()
    }
}
