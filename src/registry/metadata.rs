//! `metadata`: what the server owns of it, what a client may say, and small readers the other modules share.

use std::collections::BTreeSet;

use axum::body::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    ApiError, ApiResult, Kind,
    fields::{FieldError, MOST_COMPLAINTS},
    ids::Ids,
    names,
    same::same_without,
};
use crate::store::{Key, Revision, Version};

/// Fields only the server writes: an update gets the stored ones back.
const SERVER_OWNED: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
const GENERATED_PREFIX_MAX: usize = 58;

/// RFC 3339 in whole seconds, as all times of metadata are.
pub fn timestamp(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The map at `path`, made where absent or null; None where something else is in the way.
pub fn map_at<'v>(value: &'v mut Value, path: &[&str]) -> Option<&'v mut Map<String, Value>> {
    let mut at = value;
    for name in path {
        at = at.as_object_mut()?.entry(*name).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    at.as_object_mut()
}

/// A string of metadata; None when absent or empty.
pub fn text<'v>(object: &'v Value, field: &str) -> Option<&'v str> {
    object["metadata"][field].as_str().filter(|s| !s.is_empty())
}

pub fn is_deleting(object: &Value) -> bool {
    text(object, "deletionTimestamp").is_some()
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Is something still to be done before the object may go? A namespace has a second list of finalizers, in its spec.
pub fn is_held(kind: &Kind, object: &Value) -> bool {
    let of_namespace = || object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    !finalizers(object).is_empty() || (kind.is("", "Namespace") && of_namespace())
}

/// A version that no store has made: a dry run's, a converted one.
pub fn version(key: Key, revision: Revision, object: Value) -> Version {
    let json = Bytes::from(object.to_string());
    Version::new(key, revision, object, json)
}

/// An empty one and none are the same, as where upstream reads metadata into its type: `annotations: {}`, which `kubectl
/// diff` sends, is no difference.
const NOTHING_WHEN_EMPTY: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|name, value| {
        let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        !(empty && NOTHING_WHEN_EMPTY.contains(&name.as_str()))
    });
}

/// Checks what a create says of itself and fills in what the server owns.
pub fn prepare_create(kind: &Kind, object: &mut Value, now: Timestamp, ids: &dyn Ids) -> ApiResult<()> {
    if text(object, "resourceVersion").is_some_and(|rv| rv != "0") {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let Some(metadata) = map_at(object, &["metadata"]) else {
        return Err(ApiError::bad_request("metadata must be an object"));
    };
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    let prefix = metadata.get("generateName").and_then(Value::as_str).filter(|p| !p.is_empty());
    if let (false, Some(prefix)) = (named, prefix) {
        let kept: String = prefix.chars().take(GENERATED_PREFIX_MAX).collect();
        metadata.insert("name".to_owned(), json!(format!("{kept}{}", ids.suffix())));
    } else if !named {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(kind, "", vec![error]));
    }
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(ids.uid()));
    metadata.insert("creationTimestamp".to_owned(), timestamp(now));
    metadata.insert("generation".to_owned(), json!(1));
    drop_empty(metadata);
    Ok(())
}

/// Checks the preconditions a body carries: uid, resourceVersion.
pub fn check_preconditions(kind: &Kind, live: &Value, object: &Value) -> ApiResult<()> {
    let name = text(live, "name").unwrap_or_default();
    let live_uid = text(live, "uid").unwrap_or_default();
    if let Some(uid) = text(object, "uid").filter(|uid| *uid != live_uid) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {live_uid}");
        return Err(ApiError::conflict(kind, name, why));
    }
    if let Some(revision) = text(object, "resourceVersion").filter(|rv| *rv != "0") {
        if revision.parse::<u64>().is_err() {
            let error = FieldError::invalid("metadata.resourceVersion", revision, "must be an unsigned integer");
            return Err(ApiError::invalid(kind, name, vec![error]));
        }
        if Some(revision) != text(live, "resourceVersion") {
            return Err(ApiError::modified(kind, name));
        }
    }
    Ok(())
}

/// Checks the preconditions a body carries and puts the server's fields back.
pub fn restore(kind: &Kind, live: &Value, object: &mut Value) -> ApiResult<()> {
    check_preconditions(kind, live, object)?;
    let Some(metadata) = map_at(object, &["metadata"]) else {
        return Err(ApiError::bad_request("metadata must be an object"));
    };
    metadata.remove("selfLink");
    drop_empty(metadata);
    for field in SERVER_OWNED {
        match live["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(())
}

/// The generation counts the versions of what is wished: everything outside metadata and status.
pub fn bump_generation(kind: &Kind, live: &Value, object: &mut Value) {
    let of_server = |field: &str| field == "metadata" || kind.has_status && field == "status";
    let same = match (live, &*object) {
        (Value::Object(live), Value::Object(object)) => same_without(live, object, of_server),
        (live, object) => live == object,
    };
    if !same {
        increment_generation(object);
    }
}

pub fn increment_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    if let Some(metadata) = map_at(object, &["metadata"]) {
        metadata.insert("generation".to_owned(), json!(generation));
    }
}

/// What is wrong with the metadata of an object about to be stored.
pub fn validate(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = &object["metadata"];
    if old.is_none() {
        let name = text(object, "name").unwrap_or_default();
        let complaints =
            if kind.is("", "Namespace") { names::label_errors(name) } else { names::subdomain_errors(name) };
        errors.extend(complaints.into_iter().map(|e| FieldError::invalid("metadata.name", name, e)));
    }
    validate_labels(metadata, &mut errors);
    validate_annotations(metadata, &mut errors);
    for (i, finalizer) in finalizers(object).into_iter().enumerate() {
        if errors.len() > MOST_COMPLAINTS {
            break;
        }
        let complaints = names::qualified_name_errors(finalizer).into_iter();
        errors.extend(complaints.map(|e| FieldError::invalid(format!("metadata.finalizers[{i}]"), finalizer, e)));
    }
    if let Some(old) = old.filter(|old| is_deleting(old)) {
        let before: BTreeSet<&str> = finalizers(old).into_iter().collect();
        let added: Vec<&str> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            let why = "no new finalizers can be added if the object is being deleted, found new finalizers []string";
            errors.push(FieldError::forbidden("metadata.finalizers", format!("{why}{{{}}}", listed.join(", "))));
        }
    }
    validate_owners(metadata, &mut errors);
    errors
}

fn validate_labels(metadata: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if errors.len() > MOST_COMPLAINTS {
            return;
        }
        let complaints = names::qualified_name_errors(key).into_iter();
        errors.extend(complaints.map(|e| FieldError::invalid("metadata.labels", key.clone(), e)));
        let value = value.as_str().unwrap_or_default();
        let complaints = names::label_value_errors(value).into_iter();
        errors.extend(complaints.map(|e| FieldError::invalid("metadata.labels", value, e)));
    }
}

fn validate_annotations(metadata: &Value, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if errors.len() > MOST_COMPLAINTS {
            return;
        }
        let complaints = names::qualified_name_errors(&key.to_lowercase()).into_iter();
        errors.extend(complaints.map(|e| FieldError::invalid("metadata.annotations", key.clone(), e)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_MAX_BYTES as u64));
    }
}

fn validate_owners(metadata: &Value, errors: &mut Vec<FieldError>) {
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (i, owner) in owners.iter().enumerate() {
        if errors.len() > MOST_COMPLAINTS {
            return;
        }
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str() == Some("") {
                let path = format!("metadata.ownerReferences[{i}].{field}");
                errors.push(FieldError::invalid(path, "", format!("{field} must not be empty")));
            }
        }
    }
    if owners.iter().filter(|o| o["controller"] == true).count() > 1 {
        let why = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", "array", why));
    }
}
