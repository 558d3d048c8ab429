//! The demo, from its first line to its last trace.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use crate::program::{Program, Server, complaint, gaia, run, stdout};

const DESIRED: &str = "desired state: ";

#[test]
fn gets_ready_says_how_and_leaves_nothing() {
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--exit-when-ready"]);
    let text = stdout(&output);
    assert!(text.contains("gaia-core") && text.contains("PullingImage"), "no progress in:\n{text}");
    assert!(text.contains("5 workloads are as the files want them"), "{text}");
    let desired = text.lines().find_map(|line| line.strip_prefix(DESIRED)).expect("the directory");
    assert!(!Path::new(desired).parent().expect("the demo's own").exists(), "{desired} is still there");
}

#[test]
fn follows_its_files_until_ctrl_c() {
    let server = Server::of(Program::start(gaia().args(["demo", "--listen", "127.0.0.1:0"])));
    let line = server.program.line(DESIRED, |line| line.starts_with(DESIRED));
    let desired = PathBuf::from(line.trim_start_matches(DESIRED));
    let line = server.program.line("KUBECONFIG", |line| line.contains("export KUBECONFIG="));
    let kubeconfig = line.split_once('=').expect("an assignment").1.to_owned();
    assert!(fs::read_to_string(&kubeconfig).expect("written").contains(&server.url));
    server.program.line("the last line", |line| line.starts_with("Ctrl-C"));

    // Prime is on the card: far more than an idle one uses.
    let gpus = server.follow(&["watch", "gpus"]);
    gpus.line("gpu0 in use", |line| line.contains("/gpu0") && used_mib(line).is_some_and(|used| used > 2 * 4096));
    let gpu0 = server.says(&["get", "gpu", "gpu0", "-o", "yaml"]);
    assert!(gpu0.contains("workload: default/gaia-prime") && gpu0.contains("container: gaia-prime-live"), "{gpu0}");

    // Handoffs are told where the demo runs, too.
    let created = server.says(&["handoff", "start", "--gpu", "gpu0", "--to", "gaia-study", "--no-wait"]);
    let name = created.trim_start_matches("handoff.gaia.dev/").split(' ').next().expect("a name").to_owned();
    server.program.line("the handoff", |line| line.contains(&format!("  {name}: ")));
    server.program.line("its end", |line| line.contains(&format!("  {name}: Completed")));
    drop(gpus);
    // And back: study lets go of its memory when it is asked to, and is not stopped for it.
    let back = server.says(&["handoff", "study-to-prime", "-o", "yaml"]);
    assert!(back.contains("/study/gpu-release") && !back.contains("stop default/gaia-study"), "{back}");

    let watch = server.follow(&["watch", "workloads"]);
    watch.line("gaia-study", |line| line.starts_with("ADDED") && line.contains("/gaia-study"));
    fs::remove_file(desired.join("stack/gaia-study.yaml")).expect("an example file");
    watch.line("the end of gaia-study", |line| line.starts_with("DELETED") && line.contains("/gaia-study"));

    server.program.signal("INT");
    let (status, stderr) = server.program.end();
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(stderr, "", "an end that was asked for is no error");
    assert!(!desired.parent().expect("the demo's own").exists());
}

#[test]
fn too_slow_is_a_failure_when_somebody_waits_for_it() {
    let output = run(&["demo", "--listen", "127.0.0.1:0", "--exit-when-ready", "--timeout", "0"]);
    assert!(complaint(&output, 1).contains("not everything was ready after 0 s"));
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let text = complaint(&run(&["demo", "--listen", &address]), 1).to_owned();
    assert!(text.contains(&format!("cannot listen on {address}")) && text.contains("--listen"), "{text}");
    complaint(&run(&["demo", "--listen", "0.0.0.0:0"]), 2);
}

/// The column of `gaia watch gpus`.
fn used_mib(line: &str) -> Option<u64> {
    line.split("Used MiB=").nth(1)?.split(' ').next()?.parse().ok()
}
