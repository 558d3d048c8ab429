//! `gaia history` and `gaia rollback`: after a change of a template, after a promotion, and where a file states it.

use std::{fs, path::Path};

use serde_json::Value;

use crate::program::{Program, Server, complaint, gaia, stdout};

struct Host {
    server: Server,
    data: tempfile::TempDir,
}

impl Host {
    /// `web` in both variants; live has seen `web:1`.
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let host = Self { server: Server::start(data.path()), data };
        host.server.apply(&manifest("web:1"));
        host.says(&["live", "start", "web"]);
        host
    }

    /// The template changes, and has come into force.
    fn change_to(&self, image: &str) {
        let patch = format!(r#"{{"spec":{{"live":{{"container":{{"image":"{image}"}}}}}}}}"#);
        let path = "/apis/gaia.dev/v1alpha1/namespaces/default/workloads/web?fieldManager=ann";
        let (code, answer) = self.server.send("PATCH", path, "application/merge-patch+json", &patch);
        assert_eq!(code, 200, "{answer}");
        until_kept(&self.server, &format!("\"image\": \"{image}\""));
        let runs = |_: &str| self.says(&["history", "web"]).lines().nth(1).is_some_and(|row| row.contains("runs"));
        self.server.follow(&["watch", "wl", "web"]).line("its container is made anew", runs);
    }

    fn says(&self, args: &[&str]) -> String {
        self.server.says(args)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[args, &["-o", "json"]].concat())).expect("JSON")
    }

    fn image(&self) -> Value {
        self.json(&["get", "workload", "web"])["spec"]["live"]["container"]["image"].clone()
    }

    /// Columns of `gaia history web` that do not depend on the time.
    fn history(&self) -> Vec<String> {
        let text = self.says(&["history", "web"]);
        let rows = text.lines().skip(1).take_while(|line| !line.is_empty());
        rows.map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
    }
}

/// Waits until the history says so, as JSON.
fn until_kept(server: &Server, what: &str) {
    let says_so = || String::from_utf8_lossy(&server.gaia(&["get", "wlh", "web", "-o", "json"]).stdout).contains(what);
    // A line for what is there, then one for each change.
    server.follow(&["watch", "wlh"]).line(what, |_| says_so());
}

fn manifest(image: &str) -> String {
    format!(
        "
apiVersion: gaia.dev/v1alpha1
kind: Workload
metadata: {{name: web}}
spec:
  live: {{container: {{image: '{image}'}}}}
  candidate: {{container: {{image: 'next:1'}}}}
"
    )
}

#[test]
fn an_earlier_template_is_had_back_and_runs() {
    let host = Host::new();
    host.change_to("web:2");
    assert_eq!(host.history(), ["live 2 web:2", "live 1 web:1", "candidate 1 next:1"]);
    let text = host.says(&["history", "web"]);
    assert!(text.lines().nth(1).expect("a row").contains("ann"), "who changed it: {text}");

    assert_eq!(host.says(&["rollback", "web"]), "revision 1 of the live variant of web runs\n");
    assert_eq!(host.image(), "web:1");
    let live = host.json(&["get", "workload", "web"])["status"]["live"].clone();
    assert_eq!(live["state"], "Running");
    assert_eq!(host.history(), ["live 3 web:1", "live 2 web:2", "candidate 1 next:1"], "numbers only rise");

    host.change_to("web:4");
    let back = host.json(&["rollback", "web", "--to", "2"]);
    assert_eq!((&back["kind"], &back["spec"]["live"]["container"]["image"]), (&"Workload".into(), &"web:2".into()));
    assert_eq!(
        host.says(&["history", "web", "--variant", "live", "--revision", "3", "-o", "yaml"]).lines().next(),
        Some("image: web:1")
    );
}

#[test]
fn a_history_outlives_the_process_and_not_its_workload() {
    let host = Host::new();
    host.change_to("web:2");
    let Host { server, data } = host;
    assert!(server.terminate().0.success());
    let host = Host { server: Server::start(data.path()), data };
    assert_eq!(host.history(), ["live 2 web:2", "live 1 web:1", "candidate 1 next:1"]);
    let gone = host.server.follow(&["watch", "wlh"]);
    gone.line("a history, by a watch that is at it", |line| line.contains("web"));
    host.says(&["delete", "workload", "web"]);
    gone.line("the history goes with it", |line| line.contains("DELETED"));
}

#[test]
fn a_promotion_is_undone_by_a_promotion() {
    let host = Host::new();
    host.change_to("web:2");
    let promoted = host.says(&["promote", "web", "--min-ready", "0"]);
    assert!(promoted.ends_with("completed: the candidate variant answers as web\n"), "{promoted}");
    assert_eq!(host.json(&["get", "workload", "web"])["status"]["active"], "Candidate");

    let back = host.json(&["rollback", "web"]);
    assert_eq!((&back["kind"], &back["spec"]["to"]), (&"Promotion".into(), &"Live".into()));
    assert_eq!(back["status"]["phase"], "Completed");
    let workload = host.json(&["get", "workload", "web"]);
    assert_eq!(
        (&workload["status"]["active"], &workload["spec"]["candidate"]["running"]),
        (&"Live".into(), &false.into())
    );
    assert_eq!(host.image(), "web:2", "the template is as it was promoted over");
    assert!(host.says(&["history", "web"]).contains("PROMOTION"));
}

#[test]
fn what_a_file_states_is_undone_in_the_file() {
    let (data, desired) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let file = desired.path().join("web.yaml");
    put(&file, &manifest("web:1"));
    let server = Server::start_with(data.path(), &["--desired", desired.path().to_str().expect("UTF-8")]);
    until_kept(&server, "\"image\": \"web:1\"");
    put(&file, &manifest("web:2"));
    until_kept(&server, "\"image\": \"web:2\"");

    let refused = server.gaia(&["rollback", "web"]);
    let why = complaint(&refused, 1);
    assert!(why.contains(&format!("{}:2 (Source desired)", file.display())), "{why}");
    assert!(why.contains("gaia history web -n default --variant live --revision 1 -o yaml"), "{why}");
    assert_eq!(
        stdout(&server.gaia(&["history", "web", "--variant", "live", "--revision", "1", "-o", "yaml"])).lines().next(),
        Some("image: web:1")
    );
    let workload: Value = serde_json::from_str(&server.says(&["get", "workload", "web", "-o", "json"])).expect("JSON");
    assert_eq!(workload["spec"]["live"]["container"]["image"], "web:2", "nothing was changed");

    put(&file, &manifest("web:1"));
    until_kept(&server, "\"revision\": 3");
}

/// As editors save.
fn put(file: &Path, text: &str) {
    let half = file.with_extension("half");
    fs::write(&half, text).expect("written");
    fs::rename(half, file).expect("same directory");
}

#[test]
fn what_cannot_be_undone_is_told_with_an_exit_code() {
    let host = Host::new();
    let told = |args: &[&str], code| complaint(&host.server.gaia(args), code).to_owned();
    assert!(told(&["rollback", "moon"], 1).contains("there is no workload.gaia.dev/moon"));
    assert!(told(&["history", "moon"], 1).contains("there is no workload.gaia.dev/moon"));
    assert!(told(&["rollback", "web"], 1).contains("nothing to go back to"));
    assert!(told(&["rollback", "web", "--to", "7"], 1).contains("no revision 7"));
    assert!(told(&["rollback", "web", "--variant", "candidate"], 1).contains("no earlier revision"));
    told(&["rollback", "web", "--variant", "canary"], 2);
    told(&["history", "web", "--revision", "1"], 2);
    let nobody = gaia().args(["rollback", "web", "--server", "http://127.0.0.1:1"]).output().expect("the binary runs");
    assert!(complaint(&nobody, 1).contains("cannot reach"));
}

#[test]
fn who_gives_up_waiting_leaves_it_or_sets_it_back() {
    let host = Host::new();
    host.change_to("web:2");
    // To make a running container anew is to start one, and that waits for what it depends on.
    let path = "/apis/gaia.dev/v1alpha1/namespaces/default/workloads/web";
    let depends = r#"{"spec":{"dependsOn":[{"workload":"nobody"}]}}"#;
    assert_eq!(host.server.send("PATCH", path, "application/merge-patch+json", depends).0, 200);

    let late = host.server.gaia(&["rollback", "web", "--timeout", "1"]);
    assert!(complaint(&late, 1).contains("it goes on"));
    assert_eq!(host.image(), "web:1");
    let undone = host.server.gaia(&["rollback", "web", "--to", "2", "--no-wait"]);
    assert_eq!(stdout(&undone), "revision 2 of the live variant of web is its template again\n");

    let waiting = follow(&host, &["rollback", "web", "--variant", "live"]);
    waiting.line("it waits", |line| line.contains("DependencyNotFound") || line.contains("made anew"));
    waiting.signal("INT");
    waiting.line("how to undo it", |line| line.contains("Undo: gaia rollback web --variant live"));
    assert_eq!(waiting.end().0.code(), Some(130));
    assert_eq!(host.image(), "web:1");
    host.says(&["rollback", "web", "--variant", "live", "--no-wait"]);

    let waiting = follow(&host, &["rollback", "web", "--variant", "live", "--cancel-on-interrupt"]);
    waiting.line("it waits", |line| line.contains("DependencyNotFound") || line.contains("made anew"));
    waiting.signal("INT");
    assert_eq!(waiting.end().0.code(), Some(1));
    assert_eq!(host.image(), "web:2", "as it was");
}

/// A client command that goes on, with what it tells on either output.
fn follow(host: &Host, args: &[&str]) -> Program {
    let mut command = std::process::Command::new("sh");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("GAIA_SERVER", &host.server.url);
    // exec: signals to the shell are signals to the program.
    command.args(["-c", "exec \"$0\" \"$@\" 2>&1", env!("CARGO_BIN_EXE_gaia")]).args(args);
    Program::start(&mut command)
}
