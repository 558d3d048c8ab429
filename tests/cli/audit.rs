//! The audit log: who changed what, whoever asked and in whatever API.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use crate::program::{Server, complaint, gaia, run, stdout};

/// With two tokens, and an audit log.
fn start(directory: &Path) -> Server {
    let (tokens, log) = (directory.join("tokens"), directory.join("audit.log"));
    fs::write(&tokens, "first\nsecond\n").expect("written");
    let [tokens, log] = [&tokens, &log].map(|path| path.to_str().expect("UTF-8"));
    Server::start_with(&directory.join("data"), &["--token-file", tokens, "--audit-log-file", log])
}

#[test]
fn a_change_is_noted_with_who_where_and_what_and_a_read_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path());
    let manifest = directory.path().join("team.yaml");
    fs::write(&manifest, "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n").expect("written");
    let as_second = |args: &[&str]| {
        let output = gaia().args(args).env("GAIA_SERVER", &server.url).env("GAIA_TOKEN", "second").output();
        stdout(&output.expect("the binary runs")).to_owned()
    };
    as_second(&["get", "namespaces"]);
    as_second(&["apply", "-f", manifest.to_str().expect("UTF-8")]);
    as_second(&["delete", "namespace", "team"]);
    let bearer = "Authorization: Bearer first\r\nUser-Agent: me\r\nAudit-ID: mine\r\n";
    let config = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"c-"},"data":{"k":"hidden"}}"#;
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\n{bearer}Content-Type: application/json\r\n");
    let length = |body: &str| format!("Content-Length: {}\r\n", body.len());
    let create = format!("{}{}", head("/api/v1/namespaces/default/configmaps?fieldManager=x"), length(config));
    assert_eq!(server.request(&create, config).0, 201);
    let question = r#"{"spec":{"resourceAttributes":{"verb":"list","resource":"pods"}}}"#;
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(server.request(&format!("{}{}", head(review), length(question)), question).0, 201);
    assert_eq!(server.request(&format!("{}{}", head("/gpu/notify"), length("{}")), "{}").0, 404);
    assert_eq!(server.send("DELETE", "/api/v1/namespaces/default", "application/json", "").0, 401);
    let (status, _, _) = server.terminate();
    assert!(status.success());

    let file = directory.path().join("audit.log");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("UTF-8");
    assert!(!text.contains("hidden"), "no bodies: {text}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let brief = |event: &Value| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        let token = text("/user/extra/gaia.dev~1token/0");
        format!("{} {} {code} {token}", text("/verb"), text("/objectRef/resource"))
    };
    let briefs: Vec<_> = events.iter().map(brief).collect();
    let expected = [
        "patch namespaces 201 2",
        "delete namespaces 200 2",
        "create configmaps 201 1",
        "post - 404 1",
        "delete namespaces 401 -",
    ];
    assert_eq!(briefs, expected);
    let made = &events[2];
    assert!(made["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with("c-")), "{made}");
    for (pointer, value) in [
        ("/apiVersion", "audit.k8s.io/v1"),
        ("/kind", "Event"),
        ("/level", "Metadata"),
        ("/stage", "ResponseComplete"),
        ("/auditID", "mine"),
        ("/userAgent", "me"),
        ("/sourceIPs/0", "127.0.0.1"),
        ("/requestURI", "/api/v1/namespaces/default/configmaps?fieldManager=x"),
        ("/objectRef/namespace", "default"),
        ("/objectRef/apiVersion", "v1"),
        ("/user/username", "gaia:admin"),
    ] {
        assert_eq!(made.pointer(pointer).and_then(Value::as_str), Some(value), "{pointer} of {made}");
    }
    assert_eq!(events[4]["user"]["username"], "system:anonymous");
}

#[test]
fn a_file_that_cannot_be_is_told_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, log) = (directory.path().join("data"), directory.path().join("none/audit.log"));
    let [data, log] = [&data, &log].map(|path| path.to_str().expect("UTF-8"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir", data];
    let refused = run(&[&serve[..], &["--audit-log-file", log]].concat());
    assert!(complaint(&refused, 1).contains(&format!("cannot append to the audit log {log}")));
}
