//! What the files say: every document with its place, and everything that is wrong with them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{compose, files::Listing};
use crate::{
    api::source::{FileError, InventoryEntry},
    registry::Kinds,
    yaml::{Lines, Parsed, one_line, parse},
};

/// Objects without a namespace live here.
const DEFAULT_NAMESPACE: &str = "default";

/// Which object. Versions of one kind are one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    pub group: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectId {
    pub fn of(entry: &InventoryEntry) -> Self {
        let (group, _) = split_version(&entry.api_version);
        Self {
            group: group.to_owned(),
            kind: entry.kind.clone(),
            namespace: entry.namespace.clone(),
            name: entry.name.clone(),
        }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One object as a file wishes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub id: ObjectId,
    pub version: String,
    /// Relative to the directory.
    pub file: String,
    /// Where the document starts.
    pub line: u32,
    pub lines: Lines,
    /// Without what only the server may say (status, uid, …).
    pub object: Value,
}

impl Document {
    /// `stack/core.yaml:12`
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// As of before it is applied for the first time.
    pub fn inventory_entry(&self) -> InventoryEntry {
        InventoryEntry {
            api_version: api_version(&self.id.group, &self.version),
            kind: self.id.kind.clone(),
            namespace: self.id.namespace.clone(),
            name: self.id.name.clone(),
            file: self.place(),
            uid: None,
        }
    }
}

/// Everything the files say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadedFiles {
    /// How many files were read.
    pub files: usize,
    /// In the order to apply them: namespaces, then definitions of kinds, then by place.
    pub documents: Vec<Document>,
    /// By place.
    pub errors: Vec<FileError>,
    /// Everything under the directory was read. Errors in what was read do not make it incomplete.
    pub complete: bool,
    /// Files beside those of the directory that bear on this. One that the listing lacks must be read, and everything loaded
    /// again: what is said here is not true yet.
    pub beside: BTreeSet<PathBuf>,
}

impl LoadedFiles {
    /// Hash of what is wished, whatever the files are called: 16 hexadecimal digits.
    pub fn revision(&self) -> String {
        let mut objects: Vec<_> = self.documents.iter().map(|d| (&d.id, &d.version, d.object.to_string())).collect();
        objects.sort();
        let mut hash = Sha256::new();
        for (id, version, object) in objects {
            hash.update(format!("{id}\0{version}\0{object}\0"));
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Reads every document of a listing. A file that does not parse gives none of its documents.
pub fn load(listing: &Listing, kinds: &Kinds) -> LoadedFiles {
    let mut loaded = LoadedFiles { files: listing.files.len(), complete: listing.is_complete(), ..Default::default() };
    for problem in &listing.problems {
        loaded.errors.push(FileError { file: problem.path.clone(), line: None, message: problem.message.clone() });
    }
    for file in &listing.files {
        match parse(&file.text) {
            Ok(documents) => documents.into_iter().for_each(|parsed| add(&mut loaded, &file.path, parsed, kinds)),
            Err(error) => {
                loaded.errors.push(FileError { file: file.path.clone(), line: error.line, message: error.message });
            }
        }
    }
    refuse_duplicates(&mut loaded);
    compose::resolve(&mut loaded, listing);
    loaded.documents.sort_by(|a, b| (order(&a.id), &a.file, a.line).cmp(&(order(&b.id), &b.file, b.line)));
    loaded.errors.iter_mut().for_each(|error| error.message = one_line(&error.message));
    loaded.errors.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
    loaded
}

/// What others need comes first.
pub fn order(id: &ObjectId) -> u8 {
    match (id.group.as_str(), id.kind.as_str()) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
        _ => 2,
    }
}

fn add(loaded: &mut LoadedFiles, file: &str, parsed: Parsed, kinds: &Kinds) {
    if let Some(items) = list_items(&parsed.value, kinds) {
        for (index, value) in items.into_iter().enumerate() {
            let path = format!("items[{index}]");
            let line = parsed.lines.nearest(&path).unwrap_or(parsed.line);
            add_one(loaded, file, Parsed { line, value, lines: parsed.lines.under(&path) }, kinds);
        }
    } else {
        add_one(loaded, file, parsed, kinds);
    }
}

fn add_one(loaded: &mut LoadedFiles, file: &str, parsed: Parsed, kinds: &Kinds) {
    if compose::is_compose_file(&parsed.value) {
        return;
    }
    match document(file, parsed, kinds) {
        Ok(document) => loaded.documents.push(document),
        Err(error) => loaded.errors.push(error),
    }
}

/// The items of a `List`, or of the list of a kind as `kubectl get -o yaml` writes it.
fn list_items(value: &Value, kinds: &Kinds) -> Option<Vec<Value>> {
    let kind = value.get("kind")?.as_str()?;
    let (group, version) = split_version(value.get("apiVersion")?.as_str()?);
    let is_list = kind.ends_with("List") && kinds.by_kind(group, version, kind).is_none();
    is_list.then(|| value.get("items").and_then(Value::as_array).cloned()).flatten()
}

/// One document of a file, checked as far as that goes without the registry.
pub(super) fn document(file: &str, parsed: Parsed, kinds: &Kinds) -> Result<Document, FileError> {
    let Parsed { line, value: mut object, lines } = parsed;
    let fail = |path: &str, message: String| FileError {
        file: file.to_owned(),
        line: Some(lines.nearest(path).unwrap_or(line)),
        message,
    };
    let text = |path: &str, pointer: &str| match object.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::String(_) | Value::Null) | None => Err(fail(path, format!("{path} is missing"))),
        Some(_) => Err(fail(path, format!("{path} must be a string"))),
    };
    if !object.is_object() {
        return Err(fail("", "a document must be an object with apiVersion, kind and metadata.name".to_owned()));
    }
    let full_version = text("apiVersion", "/apiVersion")?;
    let kind_name = text("kind", "/kind")?;
    let name = text("metadata.name", "/metadata/name")?;
    let (group, version) = split_version(&full_version);
    let kind = kinds
        .by_kind(group, version, &kind_name)
        .ok_or_else(|| fail("kind", format!("no kind {kind_name} in version {full_version}")))?;
    let given = match object.pointer("/metadata/namespace") {
        Some(Value::Null) | None => None,
        Some(Value::String(given)) if !given.is_empty() => Some(given.clone()),
        Some(_) => return Err(fail("metadata.namespace", "metadata.namespace must be a name".to_owned())),
    };
    let namespace = match (kind.namespaced, given) {
        (true, given) => Some(given.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())),
        (false, None) => None,
        (false, Some(_)) => {
            return Err(fail("metadata.namespace", format!("{kind_name} is cluster-scoped, it takes no namespace")));
        }
    };
    let id = ObjectId { group: group.to_owned(), kind: kind_name, namespace, name };
    let version = version.to_owned();
    keep_wishes(&mut object, id.namespace.as_deref());
    Ok(Document { id, version, file: file.to_owned(), line, lines, object })
}

/// Takes off what only the server may say, so that the output of `kubectl get -o yaml` can be used as a file.
fn keep_wishes(object: &mut Value, namespace: Option<&str>) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in SERVER_OWNED {
        metadata.remove(field);
    }
    match namespace {
        Some(namespace) => metadata.insert("namespace".to_owned(), namespace.into()),
        None => metadata.remove("namespace"),
    };
}

const SERVER_OWNED: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// One object in two places: nobody can know which is meant, so neither is.
fn refuse_duplicates(loaded: &mut LoadedFiles) {
    let mut places: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
    for document in &loaded.documents {
        places.entry(document.id.clone()).or_default().push(document.place());
    }
    places.retain(|_, places| places.len() > 1);
    for document in &loaded.documents {
        let Some(places) = places.get(&document.id) else { continue };
        let here = document.place();
        let others: Vec<_> = places.iter().filter(|place| **place != here).map(String::as_str).collect();
        loaded.errors.push(FileError {
            file: document.file.clone(),
            line: Some(document.line),
            message: format!("{} is also in {}", document.id, others.join(", ")),
        });
    }
    loaded.documents.retain(|document| !places.contains_key(&document.id));
}

/// `gaia.dev/v1alpha1` to group and version; `v1` is of the core group, whose name is empty.
pub fn split_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
