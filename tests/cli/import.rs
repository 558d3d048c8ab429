//! `gaia import compose`: a whole stack from its Compose file.

use std::{fs, path::Path};

use crate::program::{complaint, gaia, run, stdout};

const STACK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/compose");

fn import(args: &[&str]) -> std::process::Output {
    let mut import = gaia();
    import.args(["import", "compose", "--no-compare", &format!("{STACK}/compose.yaml")]).args(args);
    import.output().expect("the binary runs")
}

/// What a stack like GAIA's comes to. GAIA_UPDATE=1 writes it anew: then read what has changed.
#[test]
fn a_stack_comes_to_what_was_looked_at() {
    let resolved = stdout(&import(&["--resolved"])).replace(STACK, "/srv/gaia");
    let path = Path::new(STACK).join("expected/resolved.golden");
    if std::env::var_os("GAIA_UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("can be made");
        fs::write(&path, &resolved).expect("can be written");
    }
    assert_eq!(resolved, fs::read_to_string(&path).expect("is part of the repository"));
}

#[test]
fn the_files_name_the_compose_file_and_nothing_is_written_over() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let directory = scratch.path().canonicalize().expect("it is there");
    let output = import(&["--output", directory.to_str().expect("UTF-8"), "--profile", "audio"]);
    assert_eq!(stdout(&output), "");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("gaia-prime: is given a card") && told.contains("gaia-study: is given a card"), "{told}");
    assert!(!told.contains("gaia-web: is given a card"), "{told}");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("readable")
        .map(|f| f.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    let names = ["audio", "core", "mcp", "prime", "study", "web"].map(|name| format!("gaia-{name}.yaml"));
    assert_eq!(files, names);
    let text = fs::read_to_string(directory.join("gaia-web.yaml")).expect("readable");
    let named = text.lines().find_map(|line| line.trim().strip_prefix("file: ")).expect("the Compose file is named");
    assert!(Path::new(named).is_relative(), "the two may be moved together: {named}");
    let meant = directory.join(named).canonicalize().expect("it leads somewhere");
    assert_eq!(meant, Path::new(STACK).join("compose.yaml").canonicalize().expect("it is there"));
    assert!(text.contains("service: gaia-web") && !text.contains("image:"), "{text}");
    let again = import(&["--output", directory.to_str().expect("UTF-8")]);
    complaint(&again, 1);
}

#[test]
fn what_cannot_be_imported_is_told_with_its_place() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = scratch.path().join("c.yaml");
    fs::write(&file, "services:\n  web:\n    build: .\n  db:\n    image: db\n    links: [web]\n")
        .expect("can be written");
    let output = run(&["import", "compose", "--no-compare", file.to_str().expect("UTF-8")]);
    complaint(&output, 1);
    let told = String::from_utf8_lossy(&output.stderr);
    for expected in ["c.yaml:3: services.web.build: is not supported", "c.yaml:6: services.db.links: is not supported"]
    {
        assert!(told.contains(expected), "{told}");
    }
    let unknown = import(&["--profile", "nope"]);
    complaint(&unknown, 2);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are audio, full"), "{unknown:?}");
}
