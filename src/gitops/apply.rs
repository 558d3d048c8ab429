//! One document into the registry, by server-side apply; and what the registry says about it, by file and line.

use std::sync::Arc;

use serde_json::Value;

use super::{
    load::{Document, LoadedFiles, ObjectId},
    watch::same_wishes,
};
use crate::{
    api::source::{FIELD_MANAGER, FileError, InventoryEntry},
    registry::{ApiError, ApiResult, Kind, ObjectName, Patch, Reason, Registry, WriteOptions, Written},
};

/// What became of a document.
#[derive(Debug, Clone)]
pub struct Applied {
    /// As it was when the object was written.
    pub kind: Arc<Kind>,
    pub written: Written,
    /// There was an object before, and something else was wished of it. Who is recorded to own it is no wish.
    pub changed: bool,
    /// Fields that had another value from another manager, as the registry named them.
    pub taken: Vec<String>,
}

/// Applies every document in order. With `dry_run` the registry only says what it would do.
pub async fn apply_documents(registry: &Registry, loaded: &LoadedFiles, dry_run: bool) -> Vec<ApiResult<Applied>> {
    let mut out = Vec::with_capacity(loaded.documents.len());
    for document in &loaded.documents {
        out.push(apply_document(registry, document, dry_run).await);
    }
    out
}

/// Asks first without force, so that a change by somebody else can be named, then takes the fields.
pub async fn apply_document(registry: &Registry, document: &Document, dry_run: bool) -> ApiResult<Applied> {
    let kind = kind_of(registry, &document.id, Some(&document.version))
        .ok_or_else(|| ApiError::new(Reason::NotFound, format!("{} is no longer a kind here", document.id.kind)))?;
    let name = name_of(&document.id);
    let before = match registry.get(&kind, &name).await {
        Ok(version) => Some(version),
        Err(error) if error.reason == Reason::NotFound => None,
        Err(error) => return Err(error),
    };
    let options = WriteOptions { field_manager: FIELD_MANAGER.to_owned(), dry_run, ..WriteOptions::default() };
    let patch = || Patch::Apply(document.object.clone());
    let (written, taken) = match registry.patch(&kind, &name, patch(), &options).await {
        Err(error) if error.reason == Reason::Conflict => {
            let forced = WriteOptions { force: true, ..options };
            (registry.patch(&kind, &name, patch(), &forced).await?, conflicts(&error))
        }
        written => (written?, Vec::new()),
    };
    let changed = before.is_some_and(|before| !same_wishes(&before.object, &written.version.object));
    Ok(Applied { kind, written, changed, taken })
}

/// A kind that is served, in the given version or any.
pub fn kind_of(registry: &Registry, id: &ObjectId, version: Option<&str>) -> Option<Arc<Kind>> {
    let kinds = registry.kinds();
    let exact = version.and_then(|version| kinds.by_kind(&id.group, version, &id.kind));
    exact.or_else(|| kinds.iter().find(|kind| kind.group == id.group && kind.kind == id.kind).cloned())
}

pub fn name_of(id: &ObjectId) -> ObjectName {
    ObjectName { namespace: id.namespace.clone(), name: id.name.clone() }
}

pub fn uid_of(object: &Value) -> Option<String> {
    object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
}

/// The uid of an object that is to stay. One that is being deleted makes way for another of its name.
pub fn lasting_uid(object: &Value) -> Option<String> {
    let deleting = object.pointer("/metadata/deletionTimestamp").is_some();
    uid_of(object).filter(|_| !deleting)
}

/// Whether it is the object that was applied, and not one that somebody else made under its name. When a crash kept the
/// uid from being noted, the fields tell; an object of which files state only the name has none, and is left alone then.
pub fn is_ours(object: &Value, entry: &InventoryEntry) -> bool {
    if entry.uid.is_some() {
        return entry.uid == uid_of(object);
    }
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.is_some_and(|entries| {
        entries.iter().any(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply")
    })
}

/// Why the registry refused a document, one entry a field, each on the line of its field where it has one.
pub fn file_errors(document: &Document, error: &ApiError) -> Vec<FileError> {
    let at = |line: Option<u32>, message: String| FileError {
        file: document.file.clone(),
        line: Some(line.unwrap_or(document.line)),
        message: format!("{}: {message}", document.id),
    };
    let causes: Vec<_> = error.details.iter().flat_map(|details| &details.causes).collect();
    if error.reason == Reason::Invalid && !causes.is_empty() {
        let line = |field: &str| document.lines.nearest(field);
        return causes.iter().map(|c| at(line(&c.field), format!("{}: {}", c.field, c.message))).collect();
    }
    // Unknown fields are quoted in the message: `unknown field "spec.imge"`.
    let quoted = error.message.split('"').skip(1).step_by(2);
    let line = quoted.into_iter().find_map(|field| document.lines.exact(field));
    vec![at(line, error.message.clone())]
}

fn conflicts(error: &ApiError) -> Vec<String> {
    let causes = error.details.iter().flat_map(|details| &details.causes);
    let named: Vec<_> = causes.map(|c| format!("{} ({})", c.field.trim_start_matches('.'), c.message)).collect();
    if named.is_empty() { vec![error.message.clone()] } else { named }
}
