//! The process in the place of GAIA's own orchestrator: started as its deployment starts it, and ended while clients wait.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::program::{DEADLINE, Program, Server, gaia};

const STATE: &str = r#"{"gpu": {"owner": "gaia-study", "lease_id": "66d8", "reason": "training", "queue": []}}"#;

/// With the files of `desired/gaia`, and the state file of GAIA's own service.
fn start(data: &Path, state: &Path) -> Server {
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated"]).env("GAIA_LOG_LEVEL", "warn");
    let desired = Path::new(env!("CARGO_MANIFEST_DIR")).join("desired/gaia");
    command.arg("--data-dir").arg(data).arg("--desired").arg(desired).env("ORCHESTRATOR_STATE_DIR", state);
    Server::of(Program::start(&mut command))
}

fn owner(server: &Server) -> String {
    let (status, body) = server.http("/gpu/status", "");
    assert_eq!(status, 200, "{body}");
    let gpu: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    gpu["owner"].as_str().expect("an owner").to_owned()
}

/// A claim of whoever is named has this phase.
fn claim_is(server: &Server, holder: &str, phase: &str) {
    let claims = server.follow(&["watch", "gpuclaims", "-o", "json"]);
    claims.line(&format!("{holder} {phase}"), |line| line.contains(holder) && line.contains(phase));
}

/// Contract, section 10, 2: at the first start of all the card and the holder that the file names are still to come.
#[test]
fn a_state_file_is_taken_over_at_the_first_start_and_not_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, state) = (dir.path().join("data"), dir.path().join("orchestrator"));
    fs::create_dir(&state).expect("made");
    fs::write(state.join("state.json"), STATE).expect("written");
    let mut server = start(&data, &state);
    claim_is(&server, "gaia-study", "Granted");
    let handoffs = server.follow(&["watch", "handoffs", "-o", "json"]);
    handoffs.line("the end of the handoff", |line| line.contains("gaia-study") && line.contains("Completed"));
    assert_eq!(owner(&server), "gaia-study");
    let (status, told) = server.send("POST", "/handoff/study-to-prime", "application/json", "");
    assert_eq!(status, 200, "{told}");
    // kill -9, and the next process finds its own mirror, not a state to take over.
    server.program.kill();
    let server = start(&data, &state);
    assert_eq!(owner(&server), "gaia-core");
    let mirror: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("state.json")).expect("it is there")).expect("JSON");
    assert_eq!(mirror["gaia"]["imported"], serde_json::from_str::<serde_json::Value>(STATE).expect("JSON"));
}

/// Contract, section 10, 11: GAIA's own service held its exit up for as long as anybody waited.
#[test]
fn sigterm_ends_it_while_clients_wait() {
    let data = tempfile::tempdir().expect("a directory");
    let server = Server::start(data.path());
    server.apply("apiVersion: gaia.dev/v1alpha1\nkind: Gpu\nmetadata: {name: gpu0}\nspec: {device: {index: 0}}\n");
    let ask = |who: &str| format!(r#"{{"requester":"{who}","reason":"test","timeout_seconds":300}}"#);
    assert_eq!(server.send("POST", "/gpu/acquire", "application/json", &ask("gaia-audio")).0, 200);
    let address = server.url.trim_start_matches("http://").to_owned();
    let open = |request: String| {
        let mut stream = TcpStream::connect(&address).expect("the server listens");
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    };
    let body = ask("gaia-study");
    let length = body.len();
    let wait = open(format!("POST /gpu/wait HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"));
    let socket = open(
        "GET /ws/notifications HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_owned(),
    );
    claim_is(&server, "gaia-study", "Pending");
    let begun = Instant::now();
    let (status, stderr, took) = server.terminate();
    assert!(status.success(), "{status}: {stderr}");
    assert!(took < Duration::from_secs(10) && begun.elapsed() < DEADLINE, "took {took:?}: {stderr}");
    drop((wait, socket));
}
