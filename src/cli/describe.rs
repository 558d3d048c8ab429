//! `gaia describe`: everything about an object, for people: what is wanted, what was seen, what happened.

use std::io::Write;

use clap::Args;
use kube::core::params::ListParams;
use serde_json::Value;

use super::{
    CliError, Outcome,
    catalogue::{Catalogue, Kind},
    error::while_,
    get::{self, PickArgs},
    print,
    session::{ServerArgs, Session},
    table,
    target::{self, ScopeArgs},
};

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// A kind and names, or `kind/name` …
    #[arg(required = true, value_name = "KIND [NAME] | KIND/NAME")]
    targets: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    pick: PickArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: DescribeArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let catalogue = Catalogue::fetch(&session).await?;
    let mut failures = Vec::new();
    let mut first = true;
    for target in target::parse(&args.targets, &catalogue)? {
        let found = get::fetch(&session, &target, &args.pick, args.scope.namespace()?).await;
        for (kind, object) in found.unwrap_or_else(|e| {
            failures.push(e);
            Vec::new()
        }) {
            let events = events(&session, &kind, &object).await.unwrap_or_else(|e| {
                failures.push(e);
                Vec::new()
            });
            if !first {
                writeln!(out, "\n")?;
            }
            first = false;
            out.write_all(describe(&object, &events)?.as_bytes())?;
        }
    }
    print::failures(failures)
}

/// The events about an object, oldest first.
async fn events(session: &Session, kind: &Kind, object: &Value) -> Result<Vec<Value>, CliError> {
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    // Events about cluster-scoped objects are kept in `default`.
    let namespace = print::namespace(object).unwrap_or("default");
    let requests = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/events"));
    let request = requests.list(&params).map_err(|e| CliError::Usage(e.to_string()))?;
    let doing = format!("cannot list the events of {kind}/{}", print::name(object));
    let mut list = session.ask(request).await.map_err(while_(doing))?;
    let Value::Array(mut events) = list["items"].take() else { return Ok(Vec::new()) };
    events.sort_by(|a, b| last_seen(a).cmp(last_seen(b)));
    Ok(events)
}

fn last_seen(event: &Value) -> &str {
    let times = [&event["lastTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]];
    times.into_iter().find_map(Value::as_str).unwrap_or_default()
}

fn describe(object: &Value, events: &[Value]) -> Result<String, CliError> {
    let metadata = &object["metadata"];
    let mut head = vec![line("Name", metadata["name"].as_str().unwrap_or_default())];
    head.extend(print::namespace(object).map(|n| line("Namespace", n)));
    head.push(line("Kind", &format!("{} ({})", table::text(&object["kind"]), table::text(&object["apiVersion"]))));
    for (name, field) in [("Labels", "labels"), ("Annotations", "annotations")] {
        head.extend(pairs(&metadata[field]).map(|text| line(name, &text)));
    }
    head.push(line("Created", &table::text(&metadata["creationTimestamp"])));
    for (name, field) in [("Generation", "generation"), ("Deletion asked", "deletionTimestamp")] {
        head.extend((!metadata[field].is_null()).then(|| line(name, &table::text(&metadata[field]))));
    }
    let mut text = table::align(head);
    for (name, field) in [("Spec", "spec"), ("Data", "data")] {
        section(&mut text, name, &object[field])?;
    }
    let mut status = object["status"].clone();
    let conditions = status.as_object_mut().and_then(|s| s.remove("conditions")).unwrap_or_default();
    section(&mut text, "Status", &status)?;
    rows(&mut text, "Conditions", ["Type", "Status", "Reason", "Since", "Message"], conditions.as_array(), |c| {
        ["type", "status", "reason", "lastTransitionTime", "message"].map(|field| table::text(&c[field]))
    });
    rows(&mut text, "Events", ["Last seen", "Type", "Reason", "Count", "Message"], Some(&events.to_vec()), |e| {
        let [kind, reason, count, message] = ["type", "reason", "count", "message"].map(|f| table::text(&e[f]));
        [last_seen(e).to_owned(), kind, reason, count, message]
    });
    Ok(text)
}

fn line(name: &str, value: &str) -> Vec<String> {
    vec![format!("{name}:"), value.to_owned()]
}

/// `a=1, b=2`; none when there are none.
fn pairs(map: &Value) -> Option<String> {
    let pairs: Vec<_> = map.as_object()?.iter().map(|(key, value)| format!("{key}={}", table::text(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join(", "))
}

fn section(text: &mut String, name: &str, value: &Value) -> Result<(), CliError> {
    if value.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    text.push_str(&format!("{name}:\n"));
    for line in print::yaml(value)?.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    Ok(())
}

fn rows<const N: usize>(
    text: &mut String,
    name: &str,
    header: [&str; N],
    items: Option<&Vec<Value>>,
    cells: impl Fn(&Value) -> [String; N],
) {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        text.push_str(&format!("{name}: <none>\n"));
        return;
    };
    let lines = std::iter::once(header.map(str::to_owned)).chain(items.iter().map(cells));
    text.push_str(&format!("{name}:\n"));
    for line in table::align(lines.map(Vec::from).collect()).lines() {
        text.push_str(&format!("  {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tells_wish_observation_and_history() {
        let object = json!({
            "apiVersion": "gaia.dev/v1alpha1", "kind": "Workload",
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "x"}, "generation": 2},
            "spec": {"active": "live"},
            "status": {"active": "live", "conditions": [
                {"type": "Ready", "status": "True", "reason": "Running", "message": "all well"}]},
        });
        let event = json!({"type": "Normal", "reason": "Started", "message": "started web-live", "count": 1,
            "lastTimestamp": "2026-11-20T10:00:00Z"});
        insta::assert_snapshot!(describe(&object, &[event]).expect("YAML"));
    }

    #[test]
    fn says_when_there_are_no_conditions_and_events() {
        let text = describe(&json!({"kind": "X", "metadata": {"name": "a"}}), &[]).expect("YAML");
        assert!(text.ends_with("Conditions: <none>\nEvents: <none>\n"), "{text}");
    }
}
