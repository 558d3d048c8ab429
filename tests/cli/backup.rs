//! `gaia backup`, `gaia restore` and `gaia recover`, as an operator has them: of a server that runs, of one that does not, and what is refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
};

use crate::program::{Server, complaint, gaia, run, stdout};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn config_map(name: &str, value: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{a: {value}}}}}")
}

fn version_of(server: &Server, object: &str) -> u64 {
    let told = server.says(&["get", object, "-o", "json"]);
    let object: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a resourceVersion")
}

/// The code of a watch from there, and what it says first.
fn watch_from(server: &Server, revision: u64) -> (u16, String) {
    server.http(&format!("/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion={revision}"), "")
}

fn restore(file: &Path, data: &Path) -> Output {
    run(&["restore", text(file), "--data-dir", text(data)])
}

#[test]
fn what_was_backed_up_is_restored_and_what_came_later_is_not() {
    let dir = dir();
    let (file, old, new) = (dir.path().join("gaia.backup"), dir.path().join("old"), dir.path().join("new"));
    let server = Server::start(&old);
    server.apply(&config_map("kept", "before"));
    let kept = version_of(&server, "configmap/kept");
    let told = server.says(&["backup", text(&file)]);
    assert!(told.starts_with("backed up ") && told.contains(text(&file)), "{told}");
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o077, 0, "it may hold secrets");
    assert!(!dir.path().join("gaia.backup.partial").exists());
    server.apply(&config_map("kept", "after"));
    server.apply(&config_map("later", "after"));
    let later = version_of(&server, "configmap/later");
    drop(server);

    let told = restore(&file, &new);
    assert!(stdout(&told).starts_with("restored ") && stdout(&told).contains("; it goes on at "), "{}", stdout(&told));
    let server = Server::start(&new);
    assert!(server.says(&["get", "configmap/kept", "-o", "yaml"]).contains("a: before"));
    assert_eq!(version_of(&server, "configmap/kept"), kept, "an object keeps its version");
    complaint(&server.gaia(&["get", "configmap/later"]), 1);

    // Who has seen a revision that is undone now must list again, whatever is written next; nobody misses a change silently.
    server.apply(&config_map("next", "anew"));
    assert!(version_of(&server, "configmap/next") > later);
    for seen in [kept, later, u64::from(u32::MAX) << 30] {
        let (_, told) = watch_from(&server, seen);
        assert!(told.contains("\"code\":410") && told.contains("Expired"), "watch from {seen}: {told}");
    }
}

#[test]
fn a_stopped_directory_is_backed_up_and_a_running_one_is_left_to_its_server() {
    let dir = dir();
    let (file, data) = (dir.path().join("gaia.backup"), dir.path().join("data"));
    let server = Server::start(&data);
    server.apply(&config_map("kept", "before"));
    let refused = run(&["backup", text(&file), "--data-dir", text(&data)]);
    assert!(complaint(&refused, 1).contains("leave --data-dir out"), "{}", complaint(&refused, 1));
    let refused = restore(&file, &data);
    assert!(complaint(&refused, 1).contains("cannot read"), "no such file: {}", complaint(&refused, 1));
    server.says(&["backup", text(&file)]);
    let refused = restore(&file, &data);
    let id = server.program.id().to_string();
    assert!(complaint(&refused, 1).contains(&id), "names the process: {}", complaint(&refused, 1));
    server.terminate();

    let refused = restore(&file, &data);
    assert!(complaint(&refused, 1).contains("is not empty (it holds "), "{}", complaint(&refused, 1));
    stdout(&run(&["backup", text(&file), "--data-dir", text(&data)]));
    let new = dir.path().join("new");
    stdout(&restore(&file, &new));
    assert!(Server::start(&new).says(&["get", "configmaps"]).contains("kept"));
    let missing = dir.path().join("missing");
    let refused = run(&["backup", text(&file), "--data-dir", text(&missing)]);
    assert!(complaint(&refused, 1).contains("no database"), "{}", complaint(&refused, 1));
    assert!(!missing.exists(), "a backup makes no directory");
}

#[test]
fn a_backup_goes_through_a_pipe() {
    let dir = dir();
    let server = Server::start(&dir.path().join("old"));
    server.apply(&config_map("kept", "before"));
    let made = server.gaia(&["backup", "-"]);
    assert!(made.status.success() && String::from_utf8_lossy(&made.stderr).starts_with("backed up "), "{made:?}");
    let new = dir.path().join("new");
    let mut command = gaia();
    command.args(["restore", "-", "--data", text(&new)]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), &made.stdout).expect("it reads");
    let output = child.wait_with_output().expect("our child");
    assert!(stdout(&output).starts_with("restored "));
    assert!(Server::start(&new).says(&["get", "configmaps"]).contains("kept"));
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let dir = dir();
    let (file, data) = (dir.path().join("gaia.backup"), dir.path().join("data"));
    let server = Server::start(&dir.path().join("old"));
    server.apply(&config_map("kept", "before"));
    server.says(&["backup", text(&file)]);
    let whole = fs::read(&file).expect("there");
    let mut flipped = whole.clone();
    let at = whole.windows(6).rposition(|bytes| bytes == b"before").expect("the value is in the file");
    flipped[at] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() / 2], b"no database", b""] {
        fs::write(&file, bytes).expect("written");
        let refused = restore(&file, &data);
        let told = complaint(&refused, 1);
        assert!(told.contains(text(&file)) && !told.contains("restoring"), "names the file: {told}");
        assert!(!data.join("gaia.db").exists() && !data.join("gaia.db.restoring").exists());
    }
    // The same directory takes a good one, also where an earlier attempt was killed.
    fs::write(data.join("gaia.db.restoring"), &whole[..4096]).expect("written");
    let refused = run(&["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir", text(&data)]);
    assert!(complaint(&refused, 1).contains("gaia restore FILE"), "an empty store would hide that it did not finish");
    fs::write(&file, &whole).expect("written");
    stdout(&restore(&file, &data));
    assert!(Server::start(&data).says(&["get", "configmaps"]).contains("kept"));
}

#[test]
fn a_backup_needs_the_token() {
    let dir = dir();
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "open-sesame\n").expect("written");
    let server = Server::start_with(&dir.path().join("data"), &["--token-file", text(&tokens)]);
    let file = dir.path().join("gaia.backup");
    let refused = server.gaia(&["backup", text(&file)]);
    assert!(complaint(&refused, 1).contains("--token"), "{}", complaint(&refused, 1));
    assert!(!file.exists());
    server.says(&["backup", text(&file), "--token", "open-sesame"]);
}

#[test]
fn a_damaged_directory_is_refused_with_what_helps_and_recovered() {
    let dir = dir();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    server.apply(&config_map("kept", "before"));
    let version = version_of(&server, "configmap/kept");
    server.terminate();
    let told = run(&["recover", "--data-dir", text(&data)]);
    assert!(stdout(&told).starts_with("nothing is damaged"), "{}", stdout(&told));

    // One flipped bit in the object itself.
    let database = data.join("gaia.db");
    let mut bytes = fs::read(&database).expect("there");
    let values: Vec<usize> =
        bytes.windows(12).enumerate().filter(|(_, b)| b == br#""a":"before""#).map(|(at, _)| at).collect();
    assert!(values.len() >= 2, "an object, and its entry in the log");
    bytes[values[0] + 6] ^= 1;
    fs::write(&database, &bytes).expect("written");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir", text(&data)];
    let refused = run(&serve);
    let told = complaint(&refused, 1);
    assert!(told.contains(text(&database)) && told.contains("configmaps/default/kept"), "{told}");
    let advice = format!("gaia recover --data-dir {} --dry-run", data.display());
    assert!(told.contains("gaia restore FILE --data-dir DIR") && told.contains(&advice), "{told}");
    assert_eq!(fs::read(&database).expect("there"), bytes, "what is refused is left as it is");

    let told = run(&["recover", "--data-dir", text(&data), "--dry-run"]);
    assert!(
        stdout(&told).starts_with("would recover ") && stdout(&told).contains("lost: nothing"),
        "{}",
        stdout(&told)
    );
    assert_eq!(fs::read(&database).expect("there"), bytes);
    let told = run(&["recover", "--data-dir", text(&data)]);
    let kept = stdout(&told).trim().rsplit(' ').next().expect("a directory");
    assert_eq!(fs::read(Path::new(kept).join("gaia.db")).expect("a copy is kept"), bytes);
    let server = Server::start(&data);
    assert!(server.says(&["get", "configmap/kept", "-o", "yaml"]).contains("a: before"));
    assert_eq!(version_of(&server, "configmap/kept"), version);
    let (_, told) = watch_from(&server, version);
    assert!(told.contains("\"code\":410"), "{told}");
}
