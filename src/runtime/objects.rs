//! How controllers see objects: typed, without HTTP. [`RegistryObjects`](super::registry_objects) implements it over the
//! registry of this process; `kube::Client` can, for a remote server of ours or a real Kubernetes cluster.

use std::sync::Arc;

use futures::{future::BoxFuture, stream::BoxStream};
use kube::{core::object::HasStatus, runtime::watcher};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::registry::{ApiResult, ObjectName};

/// A kind that controllers handle.
pub trait Object:
    kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Reading and writing objects of any kind. Clones share one connection.
pub trait Objects: Clone + Send + Sync + 'static {
    fn get<K: Object>(&self, name: &ObjectName) -> BoxFuture<'_, ApiResult<Option<Arc<K>>>>;

    /// `None`: all namespaces, or a cluster-scoped kind.
    fn list<K: Object>(&self, namespace: Option<&str>) -> BoxFuture<'_, ApiResult<Vec<Arc<K>>>>;

    /// `Init…InitDone`, then changes, for ever: resumes after errors and lists again after `Expired`.
    fn watch<K: Object>(&self) -> BoxStream<'static, watcher::Event<K>>;

    fn create<K: Object>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>>;

    /// Metadata and spec, compared on the resourceVersion in `object`.
    fn update<K: Object>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>>;

    /// The status, compared on the resourceVersion in `object`. An equal status makes no version.
    fn update_status<K: Object + HasStatus<Status: Serialize>>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>>;

    /// Nothing but `metadata.finalizers`, compared on the resourceVersion in `object`. A write of its own, so that it
    /// cannot touch (or come to own) a field of the spec.
    fn set_finalizers<K: Object>(&self, object: &K, finalizers: Vec<String>) -> BoxFuture<'_, ApiResult<Arc<K>>>;

    /// A merge patch of single fields: of the others none is touched, and none comes to be owned by us. A
    /// `metadata.resourceVersion` in it is compared.
    fn merge<K: Object>(&self, name: &ObjectName, patch: Value) -> BoxFuture<'_, ApiResult<Arc<K>>>;

    /// One that is gone is gone.
    fn delete<K: Object>(&self, name: &ObjectName) -> BoxFuture<'_, ApiResult<()>>;

    /// As it stands in `object`, and no other: `Conflict` when it has changed since, or another one has its name. For who deletes
    /// because of what it has read.
    fn delete_unchanged<K: Object>(&self, object: &K) -> BoxFuture<'_, ApiResult<()>>;
}
