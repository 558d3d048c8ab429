//! Desired files and Compose files: ours, changed line by line; bombs of aliases and variables among them.

use std::{fs, path::Path, sync::OnceLock};

use super::{json, once_in, pick, text};
use crate::targets::samples;

const YAML: [&str; 44] = [
    "&a",
    "*a",
    "<<: *a",
    "&a [*a]",
    "!!binary aGk=",
    "!!str 1",
    "!!set {a, b}",
    "!!map {}",
    "!foo bar",
    "|",
    "|+2",
    ">-",
    "? key",
    "? [a, b]",
    "{",
    "}",
    "[",
    "]",
    "---",
    "...",
    "%YAML 1.2",
    "%TAG ! x",
    "\"\\x00\"",
    "\"\\uD800\"",
    "'it''s'",
    ".nan",
    "-.inf",
    "0o17",
    "0x1F",
    "1_000",
    "12e999",
    "2026-11-30",
    "null",
    "~",
    "{a: 1, a: 2}",
    "[[[[[[[[[[1]]]]]]]]]]",
    "x: {y: {z: [1, {a: b}]}}",
    "\"unfinished",
    "# comment",
    "99999999999999999999999999",
    "- - - a",
    "a: b: c",
    "@x",
    "`x`",
];

const COMPOSE: [&str; 60] = [
    "${TAG}",
    "${NOPE}",
    "${NOPE:-x}",
    "${NOPE:?why}",
    "${A:-${B:-${C}}}",
    "${",
    "$$",
    "$}",
    "${A",
    "extends: gaia-core",
    "extends: {service: gaia-core}",
    "extends: {file: other.yaml, service: a}",
    "depends_on: [gaia-core]",
    "ports: [\"1-9:1-9\"]",
    "ports: [\"70000:1\"]",
    "ports: [\"::1:80:80/udp\"]",
    "ports: [\"9-1\"]",
    "expose: [1-60000]",
    "volumes: [a]",
    "volumes: [\":\"]",
    "volumes: [./x:/y:ro,z]",
    "volumes: [{type: bind}]",
    "tmpfs: /x:size=1,,=",
    "ulimits: {nofile: {soft: -1, hard: x}}",
    "shm_size: 99999999999g",
    "mem_limit: 1.5.5k",
    "stop_grace_period: 1h1m1s1x",
    "stop_grace_period: 99999999999999h",
    "healthcheck: {test: []}",
    "healthcheck: {test: [NONE, x]}",
    "healthcheck: {interval: -1s, retries: 99999999999}",
    "command: 'a \"b'",
    "command: [1, null]",
    "entrypoint: \"\\\\\"",
    "environment: [A, B=, =C, \"\"]",
    "environment: {A: null, B: {c: d}}",
    "env_file: [{path: x, required: false}]",
    "env_file: core.env",
    "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [[gpu]]}]}}}",
    "deploy: {resources: {limits: {cpus: '1e9'}}}",
    "networks: {gaia-network: {aliases: [a], ipv4_address: x}}",
    "network_mode: host",
    "network_mode: service:gaia-core",
    "pid: service:x",
    "ipc: shareable",
    "restart: on-failure:x",
    "restart: \"no\"",
    "labels: [a=b=c]",
    "profiles: [a, 1]",
    "logging: {driver: {}, options: []}",
    "extra_hosts: [\"a:b:c\", \"d\"]",
    "user: 1:2:3",
    "cap_add: ALL",
    "security_opt: [x]",
    "init: maybe",
    "x-anything: [1]",
    "services: {}",
    "%% /srv/stack/.env",
    "%% /srv/stack/other.yaml",
    "name: \"\"",
];

/// Files of ours, as they are.
fn files() -> &'static Vec<String> {
    static FILES: OnceLock<Vec<String>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut found = Vec::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("desired")];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).expect("a folder of the repository");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("can be read").path()).collect();
            paths.sort();
            for path in paths {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "yaml") {
                    found.push(fs::read_to_string(&path).expect("a file of the repository"));
                }
            }
        }
        found.extend(samples().into_iter().map(|(_, object)| object.to_string()));
        assert!(found.len() > 10, "desired/ has moved");
        found
    })
}

fn compose() -> &'static String {
    static FILE: OnceLock<String> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (file, core) = (read("compose.yaml"), read("core.env"));
        format!("{file}\n%% /srv/stack/.env\nTAG=v1\nA=a\nB=\"${{A}}\"\n%% /srv/stack/core.env\n{core}\n%% /srv/stack/other.yaml\nservices: {{a: {{image: i}}}}\n")
    })
}

pub fn desired_yaml(rng: &mut fastrand::Rng) -> Vec<u8> {
    if once_in(rng, 200) {
        return bomb(rng).into_bytes();
    }
    let mut text = pick(rng, files());
    if text.starts_with('{') {
        let mut value = serde_json::from_str(&text).expect("a sample is JSON");
        let times = rng.usize(1..4);
        json::change(rng, &mut value, times);
        return json::written(rng, &value);
    }
    if once_in(rng, 5) {
        text = format!("{text}\n%% more.yaml\n{}", pick(rng, files()));
    }
    if once_in(rng, 5) {
        text = text.replace("image: localhost:5000/", "compose: {file: ../stack/compose.yaml, service: x}\n#");
        text = format!("{text}\n%% /srv/stack/compose.yaml\n{}", text::change_lines(rng, compose(), &COMPOSE));
    }
    let mut bytes = text::change_lines(rng, &text, &YAML).into_bytes();
    if once_in(rng, 5) {
        text::damage(rng, &mut bytes);
    }
    bytes
}

pub fn compose_file(rng: &mut fastrand::Rng) -> Vec<u8> {
    if once_in(rng, 100) {
        return variables(rng).into_bytes();
    }
    let mut text = text::change_lines(rng, compose(), &COMPOSE);
    if once_in(rng, 2) {
        text = text::change_lines(rng, &text, &YAML);
    }
    let mut bytes = text.into_bytes();
    if once_in(rng, 5) {
        text::damage(rng, &mut bytes);
    }
    bytes
}

/// Aliases of aliases, merges of merges, or one long key above many values.
fn bomb(rng: &mut fastrand::Rng) -> String {
    let (levels, width) = (rng.usize(2..12), rng.usize(2..12));
    match rng.u8(..4) {
        0 => {
            let mut text = "a0: &a0 [x]\n".to_owned();
            for level in 1..levels {
                text += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); width].join(", "));
            }
            text
        }
        1 => {
            let mut text = "a0: &a0 {k0: x}\n".to_owned();
            for level in 1..levels {
                text += &format!("a{level}: &a{level} {{<<: *a{}, k{level}: *a{}}}\n", level - 1, level - 1);
            }
            text
        }
        2 => format!("{}: [{}]\n", "k".repeat(rng.usize(..20_000)), vec!["0"; rng.usize(1..2000)].join(",")),
        _ => "{a: ".repeat(rng.usize(1..3000)),
    }
}

/// Variables of variables.
fn variables(rng: &mut fastrand::Rng) -> String {
    let (levels, width) = (rng.usize(2..12), rng.usize(2..12));
    let mut env = "V0=0123456789\n".to_owned();
    for level in 1..levels {
        env += &format!("V{level}={}\n", format!("${{V{}}}", level - 1).repeat(width));
    }
    format!("services: {{a: {{image: \"${{V{}}}\"}}}}\n%% /srv/stack/.env\n{env}", levels - 1)
}
