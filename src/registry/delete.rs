//! Deletion: at once, or marked when finalizers have something to do first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    ApiError, ApiResult, DeleteOptions, Deleted, Kind, ObjectName, Propagation, Registry, WriteOptions, builtin,
    definitions, events, metadata, store_error,
};
use crate::store::{StoreError, Version};

const MAX_ATTEMPTS: usize = 16;

/// Holds an owner until those it owns are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an owner until those it owns no longer say so.
pub const ORPHAN: &str = "orphan";

/// Namespaces that must exist.
const PROTECTED: [&str; 2] = ["default", "kube-system"];

impl Registry {
    pub async fn delete(&self, kind: &Kind, name: &ObjectName, options: &DeleteOptions) -> ApiResult<Deleted> {
        let stored = self.stored(kind);
        if stored.is("", "Namespace") && PROTECTED.contains(&&*name.name) {
            return Err(ApiError::forbidden(kind, &name.name, "this namespace may not be deleted"));
        }
        if definitions::is(&stored) && self.kinds().defines(&name.name) {
            return Err(ApiError::forbidden(kind, &name.name, "this kind is part of gaia"));
        }
        let deleted = self.delete_object(kind, &stored, name, options).await?;
        if definitions::is(&stored) && !options.dry_run {
            self.settle_definition(&name.name).await?;
        }
        Ok(deleted)
    }

    async fn delete_object(
        &self,
        kind: &Kind,
        stored: &Kind,
        name: &ObjectName,
        options: &DeleteOptions,
    ) -> ApiResult<Deleted> {
        for _ in 0..MAX_ATTEMPTS {
            let live = self.live(kind, name).await?;
            check_preconditions(kind, &live, options)?;
            match self.delete_version(stored, &live, options).await {
                Ok(Deleted::Gone(version)) => return Ok(Deleted::Gone(events::shown(kind, version))),
                Ok(Deleted::Pending(version)) => return Ok(Deleted::Pending(events::shown(kind, version))),
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(store_error(kind, &name.name, error)),
            }
        }
        Err(ApiError::modified(kind, &name.name))
    }

    async fn delete_version(
        &self,
        kind: &Kind,
        live: &Arc<Version>,
        options: &DeleteOptions,
    ) -> Result<Deleted, StoreError> {
        let mut object = live.object.clone();
        set_propagation(&mut object, options.propagation);
        if !metadata::is_held(kind, &object) {
            if options.dry_run {
                return Ok(Deleted::Gone(Arc::clone(live)));
            }
            return self.store.delete(live.key.clone(), live.revision).await.map(Deleted::Gone);
        }
        if !metadata::is_deleting(&object) {
            self.mark(&mut object);
            builtin::complete(kind, &mut object);
        }
        let write = WriteOptions { dry_run: options.dry_run, ..WriteOptions::default() };
        self.put_changed(kind, live, object, &write).await.map(Deleted::Pending)
    }

    fn mark(&self, object: &mut Value) {
        if let Some(metadata) = metadata::map_at(object, &["metadata"]) {
            metadata.insert("deletionTimestamp".to_owned(), metadata::timestamp(self.clock.now()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
        }
        metadata::increment_generation(object);
    }
}

fn check_preconditions(kind: &Kind, live: &Version, options: &DeleteOptions) -> ApiResult<()> {
    let name = metadata::text(&live.object, "name").unwrap_or_default();
    let uid = metadata::text(&live.object, "uid").unwrap_or_default();
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(ApiError::conflict(kind, name, why));
    }
    if let Some(wanted) = options.resource_version.filter(|wanted| *wanted != live.revision) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {}",
            live.revision
        );
        return Err(ApiError::conflict(kind, name, why));
    }
    Ok(())
}

/// The finalizers that say what becomes of the dependents; the collector answers to them.
fn set_propagation(object: &mut Value, propagation: Propagation) {
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let kept = metadata::finalizers(object).into_iter().filter(|f| ![FOREGROUND, ORPHAN].contains(f));
    let finalizers: Vec<String> = kept.chain(wanted).map(str::to_owned).collect();
    if let Some(metadata) = metadata::map_at(object, &["metadata"]) {
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), json!(finalizers));
        }
    }
}
