//! The life of a server process.

use std::{
    fs,
    net::TcpListener,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::program::{Program, Server, complaint, gaia, run, stdout, try_send};

const CONFIG_MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}";

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn answers_when_it_says_so_and_ends_on_sigterm_with_a_watch_open() {
    let data = dir();
    let server = Server::start(data.path());
    assert_eq!(server.http("/readyz", "").0, 200);
    let watch = server.follow(&["watch", "namespaces"]);
    watch.line("the namespace default", |line| line.starts_with("ADDED") && line.contains("/default"));
    let (status, stderr, took) = server.terminate();
    assert!(status.success(), "{status}: {stderr}");
    assert!(took < Duration::from_secs(10), "took {took:?}: {stderr}");
}

/// Sixteen who write without a pause, and a folder whose files change all the while. What was acknowledged is there afterwards.
#[test]
fn ends_in_time_while_everybody_writes() {
    let (data, desired) = (dir(), dir());
    let server = Server::start_with(data.path(), &["--desired", desired.path().to_str().expect("UTF-8")]);
    let watch = server.follow(&["watch", "configmaps"]);
    let at_work = Barrier::new(17);
    let (ended, acknowledged) = thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                scope.spawn({
                    let (url, at_work, desired) = (&server.url, &at_work, desired.path());
                    move || {
                        let mut acknowledged = Vec::new();
                        for number in 0.. {
                            let name = format!("c-{writer}-{number}");
                            let body =
                                format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
                            match try_send(url, "POST", "/api/v1/namespaces/default/configmaps", &body) {
                                Some(201) => acknowledged.push(name.clone()),
                                Some(code) => assert_eq!(code, 503, "{name}"),
                                None => break,
                            }
                            fs::write(desired.join(format!("{writer}.yaml")), body.replace("c-", "f-"))
                                .expect("written");
                            if number == 10 {
                                at_work.wait();
                            }
                        }
                        acknowledged
                    }
                })
            })
            .collect();
        at_work.wait();
        let begun = Instant::now();
        server.program.signal("TERM");
        let acknowledged: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect();
        (begun.elapsed(), acknowledged)
    });
    let (status, stderr) = server.program.end();
    assert!(status.success() && ended < Duration::from_secs(10), "{ended:?}: {stderr}");
    drop(watch);
    let again = Server::start(data.path());
    let there = again.says(&["get", "configmaps", "-o", "name"]);
    let missing: Vec<_> = acknowledged.iter().filter(|name| !there.lines().any(|line| line.ends_with(*name))).collect();
    assert!(acknowledged.len() >= 160 && missing.is_empty(), "{missing:?} of {}", acknowledged.len());
}

#[test]
fn ends_on_sigint_too() {
    let data = dir();
    let server = Server::start(data.path());
    server.program.signal("INT");
    let (status, stderr) = server.program.end();
    assert!(status.success(), "{status}: {stderr}");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let data = dir();
    let server = Server::start(data.path());
    assert_eq!(server.apply(CONFIG_MAP), "configmap/kept created\n");
    server.program.signal("KILL");
    server.program.end();
    let server = Server::start(data.path());
    let text = server.says(&["get", "configmap/kept", "-o", "yaml"]);
    assert!(text.contains("a: b"), "{text}");
}

/// A terminal at rest, or a pipe to a program that hangs, stops nothing but the lines.
#[test]
fn goes_on_when_nobody_reads_its_log() {
    const LINES_THAT_FIT: usize = 20_000;
    let data = dir();
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated"]).env("GAIA_LOG_LEVEL", "trace");
    let server = Server::of(Program::start(command.arg("--data-dir").arg(data.path())));
    let lost = || {
        let (code, text) = server.http("/metrics", "");
        let line = text.lines().find_map(|line| line.strip_prefix("gaia_log_lines_lost_total ").map(str::to_owned));
        (code, line.expect("it counts them"))
    };
    assert_eq!(lost(), (200, "0".to_owned()));
    let is_lost = (0..LINES_THAT_FIT).any(|number| {
        let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m{number}}}}}");
        let path = "/api/v1/namespaces/default/configmaps";
        assert_eq!(server.send("POST", path, "application/yaml", &map).0, 201);
        number % 50 == 49 && lost().1 != "0"
    });
    assert!(is_lost, "this test does not log enough to mean anything");
    let (status, _, took) = server.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let data = dir();
    let _first = Server::start(data.path());
    let path = data.path().to_str().expect("UTF-8");
    let args = ["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir", path];
    let text = complaint(&run(&args), 1).to_owned();
    assert!(text.contains(path), "{text}");
}

#[test]
fn a_port_in_use_is_told_before_the_data_is_touched() {
    let data = dir();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let path = data.path().join("new");
    let output = gaia().args(["serve", "--listen", &address, "--data-dir"]).arg(&path).output().expect("runs");
    let text = complaint(&output, 1);
    assert!(text.contains(&format!("cannot listen on {address}")) && text.contains("another gaia"), "{text}");
    assert!(!path.exists());
}

#[test]
fn an_address_others_can_reach_is_refused_without_tokens() {
    let text = complaint(&run(&["serve", "--listen", "0.0.0.0:0"]), 2).to_owned();
    assert!(text.contains("--listen") && text.contains("--token-file"), "{text}");
}

#[test]
fn tokens_guard_everything_but_health() {
    let data = dir();
    let tokens = data.path().join("tokens");
    fs::write(&tokens, "# ours\nopen-sesame\n").expect("written");
    let server = Server::start_with(&data.path().join("data"), &["--token-file", tokens.to_str().expect("UTF-8")]);
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.http(path, "").0, 200, "{path}");
    }
    for path in ["/", "/version", "/metrics", "/apis", "/openapi/v3", "/api/v1/namespaces", "/ws/watch"] {
        assert_eq!(server.http(path, "").0, 401, "{path}");
    }
    assert_eq!(server.http("/version", "Authorization: Bearer open-sesame\r\n").0, 200);
    assert_eq!(server.http("/version", "Authorization: Bearer open-sesam\r\n").0, 401);
    let text = complaint(&server.gaia(&["get", "namespaces"]), 1).to_owned();
    assert!(text.contains("--token"), "{text}");
    assert!(server.says(&["get", "namespaces", "--token", "open-sesame"]).contains("default"));
}

#[test]
fn settings_come_from_flag_then_environment_then_file() {
    let dir = dir();
    let file = dir.path().join("gaia.yaml");
    let data = dir.path().join("from-file");
    fs::write(&file, format!("dataDir: {}\nreality: simulated\nlisten: 127.0.0.1:1\n", data.display()))
        .expect("written");
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("GAIA_CONFIG", &file).env("GAIA_LISTEN", "nonsense");
    let server = Server::of(crate::program::Program::start(&mut command));
    assert!(data.is_dir(), "the file's data directory is used");
    drop(server);
    let output = gaia().args(["serve", "--config"]).arg(&file).env("GAIA_LISTEN", "nonsense").output().expect("runs");
    assert!(complaint(&output, 2).contains("GAIA_LISTEN: \"nonsense\""));
    fs::write(&file, "dataDir: /x\nlisen: 127.0.0.1:1\n").expect("written");
    let output = gaia().args(["serve", "--config"]).arg(&file).output().expect("runs");
    assert!(complaint(&output, 2).contains("gaia.yaml:2: unknown key \"lisen\""));
}

#[test]
fn log_lines_can_be_json() {
    let data = dir();
    let server = Server::start_with(data.path(), &["--log-format", "json", "--log-level", "info"]);
    let (_, stderr, _) = server.terminate();
    let lines: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    assert!(lines.iter().any(|line| line["message"] == "gaia serves" && line["level"] == "INFO"), "{stderr}");
    assert!(lines.iter().any(|line| line["message"] == "shutting down"), "{stderr}");
}

#[test]
fn the_environment_of_a_container_is_not_logged() {
    let data = dir();
    let server = Server::start_with(data.path(), &["--log-level", "debug"]);
    server.apply(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: web}\nspec:\n  \
         live: {container: {image: nginx, env: {PASSWORD: hunter2-hunter2}}}\n",
    );
    server.follow(&["watch", "wl"]).line("ready", |line| line.contains("Ready=True"));
    let (_, stderr, _) = server.terminate();
    assert!(stderr.contains("action applied"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "a secret was logged:\n{stderr}");
}

#[test]
fn kubectl_works_with_our_kubeconfig() {
    let Some(kubectl) = kubectl() else {
        eprintln!("skipped: no kubectl on this machine");
        return;
    };
    let dir = dir();
    let server = Server::start(&dir.path().join("data"));
    let kubeconfig = dir.path().join("kubeconfig");
    stdout(&server.gaia(&["kubeconfig", "-o", kubeconfig.to_str().expect("UTF-8")]));
    let output = std::process::Command::new(kubectl)
        .args(["get", "namespaces", "-o", "name"])
        .env("HOME", dir.path())
        .env("KUBECONFIG", &kubeconfig)
        .output()
        .expect("kubectl runs");
    assert!(stdout(&output).lines().any(|line| line == "namespace/default"), "{}", stdout(&output));
}

fn kubectl() -> Option<&'static str> {
    let known = ["/usr/lib/google-cloud-sdk/bin/kubectl.1.33", "/usr/bin/kubectl", "/usr/local/bin/kubectl"];
    known.into_iter().find(|path| std::path::Path::new(path).exists())
}
