//! What nobody deletes by name: objects whose owners are gone, the content of namespaces being deleted.
//!
//! A pass looks at everything there is at one revision and takes no input, so that the first one after a restart is like any
//! other. It reads the store in memory; at the hundreds of objects a host has, an index by owner would not pay.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    ApiError, ApiResult, DeleteOptions, Deleted, Kind, ObjectName, Reason, Registry, WriteOptions, definitions,
    delete::{FOREGROUND, ORPHAN},
    metadata, store_error,
    write::Edited,
};
use crate::store::{Change, ChangeKind, Prefix, Revision, Snapshot, StoreError, Version};

const COLLECTOR: &str = "gaia-garbage-collector";
/// A pass without news, for what a watch could not tell (a failed pass).
const RESYNC: Duration = Duration::from_secs(60);

/// One object of a pass.
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

    fn owners(&self) -> impl Iterator<Item = &Value> {
        self.version.object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
    }

    fn has_finalizer(&self, finalizer: &str) -> bool {
        metadata::is_deleting(&self.version.object) && metadata::finalizers(&self.version.object).contains(&finalizer)
    }
}

impl Registry {
    /// Collects until told to stop: after every change that may leave something behind, and once a minute.
    pub async fn run_collector(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Taken before the pass: what happens meanwhile is news.
            let before = self.store.revision().await;
            if let Err(error) = self.collect_until_quiet().await {
                warn!(%error, "collecting garbage failed");
            }
            tokio::select! {
                biased;
                // No arm holds anything that would be lost: the next pass looks afresh.
                () = stop.cancelled() => {}
                // A store that cannot tell news leaves the choice to the clock.
                Ok(()) = self.news(before) => {}
                () = tokio::time::sleep(RESYNC) => {}
            }
        }
    }

    /// Returns when something happened that may leave garbage.
    async fn news(&self, from: Result<Revision, StoreError>) -> Result<(), StoreError> {
        let mut watch = self.store.watch(Prefix::all(), from?).await?;
        loop {
            if watch.next().await?.iter().any(may_leave_garbage) {
                return Ok(());
            }
        }
    }

    async fn collect_until_quiet(&self) -> ApiResult<()> {
        while self.collect_garbage().await? > 0 {}
        Ok(())
    }

    /// One pass; answers how many objects it changed or removed. Zero: there is nothing left to do.
    pub async fn collect_garbage(&self) -> ApiResult<usize> {
        let snapshot = self.everything().await?;
        let all = self.of_served_kinds(&snapshot);
        // An owner counts whether its kind is served or not.
        let uids: BTreeSet<&str> = snapshot.items.iter().filter_map(|v| metadata::text(&v.object, "uid")).collect();
        let mut by_owner: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
        for found in &all {
            for uid in found.owners().filter_map(|o| o["uid"].as_str()) {
                by_owner.entry(uid).or_default().push(found);
            }
        }
        let mut done = 0;
        for found in &all {
            let dependents = by_owner.get(found.uid()).map(Vec::as_slice).unwrap_or_default();
            if found.has_finalizer(ORPHAN) {
                done += self.orphan(found, dependents).await?;
            } else if found.has_finalizer(FOREGROUND) {
                done += self.delete_dependents(found, dependents).await?;
            } else if found.kind.is("", "Namespace") && metadata::is_deleting(&found.version.object) {
                done += self.empty_namespace(found, &all).await?;
            } else if definitions::is(&found.kind) && found.has_finalizer(definitions::FINALIZER) {
                done += self.clear_definition(found, &all).await?;
            } else if is_abandoned(found, &uids) {
                done += self.remove(found).await?;
            }
        }
        Ok(done)
    }

    /// At one revision: an owner and what it owns may be made while we look, and nothing must look abandoned for that.
    async fn everything(&self) -> ApiResult<Snapshot> {
        let namespaces = self.builtin("", "Namespace")?;
        self.store.list(&Prefix::all()).await.map_err(|e| store_error(&namespaces, "", e))
    }

    fn of_served_kinds(&self, snapshot: &Snapshot) -> Vec<Found> {
        let kinds = self.kinds();
        let stored: BTreeMap<(&str, &str), &Arc<Kind>> =
            kinds.iter().filter(|k| !k.view).map(|k| ((&*k.group, &*k.plural), k)).collect();
        let found = snapshot.items.iter().filter_map(|version| {
            let mut parts = version.key.as_str().splitn(3, '/');
            let kind = Arc::clone(stored.get(&(parts.next()?, parts.next()?))?);
            Some(Found { kind, version: Arc::clone(version) })
        });
        found.collect()
    }

    /// The dependents lose their owner, then the owner its finalizer.
    async fn orphan(&self, owner: &Found, dependents: &[&Found]) -> ApiResult<usize> {
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
    async fn delete_dependents(&self, owner: &Found, dependents: &[&Found]) -> ApiResult<usize> {
        let mut done = 0;
        for dependent in dependents.iter().filter(|d| !metadata::is_deleting(&d.version.object)) {
            done += self.remove(dependent).await?;
        }
        let blocks =
            |d: &&&Found| d.owners().any(|o| o["uid"].as_str() == Some(owner.uid()) && o["blockOwnerDeletion"] == true);
        if done == 0 && !dependents.iter().any(|d| blocks(&d)) {
            done += self.drop_finalizer(owner, FOREGROUND).await?;
        }
        Ok(done)
    }

    async fn empty_namespace(&self, namespace: &Found, all: &[Found]) -> ApiResult<usize> {
        let name = namespace.name().name;
        let inside = || all.iter().filter(|f| metadata::text(&f.version.object, "namespace") == Some(&*name));
        let mut done = 0;
        for found in inside().filter(|f| !metadata::is_deleting(&f.version.object)) {
            done += self.remove(found).await?;
        }
        if done == 0 && inside().next().is_none() {
            done += self
                .edit(namespace, |object| {
                    if let Some(spec) = metadata::map_at(object, &["spec"]) {
                        spec.remove("finalizers");
                    }
                })
                .await?;
        }
        Ok(done)
    }

    /// A definition goes after its objects, and the kind with it.
    async fn clear_definition(&self, definition: &Found, all: &[Found]) -> ApiResult<usize> {
        let spec = &definition.version.object["spec"];
        let of_kind = |f: &&Found| spec["group"] == *f.kind.group && spec["names"]["plural"] == *f.kind.plural;
        let objects = || all.iter().filter(of_kind);
        let mut done = 0;
        for found in objects().filter(|f| !metadata::is_deleting(&f.version.object)) {
            done += self.remove(found).await?;
        }
        if done == 0 && objects().next().is_none() {
            done += self.drop_finalizer(definition, definitions::FINALIZER).await?;
            self.settle_definition(&definition.name().name).await?;
        }
        Ok(done)
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

    /// Only the object that was found, not one that has its name since.
    async fn remove(&self, found: &Found) -> ApiResult<usize> {
        let options = DeleteOptions { uid: Some(found.uid().to_owned()), ..DeleteOptions::default() };
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

/// Its owners are all gone. One without owners stands for itself.
fn is_abandoned(found: &Found, uids: &BTreeSet<&str>) -> bool {
    let mut owners = found.owners().filter_map(|o| o["uid"].as_str()).peekable();
    owners.peek().is_some() && !metadata::is_deleting(&found.version.object) && owners.all(|uid| !uids.contains(uid))
}

fn may_leave_garbage(change: &Change) -> bool {
    let deleting = metadata::is_deleting(&change.version.object);
    let owned = change.version.object["metadata"].get("ownerReferences").is_some();
    change.kind == ChangeKind::Deleted || deleting || (owned && change.kind == ChangeKind::Created)
}
