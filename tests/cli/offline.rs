//! Commands that need no server.

use serde_json::Value;

use crate::{
    port::own_port,
    program::{complaint, gaia, run, stdout},
};

#[test]
fn help_names_the_commands_and_version_is_the_packages() {
    let output = run(&["--help"]);
    for command in [
        "serve",
        "demo",
        "get",
        "describe",
        "watch",
        "apply",
        "diff",
        "delete",
        "plan",
        "kubeconfig",
        "crds",
        "completion",
    ] {
        assert!(stdout(&output).contains(command), "{command} is not in the help");
    }
    assert_eq!(stdout(&run(&["--version"])), format!("gaia {}\n", env!("CARGO_PKG_VERSION")));
    complaint(&run(&[]), 2);
    complaint(&run(&["no-such-command"]), 2);
}

#[test]
fn completion_scripts_are_for_their_shells() {
    for (shell, sign) in [("bash", "complete -F _gaia"), ("zsh", "#compdef gaia"), ("fish", "complete -c gaia")] {
        let output = run(&["completion", shell]);
        assert!(stdout(&output).contains(sign), "no {sign:?} for {shell}");
    }
    complaint(&run(&["completion", "tcsh"]), 2);
}

#[test]
fn the_bash_script_is_valid_bash() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = dir.path().join("gaia.bash");
    std::fs::write(&script, run(&["completion", "bash"]).stdout).expect("written");
    let checked = std::process::Command::new("bash").arg("-n").arg(&script).output().expect("bash runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn crds_are_yaml_documents_of_our_group() {
    let output = run(&["crds"]);
    let documents: Vec<Value> = serde_saphyr::from_multiple(stdout(&output)).expect("YAML");
    let kinds: Vec<_> = documents.iter().map(|d| d["spec"]["names"]["kind"].as_str().unwrap_or_default()).collect();
    assert!(kinds.contains(&"Workload") && kinds.contains(&"Source"), "{kinds:?}");
    for document in &documents {
        assert_eq!(document["kind"], "CustomResourceDefinition");
        assert_eq!(document["spec"]["group"], "gaia.dev");
    }
}

#[test]
fn crds_go_to_one_file_per_kind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = gaia().args(["crds", "-o"]).arg(dir.path().join("new")).output().expect("the binary runs");
    assert!(stdout(&output).contains("workloads.gaia.dev.yaml"));
    let text = std::fs::read_to_string(dir.path().join("new/workloads.gaia.dev.yaml")).expect("written");
    let crd: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(crd["metadata"]["name"], "workloads.gaia.dev");
}

#[test]
fn kubeconfig_takes_server_and_token_from_flag_or_environment() {
    let output =
        gaia().args(["kubeconfig"]).env("GAIA_SERVER", "http://h:1").env("GAIA_TOKEN", "t").output().expect("runs");
    let config: Value = serde_saphyr::from_str(stdout(&output)).expect("YAML");
    assert_eq!(config["clusters"][0]["cluster"]["server"], "http://h:1");
    assert_eq!(config["users"][0]["user"]["token"], "t");
    complaint(&run(&["kubeconfig", "--server", "ftp://h"]), 2);
}

#[test]
fn kubeconfig_says_that_kubectl_keeps_a_token_from_plain_http() {
    let said = |args: &[&str]| {
        let output = run(&[&["kubeconfig", "--server"], args].concat());
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(said(&["http://h:1", "--token", "t"]).starts_with("Warning: kubectl sends no token over http://"));
    assert_eq!(said(&["http://h:1"]), "");
    assert_eq!(said(&["https://h:1", "--token", "t"]), "");
}

#[test]
fn the_token_in_the_environment_is_not_in_the_help() {
    let output = gaia().args(["kubeconfig", "--help"]).env("GAIA_TOKEN", "very-secret").output().expect("runs");
    assert!(!stdout(&output).contains("very-secret"));
}

#[test]
fn a_kubeconfig_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("config");
    let output = gaia().args(["kubeconfig", "--token", "t", "-o"]).arg(&path).output().expect("runs");
    assert_eq!(stdout(&output), "");
    assert_eq!(std::fs::metadata(&path).expect("written").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let server = format!("http://127.0.0.1:{}", own_port());
    let text = complaint(&run(&["get", "workloads", "--server", &server]), 1).to_owned();
    assert!(text.contains(&format!("cannot reach {server}")) && text.contains("refused"), "{text}");
}

#[test]
fn diff_keeps_one_for_differences() {
    complaint(&run(&["diff", "-f", "/nowhere.yaml"]), 2);
    complaint(&run(&["apply", "-f", "/nowhere.yaml"]), 1);
    complaint(&run(&["apply"]), 2);
}

#[test]
fn a_manifest_that_is_no_object_is_refused_with_its_line_before_anything_is_sent() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("a.yaml"), "---\nkind: Workload\n").expect("written");
    let path = dir.path().to_str().expect("UTF-8");
    let text = complaint(&run(&["apply", "-f", path]), 1).to_owned();
    assert!(text.contains("a.yaml:2: apiVersion is missing"), "{text}");
}
