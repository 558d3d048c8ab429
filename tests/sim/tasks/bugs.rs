//! Mistakes that somebody could make with tasks, to be planted between the controllers and what they see or touch: a simulator that
//! finds nothing proves nothing.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use gaia::{
    registry::{ApiResult, ObjectName},
    runtime::{
        objects::{Object, Objects},
        registry_objects::RegistryObjects,
    },
};
use kube::{core::object::HasStatus, runtime::watcher::Event};
use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A dispatch is published once, whether anybody heard it or not.
    TellsOnce,
    /// Who lacks a heartbeat is dead, also when the bus has just lost its data.
    SilenceIsDeath,
    /// What a worker's hash says of an end is not read.
    SeesNoEnd,
    /// A dispatch is published and then, if all goes well, recorded.
    RecordsOnPaper,
    /// A claim counts as given back once that was thought of.
    KeepsTheCard,
    /// What is left of a submission that was cut off stays.
    LeavesHalves,
}

impl Bug {
    pub const PLANTED: [Bug; 6] = [
        Bug::TellsOnce,
        Bug::SilenceIsDeath,
        Bug::SeesNoEnd,
        Bug::RecordsOnPaper,
        Bug::KeepsTheCard,
        Bug::LeavesHalves,
    ];

    /// It can be seen only where a card is.
    pub fn needs_a_card(self) -> bool {
        self == Bug::KeepsTheCard
    }
}

/// Objects as the planted bug makes the controllers of tasks see them.
#[derive(Clone)]
pub struct Seam {
    pub objects: RegistryObjects,
    pub bug: Bug,
}

fn is_task<K: Object>() -> bool {
    K::kind(&()) == "Task"
}

impl Objects for Seam {
    fn get<K: Object>(&self, name: &ObjectName) -> BoxFuture<'_, ApiResult<Option<Arc<K>>>> {
        self.objects.get(name)
    }

    fn list<K: Object>(&self, namespace: Option<&str>) -> BoxFuture<'_, ApiResult<Vec<Arc<K>>>> {
        self.objects.list(namespace)
    }

    fn watch<K: Object>(&self) -> BoxStream<'static, Event<K>> {
        self.objects.watch()
    }

    fn create<K: Object>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        self.objects.create(object)
    }

    fn update<K: Object>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        self.objects.update(object)
    }

    fn update_status<K: Object + HasStatus<Status: Serialize>>(&self, object: K) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        if self.bug == Bug::RecordsOnPaper && is_task::<K>() {
            let phase = serde_json::to_value(&object).expect("plain data")["status"]["phase"].clone();
            if phase == "Dispatched" {
                let mut object = object;
                let version = object.meta().resource_version.as_deref().and_then(|version| version.parse().ok());
                object.meta_mut().resource_version = Some((version.unwrap_or(0_u64) + 1).to_string());
                return std::future::ready(Ok(Arc::new(object))).boxed();
            }
        }
        self.objects.update_status(object)
    }

    fn set_finalizers<K: Object>(&self, object: &K, finalizers: Vec<String>) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        self.objects.set_finalizers(object, finalizers)
    }

    fn merge<K: Object>(&self, name: &ObjectName, patch: Value) -> BoxFuture<'_, ApiResult<Arc<K>>> {
        self.objects.merge(name, patch)
    }

    fn delete<K: Object>(&self, name: &ObjectName) -> BoxFuture<'_, ApiResult<()>> {
        if self.bug == Bug::KeepsTheCard && K::kind(&()) == "GpuClaim" {
            return std::future::ready(Ok(())).boxed();
        }
        self.objects.delete::<K>(name)
    }

    fn delete_unchanged<K: Object>(&self, object: &K) -> BoxFuture<'_, ApiResult<()>> {
        if self.bug == Bug::LeavesHalves && is_task::<K>() {
            return std::future::ready(Ok(())).boxed();
        }
        self.objects.delete_unchanged(object)
    }
}
