use rstest::rstest;

use super::*;
use crate::mloc::document::{check, parse};

fn steps(spec: &str) -> Result<Vec<Step>, Refused> {
    let text = format!(
        "apiVersion: mloc/v1\nkind: T\nmetadata: {{name: base, owner: me}}\nspec:\n  taskType: inference\n  \
         resources: {{replicas: 1, hardware: {{cpu: 4, memory: 16GiB}}}}\n  model: {{name: m, args: [1, 2]}}\n{spec}"
    );
    let document = parse(&text).expect("YAML");
    check(&document).expect("complete");
    expand(&document)
}

fn outline(steps: &[Step]) -> Vec<(&str, Vec<String>)> {
    let told = |dependency: &Dependency| match dependency {
        Dependency::Step(n) => format!("#{n}"),
        Dependency::Task(id) => id.clone(),
    };
    steps.iter().map(|step| (step.node.as_deref().unwrap_or("-"), step.depends_on.iter().map(told).collect())).collect()
}

#[test]
fn a_single_step_waits_for_tasks_by_id() {
    let steps = steps("  dependsOn: [' a ', '', b, 7]").expect("good");
    assert_eq!(outline(&steps), [("-", vec!["a".to_owned(), "b".to_owned(), "7".to_owned()])]);
    assert_eq!(steps[0].document["metadata"], json!({"name": "base", "owner": "me"}));
}

#[test]
fn empty_stages_and_graphs_are_none() {
    let steps = steps("  stages: []\n  graph: {nodes: []}").expect("good");
    assert_eq!(outline(&steps), [("-", vec![])]);
    assert_eq!(steps[0].document["spec"].get("stages"), None);
    assert_eq!(steps[0].document["spec"].get("graph"), None);
}

#[test]
fn stages_follow_one_another_and_override_what_they_share() {
    let spec = "  dependsOn: [ignored]
  stages:
  - name: one
    spec: {model: {name: other}, resources: {hardware: {cpu: 8}}}
  - spec: {model: {args: [3]}}
  - name: three
    dependsOn: [one, elsewhere, stage-2]
";
    let steps = steps(spec).expect("good");
    let three = vec!["#1".to_owned(), "#0".to_owned(), "elsewhere".to_owned()];
    assert_eq!(outline(&steps), [("one", vec![]), ("stage-2", vec!["#0".to_owned()]), ("three", three)]);
    assert_eq!(steps[0].document["metadata"]["name"], "base:one");
    assert_eq!(steps[0].document["spec"]["model"], json!({"name": "other", "args": [1, 2]}));
    assert_eq!(steps[0].document["spec"]["resources"]["hardware"], json!({"cpu": 8, "memory": "16GiB"}));
    assert_eq!(steps[1].document["spec"]["model"], json!({"name": "m", "args": [3]}));
    assert!(steps.iter().all(|step| step.document["spec"].get("stages").is_none()));
    assert!(steps.iter().all(|step| step.document["spec"].get("dependsOn").is_none()));
}

#[test]
fn nodes_come_after_what_they_depend_on() {
    let spec = "  stages: [{name: passed over}]
  graph:
    nodes:
    - {name: synthesis, dependsOn: [a, b, outside]}
    - {id: a}
    - {name: b, dependsOn: [a], spec: {taskType: echo}}
";
    let steps = steps(spec).expect("good");
    let all = vec!["#0".to_owned(), "#1".to_owned(), "outside".to_owned()];
    assert_eq!(outline(&steps), [("a", vec![]), ("b", vec!["#0".to_owned()]), ("synthesis", all)]);
    assert_eq!(steps[1].document["spec"]["taskType"], "echo");
}

#[rstest]
#[case("  dependsOn: a", "spec.dependsOn must be a list of task_ids")]
#[case("  stages: [{name: a, dependsOn: b}]", "stage.dependsOn must be a list")]
#[case("  stages: [{name: a}, b]", "spec.stages[1] must be a map")]
#[case("  stages: [{name: a, dependsOn: [b]}, {name: b}]", "stage 'a' depends on 'b', which does not come before it")]
#[case("  stages: [{name: a, spec: [1]}]", "stage 'a': spec must be a map")]
#[case("  stages: [{name: a, spec: {resources: 1}}]", "stage 'a': spec.resources must be a map")]
#[case("  graph: {nodes: [{name: ' '}]}", "Each graph node requires a non-empty name")]
#[case("  graph: {nodes: [{name: a}, {id: a}]}", "Duplicate graph node name 'a'")]
#[case("  graph: {nodes: [{name: a, dependsOn: b}]}", "Node 'a' dependsOn must be a list")]
#[case("  graph: {nodes: [a]}", "spec.graph.nodes[0] must be a map")]
#[case(
    "  graph: {nodes: [{name: a, dependsOn: [b]}, {name: b, dependsOn: [a]}, {name: c}]}",
    "Graph contains cycles or unresolved deps: a, b"
)]
#[case("  graph: {nodes: [{name: a, dependsOn: [a]}]}", "Graph contains cycles or unresolved deps: a")]
fn what_cannot_be_meant_is_refused(#[case] spec: &str, #[case] expected: &str) {
    assert_eq!(steps(spec).expect_err("must be refused").0, expected);
}
