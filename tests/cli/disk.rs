//! The server after a `kill -9`, on a disk that is full, and on one that fails: `tests/fixtures/disk` stands before the C library.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::Value;

use crate::program::{Program, Server, complaint, gaia};

/// A server whose disk does as the files of a directory say.
struct Patient {
    dir: tempfile::TempDir,
    server: Server,
}

impl Patient {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("faults")).expect("a directory");
        let server = start(dir.path(), true);
        Self { dir, server }
    }

    /// The disk fails like this from now on.
    fn fail(&self, name: &str, text: &str) {
        let faults = self.dir.path().join("faults");
        // At once: the library looks at every write.
        fs::write(faults.join("new"), text)
            .and_then(|()| fs::rename(faults.join("new"), faults.join(name)))
            .expect("a fault");
    }

    fn mend(&self, name: &str) {
        fs::remove_file(self.dir.path().join("faults").join(name)).expect("the fault was there");
    }

    fn create(&self, name: &str) -> (u16, Value) {
        let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
        let path = "/api/v1/namespaces/default/configmaps";
        let (code, text) = self.server.send("POST", path, "application/json", &body);
        (code, serde_json::from_str(&text).expect("JSON"))
    }
}

fn start(dir: &Path, faulty: bool) -> Server {
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--log-level", "warn"]);
    command.arg("--data-dir").arg(dir.join("data"));
    if faulty {
        // Cargo puts what tests depend on beside them.
        let library = std::env::current_exe().expect("a test knows where it is").with_file_name("libfaulty_disk.so");
        command.env("LD_PRELOAD", library).env("FAULTY_DISK_ROOT", dir.join("data"));
        command.env("FAULTY_DISK_FAULTS", dir.join("faults"));
    }
    Server::of(Program::start(&mut command))
}

fn exists(server: &Server, name: &str) -> bool {
    server.http(&format!("/api/v1/namespaces/default/configmaps/{name}"), "").0 == 200
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let patient = Patient::start();
    assert_eq!(patient.create("before").0, 201);
    let watch = patient.server.follow(&["watch", "configmaps"]);
    watch.line("what is there", |line| line.contains("/before"));

    patient.fail("enospc", "");
    // Until the journal has used up the room that it has, writes may still find a place.
    let mut last = 0;
    let refused = loop {
        let begun = Instant::now();
        let (code, status) = patient.create(&format!("filler-{last}"));
        if code != 201 {
            eprintln!("refused after {:?}", begun.elapsed());
            break (code, status);
        }
        last += 1;
        assert!(last < 5_000, "a file cannot grow, and there is always room");
    };
    assert_eq!((refused.0, &refused.1["reason"]), (507, &"InsufficientStorage".into()), "{}", refused.1);
    let message = refused.1["message"].as_str().expect("a message");
    assert!(message.contains("disk is full") && message.contains("df -h"), "{message}");
    let told =
        patient.server.told(&["apply", "-f", "-"], "{apiVersion: v1, kind: ConfigMap, metadata: {name: refused}}");
    assert!(complaint(&told, 1).contains("the disk is full"), "{}", complaint(&told, 1));

    // Reads, lists, readiness, watches, and a backup to where there is room.
    assert!(exists(&patient.server, "before") && !exists(&patient.server, "refused"));
    assert_eq!(patient.server.http("/livez", "").0, 200);
    let file = patient.dir.path().join("gaia.backup");
    patient.server.says(&["backup", file.to_str().expect("UTF-8")]);

    patient.mend("enospc");
    assert_eq!(patient.create("after").0, 201, "nobody had to do anything");
    watch.line("the change after", |line| line.contains("ADDED") && line.contains("/after"));
    let Patient { dir, server } = patient;
    assert!(server.terminate().0.success());
    let server = start(dir.path(), false);
    assert!(exists(&server, "before") && exists(&server, "after") && !exists(&server, "refused"));
    assert!((0..last).all(|number| exists(&server, &format!("filler-{number}"))), "what was acknowledged is there");
}

/// Ends by itself, says why, and what was acknowledged before is there afterwards.
fn ends_by_itself(file: &str) {
    let patient = Patient::start();
    assert_eq!(patient.create("before").0, 201);
    patient.fail("eio", file);
    let mut last = 0;
    // The journal is moved into the database once it is long.
    while let (201, _) = patient.create(&format!("filler-{last}")) {
        last += 1;
        assert!(last < 5_000, "no sync of {file} has failed");
    }
    let Patient { dir, server } = patient;
    let (status, stderr) = server.program.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    let said = stderr.lines().last().expect("it says why");
    assert!(said.starts_with("error: task store failed: the disk failed to keep"), "{stderr}");
    assert!(said.contains("dmesg") && said.contains(&PathBuf::from("data/gaia.db").display().to_string()), "{said}");
    let server = start(dir.path(), false);
    assert!(exists(&server, "before"));
    assert!((0..last).all(|number| exists(&server, &format!("filler-{number}"))), "what was acknowledged is there");
}

#[test]
fn a_failing_sync_of_a_commit_ends_the_process() {
    ends_by_itself("gaia.db-wal");
}

#[test]
fn a_failing_sync_of_a_checkpoint_ends_the_process() {
    ends_by_itself("gaia.db");
}

/// How long it takes is told and not judged: this machine may be busy.
#[test]
fn a_thousand_objects_are_served_again_after_kill_9() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = start(dir.path(), false);
    let manifest: String = (0..1000)
        .map(|number| {
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: n{number}}}, data: {{a: \"{number}\"}}}}\n---\n"
            )
        })
        .collect();
    server.apply(&manifest);
    server.program.signal("KILL");
    server.program.end();
    let begun = Instant::now();
    let server = start(dir.path(), false);
    let (code, _) = server.http("/readyz", "");
    eprintln!("ready {:?} after the start, with 1000 objects", begun.elapsed());
    assert_eq!(code, 200);
    let (_, text) = server.http("/api/v1/namespaces/default/configmaps", "");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(list["items"].as_array().expect("items").len(), 1000);
}
