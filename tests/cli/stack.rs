//! The commands in the words of `gaia.sh`, each test against a real server of its own on simulated containers.

use std::process::{Command, Output};

use serde_json::Value;

use crate::program::{Program, Server, complaint, gaia, stdout};

struct Host {
    server: Server,
    _data: tempfile::TempDir,
}

impl Host {
    /// `gaia-web` in both variants, `lone` in one, and a card.
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(data.path());
        server.apply(
            "---
apiVersion: gaia.dev/v1alpha1
kind: Workload
metadata: {name: gaia-web}
spec:
  live: {container: {image: web:1, ports: [{containerPort: 80, hostPort: 6414}]}}
  candidate: {container: {image: web:2, ports: [{containerPort: 80, hostPort: 6417}]}}
---
apiVersion: gaia.dev/v1alpha1
kind: Workload
metadata: {name: lone}
spec: {live: {container: {image: lone}}}
---
apiVersion: gaia.dev/v1alpha1
kind: Gpu
metadata: {name: gpu0}
spec: {device: {index: 0}}
",
        );
        Self { server, _data: data }
    }

    fn gaia(&self, args: &[&str]) -> Output {
        self.server.gaia(args)
    }

    fn says(&self, args: &[&str]) -> String {
        self.server.says(args)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[args, &["-o", "json"]].concat())).expect("JSON")
    }

    /// A client command that goes on, with what it tells on either output.
    fn follow(&self, args: &[&str]) -> Program {
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("GAIA_SERVER", &self.server.url);
        // exec: signals to the shell are signals to the program.
        command.args(["-c", "exec \"$0\" \"$@\" 2>&1", env!("CARGO_BIN_EXE_gaia")]).args(args);
        Program::start(&mut command)
    }
}

#[test]
fn the_live_stack_stops_and_starts() {
    let host = Host::new();
    let started = host.says(&["live", "start"]);
    assert_eq!(started, "  [healthy] gaia-web :6414\n  [healthy] lone\n");
    assert_eq!(host.says(&["live", "stop"]), "  [stopped] gaia-web\n  [stopped] lone\n");
    assert_eq!(host.says(&["live", "start", "web"]), "  [healthy] gaia-web :6414\n", "a short name will do");
    let status = host.says(&["status"]);
    assert!(status.contains("Orchestrator:\n  [healthy] gaia http://127.0.0.1:"), "{status}");
    assert!(status.contains("Live Services:\n  [healthy] gaia-web :6414\n  [stopped] lone\n"), "{status}");
    assert!(status.contains("Candidate Services:\n  [stopped] gaia-web-candidate\n"), "{status}");
    let list = host.json(&["status"]);
    let kinds: Vec<_> = list["items"].as_array().expect("a list").iter().map(|o| &o["kind"]).collect();
    assert_eq!(kinds, ["Gpu", "Workload", "Workload"]);
    assert_eq!(host.says(&["live", "status"]), "  [healthy] gaia-web :6414\n  [stopped] lone\n");
}

#[test]
fn a_swap_starts_the_candidate_before_it_takes_the_name() {
    let host = Host::new();
    assert_eq!(host.says(&["swap", "web"]), "gaia-web-candidate answers as gaia-web\n");
    let workload = host.json(&["get", "workload", "gaia-web"]);
    assert_eq!(workload["status"]["active"], "Candidate");
    assert_eq!(workload["status"]["live"]["state"], "Running", "live is left alone");
    assert_eq!(host.says(&["candidate", "status"]), "  [healthy] gaia-web-candidate :6417 (answers)\n");
    assert_eq!(host.says(&["swap", "web", "live"]), "gaia-web answers as gaia-web\n");
    assert_eq!(host.says(&["candidate", "stop"]), "  [stopped] gaia-web-candidate\n");
}

#[test]
fn what_makes_no_sense_is_told_with_an_exit_code() {
    let host = Host::new();
    assert!(complaint(&host.gaia(&["live", "start", "moon"]), 1).contains("there is no workload.gaia.dev/moon"));
    assert!(complaint(&host.gaia(&["candidate", "start", "lone"]), 1).contains("lone has no candidate variant"));
    assert!(complaint(&host.gaia(&["swap", "lone"]), 1).contains("lone has no candidate variant"));
    complaint(&host.gaia(&["swap", "web", "moon"]), 2);
    assert!(complaint(&host.gaia(&["gpu", "acquire"]), 2).contains("say which card"));
    complaint(&host.gaia(&["handoff", "start", "--to", "gaia-web:canary"]), 2);
    assert!(complaint(&host.gaia(&["handoff", "start", "--gpu", "gpu7", "--to", "lone"]), 1).contains("there is gpu0"));
    complaint(&host.gaia(&["handoff", "show", "none"]), 1);
    assert!(complaint(&host.gaia(&["handoff", "cancel"]), 1).contains("no handoff is under way"));
    assert!(complaint(&host.gaia(&["gpu", "who", "gpu7"]), 1).contains("gpu7"));
    let nobody = gaia().args(["status", "--server", "http://127.0.0.1:1"]).output().expect("the binary runs");
    assert!(complaint(&nobody, 1).contains("cannot reach"));
}

#[test]
fn who_gives_up_waiting_leaves_it_going() {
    let host = Host::new();
    host.server.apply(
        "
apiVersion: gaia.dev/v1alpha1
kind: Workload
metadata: {name: waits}
spec: {live: {container: {image: x}}, candidate: {container: {image: x}}, dependsOn: [{workload: nobody}]}
",
    );
    let late = host.gaia(&["candidate", "start", "waits", "--timeout", "0"]);
    assert!(complaint(&late, 1).contains("it goes on"));
    assert_eq!(host.json(&["get", "workload", "waits"])["spec"]["candidate"]["running"], true);

    let waiting = host.follow(&["candidate", "start", "waits"]);
    waiting.line("why it waits", |line| line.contains("DependencyNotFound"));
    waiting.signal("INT");
    waiting.line("how to undo it", |line| line.contains("Undo: gaia candidate stop"));
    assert_eq!(waiting.end().0.code(), Some(130));
    assert_eq!(host.json(&["get", "workload", "waits"])["spec"]["candidate"]["running"], true);

    assert_eq!(host.says(&["candidate", "stop", "waits"]), "  [stopped] waits-candidate\n");
    let waiting = host.follow(&["candidate", "start", "waits", "--cancel-on-interrupt"]);
    waiting.line("why it waits", |line| line.contains("DependencyNotFound"));
    waiting.signal("INT");
    assert_eq!(waiting.end().0.code(), Some(1));
    assert_eq!(host.json(&["get", "workload", "waits"])["spec"]["candidate"]["running"], false);
}

#[test]
fn a_promotion_is_an_object_with_the_gates_that_were_asked_for() {
    let host = Host::new();
    let args = ["promote", "gaia-web", "--no-wait", "--min-ready", "3", "--timeout", "60", "-o", "json", "--", "true"];
    let promotion: Value = serde_json::from_str(&host.says(&args)).expect("JSON");
    let gates = &promotion["spec"]["gates"];
    assert_eq!((&gates["minReadySeconds"], &gates["timeoutSeconds"]), (&3.into(), &60.into()));
    assert_eq!(gates["command"]["command"][0], "true");
    let name = promotion["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("gaia-web-"), "{name}");
}

#[test]
fn a_handoff_is_an_object_that_can_be_shown() {
    let host = Host::new();
    let handoff = host.json(&["handoff", "start", "--to", "lone", "--reason", "test", "--timeout", "7", "--no-wait"]);
    assert_eq!((&handoff["spec"]["gpu"], &handoff["spec"]["timeoutSeconds"]), (&"gpu0".into(), &7.into()));
    let name = handoff["metadata"]["name"].as_str().expect("a name");
    assert!(host.says(&["handoff", "status"]).contains(name));
    let record = host.says(&["handoff", "show", name]);
    assert!(record.starts_with(&format!("Handoff:     default/{name} (Transfer)\n")), "{record}");
    assert!(record.contains("To:          default/lone\n"), "{record}");
}

#[test]
fn health_is_an_exit_code() {
    let host = Host::new();
    assert!(host.says(&["health"]).contains("readyz check passed"));
    let nobody = gaia().args(["health", "--server", "http://127.0.0.1:1"]).output().expect("the binary runs");
    assert!(complaint(&nobody, 1).contains("the server is not ready"));
    assert_eq!(stdout(&host.gaia(&["gpu", "status", "gpu0"])).lines().count(), 2);
}
