//! Connections to the old APIs: their calls with nearly right bodies, and their sockets.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    connections::{Request, frame, socket, written},
    json as values, once_in, pick, text, yaml,
};
use crate::targets::{LAST_ID, TOKEN};

/// The rare ones that touch the whole stack take long.
const OF_GAIA: [(&str, &str); 40] = [
    ("GET", "/health"),
    ("GET", "/status"),
    ("GET", "/openapi.json"),
    ("GET", "/ha/status"),
    ("GET", "/watch/state"),
    ("GET", "/gpu/status"),
    ("GET", "/gpu/status"),
    ("POST", "/gpu/acquire"),
    ("POST", "/gpu/acquire"),
    ("POST", "/gpu/acquire"),
    ("POST", "/gpu/acquire"),
    ("POST", "/gpu/release"),
    ("POST", "/gpu/release"),
    ("POST", "/gpu/release?lease_id="),
    ("POST", "/gpu/wait"),
    ("POST", "/gpu/wait"),
    ("POST", "/gpu/sleep"),
    ("POST", "/gpu/wake"),
    ("POST", "/gpu/handoff"),
    ("POST", "/handoff/prime-to-study"),
    ("POST", "/handoff/study-to-prime"),
    ("POST", "/handoff/live-to-candidate"),
    ("POST", "/handoff/candidate-to-live"),
    ("GET", "/handoff/{}/status"),
    ("GET", "/handoff/{}/status"),
    ("POST", "/handoff/{}/cancel"),
    ("POST", "/handoff/{}/cancel"),
    ("GET", "/containers/status"),
    ("POST", "/containers/live/stop"),
    ("POST", "/containers/live/start"),
    ("POST", "/containers/candidate/stop"),
    ("POST", "/containers/candidate/start"),
    ("POST", "/containers/swap"),
    ("POST", "/containers/swap"),
    ("POST", "/containers/{}/restart"),
    ("POST", "/notify/oracle-fallback"),
    ("POST", "/notify/oracle-fallback"),
    ("GET", "/ws/notifications"),
    ("GET", "/"),
    ("GET", "/workers"),
];

const OF_TASKS: [(&str, &str); 30] = [
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/workers"),
    ("GET", "/workers/{}"),
    ("POST", "/admin/cleanup"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks"),
    ("GET", "/api/v1/tasks"),
    ("GET", "/api/v1/tasks/{}"),
    ("POST", "/api/v1/tasks/{}/cancel"),
    ("POST", "/api/v1/tasks/{}/retry"),
    ("GET", "/api/v1/tasks/{}/logs"),
    ("GET", "/api/v1/tasks/{}/logs/{}"),
    ("GET", "/api/v1/dead_letters"),
    ("POST", "/api/v1/results"),
    ("POST", "/api/v1/results"),
    ("POST", "/api/v1/results"),
    ("POST", "/api/v1/results"),
    ("GET", "/api/v1/results/{}"),
    ("POST", "/api/v1/results/{}/files"),
    ("POST", "/api/v1/results/{}/files"),
    ("POST", "/api/v1/results/{}/files"),
    ("GET", "/api/v1/results/{}/files/{}"),
    ("GET", "/api/v1/results/{}/files/{}"),
    ("GET", "/ws/worker"),
    ("GET", "/ws/worker"),
];

const METHODS: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"];

/// For `{}`.
const NAMES: [&str; 22] = [
    "gaia-prime",
    "gaia-core",
    "gaia-web",
    "prime",
    "w1",
    "one.txt",
    "1-x",
    "responses.json",
    "archive.tar.gz",
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%2Fetc%2Fpasswd",
    "%00",
    "%ff",
    "%",
    "a%0ab",
    "ns.one",
    ".incoming",
    "logs",
    "%E6%97%A5",
    "",
];

const QUERIES: [&str; 20] = [
    "wait=false",
    "wait=%00",
    "replay=5",
    "replay=-1",
    "replay=18446744073709551615",
    "lease_id=",
    "lease_id=%ff",
    "status=PENDING",
    "status=done",
    "worker=w1",
    "limit=1",
    "limit=-1",
    "limit=99999999999999999999",
    "after=x",
    "scope=submission",
    "scope=x",
    "from=3",
    "from=-3",
    "expires=99999999999&signature=x",
    "a=b&&&=;%",
];

pub fn gaia_facade(rng: &mut fastrand::Rng) -> Vec<u8> {
    let (method, path) = pick(rng, &OF_GAIA);
    // What takes minutes of the stack, though they are none of ours, is asked for less often.
    let costly =
        ["/start", "/stop", "/swap", "/restart", "/handoff", "/sleep", "/wake"].iter().any(|c| path.contains(c));
    let (method, path) = if costly && !once_in(rng, 3) { ("POST", "/gpu/acquire") } else { (method, path) };
    let target = target(rng, path);
    if path == "/ws/notifications" && !once_in(rng, 5) {
        let frames = (0..rng.usize(..4)).map(|_| said(rng, &json!({"type": "ping"}))).collect();
        return socket(rng, target, Vec::new(), frames);
    }
    let body = if method == "POST" { written_body(rng, of_gaia(path)) } else { Vec::new() };
    let method = if once_in(rng, 12) { pick(rng, &METHODS) } else { method };
    let media = pick(
        rng,
        &["application/json", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain"],
    );
    let headers = vec![format!("Content-Type: {media}")];
    written(rng, Request { method, target, headers, body })
}

/// A body as its clients send it.
fn of_gaia(path: &str) -> Value {
    match path {
        "/gpu/acquire" | "/gpu/wait" => {
            json!({"requester": "gaia-study", "reason": "x", "timeout_seconds": 5, "priority": 1})
        }
        "/gpu/handoff" => json!({"target": "study", "reason": "x", "timeout_seconds": 30}),
        "/containers/swap" => json!({"service": "mcp", "target": "candidate"}),
        "/notify/oracle-fallback" => {
            json!({"fallback_model": "m", "original_role": "prime", "reason": "r", "timestamp": "2026-11-30T00:00:00Z"})
        }
        "/containers/live/start" | "/containers/candidate/start" => json!({"gpu_enabled": false, "services": ["web"]}),
        _ => json!({"handoff_type": "prime_to_study", "reason": "x", "timeout_seconds": 20}),
    }
}

pub fn tasks_facade(rng: &mut fastrand::Rng) -> Vec<u8> {
    let (method, path) = pick(rng, &OF_TASKS);
    let target = target(rng, path);
    let mut headers = Vec::new();
    if !once_in(rng, 12) {
        headers.push(format!("Authorization: Bearer {TOKEN}"));
    }
    if path == "/ws/worker" && !once_in(rng, 8) {
        let frames = frames_of_a_worker(rng);
        return socket(rng, target, headers, frames);
    }
    let (media, body) = match (method, path) {
        ("POST", "/api/v1/tasks") => submission(rng),
        ("POST", "/api/v1/results") => ("application/json".to_owned(), written_body(rng, result())),
        ("POST", path) if path.ends_with("/files") => upload(rng),
        ("POST", _) => ("application/json".to_owned(), written_body(rng, json!({}))),
        _ => (String::new(), Vec::new()),
    };
    if !media.is_empty() {
        headers.push(format!("Content-Type: {media}"));
    }
    let method = if once_in(rng, 15) { pick(rng, &METHODS) } else { method };
    written(rng, Request { method, target, headers, body })
}

fn target(rng: &mut fastrand::Rng, path: &str) -> String {
    let mut out = String::new();
    for (n, part) in path.split("{}").enumerate() {
        if n > 0 {
            let name = match rng.u8(..4) {
                0 => (pick(rng, &NAMES)).to_owned(),
                1 => utf8_percent_encode(&text::odd(rng).chars().take(300).collect::<String>(), NON_ALPHANUMERIC)
                    .to_string(),
                _ => LAST_ID.to_owned(),
            };
            out.push_str(&name);
        }
        out.push_str(part);
    }
    if out.ends_with("lease_id=") {
        out.push_str(LAST_ID);
    }
    if once_in(rng, 25) {
        out.insert(rng.usize(..=out.len().min(1)), '/');
    }
    if once_in(rng, 25) {
        out.push_str(pick(rng, &["/", "//", "/x", "%20", ";a", "#b"]));
    }
    if once_in(rng, 3) {
        let separator = if out.contains('?') { '&' } else { '?' };
        out.push(separator);
        out.push_str(pick(rng, &QUERIES));
    }
    out
}

fn written_body(rng: &mut fastrand::Rng, mut value: Value) -> Vec<u8> {
    let times = rng.usize(..3);
    values::change(rng, &mut value, times);
    match rng.u8(..20) {
        0 => Vec::new(),
        1 => "[".repeat(rng.usize(..5000)).into_bytes(),
        2 => (0..rng.usize(..60)).map(|_| rng.u8(..)).collect(),
        _ => values::written(rng, &value),
    }
}

fn result() -> Value {
    json!({"task_id": LAST_ID, "worker_id": "w1", "metadata": {}, "received_at": "2026-11-30T00:00:00Z",
        "attempt": "1-x", "result": {"items": [{"output": "hello"}], "usage": {"tokens": 5}, "model": "m"}})
}

const DOCUMENT: &str = "\
apiVersion: mloc.io/v1
kind: Task
metadata:
  name: one
  annotations: {a: b}
spec:
  taskType: inference
  priority: 5
  model: {source: {type: huggingface, identifier: m}}
  resources: {replicas: 1, hardware: {cpu: 2, memory: 1GiB, gpu: {type: any, count: 1}}}
  parallel: {enabled: true, max_shards: 3}
  data: {type: list, items: [a, b, '${two.result.items[0].output}']}
  output: {destination: {type: http, url: 'http://127.0.0.1:1/${a.b}', headers: {A: b}}}
  dependsOn: [two]
  ttlSecondsAfterFinished: 60
";

const STAGES: &str = "\
apiVersion: mloc.io/v1
kind: Task
metadata: {name: many}
spec:
  taskType: echo
  resources: {hardware: {cpu: 1}}
  stages:
    - {name: two, spec: {data: {type: list, items: [x]}}}
    - {name: three, dependsOn: [two], spec: {model: '${two.result.final_model_archive_url}'}}
  graph:
    nodes:
      - {id: a, spec: {taskType: echo}}
      - {name: b, dependsOn: [a]}
";

const WORDS: [&str; 24] = [
    "taskType: sft",
    "stages: [{}]",
    "stages: {a: b}",
    "graph: {nodes: [{name: a, dependsOn: [a]}]}",
    "graph: {nodes: [1, null]}",
    "dependsOn: x",
    "- {name: two}",
    "<<: *a",
    "&a [*a]",
    "resources: {hardware: {memory: 99999999999999999999TiB}}",
    "resources: {hardware: {memory: -1}}",
    "gpu: {count: 1e9, memory: 16Gi}",
    "priority: 99999999999999999999",
    "ttlSecondsAfterFinished: -1",
    "parallel: {enabled: true, max_shards: 4294967296}",
    "data: {type: dataset, split: 'train[:10%]'}",
    "data: {type: dataset, split: 'train[5:3]'}",
    "data: {type: list, items: {a: 1}}",
    "data: {type: graph_template, columns: [{name: a, node: b, path: 'result.items[99999999999].x'}]}",
    "${",
    "'${a}${b.c[0]}'",
    "---",
    "!!binary x",
    "metadata: {name: ''}",
];

fn submission(rng: &mut fastrand::Rng) -> (String, Vec<u8>) {
    let document = pick(rng, &[DOCUMENT, STAGES]);
    let document = match rng.u8(..4) {
        0 => document.to_owned(),
        1 => text::change_lines(rng, document, &WORDS),
        2 => document.replace("dependsOn: [two]", &format!("dependsOn: [{LAST_ID}]")),
        _ => {
            let mut value: Value = serde_saphyr::from_str(document).unwrap_or_default();
            let times = rng.usize(1..4);
            values::change(rng, &mut value, times);
            serde_saphyr::to_string(&value).unwrap_or_default()
        }
    };
    match rng.u8(..6) {
        0 => ("application/json".to_owned(), json!({"yaml": document}).to_string().into_bytes()),
        1 => ("application/json".to_owned(), json!(document).to_string().into_bytes()),
        2 => {
            let mut bytes = document.into_bytes();
            text::damage(rng, &mut bytes);
            ("text/yaml".to_owned(), bytes)
        }
        3 if once_in(rng, 4) => ("text/yaml".to_owned(), yaml::desired_yaml(rng)),
        _ => ("text/yaml".to_owned(), document.into_bytes()),
    }
}

fn upload(rng: &mut fastrand::Rng) -> (String, Vec<u8>) {
    let boundary = pick(rng, &["xyz", "----WebKitFormBoundary", "a b", ""]);
    let name =
        pick(rng, &["one.txt", "archive.tar.gz", "../x", "responses.json", "", "a/b", ".", "..", "\u{e9}", "x\0y"]);
    let field = if once_in(rng, 8) { "other" } else { "file" };
    let disposition = match rng.u8(..6) {
        0 => format!("Content-Disposition: form-data; name={field}"),
        1 => "Content-Disposition: nothing".to_owned(),
        2 => format!("content-disposition: form-data; name=\"{field}\"; filename*=UTF-8''{name}"),
        _ => format!("Content-Disposition: form-data; name=\"{field}\"; filename=\"{name}\""),
    };
    let content = "x".repeat(pick(rng, &[0, 1, 100, 70_000]));
    let end = if once_in(rng, 6) { "" } else { "--" };
    let body =
        format!("--{boundary}\r\n{disposition}\r\nContent-Type: text/plain\r\n\r\n{content}\r\n--{boundary}{end}\r\n");
    let mut body = body.into_bytes();
    if once_in(rng, 6) {
        text::damage(rng, &mut body);
    }
    let media = match rng.u8(..5) {
        0 => "application/json".to_owned(),
        1 => "multipart/form-data".to_owned(),
        _ => format!("multipart/form-data; boundary={boundary}"),
    };
    (media, body)
}

fn frames_of_a_worker(rng: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let id = pick(rng, &["w1", "w2", "w3"]);
    let hardware = json!({"cpu": {"logical_cores": 8}, "memory": {"total_bytes": 17_179_869_184_u64},
        "gpu": {"gpus": [{"index": 0, "name": "A", "uuid": "GPU-0", "memory_total_bytes": 25_769_803_776_u64}]}});
    let register = json!({"type": "REGISTER", "ts": "2026-11-30T10:00:00Z", "worker_id": id, "tags": ["cpu"],
        "payload": {"env": {"A": "b"}, "hardware": hardware, "started_at": "2026-11-30T09:00:00Z", "pid": 7}});
    let mut frames = vec![said(rng, &register)];
    for _ in 0..rng.usize(..7) {
        let message = match rng.u8(..8) {
            0 => json!({"type": "STATUS", "worker_id": id, "status": "IDLE", "payload": {}}),
            1 => {
                json!({"type": "STATUS", "worker_id": id, "status": "RUNNING", "task_id": LAST_ID, "attempt": "1-x", "payload": {"task_id": LAST_ID}})
            }
            2 => json!({"type": "HEARTBEAT", "worker_id": id, "ts": "2026-11-30T10:00:01Z", "payload": {"cpu": 5}}),
            3 => json!({"type": "TASK_STARTED", "worker_id": id, "task_id": LAST_ID}),
            4 => {
                json!({"type": "TASK_SUCCEEDED", "worker_id": id, "task_id": LAST_ID, "payload": {"dispatched_at": "x"}})
            }
            5 => json!({"type": "TASK_FAILED", "worker_id": id, "task_id": LAST_ID, "error": {"a": [1]}}),
            6 => json!({"type": "TASK_LOG", "worker_id": id, "task_id": LAST_ID, "attempt": "1-x",
                "payload": {"lines": [{"ts": "x", "stream": "stdout", "text": "hello"}]}}),
            _ => json!({"type": "UNREGISTER", "worker_id": id}),
        };
        frames.push(said(rng, &message));
    }
    frames
}

/// A message, sometimes changed, as a frame.
fn said(rng: &mut fastrand::Rng, message: &Value) -> Vec<u8> {
    let mut message = message.clone();
    if once_in(rng, 4) {
        values::change(rng, &mut message, 1);
    }
    let text = if once_in(rng, 20) { text::odd(rng).into_bytes() } else { message.to_string().into_bytes() };
    frame(rng, &text)
}
