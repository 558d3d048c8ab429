//! Into which steps a document falls apart, and which waits for which: contract sections 3.3 to 3.5.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    Refused,
    document::{at, is_something, normal},
    python,
};

/// What one worker does.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// By what name others refer to it; none: its document is all there is.
    pub node: Option<String>,
    /// What the worker gets, placeholders unresolved.
    pub document: Value,
    pub depends_on: Vec<Dependency>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependency {
    /// By its place among the steps; always an earlier one.
    Step(usize),
    /// The id of a task that was submitted before. It need not be known.
    Task(String),
}

/// The steps of a document that was [checked](super::document::check), each after those it depends on.
pub fn expand(document: &Value) -> Result<Vec<Step>, Refused> {
    if let Some(nodes) = at(document, "spec.graph.nodes").filter(|nodes| is_something(nodes)) {
        return graph(document, nodes.as_array().ok_or_else(|| Refused::new("spec.graph.nodes must be a list"))?);
    }
    match at(document, "spec.stages").filter(|stages| is_something(stages)) {
        Some(stages) => {
            stages_of(document, stages.as_array().ok_or_else(|| Refused::new("spec.stages must be a list"))?)
        }
        None => single(document),
    }
}

fn single(document: &Value) -> Result<Vec<Step>, Refused> {
    let named = names(at(document, "spec.dependsOn"), || "spec.dependsOn must be a list of task_ids".to_owned())?;
    let depends_on = named.into_iter().map(Dependency::Task).collect();
    Ok(vec![Step { node: None, document: normal(base(document))?, depends_on }])
}

/// One after another; what a stage names beside that is an earlier stage, or a task.
fn stages_of(document: &Value, stages: &[Value]) -> Result<Vec<Step>, Refused> {
    let all: Vec<String> = stages.iter().enumerate().map(|(n, stage)| stage_name(stage, n)).collect();
    let mut steps = Vec::with_capacity(stages.len());
    for (n, stage) in stages.iter().enumerate() {
        let stage = stage.as_object().ok_or_else(|| Refused::new(format!("spec.stages[{n}] must be a map")))?;
        let name = &all[n];
        let mut depends_on: Vec<Dependency> = n.checked_sub(1).map(Dependency::Step).into_iter().collect();
        for named in names(stage.get("dependsOn"), || "stage.dependsOn must be a list".to_owned())? {
            // Of several of one name the last before counts, as in placeholders.
            let dependency = match all[..n].iter().rposition(|earlier| *earlier == named) {
                Some(earlier) => Dependency::Step(earlier),
                None if all[n..].contains(&named) => {
                    return Err(Refused::new(format!(
                        "stage '{name}' depends on '{named}', which does not come before it"
                    )));
                }
                None => Dependency::Task(named),
            };
            add(&mut depends_on, dependency);
        }
        let document = merged(document, name, stage).map_err(|why| in_step("stage", name, &why))?;
        steps.push(Step { node: Some(name.clone()), document, depends_on });
    }
    Ok(steps)
}

fn stage_name(stage: &Value, n: usize) -> String {
    let named = stage.get("name").filter(|name| is_something(name)).map(python::text);
    named.unwrap_or_else(|| format!("stage-{}", n + 1))
}

struct Node<'d> {
    name: String,
    overrides: &'d Map<String, Value>,
    depends_on: Vec<String>,
}

fn graph(document: &Value, nodes: &[Value]) -> Result<Vec<Step>, Refused> {
    let nodes = read_nodes(nodes)?;
    let all: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let mut placed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut steps = Vec::with_capacity(nodes.len());
    // In the order of the document, again and again, as long as a node finds all before it.
    loop {
        let before = steps.len();
        for node in &nodes {
            let ready = node.depends_on.iter().all(|on| placed.contains_key(on.as_str()) || !all.contains(on.as_str()));
            if !ready || placed.contains_key(node.name.as_str()) {
                continue;
            }
            let mut depends_on = Vec::new();
            for on in &node.depends_on {
                let dependency = placed.get(on.as_str()).copied().map(Dependency::Step);
                add(&mut depends_on, dependency.unwrap_or_else(|| Dependency::Task(on.clone())));
            }
            let document =
                merged(document, &node.name, node.overrides).map_err(|why| in_step("node", &node.name, &why))?;
            placed.insert(&node.name, steps.len());
            steps.push(Step { node: Some(node.name.clone()), document, depends_on });
        }
        if steps.len() == before {
            break;
        }
    }
    let left: Vec<&str> =
        nodes.iter().map(|node| node.name.as_str()).filter(|name| !placed.contains_key(name)).collect();
    match left.is_empty() {
        true => Ok(steps),
        false => Err(Refused::new(format!("Graph contains cycles or unresolved deps: {}", left.join(", ")))),
    }
}

fn read_nodes(nodes: &[Value]) -> Result<Vec<Node<'_>>, Refused> {
    let mut read: Vec<Node<'_>> = Vec::with_capacity(nodes.len());
    for (n, node) in nodes.iter().enumerate() {
        let overrides = node.as_object().ok_or_else(|| Refused::new(format!("spec.graph.nodes[{n}] must be a map")))?;
        let given = ["name", "id"].iter().find_map(|key| node.get(key).filter(|name| is_something(name)));
        let name = given.map_or_else(|| format!("node-{}", n + 1), python::text).trim().to_owned();
        if name.is_empty() {
            return Err(Refused::new("Each graph node requires a non-empty name"));
        }
        if read.iter().any(|earlier| earlier.name == name) {
            return Err(Refused::new(format!("Duplicate graph node name '{name}'")));
        }
        let depends_on = names(node.get("dependsOn"), || format!("Node '{name}' dependsOn must be a list"))?;
        read.push(Node { name, overrides, depends_on });
    }
    Ok(read)
}

/// The texts of a list, trimmed; blank ones do not count. Nothing is no list, and no fault.
fn names(value: Option<&Value>, fault: impl Fn() -> String) -> Result<Vec<String>, Refused> {
    match value.filter(|value| is_something(value)) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            Ok(items.iter().map(|item| python::text(item).trim().to_owned()).filter(|name| !name.is_empty()).collect())
        }
        Some(_) => Err(Refused::new(fault())),
    }
}

fn add(depends_on: &mut Vec<Dependency>, dependency: Dependency) {
    if !depends_on.contains(&dependency) {
        depends_on.push(dependency);
    }
}

/// What all steps share.
fn base(document: &Value) -> Value {
    let mut base = document.clone();
    if let Some(spec) = base.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("stages");
        spec.remove("graph");
    }
    base
}

fn merged(document: &Value, name: &str, overrides: &Map<String, Value>) -> Result<Value, Refused> {
    let mut merged = base(document);
    let whole = at(document, "metadata.name").map(python::text).unwrap_or_default();
    if let Some(spec) = overrides.get("spec").filter(|spec| is_something(spec)) {
        if !spec.is_object() {
            return Err(Refused::new("spec must be a map"));
        }
        merge(&mut merged, &json!({"spec": spec}));
    }
    merged["metadata"]["name"] = json!(format!("{whole}:{name}"));
    let mut merged = base(&merged);
    // Of the whole, whose steps have dependencies of their own.
    if let Some(spec) = merged.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("dependsOn");
    }
    normal(merged)
}

/// Maps go together, anything else takes the place of what was there.
fn merge(into: &mut Value, other: &Value) {
    match (into, other) {
        (Value::Object(into), Value::Object(other)) => {
            for (key, value) in other {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, other) => *into = other.clone(),
    }
}

fn in_step(what: &str, name: &str, why: &Refused) -> Refused {
    Refused::new(format!("{what} '{name}': {why}"))
}

#[cfg(test)]
mod tests;
