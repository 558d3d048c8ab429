//! What a file states, the file owns: whoever changes it is told which file, on which line, and that it will be set back.
//!
//! The registry says which fields changed hands; the inventories of the Sources say where they are stated. Only a write
//! that takes something from the files looks there.

use std::collections::BTreeSet;

use serde_json::Value;
use tracing::warn;

use crate::{
    api::{
        self,
        source::{FIELD_MANAGER, InventoryEntry, Source},
    },
    registry::{Kind, ListOptions, ObjectName, Registry, Written},
};

/// More fields than these are only counted.
const MOST_FIELDS: usize = 5;

/// The warning for a write that changed what a file states.
pub async fn of_write(registry: &Registry, kind: &Kind, written: &Written) -> Option<String> {
    let taken = written.taken.iter().filter(|taken| taken.manager == FIELD_MANAGER);
    let fields: BTreeSet<&str> = taken.map(|taken| taken.field.as_str()).collect();
    if fields.is_empty() {
        return None;
    }
    let place = place(registry, kind, &written.version.object).await?;
    Some(format!("{} stated by {place} and will be set back{}", subject(&fields), place.when()))
}

/// The warning for the deletion of an object that a file states.
pub async fn of_delete(registry: &Registry, kind: &Kind, object: &Value) -> Option<String> {
    let managers = object["metadata"]["managedFields"].as_array()?;
    managers.iter().find(|entry| entry["manager"] == FIELD_MANAGER)?;
    let place = place(registry, kind, object).await?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Some(format!("{} {name} is stated by {place} and will be made again{}", kind.kind, place.when()))
}

fn subject(fields: &BTreeSet<&str>) -> String {
    let mut named: Vec<&str> = fields.iter().copied().take(MOST_FIELDS).collect();
    let more = format!("{} more", fields.len() - named.len());
    if fields.len() > MOST_FIELDS {
        named.push(&more);
    }
    match named.as_slice() {
        [only] => format!("{only} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
        [] => unreachable!("nobody is told of no field"),
    }
}

/// Where an object is stated.
struct Place {
    at: String,
    /// The Source, when it does nothing for now.
    suspended: Option<String>,
}

impl Place {
    fn when(&self) -> String {
        self.suspended.as_ref().map(|source| format!(" when Source {source} is resumed")).unwrap_or_default()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.at)
    }
}

/// None when no Source keeps the object: its Source may be gone, and the managed fields tell of the past.
async fn place(registry: &Registry, kind: &Kind, object: &Value) -> Option<Place> {
    let sources = registry.kinds().by_kind(api::GROUP, api::VERSION, "Source")?;
    let list = registry.list(&sources, None, &ListOptions::default()).await;
    // The write is done, and its answer must not fail for want of a warning.
    let list = list.inspect_err(|error| warn!(%error, "nobody is told which file states what was changed")).ok()?;
    let (name, uid) = (ObjectName::of(object), object["metadata"]["uid"].as_str());
    list.items.iter().filter_map(|version| version.decode::<Source>().ok()).find_map(|source| {
        if source.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let entries = source.status.as_ref().map(|status| status.inventory.as_slice()).unwrap_or_default();
        let entry = entries.iter().find(|entry| is_of(entry, kind, &name, uid))?;
        let suspended = source.spec.suspend.then(|| source.metadata.name.clone().unwrap_or_default());
        Some(Place { at: source.place_of(entry), suspended })
    })
}

fn is_of(entry: &InventoryEntry, kind: &Kind, name: &ObjectName, uid: Option<&str>) -> bool {
    let group = entry.api_version.split_once('/').map_or("", |(group, _)| group);
    let same_object = entry.uid.is_none() || entry.uid.as_deref() == uid;
    (group, &entry.kind, &entry.namespace, &entry.name) == (&kind.group, &kind.kind, &name.namespace, &name.name)
        && same_object
}
