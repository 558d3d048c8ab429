//! The plan: what would be done, from nothing and from a server, and that nothing is.

use std::{fs, path::Path};

use serde_json::Value;

use crate::program::{Server, complaint, run, stdout};

/// A server that nobody is.
const NOBODY: &str = "http://127.0.0.1:1";

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Two workloads, the second of which needs the first.
fn write(directory: &Path, image: &str) {
    let workload = |name: &str, image: &str, more: &str| {
        format!(
            "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  live: {{container: {{image: {image}}}}}\n{more}"
        )
    };
    fs::write(directory.join("db.yaml"), workload("db", image, "")).expect("written");
    let needs = "  dependsOn: [{workload: db}]\n";
    fs::write(directory.join("web.yaml"), workload("web", "nginx:1", needs)).expect("written");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn from_nothing_everything_is_made_in_order() {
    let files = dir();
    write(files.path(), "postgres:1");
    let args = ["plan", "-f", text(files.path()), "--server", NOBODY, "--reality", "simulated", "-o", "json"];
    let plan: Value = serde_json::from_str(stdout(&run(&args))).expect("JSON");
    let steps: Vec<_> = plan["steps"].as_array().expect("steps").iter().filter_map(Value::as_str).collect();
    let place =
        |step: &str| steps.iter().position(|s| *s == step).unwrap_or_else(|| panic!("no {step:?} in {steps:#?}"));
    assert!(place("pull image postgres:1") < place("create container db-live from postgres:1"));
    assert!(place("create container db-live from postgres:1") < place("start container db-live"));
    assert!(place("start container db-live") < place("start container web-live"), "web needs db");
    assert_eq!((&plan["settled"], &plan["notReady"]), (&Value::Bool(true), &Value::Array(Vec::new())));
    let output = run(&[&args[..7], &["--detailed-exitcode"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("  1. "), "numbered");
}

#[test]
fn on_a_server_only_the_difference_is_planned_and_nothing_is_done() {
    let (files, data) = (dir(), dir());
    write(files.path(), "postgres:1");
    let server = Server::start(data.path());
    server.says(&["apply", "-f", text(files.path())]);
    let watch = server.follow(&["watch", "workloads"]);
    for name in ["db", "web"] {
        watch.line("ready", |line| line.contains(&format!("/{name} ")) && line.contains("Ready=True"));
    }
    let plan = ["plan", "-f", text(files.path()), "--reality", "simulated", "--detailed-exitcode"];
    assert_eq!(server.says(&plan), "Nothing to do.\n");

    write(files.path(), "postgres:2");
    let before = server.says(&["get", "workloads", "-o", "json"]);
    let output = server.gaia(&plan);
    let steps = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{steps}");
    for step in ["pull image postgres:2", "stop container db-live", "create container db-live from postgres:2"] {
        assert!(steps.contains(step), "no {step:?} in:\n{steps}");
    }
    assert!(!steps.contains("nginx"), "web stays as it is:\n{steps}");
    assert_eq!(server.says(&["get", "workloads", "-o", "json"]), before, "a plan changes nothing");
}

#[test]
fn what_the_files_of_a_server_no_longer_hold_is_removed() {
    let (files, data) = (dir(), dir());
    write(files.path(), "postgres:1");
    let server = Server::start_with(data.path(), &["--desired", text(files.path())]);
    let watch = server.follow(&["watch", "workloads"]);
    for name in ["db", "web"] {
        watch.line("ready", |line| line.contains(&format!("/{name} ")) && line.contains("Ready=True"));
    }
    let other = dir();
    write(other.path(), "postgres:1");
    fs::remove_file(other.path().join("web.yaml")).expect("written before");
    let steps = server.says(&["plan", "-f", text(other.path()), "--reality", "simulated"]);
    assert!(steps.contains("remove container web-live") && !steps.contains("db-live"), "{steps}");
    server.says(&["get", "workload/web"]);
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    let files = dir();
    write(files.path(), "postgres:1");
    fs::write(files.path().join("bad.yaml"), "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: [}\n")
        .expect("written");
    let args = ["plan", "-f", text(files.path()), "--server", NOBODY, "--reality", "simulated"];
    let output = run(&args);
    assert!(complaint(&output, 1).contains("bad.yaml:3"), "{}", complaint(&output, 1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("start container web-live"), "the rest is planned");
    complaint(&run(&["plan", "-f", "/nowhere"]), 2);
}
