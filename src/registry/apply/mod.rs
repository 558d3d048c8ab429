//! Server-side apply: fields have owners.
//!
//! 1. Everybody who writes is recorded in `metadata.managedFields` with the set of fields they wrote ([`managed`]).
//! 2. An apply states the fields its manager wants to own. It is merged into the object ([`merge`]); what the manager
//!    stated last time, does not state now and nobody else owns is removed ([`prune`]).
//! 3. Where that would change a field of another manager it is a conflict, unless forced: then the field changes hands.
//!    Stating the value a field has already is no conflict: the field has two owners then.
//!
//! How lists and maps come apart into fields is the schema's to say ([`typed`]).

#[cfg(test)]
mod differential;
mod fieldset;
mod managed;
mod merge;
#[cfg(test)]
mod of_status;
mod prune;
#[cfg(test)]
mod tests;
mod typed;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ApiError, ApiResult, Cause, Kind, Reason, Subresource, Taken, WriteOptions, error::Details, metadata, schema,
};
use fieldset::FieldSet;
use managed::{Managed, Manager, Managers, Operation, Part};
use typed::{Comparison, compare};

/// Upstream's name for who wrote before anybody was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Records a create or an update in the managed fields of `object`, and answers what it took from those who apply. A body
/// may carry managed fields of its own: they are taken over, and `[{}]` forgets all.
pub fn record_update(
    kind: &Kind,
    live: Option<&Value>,
    object: &mut Value,
    options: &WriteOptions,
    now: Timestamp,
) -> Vec<Taken> {
    let nothing = json!({});
    let before = live.unwrap_or(&nothing);
    let mut managers = match Managers::read(object) {
        Some(stated) => stated,
        None => Managers::read(before).unwrap_or_default(),
    };
    let me = manager(kind, options, Operation::Update);
    let changes = compare(before, object, &kind.root);
    let taken = take_from_others(&mut managers, &me, &changes);
    let mine = managers.0.remove(&me).map(|m| m.fields).unwrap_or_default();
    let fields = mine.difference(&changes.removed).union(&changes.added).union(&changes.modified);
    managers.set(me, Managed { fields: managed::without_identity(fields), time: Some(now) });
    managers.cap_updates();
    managers.write(object);
    taken
}

/// As [`record_update`], where nothing but the status differs: what the managers own elsewhere is neither read nor written anew.
pub fn record_status(
    kind: &Kind,
    live: &Value,
    object: &mut Value,
    options: &WriteOptions,
    now: Timestamp,
) -> Vec<Taken> {
    const STATUS: &str = "status";
    let Some(mut part) = Part::read(object, STATUS) else {
        return record_update(kind, Some(live), object, options, now);
    };
    let me = manager(kind, options, Operation::Update);
    let changes = typed::compare_field(live, object, &kind.root, STATUS);
    let taken = take_from_others(&mut part.managers, &me, &changes);
    let mine = part.managers.0.remove(&me).map(|m| m.fields).unwrap_or_default();
    let fields = mine.difference(&changes.removed).union(&changes.added).union(&changes.modified);
    part.managers.set(me.clone(), Managed { fields, time: Some(now) });
    part.write(object, &me, now);
    taken
}

/// The object an apply makes of `live`, or of nothing, and what it took from others who apply. `config` is pruned, not defaulted: it states what the manager
/// wants to own, and nothing else.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    mut config: Value,
    options: &WriteOptions,
    now: Timestamp,
) -> ApiResult<(Value, Vec<Taken>)> {
    check_config(&config, options)?;
    leave_out_other_half(kind, &mut config, options.subresource);
    let me = manager(kind, options, Operation::Apply);
    let mut managers = live.map(|l| managers_of(kind, l)).unwrap_or_default();
    let last = managers.0.remove(&me).map(|m| m.fields).unwrap_or_default();
    let stated = typed::fields_of(&config, &kind.root);
    let mut merged = merge::merge(live, &config, &kind.root);
    let kept = managers.0.values().fold(stated.clone(), |all, m| all.union(&m.fields));
    prune::prune(&mut merged, &kind.root, &last, &kept);
    let mut taken = Vec::new();
    if let Some(live) = live {
        // A list that is one field comes as its manager states it, and is stored with the defaults in its items: only what
        // differs beyond these is a change.
        let mut stored = merged.clone();
        schema::prune_nulls(&mut stored, &kind.root);
        schema::apply_defaults(&mut stored, &kind.root);
        let changes = compare(live, &stored, &kind.root);
        let conflicts = conflicts(&managers, &changes);
        if !conflicts.is_empty() && !options.force {
            return Err(conflict_error(&conflicts));
        }
        taken = take_from_others(&mut managers, &me, &changes);
    }
    managers.set(me, Managed { fields: managed::without_identity(stated), time: Some(now) });
    managers.write(&mut merged);
    Ok((merged, taken))
}

fn manager(kind: &Kind, options: &WriteOptions, operation: Operation) -> Manager {
    let name = if options.field_manager.is_empty() { "unknown" } else { &options.field_manager };
    let subresource = match options.subresource {
        Subresource::Main => "",
        Subresource::Status => "status",
    };
    Manager { operation, name: name.to_owned(), subresource: subresource.to_owned(), api_version: kind.api_version() }
}

/// An object that nobody is recorded for was written before anybody counted.
fn managers_of(kind: &Kind, live: &Value) -> Managers {
    if let Some(managers) = Managers::read(live).filter(|m| !m.0.is_empty()) {
        return managers;
    }
    let options = WriteOptions { field_manager: BEFORE_FIRST_APPLY.to_owned(), ..WriteOptions::default() };
    let mut managers = Managers::default();
    let fields = managed::without_identity(typed::fields_of(live, &kind.root));
    let time = metadata::text(live, "creationTimestamp").and_then(|t| t.parse().ok());
    managers.set(manager(kind, &options, Operation::Update), Managed { fields, time });
    managers
}

fn check_config(config: &Value, options: &WriteOptions) -> ApiResult<()> {
    if options.field_manager.is_empty() {
        let cause = Cause {
            reason: "FieldValueRequired",
            message: "Required value: is required for apply patch".to_owned(),
            field: "fieldManager".to_owned(),
        };
        let message = format!("PatchOptions.meta.k8s.io \"\" is invalid: {}: {}", cause.field, cause.message);
        return Err(ApiError::new(Reason::Invalid, message).with_cause(cause));
    }
    if config["metadata"]["managedFields"].as_array().is_some_and(|m| !m.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// What this endpoint may not change cannot be owned through it.
fn leave_out_other_half(kind: &Kind, config: &mut Value, subresource: Subresource) {
    let Some(map) = config.as_object_mut() else { return };
    match subresource {
        Subresource::Main if kind.has_status => {
            map.remove("status");
        }
        Subresource::Main => {}
        Subresource::Status => {
            map.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
            }
        }
    }
}

fn take_from_others(managers: &mut Managers, me: &Manager, changes: &Comparison) -> Vec<Taken> {
    let changed = changes.added.union(&changes.modified).union(&changes.removed);
    let mut taken = Vec::new();
    for (manager, other) in managers.0.iter_mut().filter(|(manager, _)| *manager != me) {
        if manager.operation == Operation::Apply {
            let fields = other.fields.intersection(&changed).paths();
            let field = |path: String| path.trim_start_matches('.').to_owned();
            taken.extend(fields.into_iter().map(|path| Taken { manager: manager.name.clone(), field: field(path) }));
        }
        other.fields = other.fields.difference(&changed);
    }
    managers.0.retain(|manager, managed| manager == me || !managed.fields.is_empty());
    taken
}

fn conflicts<'m>(managers: &'m Managers, changes: &Comparison) -> Vec<(&'m Manager, FieldSet)> {
    let touched = changes.added.union(&changes.modified);
    let lost = managers.0.iter().map(|(manager, managed)| (manager, managed.fields.intersection(&touched)));
    lost.filter(|(_, fields)| !fields.is_empty()).collect()
}

fn conflict_error(conflicts: &[(&Manager, FieldSet)]) -> ApiError {
    let lost: Vec<(String, String)> = conflicts
        .iter()
        .flat_map(|(manager, fields)| fields.paths().into_iter().map(|path| (manager.to_string(), path)))
        .collect();
    let message = match lost.as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        several => {
            let mut lines: Vec<String> = Vec::new();
            let mut last = None;
            for (manager, path) in several {
                if last.replace(manager) != Some(manager) {
                    lines.push(format!("conflicts with {manager}:"));
                }
                lines.push(format!("- {path}"));
            }
            format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
        }
    };
    let causes = lost.into_iter().map(|(manager, path)| Cause {
        reason: "FieldManagerConflict",
        message: format!("conflict with {manager}"),
        field: path,
    });
    let details = Details { causes: causes.collect(), ..Details::default() };
    ApiError { reason: Reason::Conflict, message, details: Some(Box::new(details)) }
}
