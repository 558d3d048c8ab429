//! A watch seen through a selector: entering it is a creation, leaving it a deletion.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::Selector;
use crate::{
    registry::metadata,
    store::{Change, ChangeKind, Revision, StoreResult, Version, Watch},
};

/// Tells only what the selector sees.
pub struct Filtered {
    inner: Box<dyn Watch>,
    selector: Selector,
}

impl Filtered {
    pub fn new(inner: Box<dyn Watch>, selector: Selector) -> Self {
        Self { inner, selector }
    }

    fn seen(&self, change: Change) -> Option<Change> {
        let now = change.kind != ChangeKind::Deleted && self.selector.matches(&change.version.object.peek());
        let before = change.previous.as_ref().is_some_and(|p| self.selector.matches(&p.object.peek()));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(Change { kind: ChangeKind::Created, previous: None, ..change }),
            (true, true) => Some(change),
            (true, false) if change.kind == ChangeKind::Deleted => Some(change),
            (true, false) => {
                let previous = change.previous?;
                let version = at_revision(&previous, change.version.revision);
                Some(Change { kind: ChangeKind::Deleted, version, previous: Some(previous) })
            }
        }
    }
}

/// What the client last saw of an object that left, carrying the revision at which it left.
fn at_revision(version: &Version, revision: Revision) -> Arc<Version> {
    let mut object = version.object.clone();
    if let Some(metadata) = metadata::map_at(&mut object, &["metadata"]) {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    }
    Arc::new(metadata::version(version.key.clone(), revision, object))
}

impl Watch for Filtered {
    fn next(&mut self) -> BoxFuture<'_, StoreResult<Vec<Change>>> {
        Box::pin(async move {
            loop {
                // The only await: a dropped call has taken nothing from the inner cursor.
                let changes = self.inner.next().await?;
                let seen: Vec<Change> = changes.into_iter().filter_map(|c| self.seen(c)).collect();
                if !seen.is_empty() {
                    return Ok(seen);
                }
            }
        })
    }

    fn position(&self) -> Revision {
        self.inner.position()
    }

    fn catch_up(&mut self) -> Revision {
        self.inner.catch_up()
    }
}
