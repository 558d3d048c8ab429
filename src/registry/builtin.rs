//! The kinds every cluster has: their schemas come from k8s-openapi, made structural; and what upstream fills in on
//! their objects.

use base64::Engine;
use k8s_openapi::{
    api::{coordination, core::v1 as core, events},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{
    ApiError, Kind, definitions,
    kinds::Column,
    metadata,
    schema::{ListType, Node},
};

/// The group of CustomResourceDefinition.
pub const EXTENSIONS: &str = "apiextensions.k8s.io";

pub fn kinds() -> Result<Vec<Kind>, ApiError> {
    let table = [
        Kind {
            kind: "Namespace".to_owned(),
            short_names: names(&["ns"]),
            namespaced: false,
            has_status: true,
            columns: vec![column("Status", "string", ".status.phase"), age()],
            selectable_fields: names(&[".status.phase"]),
            ..core_kind::<core::Namespace>("namespaces")
        },
        Kind {
            kind: "ConfigMap".to_owned(),
            short_names: names(&["cm"]),
            columns: vec![age()],
            ..core_kind::<core::ConfigMap>("configmaps")
        },
        Kind {
            kind: "Secret".to_owned(),
            columns: vec![column("Type", "string", ".type"), age()],
            selectable_fields: names(&[".type"]),
            ..core_kind::<core::Secret>("secrets")
        },
        Kind {
            kind: "ServiceAccount".to_owned(),
            short_names: names(&["sa"]),
            columns: vec![age()],
            ..core_kind::<core::ServiceAccount>("serviceaccounts")
        },
        Kind {
            kind: "Event".to_owned(),
            short_names: names(&["ev"]),
            columns: event_columns(".involvedObject", ".lastTimestamp", ".message"),
            ..core_kind::<core::Event>("events")
        },
        Kind {
            kind: "Event".to_owned(),
            group: "events.k8s.io".to_owned(),
            short_names: names(&["ev"]),
            columns: event_columns(".regarding", ".deprecatedLastTimestamp", ".note"),
            view: true,
            ..core_kind::<events::v1::Event>("events")
        },
        Kind {
            kind: "Lease".to_owned(),
            group: "coordination.k8s.io".to_owned(),
            columns: vec![column("Holder", "string", ".spec.holderIdentity"), age()],
            ..core_kind::<coordination::v1::Lease>("leases")
        },
        crds(),
    ];
    table.into_iter().map(finish).collect::<Result<_, _>>().map_err(ApiError::internal)
}

/// Schema of `metadata`, the same for every kind.
pub fn metadata_node() -> Result<Node, String> {
    let mut node = Node::parse(&schema_of::<ObjectMeta>()).map_err(|e| e.to_string())?;
    let field = |node: &mut Node, name: &str, list: ListType| {
        if let Some(field) = node.properties.get_mut(name) {
            field.list = list;
        }
    };
    field(&mut node, "finalizers", ListType::Set);
    field(&mut node, "ownerReferences", ListType::Map(names(&["uid"])));
    let entry = node.properties.get_mut("managedFields").and_then(|n| n.items.as_mut());
    if let Some(fields) = entry.and_then(|n| n.properties.get_mut("fieldsV1")) {
        fields.preserve = true;
    }
    Ok(node)
}

/// A kind of the core group with the schema of `T`; its name and the rest are filled in by the caller.
fn core_kind<T: JsonSchema>(plural: &str) -> Kind {
    Kind {
        version: "v1".to_owned(),
        plural: plural.to_owned(),
        singular: plural.trim_end_matches('s').to_owned(),
        builtin: true,
        ..Kind::with_schema(schema_of::<T>())
    }
}

/// The schema of a CustomResourceDefinition is recursive; what is inside is checked when the kind is read from it.
fn crds() -> Kind {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({
        "type": "object",
        "description": "CustomResourceDefinition represents a resource that should be exposed on the API server.",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": open, "status": open,
        },
        "required": ["spec"],
    });
    Kind {
        kind: "CustomResourceDefinition".to_owned(),
        group: EXTENSIONS.to_owned(),
        version: "v1".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
        singular: "customresourcedefinition".to_owned(),
        short_names: names(&["crd", "crds"]),
        categories: names(&["api-extensions"]),
        namespaced: false,
        has_status: true,
        builtin: true,
        columns: vec![column("Created At", "string", ".metadata.creationTimestamp")],
        ..Kind::with_schema(schema)
    }
}

fn finish(mut kind: Kind) -> Result<Kind, String> {
    kind.list_kind = format!("{}List", kind.kind);
    annotate(&mut kind);
    // Clients leave `metadata` out of `required` kinds at will; upstream fills it in.
    if let Some(required) = kind.schema["required"].as_array_mut() {
        required.retain(|name| name != "metadata");
    }
    let name = kind.qualified_kind();
    kind.compiled().map_err(|why| format!("schema of {name}: {why}"))
}

/// How lists and maps merge: k8s-openapi's schemas do not say.
fn annotate(kind: &mut Kind) {
    let table: &[(&str, &str, Value)] = &[
        (
            "Namespace",
            "/properties/status/properties/conditions",
            json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
        ),
        (
            "ServiceAccount",
            "/properties/secrets",
            json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ),
        ("Event", "/properties/involvedObject", json!({"x-kubernetes-map-type": "atomic"})),
        ("Event", "/properties/regarding", json!({"x-kubernetes-map-type": "atomic"})),
        ("Event", "/properties/related", json!({"x-kubernetes-map-type": "atomic"})),
    ];
    for (_, pointer, extensions) in table.iter().filter(|(name, ..)| *name == kind.kind) {
        if let (Some(Value::Object(place)), Value::Object(extensions)) = (kind.schema.pointer_mut(pointer), extensions)
        {
            place.extend(extensions.clone());
        }
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn column(name: &str, type_: &str, json_path: &str) -> Column {
    Column {
        name: name.to_owned(),
        type_: type_.to_owned(),
        format: String::new(),
        description: String::new(),
        priority: 0,
        json_path: json_path.to_owned(),
    }
}

fn age() -> Column {
    column("Age", "date", ".metadata.creationTimestamp")
}

fn event_columns(object: &str, last_seen: &str, message: &str) -> Vec<Column> {
    vec![
        column("Last Seen", "date", last_seen),
        column("Type", "string", ".type"),
        column("Reason", "string", ".reason"),
        column("Object", "string", &format!("{object}.name")),
        column("Message", "string", message),
    ]
}

/// What upstream fills in on objects of built-in kinds, at every write.
pub fn complete(kind: &Kind, object: &mut Value) {
    if kind.is("", "Namespace") {
        complete_namespace(object);
    } else if kind.is("", "Secret") {
        complete_secret(object);
    } else if definitions::is(kind) {
        definitions::complete(object);
    } else if let (true, Some(map)) = (kind.is("", "Event"), object.as_object_mut()) {
        // Required in core form; an event about nothing in particular may leave it out in the other.
        map.entry("involvedObject").or_insert_with(|| json!({}));
    }
}

fn complete_namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let deleting = metadata::is_deleting(object);
    if let Some(labels) = metadata::map_at(object, &["metadata", "labels"]) {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    if let Some(status) = metadata::map_at(object, &["status"]) {
        status.insert("phase".to_owned(), json!(if deleting { "Terminating" } else { "Active" }));
    }
    if let (false, Some(spec)) = (deleting, metadata::map_at(object, &["spec"])) {
        spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
    }
}

/// `stringData` is for writing only: it ends in `data`.
fn complete_secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    map.entry("type").or_insert_with(|| json!("Opaque"));
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    if let Some(data) = metadata::map_at(object, &["data"]) {
        for (key, text) in plain {
            let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
            data.insert(key, json!(encoded));
        }
    }
}
