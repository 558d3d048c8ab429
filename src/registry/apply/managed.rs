//! `metadata.managedFields`: who owns what.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fieldset::{Element, FieldSet};
use crate::registry::metadata;

/// Managers that update, beyond the newest of them, are one: the list cannot grow without bound.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Identity and what only the server writes: nobody's.
const NOBODYS: [&str; 11] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Who: the same name is another manager for the other operation, and for a subresource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub operation: Operation,
    pub name: String,
    pub subresource: String,
    pub api_version: String,
}

/// As conflict messages name it.
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// What, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Managed {
    pub fields: FieldSet,
    pub time: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Managers(pub BTreeMap<Manager, Managed>);

impl Managers {
    /// None when the object says nothing, or nothing that can be read. `[{}]` says: nobody.
    pub fn read(object: &Value) -> Option<Self> {
        let entries = object["metadata"]["managedFields"].as_array().filter(|e| !e.is_empty())?;
        if matches!(entries.as_slice(), [Value::Object(only)] if only.is_empty()) {
            return Some(Self::default());
        }
        let mut managers = Self::default();
        for entry in entries {
            let (manager, managed) = read_entry(entry)?;
            managers.set(manager, managed);
        }
        Some(managers)
    }

    /// A manager that owns nothing is not listed.
    pub fn set(&mut self, manager: Manager, managed: Managed) {
        if managed.fields.is_empty() {
            self.0.remove(&manager);
        } else {
            self.0.insert(manager, managed);
        }
    }

    /// Applies first, then by time, as upstream lists them.
    pub fn write(&self, object: &mut Value) {
        let mut entries: Vec<(&Manager, &Managed)> = self.0.iter().collect();
        entries.sort_by(|(a, at), (b, bt)| (a.operation, at.time, a).cmp(&(b.operation, bt.time, b)));
        let entries: Vec<Value> = entries.into_iter().map(|(manager, managed)| write_entry(manager, managed)).collect();
        let Some(metadata) = metadata::map_at(object, &["metadata"]) else { return };
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }

    /// The oldest updaters become one when there are too many.
    pub fn cap_updates(&mut self) {
        let updates = self.0.iter().filter(|(m, _)| m.operation == Operation::Update);
        let mut oldest: Vec<(Option<Timestamp>, Manager)> = updates.map(|(m, e)| (e.time, m.clone())).collect();
        if oldest.len() <= MAX_UPDATE_MANAGERS {
            return;
        }
        oldest.sort();
        let excess = oldest.len() - MAX_UPDATE_MANAGERS + 1;
        for (_, manager) in oldest.into_iter().take(excess) {
            let Some(old) = self.0.remove(&manager) else { continue };
            let ancient = Manager { name: ANCIENT.to_owned(), subresource: String::new(), ..manager };
            let bucket = self.0.entry(ancient).or_default();
            bucket.fields = bucket.fields.union(&old.fields);
            bucket.time = bucket.time.max(old.time);
        }
    }
}

fn read_entry(entry: &Value) -> Option<(Manager, Managed)> {
    let fields = FieldSet::from_json(&entry["fieldsV1"])?;
    let time = entry["time"].as_str().and_then(|t| t.parse().ok());
    Some((read_manager(entry)?, Managed { fields, time }))
}

fn read_manager(entry: &Value) -> Option<Manager> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let operation = match entry["operation"].as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    Some(Manager {
        operation,
        name: text("manager"),
        subresource: text("subresource"),
        api_version: text("apiVersion"),
    })
}

fn write_entry(manager: &Manager, managed: &Managed) -> Value {
    let mut entry = json!({
        "manager": manager.name,
        "operation": format!("{:?}", manager.operation),
        "apiVersion": manager.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": managed.fields.to_json(),
    });
    if let Some(time) = managed.time {
        entry["time"] = metadata::timestamp(time);
    }
    if !manager.subresource.is_empty() {
        entry["subresource"] = json!(manager.subresource);
    }
    entry
}

/// Managers of one field of an object, and of what is below it: all of them that own something there. What they own elsewhere stays in the
/// object as it is.
pub struct Part {
    field: Element,
    /// Without times.
    pub managers: Managers,
}

impl Part {
    /// None where that is not enough: what is there cannot be read, or there would be too many managers.
    pub fn read(object: &Value, field: &str) -> Option<Self> {
        let field = Element::Field(field.to_owned());
        let wire = field.wire();
        let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
        if entries.len() >= MAX_UPDATE_MANAGERS {
            return None;
        }
        let mut managers = Managers::default();
        for entry in entries {
            let (manager, all) = (read_manager(entry)?, entry["fieldsV1"].as_object()?);
            let Some(below) = all.get(&wire) else { continue };
            let mut fields = FieldSet::default();
            fields.put(field.clone(), FieldSet::from_json_at(below)?);
            managers.set(manager, Managed { fields, time: None });
        }
        Some(Self { field, managers })
    }

    /// `writer` wrote at `now`: his entry is renewed, and made where he has none. As [`Managers::write`] writes them all.
    pub fn write(mut self, object: &mut Value, writer: &Manager, now: Timestamp) {
        let Some(metadata) = metadata::map_at(object, &["metadata"]) else { return };
        let wire = self.field.wire();
        let before = metadata.remove("managedFields").map(|mut before| before.as_array_mut().map(std::mem::take));
        let mut entries = before.flatten().unwrap_or_default();
        for entry in &mut entries {
            let Some(manager) = read_manager(entry) else { continue };
            let left = self.managers.0.remove(&manager);
            let below = left.as_ref().and_then(|left| left.fields.child(&self.field)).map(FieldSet::to_json);
            match (entry["fieldsV1"].as_object_mut(), below) {
                (Some(all), Some(below)) => drop(all.insert(wire.clone(), below)),
                (Some(all), None) => drop(all.remove(&wire)),
                (None, _) => {}
            }
            if manager == *writer {
                entry["time"] = metadata::timestamp(now);
            }
        }
        entries.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|all| !all.is_empty()));
        if let Some(fields) = self.managers.0.remove(writer).map(|managed| managed.fields) {
            entries.push(write_entry(writer, &Managed { fields, time: Some(now) }));
        }
        // Times are written in one form, of which the text has their order.
        entries.sort_by(|a, b| {
            let fields = ["operation", "time", "manager", "subresource", "apiVersion"];
            let order =
                |field: &&str| a[*field].as_str().unwrap_or_default().cmp(b[*field].as_str().unwrap_or_default());
            fields.iter().map(order).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        if !entries.is_empty() {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

/// Takes out what nobody owns.
pub fn without_identity(mut fields: FieldSet) -> FieldSet {
    for name in ["apiVersion", "kind"] {
        fields.children.remove(&Element::Field(name.to_owned()));
    }
    fields.owned = false;
    let metadata = Element::Field("metadata".to_owned());
    if let Some(mut below) = fields.children.remove(&metadata) {
        below.owned = false;
        below.children.retain(|e, _| !matches!(e, Element::Field(name) if NOBODYS.contains(&name.as_str())));
        fields.put(metadata, below);
    }
    fields
}
