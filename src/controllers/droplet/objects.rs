//! `Droplet` objects that mirror the registry: which are made, changed and deleted. Pure.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        droplet::{Droplet, DropletSource, DropletSpec},
        label,
    },
    droplets::{
        listing::Entry,
        names::{key, object_name},
    },
};

/// Where mirrors are.
pub const NAMESPACE: &str = "default";

/// Keys of a registration that the spec has no field for.
const KEPT: [&str; 8] =
    ["metadata", "steward", "status", "proof", "cost_usd", "yield_usd", "registered_at", "updated_at"];

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Create(Box<Droplet>),
    /// A merge patch of the spec.
    Patch {
        name: String,
        spec: Value,
    },
    Delete {
        name: String,
    },
}

/// It is there because the registry lists it.
pub fn is_mirror(droplet: &Droplet) -> bool {
    droplet.metadata.labels.iter().flatten().any(|(name, value)| name == label::DISCOVERED && value == "true")
}

pub fn display_name(droplet: &Droplet) -> &str {
    droplet.spec.display_name.as_deref().or(droplet.metadata.name.as_deref()).unwrap_or_default()
}

/// Who made it.
pub fn source(droplet: &Droplet) -> DropletSource {
    let by_files = |manager: Option<&str>| manager == Some("gitops");
    let managers = droplet.metadata.managed_fields.iter().flatten();
    if is_mirror(droplet) {
        DropletSource::Registry
    } else if managers.into_iter().any(|field| by_files(field.manager.as_deref())) {
        DropletSource::File
    } else {
        DropletSource::Api
    }
}

/// How the registry would list it.
pub fn entry(droplet: &Droplet) -> Entry {
    let mut fields = droplet.spec.registration.clone();
    fields.insert("id".to_owned(), json!(droplet.spec.droplet_id.unwrap_or_default()));
    fields.insert("name".to_owned(), json!(display_name(droplet)));
    fields.insert("endpoint".to_owned(), json!(droplet.spec.endpoint));
    let created = droplet.metadata.creation_timestamp.as_ref().map(|at| at.0.to_string());
    fields.entry("registered_at").or_insert_with(|| json!(created));
    let plain = || Entry {
        id: droplet.spec.droplet_id.unwrap_or_default(),
        name: display_name(droplet).to_owned(),
        endpoint: droplet.spec.endpoint.clone(),
        status: "active".to_owned(),
        registered_at: created.clone(),
        ..Entry::default()
    };
    // A registration that somebody wrote by hand may hold anything.
    serde_json::from_value(Value::Object(fields)).unwrap_or_else(|_| plain())
}

/// What makes the mirrors show this list. Limits and holds of a mirror are whoever's wrote them, and stay.
pub fn changes(listed: &[Entry], objects: &[Arc<Droplet>]) -> Vec<Change> {
    let here = |object: &&Arc<Droplet>| object.metadata.namespace.as_deref() == Some(NAMESPACE);
    let taken: BTreeMap<&str, &Arc<Droplet>> =
        objects.iter().filter(here).filter_map(|object| Some((object.metadata.name.as_deref()?, object))).collect();
    let declared =
        |entry: &Entry| objects.iter().any(|object| !is_mirror(object) && key(display_name(object)) == entry.key());
    let mut changes = Vec::new();
    let mut wanted: BTreeMap<String, &Entry> = BTreeMap::new();
    for entry in listed {
        // Of names that differ in case only the first can be found.
        if !declared(entry) {
            wanted.entry(object_name(&entry.name)).or_insert(entry);
        }
    }
    for (name, entry) in &wanted {
        let spec = spec(name, entry);
        match taken.get(name.as_str()) {
            None => {
                let mut droplet = Droplet::new(name, spec);
                droplet.metadata.namespace = Some(NAMESPACE.to_owned());
                droplet.metadata.labels = Some([(label::DISCOVERED.to_owned(), "true".to_owned())].into());
                changes.push(Change::Create(Box::new(droplet)));
            }
            Some(object) if is_mirror(object) => {
                let same = (&object.spec.endpoint, &object.spec.display_name, object.spec.droplet_id)
                    == (&spec.endpoint, &spec.display_name, spec.droplet_id)
                    && object.spec.registration == spec.registration;
                if !same {
                    let registration = replaced(&object.spec.registration, &spec.registration);
                    let patch = json!({"endpoint": spec.endpoint, "displayName": spec.display_name,
                        "dropletId": spec.droplet_id, "registration": registration});
                    changes.push(Change::Patch { name: name.clone(), spec: patch });
                }
            }
            // Somebody else's of another name in words, but of this one as an object.
            Some(_) => {}
        }
    }
    for (name, _) in taken.iter().filter(|(name, object)| is_mirror(object) && !wanted.contains_key(**name)) {
        changes.push(Change::Delete { name: (*name).to_owned() });
    }
    changes
}

fn spec(name: &str, entry: &Entry) -> DropletSpec {
    let all = serde_json::to_value(entry).unwrap_or_default();
    let registration = KEPT.iter().filter_map(|key| {
        let value = all.get(*key).filter(|value| !value.is_null() && **value != json!({}))?;
        Some(((*key).to_owned(), without_nulls(value.clone())))
    });
    DropletSpec {
        endpoint: entry.endpoint.clone(),
        display_name: (entry.name != name).then(|| entry.name.clone()),
        droplet_id: Some(entry.id),
        health_path: "/health".to_owned(),
        registration: registration.collect(),
        ..DropletSpec::default()
    }
}

/// A merge patch would take a null for a wish to delete.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// A merge patch that leaves nothing of the old.
fn replaced(old: &Map<String, Value>, new: &Map<String, Value>) -> Value {
    let mut patch = new.clone();
    for (key, value) in old {
        match (patch.get_mut(key), value) {
            (None, _) => {
                patch.insert(key.clone(), Value::Null);
            }
            (Some(Value::Object(inner)), Value::Object(before)) => {
                let merged = replaced(before, &inner.clone());
                patch.insert(key.clone(), merged);
            }
            (Some(_), _) => {}
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, endpoint: &str) -> Entry {
        Entry { id: 1, name: name.into(), endpoint: endpoint.into(), status: "active".into(), ..Entry::default() }
    }

    fn made(changes: &[Change]) -> Vec<Arc<Droplet>> {
        let made = changes.iter().filter_map(|change| match change {
            Change::Create(droplet) => Some(Arc::new((**droplet).clone())),
            Change::Patch { .. } | Change::Delete { .. } => None,
        });
        made.collect()
    }

    #[test]
    fn mirrors_follow_the_list() {
        let first = changes(&[listed("Reg", "http://a"), listed("REG", "http://b"), listed("a b", "http://c")], &[]);
        let objects = made(&first);
        assert_eq!(objects.len(), 2, "names that differ in case are one");
        assert_eq!(objects.iter().map(|o| display_name(o)).collect::<Vec<_>>().len(), 2);
        let again = changes(&[listed("Reg", "http://a"), listed("a b", "http://c")], &objects);
        assert_eq!(again, []);
        let moved = changes(&[listed("Reg", "http://z")], &objects);
        assert!(matches!(&moved[0], Change::Patch { name, spec } if name == "reg" && spec["endpoint"] == "http://z"));
        assert!(matches!(&moved[1], Change::Delete { name } if name.starts_with("a-b-")));
    }

    #[test]
    fn what_somebody_declares_is_left_alone() {
        let mut own = Droplet::new("reg", DropletSpec { endpoint: "http://own".into(), ..DropletSpec::default() });
        own.metadata.namespace = Some(NAMESPACE.to_owned());
        assert_eq!(changes(&[listed("REG", "http://a")], &[Arc::new(own.clone())]), []);
        assert_eq!(changes(&[], &[Arc::new(own.clone())]), []);
        assert_eq!(source(&own), DropletSource::Api);
        assert_eq!(entry(&own).endpoint, "http://own");
    }

    #[test]
    fn a_patch_leaves_nothing_of_a_former_registration() {
        let (old, new) = (json!({"a": 1, "m": {"x": 1, "y": 2}}), json!({"m": {"y": 3}}));
        let patch = replaced(old.as_object().expect("an object"), new.as_object().expect("an object"));
        let mut merged = old.clone();
        json_patch::merge(&mut merged, &patch);
        assert_eq!(merged, new);
    }
}
