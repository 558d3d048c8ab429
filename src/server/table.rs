//! Table output: what `kubectl get` prints is decided here, ages included.

use std::{borrow::Cow, ops::Deref};

use jiff::Timestamp;
use jsonpath_rust::{
    parser::{model::JpQuery, parse_json_path},
    query::js_path_process,
};
use serde_json::{Value, json};

use super::{age, builtin_columns};
use crate::registry::{ApiError, ApiResult, Kind, Reason, kinds::Column as PrinterColumn};

/// `includeObject`: how much of the object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    #[default]
    Metadata,
    None,
    Object,
}

impl IncludeObject {
    pub fn parse(text: Option<&str>) -> ApiResult<Self> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => {
                Err(ApiError::new(Reason::BadRequest, format!("unrecognized includeObject value: {other:?}")))
            }
        }
    }
}

/// How one cell is made from an object.
pub(super) enum Cell {
    Name,
    /// The first match, or all of them for a string.
    Path {
        query: Box<JpQuery>,
        type_: ColumnType,
    },
    /// For built-in kinds whose columns no JSONPath can say.
    Computed(fn(&Value, Timestamp) -> Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    String,
    Integer,
    Number,
    Boolean,
    Date,
}

/// One column: what is told about it, and how its cells are made.
pub(super) struct Column {
    pub definition: Value,
    pub cell: Cell,
}

/// The columns of a kind, compiled once per request.
pub struct Table {
    columns: Vec<Column>,
    version: &'static str,
    include: IncludeObject,
}

impl Table {
    /// `version` is that of `meta.k8s.io`.
    pub fn new(kind: &Kind, version: &'static str, include: IncludeObject) -> Self {
        let columns = builtin_columns::of(kind).unwrap_or_else(|| declared(&kind.columns));
        Self { columns, version, include }
    }

    /// The whole table of a list, or of one object. `metadata` is the list's.
    pub fn of(
        &self,
        metadata: Value,
        objects: impl Iterator<Item: Deref<Target = Value>>,
        now: Timestamp,
        with_definitions: bool,
    ) -> Value {
        let rows: Vec<Value> = objects.map(|object| self.row(&object, now)).collect();
        let mut table = json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": [],
            "rows": rows,
        });
        if with_definitions {
            table["columnDefinitions"] = self.columns.iter().map(|column| column.definition.clone()).collect();
        }
        table
    }

    fn row(&self, object: &Value, now: Timestamp) -> Value {
        let cells: Vec<Value> = self.columns.iter().map(|column| column.cell.of(object, now)).collect();
        match self.include {
            IncludeObject::Metadata => json!({"cells": cells, "object": partial(object, self.version)}),
            IncludeObject::Object => json!({"cells": cells, "object": object}),
            IncludeObject::None => json!({"cells": cells}),
        }
    }
}

/// The object's metadata as `PartialObjectMetadata`.
pub fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    })
}

impl Cell {
    fn of(&self, object: &Value, now: Timestamp) -> Value {
        match self {
            Cell::Name => object["metadata"]["name"].clone(),
            Cell::Path { query, type_ } => {
                let found = js_path_process(query, object).unwrap_or_default();
                let values: Vec<&Value> = found.into_iter().map(|reference| reference.val()).collect();
                type_.cell(&values, now)
            }
            Cell::Computed(make) => make(object, now),
        }
    }
}

impl ColumnType {
    fn parse(text: &str) -> Self {
        match text {
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            _ => Self::String,
        }
    }

    /// Null, which kubectl shows as nothing, when there is no value or one of another type.
    fn cell(self, values: &[&Value], now: Timestamp) -> Value {
        let Some(first) = values.first() else { return Value::Null };
        match self {
            Self::String => joined(values),
            Self::Integer => match first {
                Value::Number(n) => {
                    n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
                }
                _ => Value::Null,
            },
            Self::Number => {
                if first.is_number() {
                    (*first).clone()
                } else {
                    Value::Null
                }
            }
            Self::Boolean => {
                if first.is_boolean() {
                    (*first).clone()
                } else {
                    Value::Null
                }
            }
            Self::Date => first.as_str().map_or(Value::Null, |text| since(text, now).into()),
        }
    }
}

/// All matches of a string column with blanks between, strings bare and the rest as JSON.
fn joined(values: &[&Value]) -> Value {
    if let [Value::Null] = values {
        return Value::Null;
    }
    let texts: Vec<Cow<'_, str>> = values
        .iter()
        .map(|value| match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        })
        .collect();
    texts.join(" ").into()
}

/// The age of a point in time.
pub(super) fn since(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(then) => age::short(now.as_second() - then.as_second()),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// The age of the object itself.
pub(super) fn object_age(object: &Value, now: Timestamp) -> Value {
    let created = object["metadata"]["creationTimestamp"].as_str();
    created.map_or_else(|| "<unknown>".into(), |text| since(text, now).into())
}

/// The name, then what the definition says; the age when it says nothing.
fn declared(columns: &[PrinterColumn]) -> Vec<Column> {
    let mut out = vec![definition("Name", "string", "name", NAME_DESCRIPTION, 0, Cell::Name)];
    if columns.is_empty() {
        out.push(definition("Age", "date", "", AGE_DESCRIPTION, 0, Cell::Computed(object_age)));
    }
    for column in columns {
        let type_ = ColumnType::parse(&column.type_);
        // A path that does not parse was refused with the CRD; should one slip through its column stays empty.
        let cell = match parse_json_path(&standard_path(&column.json_path)) {
            Ok(query) => Cell::Path { query: Box::new(query), type_ },
            Err(_) => Cell::Computed(|_, _| Value::Null),
        };
        out.push(definition(&column.name, &column.type_, &column.format, &column.description, column.priority, cell));
    }
    out
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace.";
const AGE_DESCRIPTION: &str = "Time since the object was created.";

pub(super) fn definition(
    name: &str,
    type_: &str,
    format: &str,
    description: &str,
    priority: i32,
    cell: Cell,
) -> Column {
    let definition = json!({
        "name": name, "type": type_, "format": format, "description": description, "priority": priority,
    });
    Column { definition, cell }
}

/// Kubernetes' JSONPath as RFC 9535 has it: a root in front, braces gone, an escaped dot turned into a quoted name.
fn standard_path(path: &str) -> String {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}');
    let mut out = String::from("$");
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    if !rest.starts_with(['.', '[']) {
        out.push('.');
    }
    while let Some(at) = rest.find("\\.") {
        // The name with escaped dots reaches from the last plain dot before to the next plain dot or bracket after.
        let start = rest[..at].rfind('.').map_or(0, |dot| dot + 1);
        out.push_str(rest[..start].strip_suffix('.').unwrap_or(&rest[..start]));
        let name = &rest[start..];
        let end = end_of_escaped(name);
        out.push_str(&format!("['{}']", name[..end].replace("\\.", ".").replace('\'', "\\'")));
        rest = &name[end..];
    }
    out.push_str(rest);
    out
}

fn end_of_escaped(name: &str) -> usize {
    let bytes = name.as_bytes();
    (0..bytes.len())
        .find(|&i| bytes[i] == b'[' || (bytes[i] == b'.' && (i == 0 || bytes[i - 1] != b'\\')))
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    fn table(columns: &[PrinterColumn], include: IncludeObject) -> Table {
        Table { columns: declared(columns), version: "v1", include }
    }

    fn column(type_: &str, json_path: &str) -> PrinterColumn {
        PrinterColumn {
            name: "C".to_owned(),
            type_: type_.to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            json_path: json_path.to_owned(),
        }
    }

    fn now() -> Timestamp {
        "2026-01-02T00:00:00Z".parse().expect("a time")
    }

    #[rstest]
    #[case("string", ".spec.text", json!("hello"))]
    #[case("string", ".spec.count", json!("3"))]
    #[case("string", ".spec.list[*]", json!("1 2"))]
    #[case("string", ".spec.absent", Value::Null)]
    #[case("string", r#".status.conditions[?(@.type=="Ready")].status"#, json!("True"))]
    #[case("string", r#".status.conditions[?(@.type=='Absent')].status"#, Value::Null)]
    #[case("string", r".metadata.labels.app\.example\.dev/name", json!("x"))]
    #[case("integer", ".spec.count", json!(3))]
    #[case("integer", ".spec.ratio", json!(1))]
    #[case("integer", ".spec.text", Value::Null)]
    #[case("number", ".spec.ratio", json!(1.5))]
    #[case("boolean", ".spec.on", json!(true))]
    #[case("date", ".metadata.creationTimestamp", json!("24h"))]
    #[case("date", ".spec.text", json!("<invalid>"))]
    #[case("date", ".spec.absent", Value::Null)]
    fn makes_cells(#[case] type_: &str, #[case] path: &str, #[case] expected: Value) {
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app.example.dev/name": "x"}},
            "spec": {"text": "hello", "count": 3, "ratio": 1.5, "on": true, "list": [1, 2]},
            "status": {"conditions": [{"type": "Old", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let table = table(&[column(type_, path)], IncludeObject::None);
        let table = table.of(json!({}), [&object].into_iter(), now(), true);
        assert_eq!(table["rows"][0], json!({"cells": ["a", expected]}));
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    }

    #[test]
    fn a_kind_without_columns_shows_its_age() {
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T23:55:00Z"}, "spec": {}});
        let table = table(&[], IncludeObject::Metadata);
        let table = table.of(json!({"resourceVersion": "7"}), [&object].into_iter(), now(), true);
        assert_eq!(table["rows"][0]["cells"], json!(["a", "5m"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["rows"][0]["object"].get("spec"), None);
        assert_eq!(table["metadata"]["resourceVersion"], "7");
    }

    #[rstest]
    #[case(".spec.x", "$.spec.x")]
    #[case("{.spec.x}", "$.spec.x")]
    #[case("spec.x", "$.spec.x")]
    #[case(r".a.b\.c.d", "$.a['b.c'].d")]
    #[case(r".a.b\.c\.d[0]", "$.a['b.c.d'][0]")]
    fn reads_kubernetes_paths(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(standard_path(path), expected);
    }
}
