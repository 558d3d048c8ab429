//! What nobody deletes by name: objects whose owners are gone, the content of namespaces being deleted, the objects of
//! definitions being deleted.
//!
//! The [`Index`] is built from everything there is, at the start and once a minute, and follows the changes in between. What
//! it suspects is looked at one by one; how it came to be suspected does not matter, so that a start after a crash does what
//! the change would have led to.

mod index;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    ApiError, ApiResult, DeleteOptions, Deleted, Kind, ObjectName, Reason, Registry, WriteOptions, definitions,
    delete::{FOREGROUND, ORPHAN},
    metadata, store_error,
    write::Edited,
};
use crate::store::{Key, Prefix, Revision, Snapshot, StoreError, Version};
use index::Index;

const COLLECTOR: &str = "gaia-garbage-collector";
/// A look at everything, for what a change could not lead to (a write that failed).
const RESYNC: Duration = Duration::from_secs(60);
/// After a failure, of the store most likely.
const RETRY: Duration = Duration::from_secs(5);

/// One object to be looked at.
struct Found {
    kind: Arc<Kind>,
    version: Arc<Version>,
}

impl Found {
    fn uid(&self) -> &str {
        metadata::text(&self.version.object, "uid").unwrap_or_default()
    }

    fn name(&self) -> ObjectName {
        ObjectName::of(&self.version.object)
    }

    fn is_deleting(&self) -> bool {
        metadata::is_deleting(&self.version.object)
    }

    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.is_deleting() && metadata::finalizers(&self.version.object).contains(&finalizer)
    }
}

/// The uids of an object's owners.
fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let references = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    references.filter_map(|reference| reference["uid"].as_str())
}

impl Registry {
    /// Collects until told to stop.
    pub async fn run_collector(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let done = tokio::select! {
                biased;
                // What is dropped with the other arm is found again by whoever begins anew.
                () = stop.cancelled() => return,
                done = self.collect_for(RESYNC) => done,
            };
            let Err(error) = done else { continue };
            warn!(%error, "collecting garbage failed");
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// From a look at everything, through every change, until the next look is due.
    async fn collect_for(&self, period: Duration) -> ApiResult<()> {
        let end = Instant::now() + period;
        let snapshot = self.everything().await?;
        let broken = |error: StoreError| ApiError::internal(error);
        let mut changes = self.store.watch(Prefix::all(), snapshot.revision).await.map_err(broken)?;
        let (mut index, mut suspects) = Index::of(&snapshot);
        drop(snapshot);
        loop {
            self.look_at(&index, suspects).await?;
            suspects = BTreeSet::new();
            let news = tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => return Ok(()),
                // Cancel-safe: a dropped call has taken nothing.
                news = changes.next() => news,
            };
            match news {
                Ok(news) => suspects.extend(news.iter().flat_map(|change| index.note(change))),
                // More has happened than the log holds: begin anew.
                Err(StoreError::Expired { .. }) => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// One look at everything; answers how many objects it changed or removed. Zero: there is nothing left to do.
    pub async fn collect_garbage(&self) -> ApiResult<usize> {
        let (index, suspects) = Index::of(&self.everything().await?);
        self.look_at(&index, suspects).await
    }

    /// At one revision: an owner and what it owns may be made while we look, and nothing must look abandoned for that.
    async fn everything(&self) -> ApiResult<Snapshot> {
        let namespaces = self.builtin("", "Namespace")?;
        self.store.list(&Prefix::all()).await.map_err(|e| store_error(&namespaces, "", e))
    }

    async fn look_at(&self, index: &Index, suspects: BTreeSet<Key>) -> ApiResult<usize> {
        let kinds = self.kinds();
        let stored: BTreeMap<(&str, &str), &Arc<Kind>> =
            kinds.iter().filter(|k| !k.view).map(|k| ((&*k.group, &*k.plural), k)).collect();
        // None: of a kind that is not served. It counts as an owner, and is left alone.
        let found = |version: &Arc<Version>| {
            let mut parts = version.key.as_str().splitn(3, '/');
            let kind = Arc::clone(stored.get(&(parts.next()?, parts.next()?))?);
            Some(Found { kind, version: Arc::clone(version) })
        };
        let (mut done, mut failed) = (0, None);
        for key in &suspects {
            let Some(suspect) = index.known(key).and_then(found) else { continue };
            match self.deal_with(index, &suspect, found).await {
                Ok(changed) => done += changed,
                // The others do not wait for the one that fails.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn deal_with(
        &self,
        index: &Index,
        suspect: &Found,
        found: impl Fn(&Arc<Version>) -> Option<Found>,
    ) -> ApiResult<usize> {
        let dependents = || index.dependents(suspect.uid()).filter_map(&found).collect::<Vec<Found>>();
        if suspect.has_finalizer(ORPHAN) {
            self.orphan(suspect, &dependents()).await
        } else if suspect.has_finalizer(FOREGROUND) {
            self.delete_dependents(suspect, &dependents()).await
        } else if suspect.kind.is("", "Namespace") && suspect.is_deleting() {
            self.empty_namespace(suspect, found).await
        } else if definitions::is(&suspect.kind) && suspect.has_finalizer(definitions::FINALIZER) {
            self.clear_definition(suspect, found).await
        } else if index.is_abandoned(&suspect.version) {
            self.remove(suspect, Some(suspect.version.revision)).await
        } else {
            Ok(0)
        }
    }

    /// The dependents lose their owner, then the owner its finalizer.
    async fn orphan(&self, owner: &Found, dependents: &[Found]) -> ApiResult<usize> {
        for dependent in dependents {
            self.edit(dependent, |object| {
                let owners = object["metadata"]["ownerReferences"].as_array_mut();
                owners.into_iter().for_each(|list| list.retain(|o| o["uid"].as_str() != Some(owner.uid())));
            })
            .await?;
        }
        self.drop_finalizer(owner, ORPHAN).await
    }

    /// The owner waits for the dependents that block it.
    async fn delete_dependents(&self, owner: &Found, dependents: &[Found]) -> ApiResult<usize> {
        let mut done = 0;
        for dependent in dependents.iter().filter(|d| !d.is_deleting()) {
            done += self.remove(dependent, None).await?;
        }
        let blocks = |dependent: &Found| {
            let references = dependent.version.object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            references.into_iter().any(|o| o["uid"].as_str() == Some(owner.uid()) && o["blockOwnerDeletion"] == true)
        };
        if done == 0 && !dependents.iter().any(blocks) {
            done += self.drop_finalizer(owner, FOREGROUND).await?;
        }
        Ok(done)
    }

    async fn empty_namespace(
        &self,
        namespace: &Found,
        found: impl Fn(&Arc<Version>) -> Option<Found>,
    ) -> ApiResult<usize> {
        let name = namespace.name().name;
        let everything = self.everything().await?;
        let inside = |version: &&Arc<Version>| metadata::text(&version.object, "namespace") == Some(&*name);
        let inside: Vec<Found> = everything.items.iter().filter(inside).filter_map(found).collect();
        if !inside.is_empty() {
            return self.remove_all(&inside).await;
        }
        self.edit(namespace, |object| {
            if let Some(spec) = metadata::map_at(object, &["spec"]) {
                spec.remove("finalizers");
            }
        })
        .await
    }

    /// A definition goes after its objects, and the kind with it.
    async fn clear_definition(
        &self,
        definition: &Found,
        found: impl Fn(&Arc<Version>) -> Option<Found>,
    ) -> ApiResult<usize> {
        let spec = &definition.version.object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let prefix = Prefix::kind(&text(&spec["group"]), &text(&spec["names"]["plural"]));
        let objects = self.store.list(&prefix).await.map_err(|e| store_error(&definition.kind, "", e))?;
        let objects: Vec<Found> = objects.items.iter().filter_map(found).collect();
        if !objects.is_empty() {
            return self.remove_all(&objects).await;
        }
        let done = self.drop_finalizer(definition, definitions::FINALIZER).await?;
        self.settle_definition(&definition.name().name).await?;
        Ok(done)
    }

    /// All that can be, whatever becomes of one of them.
    async fn remove_all(&self, objects: &[Found]) -> ApiResult<usize> {
        let (mut done, mut failed) = (0, None);
        for object in objects.iter().filter(|object| !object.is_deleting()) {
            match self.remove(object, None).await {
                Ok(changed) => done += changed,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn drop_finalizer(&self, found: &Found, finalizer: &str) -> ApiResult<usize> {
        self.edit(found, |object| {
            let left: Vec<String> =
                metadata::finalizers(object).into_iter().filter(|f| *f != finalizer).map(str::to_owned).collect();
            if let Some(metadata) = metadata::map_at(object, &["metadata"]) {
                metadata.insert("finalizers".to_owned(), json!(left));
            }
        })
        .await
    }

    /// Only the object that was found, not one that has its name since; and only as it was found, where `revision` says so.
    async fn remove(&self, found: &Found, revision: Option<Revision>) -> ApiResult<usize> {
        let uid = Some(found.uid().to_owned());
        let options = DeleteOptions { uid, resource_version: revision, ..DeleteOptions::default() };
        match self.delete(&found.kind, &found.name(), &options).await {
            Ok(Deleted::Gone(_) | Deleted::Pending(_)) => Ok(1),
            Err(error) => gone_already(error),
        }
    }

    async fn edit(&self, found: &Found, edit: impl Fn(&mut Value)) -> ApiResult<usize> {
        let options = WriteOptions { field_manager: COLLECTOR.to_owned(), ..WriteOptions::default() };
        let edit = |live: &Value| {
            let mut object = live.clone();
            if metadata::text(live, "uid") == Some(found.uid()) {
                edit(&mut object);
            }
            Ok(Edited { object, warnings: Vec::new(), recorded: None })
        };
        match self.change(&found.kind, &found.name(), &options, edit).await {
            Ok(_) => Ok(1),
            Err(error) => gone_already(error),
        }
    }
}

fn gone_already(error: ApiError) -> ApiResult<usize> {
    match error.reason {
        Reason::NotFound | Reason::Conflict => Ok(0),
        _ => Err(error),
    }
}
