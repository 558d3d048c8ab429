//! [`Objects`] over the registry of this process: typed through serde from the stored value, without JSON text or HTTP.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use kube::{core::object::HasStatus, runtime::watcher::Event};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{error, warn};

use super::{
    backoff::Backoff,
    objects::{Object, Objects},
};
use crate::{
    registry::{
        ApiError, ApiResult, DeleteOptions, Kind, ListOptions, ObjectName, Patch, Reason, Registry, Subresource,
        WriteOptions,
    },
    store::{ChangeKind, Revision, StoreError, Version, Watch},
};

/// Between attempts to list or watch again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// The registry as controllers see it.
#[derive(Clone)]
pub struct RegistryObjects {
    pub registry: Arc<Registry>,
    /// Who writes, for managedFields.
    pub field_manager: &'static str,
}

impl RegistryObjects {
    fn kind<K: Object>(&self) -> ApiResult<Arc<Kind>> {
        let (group, version, kind) = (K::group(&()), K::version(&()), K::kind(&()));
        self.registry
            .kinds()
            .by_kind(&group, &version, &kind)
            .ok_or_else(|| ApiError::new(Reason::NotFound, format!("no kind {kind} in {group}/{version} is served")))
    }

    fn options(&self, subresource: Subresource) -> WriteOptions {
        WriteOptions { field_manager: self.field_manager.to_owned(), subresource, ..WriteOptions::default() }
    }

    async fn remove<K: Object>(&self, name: &ObjectName, options: DeleteOptions) -> ApiResult<()> {
        match self.registry.delete(&*self.kind::<K>()?, name, &options).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn put<K: Object>(&self, name: &ObjectName, object: Value, subresource: Subresource) -> ApiResult<Arc<K>> {
        let kind = self.kind::<K>()?;
        let written = self.registry.update(&kind, name, object, &self.options(subresource)).await?;
        typed(&written.version)
    }
}

impl Objects for RegistryObjects {
    fn get<K: Object>(&self, name: &ObjectName) -> BoxFuture<'_, ApiResult<Option<Arc<K>>>> {
        let name = name.clone();
        async move {
            match self.registry.get(&*self.kind::<K>()?, &name).await {
                Ok(version) => typed(&version).map(Some),
                Err(error) if error.reason == Reason::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn list<K: Object>(&self, namespace: Option<&str>) -> BoxFuture<'_, ApiResult<Vec<Arc<K>>>> {
        let namespace = namespace.map(str::to_owned);
        async move {
            let kind = self.kind::<K>()?;
            let list = self.registry.list(&kind, namespace.as_deref(), &ListOptions::default()).await?;
            Ok(list.items.iter().filter_map(readable).collect())
        }
        .boxed()
    }

    fn watch<K: Object>(&self) -> BoxStream<'static, Event<K>> {
        let follow = Follow { objects: self.clone(), cursor: None, failures: 0 };
        stream::unfold(follow, Follow::step).flat_map(stream::iter).boxed()
    }

    fn create<K: Object>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        async move {
            let kind = self.kind::<K>()?;
            let namespace = object.meta().namespace.clone();
            let options = self.options(Subresource::Main);
            let written = self.registry.create(&kind, namespace.as_deref(), untyped(&object)?, &options).await?;
            typed(&written.version)
        }
        .boxed()
    }

    fn update<K: Object>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        async move { self.put(&name_of(&object)?, untyped(&object)?, Subresource::Main).await }.boxed()
    }

    fn update_status<K: Object + HasStatus<Status: Serialize>>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        async move {
            let name = name_of(&object)?;
            let meta = object.meta();
            // The rest would be passed over.
            let mut body = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}});
            if let Some(status) = object.status() {
                body["status"] = untyped(status)?;
            }
            self.put(&name, body, Subresource::Status).await
        }
        .boxed()
    }

    fn set_finalizers<K: Object>(&self, object: &K, finalizers: Vec<String>) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        let patch = json!({"metadata": {
            "finalizers": finalizers, "resourceVersion": object.meta().resource_version, "uid": object.meta().uid,
        }});
        let name = name_of(object);
        async move { self.merge(&name?, patch).await }.boxed()
    }

    fn merge<K: Object>(&self, name: &ObjectName, patch: Value) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        let name = name.clone();
        async move {
            let kind = self.kind::<K>()?;
            let options = self.options(Subresource::Main);
            let written = self.registry.patch(&kind, &name, Patch::Merge(patch), &options).await?;
            typed(&written.version)
        }
        .boxed()
    }

    fn delete<K: Object>(&self, name: &ObjectName) -> BoxFuture<'_, ApiResult<()>> {
        let name = name.clone();
        async move { self.remove::<K>(&name, DeleteOptions::default()).await }.boxed()
    }

    fn delete_unchanged<K: Object>(&self, object: &K) -> BoxFuture<'_, ApiResult<()>> {
        let (name, options) = (name_of(object), unchanged(object));
        async move { self.remove::<K>(&name?, options?).await }.boxed()
    }
}

/// Where a watch stands. Without a cursor it begins with a list.
struct Follow {
    objects: RegistryObjects,
    cursor: Option<Box<dyn Watch>>,
    failures: u32,
}

impl Follow {
    /// The next events, or the end when the store is closed.
    async fn step<K: Object>(mut self) -> Option<(Vec<Event<K>>, Self)> {
        loop {
            let Some(cursor) = &mut self.cursor else {
                match self.begin().await {
                    Ok(events) => return Some((events, self)),
                    Err(error) => self.pause(&error).await,
                }
                continue;
            };
            match cursor.next().await {
                Ok(changes) => {
                    self.failures = 0;
                    let events = changes.iter().filter_map(|c| event(c.kind, &c.version)).collect();
                    return Some((events, self));
                }
                Err(StoreError::Closed) => return None,
                // Fell behind the log: the list tells what the lost changes came to.
                Err(StoreError::Expired { .. }) => self.cursor = None,
                Err(error) => {
                    self.cursor = None;
                    self.pause(&error).await;
                }
            }
        }
    }

    async fn begin<K: Object>(&mut self) -> ApiResult<Vec<Event<K>>> {
        let registry = &self.objects.registry;
        let kind = self.objects.kind::<K>()?;
        let list = registry.list(&kind, None, &ListOptions::default()).await?;
        self.cursor = Some(registry.watch(&kind, None, list.revision).await?);
        let items = list.items.iter().filter_map(readable).map(Arc::unwrap_or_clone).map(Event::InitApply);
        Ok([Event::Init].into_iter().chain(items).chain([Event::InitDone]).collect())
    }

    async fn pause(&mut self, error: &(dyn std::error::Error + Sync)) {
        warn!(%error, failures = self.failures, "a watch begins again");
        tokio::time::sleep(RETRY.delay(self.failures, 0)).await;
        self.failures = self.failures.saturating_add(1);
    }
}

fn event<K: Object>(change: ChangeKind, version: &Arc<Version>) -> Option<Event<K>> {
    let object = Arc::unwrap_or_clone(readable(version)?);
    Some(match change {
        ChangeKind::Created | ChangeKind::Updated => Event::Apply(object),
        ChangeKind::Deleted => Event::Delete(object),
    })
}

/// One object that does not fit its type must not hide the others.
fn readable<K: Object>(version: &Arc<Version>) -> Option<Arc<K>> {
    let decoded = version.decode();
    decoded.inspect_err(|error| error!(key = version.key.as_str(), %error, "stored object does not fit its type")).ok()
}

fn typed<K: Object>(version: &Version) -> ApiResult<Arc<K>> {
    let decoded = version.decode();
    decoded
        .map_err(|error| ApiError::new(Reason::InternalError, format!("stored object does not fit its type: {error}")))
}

fn untyped<T: Serialize>(object: &T) -> ApiResult<Value> {
    serde_json::to_value(object).map_err(|error| ApiError::new(Reason::InternalError, error.to_string()))
}

/// What holds of exactly this version. One that was never read has none, and is no reason to delete whatever is there.
fn unchanged<K: Object>(object: &K) -> ApiResult<DeleteOptions> {
    let meta = object.meta();
    let revision = meta.resource_version.as_deref().and_then(|version| version.parse().ok()).map(Revision);
    let missing = || ApiError::new(Reason::BadRequest, "metadata.resourceVersion is missing");
    let resource_version = Some(revision.ok_or_else(missing)?);
    Ok(DeleteOptions { uid: meta.uid.clone(), resource_version, ..DeleteOptions::default() })
}

fn name_of<K: Object>(object: &K) -> ApiResult<ObjectName> {
    let meta = object.meta();
    let name = meta.name.clone().ok_or_else(|| ApiError::new(Reason::BadRequest, "metadata.name is missing"))?;
    Ok(ObjectName { namespace: meta.namespace.clone(), name })
}
