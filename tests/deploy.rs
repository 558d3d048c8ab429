//! What lies in `deploy/` fits the program: flags, settings, paths. Nothing is built or started here.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use gaia::config::{Config, KEYS, Layers, Reality, variable_name};
use serde_json::Value;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every `--flag` that a command knows.
fn flags(command: &[&str]) -> BTreeSet<String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_gaia")).args(command).arg("--help").output().expect("the binary runs");
    assert!(output.status.success(), "gaia {command:?} is no command");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|w| w.len() > 2 && w.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

/// A command line of ours, the program's name left out: its subcommand exists, and so do its flags.
#[track_caller]
fn assert_runs(words: &[String]) {
    let subcommand = words.first().expect("a subcommand");
    let known = flags(&[subcommand]);
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        assert!(known.contains(flag), "gaia {subcommand} has no {flag}: {known:?}");
    }
}

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("{list} is not a list"));
    list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("compose.yaml")).expect("YAML")
}

#[test]
fn the_settings_file_is_read_and_names_every_key() {
    let text = read("gaia.yaml");
    for key in KEYS {
        let named = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key}:"));
        assert!(text.lines().any(named), "gaia.yaml does not tell about {key}");
    }
    // As it is, but for the directory, which must exist.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let desired = dir.path().canonicalize().expect("it exists");
    let text = text.replace("/etc/gaia/desired", desired.to_str().expect("UTF-8"));
    let file = dir.path().join("gaia.yaml");
    fs::write(&file, text).expect("written");
    let layers = Layers::read(Vec::new(), Some(&file), &|_| None).expect("known keys only");
    let config = Config::from_layers(&layers).expect("valid settings");
    assert_eq!((config.reality, config.listen.port()), (Reality::Docker, 6410));
    assert_eq!(config.data_dir, Path::new("/var/lib/gaia"));
    assert_eq!(config.desired, Some(desired));
}

#[test]
fn the_commented_settings_are_valid_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "secret\n").expect("written");
    let on: String = read("gaia.yaml").lines().map(|line| format!("{}\n", uncommented(line))).collect();
    let on = on.replace("/etc/gaia/tokens", tokens.to_str().expect("UTF-8"));
    let on = on.replace("/etc/gaia/desired", dir.path().to_str().expect("UTF-8"));
    let file = dir.path().join("gaia.yaml");
    fs::write(&file, on).expect("written");
    let config = Config::from_layers(&Layers::read(Vec::new(), Some(&file), &|_| None).expect("known keys"));
    let config = config.expect("valid settings");
    assert_eq!((config.tokens.len(), config.node_name.as_str()), (1, "gpu-host"));
}

/// `# key: value` as `key: value`, if it is a key of ours; sentences stay comments.
fn uncommented(line: &str) -> &str {
    let bare = line.trim_start_matches("# ");
    if KEYS.iter().any(|key| bare.starts_with(&format!("{key}: "))) { bare } else { line }
}

#[test]
fn the_compose_service_runs_what_exists() {
    let service = &compose()["services"]["gaia"];
    assert_runs(&words(&service["command"]));
    let check = words(&service["healthcheck"]["test"]);
    assert_eq!(check[..2], ["CMD", "gaia"]);
    assert_runs(&check[2..]);
    let known: BTreeSet<String> = KEYS.iter().map(|key| variable_name(key)).collect();
    for (name, _) in service["environment"].as_object().expect("variables") {
        assert!(known.contains(name), "{name} is no variable of ours");
    }
    // It mounts what the settings name, and declares the volume that it mounts.
    let mounts = words(&service["volumes"]);
    let at = |target: &str| mounts.iter().any(|mount| mount.split(':').nth(1) == Some(target));
    for target in ["/var/run/docker.sock", "/var/lib/gaia", "/etc/gaia/gaia.yaml", "/etc/gaia/desired"] {
        assert!(at(target), "{target} is not mounted: {mounts:?}");
    }
    assert!(compose()["volumes"].as_object().expect("volumes").contains_key("gaia-data"));
    // Without a token only loopback can be listened on, and loopback of a network of its own is nobody's.
    assert_eq!(service["network_mode"], "host");
}

#[test]
fn the_unit_starts_what_exists() {
    let unit = read("gaia.service");
    let starts: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let [start] = starts.as_slice() else { panic!("one ExecStart, not {starts:?}") };
    let start: Vec<String> = start.split(' ').map(str::to_owned).collect();
    assert_eq!(start[0], "/usr/local/bin/gaia");
    assert_runs(&start[1..]);
    // What it may write is what the settings file makes it write.
    assert!(unit.contains("StateDirectory=gaia\n") && read("gaia.yaml").contains("dataDir: /var/lib/gaia\n"));
}

#[test]
fn the_image_copies_what_exists_and_runs_it() {
    let file = read("Containerfile");
    let list = |instruction: &str| {
        let line =
            file.lines().find_map(|line| line.strip_prefix(instruction)).unwrap_or_else(|| panic!("{instruction}"));
        words(&serde_json::from_str(line).expect("the form of a list"))
    };
    assert_eq!(list("ENTRYPOINT "), ["gaia"]);
    assert_runs(&list("CMD "));
    let check = file.split("CMD ").find(|part| part.starts_with("[\"gaia\"")).expect("a health check");
    let check = words(&serde_json::from_str(check.lines().next().expect("a line")).expect("a list"));
    assert_runs(&check[1..]);
    for line in file.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let source = line.split(' ').nth(1).expect("a source");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists(), "{source} is not there");
    }
}
