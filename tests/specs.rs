//! The files of `crds-like-specs/` are what the Rust types say, and are definitions that a Kubernetes API server accepts.

use std::{collections::BTreeSet, fs, path::Path};

use gaia::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crds-like-specs");
const HEADER: &str = "# generated, do not edit: GAIA_UPDATE=1 cargo test --test specs\n";

#[test]
fn files_are_current() {
    let directory = Path::new(DIRECTORY);
    let mut expected = BTreeSet::new();
    for crd in api::crds() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        let yaml = serde_saphyr::to_string(&crd).expect("a definition is plain data");
        ensure_file_contents(&directory.join(&name), &format!("{HEADER}{yaml}"));
        expected.insert(name);
    }
    let found: BTreeSet<String> = fs::read_dir(directory)
        .expect("crds-like-specs is part of the repository")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, expected, "crds-like-specs holds one file a kind and nothing else: remove what is too much");
}

/// Writes with GAIA_UPDATE=1, else fails with what to do. Never both: a build that mends its own inputs hides the mistake.
fn ensure_file_contents(path: &Path, wanted: &str) {
    let found = fs::read_to_string(path).unwrap_or_default();
    if found == wanted {
        return;
    }
    if std::env::var_os("GAIA_UPDATE").is_some() {
        fs::write(path, wanted).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let line = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count() + 1;
    panic!(
        "{}:{line} is not what the types in src/api say.\nRun `GAIA_UPDATE=1 cargo test --test specs` and commit the result.",
        path.display()
    );
}

#[test]
fn files_read_back_as_the_same_definitions() {
    for crd in api::crds() {
        let path = format!("{DIRECTORY}/{}.yaml", crd.spec.names.plural);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let read: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(read, crd, "{path}");
    }
}

#[test]
fn names_are_consistent_and_unique() {
    let mut taken = BTreeSet::new();
    for crd in api::crds() {
        let names = &crd.spec.names;
        assert_eq!(crd.spec.group, api::GROUP);
        assert_eq!(crd.metadata.name.as_deref(), Some(&*format!("{}.{}", names.plural, crd.spec.group)));
        assert_eq!(names.singular.as_deref(), Some(&*names.kind.to_lowercase()));
        assert!(matches!(&*crd.spec.scope, "Namespaced" | "Cluster"), "{}", names.kind);
        assert!(names.categories.as_ref().is_some_and(|c| c.contains(&"gaia".to_owned())), "{}", names.kind);
        for name in names.short_names.iter().flatten().chain(names.singular.as_ref()).chain([&names.plural]) {
            assert!(taken.insert(name.clone()), "{name} is taken twice");
        }
        let [version] = &crd.spec.versions[..] else { panic!("{}: one version, for now", names.kind) };
        assert_eq!(version.name, api::VERSION);
        assert!(version.served && version.storage);
        // A history is what was wished for: there is nothing to observe about it.
        let has_status = version.subresources.as_ref().is_some_and(|s| s.status.is_some());
        let is_history = matches!(&*names.kind, "WorkloadHistory" | "SourceRevision");
        assert_eq!(has_status, !is_history, "{} has a status", names.kind);
    }
}

#[test]
fn columns_and_selectable_fields_lead_somewhere() {
    for crd in api::crds() {
        let kind = &crd.spec.names.kind;
        let schema = schema_of(&crd);
        let version = &crd.spec.versions[0];
        for column in version.additional_printer_columns.iter().flatten() {
            let expected = match column.type_.as_str() {
                "date" => "string",
                other => other,
            };
            let found = field(&schema, &column.json_path);
            assert_eq!(found["type"], expected, "{kind}: column {} at {}", column.name, column.json_path);
        }
        let selectable: Vec<_> = version.selectable_fields.iter().flatten().collect();
        assert!(selectable.len() <= 8, "{kind}: API servers take 8 selectable fields");
        for path in selectable {
            let found = field(&schema, &path.json_path);
            assert!(matches!(found["type"].as_str(), Some("string" | "integer" | "boolean")), "{kind}: {path:?}");
        }
    }
}

/// The schema at `.status.conditions[?(…)].reason`.
fn field(root: &Value, path: &str) -> Value {
    if path == ".metadata.creationTimestamp" {
        return serde_json::json!({"type": "string"});
    }
    let simple = match (path.find("[?("), path.find(")]")) {
        (Some(from), Some(to)) => format!("{}.[]{}", &path[..from], &path[to + 2..]),
        _ => path.to_owned(),
    };
    let mut schema = root;
    for name in simple.strip_prefix('.').unwrap_or_else(|| panic!("{path} starts with a dot")).split('.') {
        schema = if name == "[]" { &schema["items"] } else { &schema["properties"][name] };
        assert!(schema.is_object(), "{path}: there is no {name}");
    }
    schema.clone()
}

fn schema_of(crd: &CustomResourceDefinition) -> Value {
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    serde_json::to_value(schema.expect("every version has a schema")).expect("a schema is plain data")
}

#[test]
fn schemas_are_structural() {
    for crd in api::crds() {
        let kind = &crd.spec.names.kind;
        let schema = schema_of(&crd);
        let mut faults = Vec::new();
        check(&schema, kind, &mut faults);
        assert!(schema["description"].as_str().is_some_and(|d| !d.starts_with("Auto-generated")), "{kind}");
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// What <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
/// asks, and stricter: we have no need of the logical junctors.
fn check(schema: &Value, at: &str, faults: &mut Vec<String>) {
    let mut fault = |text: &str| faults.push(format!("{at}: {text}"));
    let object = schema.as_object().expect("a schema is an object");
    let set = |key: &str| object.get(key) == Some(&Value::Bool(true));
    for key in ["allOf", "anyOf", "oneOf", "not", "$ref", "definitions", "dependencies", "patternProperties", "id"] {
        if object.contains_key(key) {
            fault(&format!("{key} is not ours to use"));
        }
    }
    if set("nullable") {
        fault("nullable: `has(self.x)` would be true of null");
    }
    if set("uniqueItems") {
        fault("uniqueItems is refused: say x-kubernetes-list-type: set");
    }
    let untyped = set("x-kubernetes-preserve-unknown-fields") || set("x-kubernetes-int-or-string");
    let type_ = object.get("type").and_then(Value::as_str);
    match type_ {
        None if !untyped => fault("has no type"),
        Some("array") if !object.contains_key("items") => fault("an array needs items"),
        Some("object")
            // As an API server sees it: everything in it is pruned. Right for `stop: {}` only, which says what it is.
            if !["properties", "additionalProperties", "description"].iter().any(|key| object.contains_key(*key))
                && !untyped =>
        {
            fault("an object without fields");
        }
        _ => {}
    }
    if object.contains_key("properties") && object.contains_key("additionalProperties") {
        fault("properties and additionalProperties exclude each other");
    }
    let properties = object.get("properties").and_then(Value::as_object);
    for name in object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !properties.is_some_and(|p| p.contains_key(name)) {
            fault(&format!("requires {name}, which it does not have"));
        }
    }
    for rule in object.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        if let Some(path) = rule["fieldPath"].as_str() {
            // API servers look it up in the schema as written, where metadata has no fields.
            field(schema, path);
        }
        if rule["message"].as_str().is_none_or(|m| m.is_empty() || m.contains('\n')) {
            fault("a rule says in one line what is wrong");
        }
    }
    if let Some(default) = object.get("default") {
        for problem in misfits(schema, default) {
            fault(&format!("its default {default}: {problem}"));
        }
    }
    if let Some(keys) = object.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        for key in keys.iter().filter_map(Value::as_str) {
            let required = schema["items"]["required"].as_array().is_some_and(|r| r.iter().any(|name| name == key));
            if !required && schema["items"]["properties"][key].get("default").is_none() {
                fault(&format!("list-map key {key} must be required or have a default"));
            }
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        check(property, &format!("{at}.{name}"), faults);
    }
    if let Some(items) = object.get("items") {
        check(items, &format!("{at}[]"), faults);
    }
    if let Some(values @ Value::Object(_)) = object.get("additionalProperties") {
        check(values, &format!("{at}{{}}"), faults);
    }
}

/// Why a default would be refused: it must be of the type, and hold no field the schema does not know (API servers refuse
/// defaults that would be pruned).
fn misfits(schema: &Value, value: &Value) -> Vec<String> {
    let matches = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    let mut problems = Vec::new();
    if !matches {
        problems.push(format!("{value} is not of type {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        problems.push(format!("{value} is none of {}", schema["enum"]));
    }
    if let (Some(min), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < min
    {
        problems.push(format!("{value} is less than {min}"));
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(property) => problems.extend(misfits(property, field)),
            None if schema["additionalProperties"].is_object() => {}
            None => problems.push(format!("{name} would be pruned")),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        problems.extend(misfits(&schema["items"], item));
    }
    problems
}
