//! Columns of the built-in kinds whose cells are computed rather than looked up.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table::{Cell, Column, definition, object_age, since};
use crate::registry::Kind;

/// None when the kind's own columns say everything.
pub(super) fn of(kind: &Kind) -> Option<Vec<Column>> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("" | "events.k8s.io", "Event") => Some(events()),
        ("", "Namespace") => Some(vec![name(), string("Status", 0, |o, _| o["status"]["phase"].clone()), age()]),
        ("", "ConfigMap") => Some(vec![name(), string("Data", 0, entries), age()]),
        ("", "Secret") => {
            Some(vec![name(), string("Type", 0, |o, _| o["type"].clone()), string("Data", 0, entries), age()])
        }
        ("coordination.k8s.io", "Lease") => {
            Some(vec![name(), string("Holder", 0, |o, _| o["spec"]["holderIdentity"].clone()), age()])
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Some(vec![
            name(),
            definition(
                "Created At",
                "date",
                "",
                "",
                0,
                Cell::Computed(|o, _| o["metadata"]["creationTimestamp"].clone()),
            ),
        ]),
        _ => None,
    }
}

fn name() -> Column {
    definition("Name", "string", "name", "Name must be unique within a namespace.", 0, Cell::Name)
}

fn age() -> Column {
    string("Age", 0, object_age)
}

fn string(name: &str, priority: i32, make: fn(&Value, Timestamp) -> Value) -> Column {
    definition(name, "string", "", "", priority, Cell::Computed(make))
}

/// Events lead with when, and have no use for their own names but in the wide form. Both versions of the API, which
/// call the same things differently.
fn events() -> Vec<Column> {
    vec![
        string("Last Seen", 0, |o, now| last_seen(o).map_or_else(|| "<unknown>".into(), |t| since(t, now).into())),
        string("Type", 0, |o, _| o["type"].clone()),
        string("Reason", 0, |o, _| o["reason"].clone()),
        string("Object", 0, |o, _| regarding(o)),
        string("Subobject", 1, |o, _| involved(o)["fieldPath"].clone()),
        string("Source", 1, |o, _| source(o)),
        string("Message", 0, |o, _| either(o, "message", "note").as_str().unwrap_or_default().trim().into()),
        string("First Seen", 1, |o, now| first_seen(o).map_or_else(|| "<unknown>".into(), |t| since(t, now).into())),
        string("Count", 1, |o, _| count(o)),
        definition("Name", "string", "name", "", 1, Cell::Name),
    ]
}

fn either<'a>(event: &'a Value, core: &str, newer: &str) -> &'a Value {
    event.get(core).filter(|value| !value.is_null()).unwrap_or(&event[newer])
}

fn involved(event: &Value) -> &Value {
    either(event, "involvedObject", "regarding")
}

fn regarding(event: &Value) -> Value {
    let object = involved(event);
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    match object["name"].as_str() {
        Some(name) if !name.is_empty() => format!("{kind}/{name}").into(),
        _ => kind.into(),
    }
}

fn last_seen(event: &Value) -> Option<&str> {
    [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["deprecatedLastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ]
    .into_iter()
    .find_map(Value::as_str)
}

fn first_seen(event: &Value) -> Option<&str> {
    [
        &event["firstTimestamp"],
        &event["deprecatedFirstTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ]
    .into_iter()
    .find_map(Value::as_str)
}

fn source(event: &Value) -> Value {
    let source = either(event, "source", "deprecatedSource");
    let component = source["component"].as_str().filter(|c| !c.is_empty());
    let component = component.or_else(|| either(event, "reportingComponent", "reportingController").as_str());
    match (component, source["host"].as_str().filter(|host| !host.is_empty())) {
        (Some(component), Some(host)) => format!("{component}, {host}").into(),
        (Some(component), None) => component.into(),
        (None, _) => "".into(),
    }
}

fn count(event: &Value) -> Value {
    let count = event["series"]["count"].as_i64().or_else(|| either(event, "count", "deprecatedCount").as_i64());
    json!(count.unwrap_or(1))
}

fn entries(object: &Value, _: Timestamp) -> Value {
    let of = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    json!(of("data") + of("binaryData"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(event: &Value) -> Vec<Value> {
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        events()
            .iter()
            .filter(|column| column.definition["priority"] == 0)
            .map(|column| match &column.cell {
                Cell::Computed(make) => make(event, now),
                Cell::Name | Cell::Path { .. } => unreachable!("the short columns of events are all computed"),
            })
            .collect()
    }

    #[test]
    fn both_versions_of_an_event_print_alike() {
        let core = json!({
            "type": "Warning", "reason": "Failed", "message": "no image ", "lastTimestamp": "2026-01-01T00:05:00Z",
            "involvedObject": {"kind": "Workload", "name": "web"},
        });
        let newer = json!({
            "type": "Warning", "reason": "Failed", "note": "no image", "eventTime": "2026-01-01T00:05:00.000000Z",
            "regarding": {"kind": "Workload", "name": "web"}, "lastTimestamp": null,
        });
        let expected = vec![json!("5m"), json!("Warning"), json!("Failed"), json!("workload/web"), json!("no image")];
        assert_eq!(cells(&core), expected);
        assert_eq!(cells(&newer), expected);
    }
}
