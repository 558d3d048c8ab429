//! The client commands, each test against a real server of its own.

use std::{fs, process::Output};

use serde_json::Value;

use crate::program::{Server, complaint, stdout};

/// A namespace on a server.
struct Place {
    namespace: &'static str,
    server: Server,
    _data: tempfile::TempDir,
}

impl Place {
    fn new(namespace: &'static str) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(data.path());
        let manifest = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
        assert_eq!(server.apply(&manifest), format!("namespace/{namespace} created\n"));
        Self { namespace, server, _data: data }
    }

    fn gaia(&self, args: &[&str]) -> Output {
        self.server.gaia(&[args, &["-n", self.namespace]].concat())
    }

    fn says(&self, args: &[&str]) -> String {
        stdout(&self.gaia(args)).to_owned()
    }

    fn told(&self, args: &[&str], input: &str) -> Output {
        self.server.told(&[args, &["-n", self.namespace]].concat(), input)
    }

    fn apply(&self, manifest: &str) -> String {
        stdout(&self.told(&["apply", "-f", "-"], manifest)).to_owned()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[args, &["-o", "json"]].concat())).expect("JSON")
    }
}

fn config_map(name: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\ndata: {{key: \"v{value}\"}}\n"
    )
}

/// A workload that rests: its controller has nothing to do.
fn workload(name: &str) -> String {
    format!(
        "---\napiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  live: {{running: false, container: {{image: nginx}}}}\n"
    )
}

#[test]
fn get_shows_the_servers_table_in_every_form() {
    let place = Place::new("get");
    place.apply(&(config_map("one", "a") + &config_map("two", "b")));
    let table = place.says(&["get", "configmaps"]);
    let names: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names[0], "NAME");
    assert!(names.contains(&"one") && names.contains(&"two"), "{table}");
    assert_eq!(place.says(&["get", "cm/one", "-o", "name"]), "configmap/one\n");
    assert_eq!(place.says(&["get", "cm", "-l", "app=two", "-o", "name"]), "configmap/two\n");
    assert_eq!(place.says(&["get", "cm", "one", "two", "--no-headers"]).lines().count(), 2);
    assert_eq!(place.json(&["get", "cm", "one"])["data"]["key"], "va");
    let list = place.json(&["get", "cm", "-l", "app in (one,two)"]);
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"][1]["kind"], "ConfigMap");
    let yaml: Value = serde_saphyr::from_str(&place.says(&["get", "cm/two", "-o", "yaml"])).expect("YAML");
    assert_eq!(yaml["data"]["key"], "vb");
    let all = stdout(&place.server.gaia(&["get", "cm", "-A"])).to_owned();
    assert!(all.starts_with("NAMESPACE"), "{all}");
}

#[test]
fn our_kinds_answer_to_their_short_names() {
    let place = Place::new("short");
    assert_eq!(place.apply(&workload("web")), "workload.gaia.dev/web created\n");
    for name in ["workloads", "workload", "wl", "Workload", "workloads.gaia.dev"] {
        assert_eq!(place.says(&["get", name, "-o", "name"]), "workload.gaia.dev/web\n", "{name}");
    }
    assert_eq!(place.says(&["get", "all,workloads", "-o", "name"]).matches("workload.gaia.dev/web").count(), 1);
    assert!(place.says(&["get", "wl", "-o", "wide"]).lines().next().expect("a header").contains("NAME"));
}

#[test]
fn what_is_missing_is_an_error_and_does_not_hide_the_rest() {
    let place = Place::new("missing");
    place.apply(&config_map("here", "a"));
    let output = place.gaia(&["get", "cm/here", "cm/not-here"]);
    assert!(complaint(&output, 1).contains("configmaps \"not-here\" not found"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("here"));
    assert!(complaint(&place.gaia(&["get", "unicorns"]), 1).contains("no kind \"unicorns\""));
    complaint(&place.gaia(&["get", "cm/a/../b"]), 2);
    complaint(&place.gaia(&["get", "cm", "a", "-l", "x=y"]), 2);
    let output = place.gaia(&["get", "workloads"]);
    assert_eq!(stdout(&output), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("No resources found in missing namespace."));
}

#[test]
fn apply_says_what_became_of_each_object() {
    let place = Place::new("apply");
    assert_eq!(place.apply(&config_map("a", "1")), "configmap/a created\n");
    assert_eq!(place.apply(&config_map("a", "1")), "configmap/a unchanged\n");
    let dry = place.told(&["apply", "--dry-run", "-f", "-"], &config_map("a", "2"));
    assert_eq!(stdout(&dry), "configmap/a configured (dry run)\n");
    assert_eq!(place.json(&["get", "cm/a"])["data"]["key"], "v1", "a dry run keeps nothing");
    assert_eq!(place.apply(&config_map("a", "2")), "configmap/a configured\n");
    let fields = &place.json(&["get", "cm/a"])["metadata"]["managedFields"];
    assert!(fields.as_array().expect("a list").iter().any(|f| f["manager"] == "gaia-cli" && f["operation"] == "Apply"));
}

#[test]
fn apply_reads_directories_and_one_bad_object_does_not_stop_the_others() {
    let place = Place::new("directory");
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("1.yaml"), config_map("first", "a")).expect("written");
    fs::write(dir.path().join("2.yaml"), "# a comment\n".to_owned() + &workload("bad").replace("image: nginx", ""))
        .expect("written");
    fs::write(dir.path().join("3.yaml"), config_map("third", "c")).expect("written");
    let output = place.gaia(&["apply", "-f", dir.path().to_str().expect("UTF-8")]);
    let text = complaint(&output, 1);
    assert!(text.contains("2.yaml:") && text.contains("spec.live.container"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "configmap/first created\nconfigmap/third created\n");
}

#[test]
fn a_field_of_somebody_else_is_taken_only_by_force() {
    let place = Place::new("conflict");
    place.apply(&config_map("a", "1"));
    let path = format!("/api/v1/namespaces/{}/configmaps/a?fieldManager=other&force=true", place.namespace);
    let manifest = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": "theirs"}});
    let (code, body) = place.server.send("PATCH", &path, "application/apply-patch+yaml", &manifest.to_string());
    assert_eq!(code, 200, "{body}");
    let text = complaint(&place.told(&["apply", "-f", "-"], &config_map("a", "2")), 1).to_owned();
    assert!(text.contains("--force-conflicts") && text.contains(".data.key") && text.contains("other"), "{text}");
    let differs = place.told(&["diff", "-f", "-"], &config_map("a", "2"));
    assert_eq!(differs.status.code(), Some(1), "what differs is shown, whoever owns it");
    assert!(String::from_utf8_lossy(&differs.stdout).contains("-  key: theirs\n+  key: v2\n"));
    let forced = place.told(&["apply", "--force-conflicts", "-f", "-"], &config_map("a", "2"));
    assert_eq!(stdout(&forced), "configmap/a configured\n");
}

#[test]
fn diff_answers_as_diff_does() {
    let place = Place::new("diff");
    let manifest = config_map("a", "1");
    let new = place.told(&["diff", "-f", "-"], &manifest);
    assert_eq!(new.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&new.stdout).contains("+  key: v1"));
    place.apply(&manifest);
    let same = place.told(&["diff", "-f", "-"], &manifest);
    assert_eq!(stdout(&same), "");
    let other = place.told(&["diff", "-f", "-"], &config_map("a", "2"));
    let text = String::from_utf8_lossy(&other.stdout);
    assert_eq!(other.status.code(), Some(1), "{text}");
    assert!(text.contains("-  key: v1\n+  key: v2\n"), "{text}");
    assert!(text.contains("--- configmap/a (now)\n"), "{text}");
    complaint(&place.told(&["diff", "-f", "-"], &workload("x").replace("image", "imag")), 2);
}

#[test]
fn delete_waits_until_the_object_is_gone() {
    let place = Place::new("delete");
    place.apply(&(config_map("a", "1") + &config_map("b", "1") + &config_map("c", "1") + &config_map("d", "1")));
    assert_eq!(place.says(&["delete", "cm", "a"]), "configmap/a deleted\n");
    assert!(complaint(&place.gaia(&["delete", "cm/a"]), 1).contains("not found"));
    assert_eq!(place.says(&["delete", "cm/a", "--ignore-not-found"]), "");
    assert_eq!(place.says(&["delete", "cm", "-l", "app=b"]), "configmap/b deleted\n");
    let output = place.told(&["delete", "-f", "-"], &config_map("c", "1"));
    assert_eq!(stdout(&output), "configmap/c deleted\n");
    complaint(&place.gaia(&["delete", "cm"]), 2);
    complaint(&place.gaia(&["delete"]), 2);
    complaint(&place.gaia(&["get", "cm/c"]), 1);
    stdout(&place.gaia(&["get", "cm/d"]));
}

#[test]
fn delete_gives_up_waiting_but_not_deleting() {
    let place = Place::new("held");
    let held = config_map("a", "1").replace("labels:", "finalizers: [example.com/hold], labels:");
    place.apply(&held);
    let text = complaint(&place.gaia(&["delete", "cm/a", "--timeout", "1"]), 1).to_owned();
    assert!(text.contains("still being deleted after 1 s"), "{text}");
    assert!(place.json(&["get", "cm/a"])["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(place.says(&["delete", "cm/a", "--wait=false"]), "configmap/a deleted\n");
    let waiting = place.server.follow(&["delete", "cm/a", "-n", place.namespace]);
    waiting.line("deleted", |line| line == "configmap/a deleted");
    let path = format!("/api/v1/namespaces/{}/configmaps/a", place.namespace);
    let (code, body) =
        place.server.send("PATCH", &path, "application/merge-patch+json", r#"{"metadata":{"finalizers":null}}"#);
    assert_eq!(code, 200, "{body}");
    let (status, stderr) = waiting.end();
    assert!(status.success(), "{stderr}");
}

#[test]
fn watch_tells_each_change_on_a_line() {
    let place = Place::new("watch");
    place.apply(&config_map("a", "1"));
    let watch = place.server.follow(&["watch", "cm", "-n", place.namespace]);
    watch.line("what is there", |line| line.starts_with("ADDED    configmap/watch/a"));
    place.apply(&config_map("b", "1"));
    watch.line("what comes", |line| line.starts_with("ADDED    configmap/watch/b"));
    place.apply(&config_map("a", "2"));
    watch.line("what changes", |line| line.starts_with("MODIFIED configmap/watch/a"));
    place.says(&["delete", "cm", "a"]);
    watch.line("what goes", |line| line.starts_with("DELETED  configmap/watch/a"));
    let one = place.server.follow(&["watch", "cm/b", "-n", place.namespace, "-o", "json", "--only-changes"]);
    place.apply(&config_map("c", "1"));
    let ended = place.says(&["watch", "cm/b", "--timeout", "1", "-o", "json"]);
    let line: Value = serde_json::from_str(ended.trim()).expect("one JSON line");
    assert_eq!((&line["type"], &line["name"]), (&Value::from("ADDED"), &Value::from("b")));
    place.says(&["delete", "cm", "b"]);
    let line = one.line("the end of b", |line| line.contains("DELETED"));
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["name"], "b");
}

#[test]
fn describe_tells_spec_status_conditions_and_events() {
    let place = Place::new("describe");
    place.apply(&workload("web"));
    let (_, object) =
        place.server.http(&format!("/apis/gaia.dev/v1alpha1/namespaces/{}/workloads/web", place.namespace), "");
    let object: Value = serde_json::from_str(&object).expect("JSON");
    let event = serde_json::json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "web.1"}, "type": "Normal", "reason": "Looked",
        "message": "it rests", "count": 1, "lastTimestamp": "2026-11-20T10:00:00Z",
        "involvedObject": {"kind": "Workload", "name": "web", "namespace": place.namespace, "uid": object["metadata"]["uid"]},
    });
    let (code, body) =
        place.server.send("POST", "/api/v1/namespaces/describe/events", "application/json", &event.to_string());
    assert_eq!(code, 201, "{body}");
    let text = place.says(&["describe", "wl", "web"]);
    for part in [
        "Name:",
        "web",
        "Namespace:",
        "Spec:\n  active: Live\n",
        "image: nginx",
        "Conditions:",
        "Events:\n",
        "it rests",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    complaint(&place.gaia(&["describe", "wl", "other"]), 1);
}
