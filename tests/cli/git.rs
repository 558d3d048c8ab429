//! The binary on a git repository: a push is followed, `kill -9` at any moment is survived.

use std::{fs, path::Path};

use crate::{gitserver::GitServer, program::Server};

fn write(git: &GitServer, image: &str) -> String {
    let text = format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: web}}\nspec: {{live: {{container: {{image: '{image}'}}}}}}\n"
    );
    git.write("web.yaml", text);
    git.push(image)
}

fn source(git: &GitServer, token: &Path) -> String {
    format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Source\nmetadata: {{name: hosts}}\nspec:\n  intervalSeconds: 1\n  git: {{url: '{}', branch: main, credentials: {{file: '{}'}}}}\n",
        git.url(),
        token.display()
    )
}

/// Waits until a container is made from this image.
fn until_runs(server: &Server, image: &str) {
    let runs = || {
        let text = server.gaia(&["get", "workload", "web", "-o", "json"]).stdout;
        let object: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        object["spec"]["live"]["container"]["image"] == image && object["status"]["live"]["state"] == "Running"
    };
    server.follow(&["watch", "workloads"]).line(image, |_| runs());
}

#[test]
fn a_push_reaches_the_containers_across_kills() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let git = GitServer::start(&scratch.path().join("git"), Some("git:t0ken"));
    let token = scratch.path().join("token");
    fs::write(&token, "t0ken\n").expect("can be written");
    let data = scratch.path().join("data");
    write(&git, "web:1");
    let mut server = Server::start(&data);
    server.apply(&source(&git, &token));
    until_runs(&server, "web:1");
    // Killed between the push and whatever the fetch, the apply or the status has come to by then.
    for round in 2..8_u64 {
        let commit = write(&git, &format!("web:{round}"));
        // Another moment each time: there is nothing to wait for.
        std::thread::park_timeout(std::time::Duration::from_millis(round * 170));
        server.program.kill();
        server = Server::start(&data);
        until_runs(&server, &format!("web:{round}"));
        server.says(&["source", "sync", "hosts"]);
        let text = server.says(&["get", "source", "hosts", "-o", "json"]);
        let source: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(source["status"]["git"]["appliedCommit"], commit.as_str(), "{source:#}");
        assert_eq!(source["status"]["revision"], round, "no state is kept twice, none is missed: {source:#}");
    }
    let history = server.says(&["source", "history", "hosts"]);
    assert!(history.lines().nth(1).is_some_and(|row| row.contains("web:7") && row.ends_with("applied")), "{history}");
    assert!(server.says(&["source", "rollback", "hosts"]).contains("of revision 6"));
    until_runs(&server, "web:6");
    server.says(&["source", "resume", "hosts"]);
    until_runs(&server, "web:7");
    let (status, stderr, took) = server.terminate();
    assert!(status.success() && took.as_secs() < 10, "{status} {stderr}");
    assert!(!stderr.contains("t0ken"), "{stderr}");
}

#[test]
fn a_url_that_holds_a_password_is_refused_and_not_repeated() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(data.path());
    for url in ["https://ann:hunter2@git.example.org/hosts.git", "ssh://ann:hunter2@git.example.org/hosts.git"] {
        let body = format!(r#"{{"metadata":{{"name":"hosts"}},"spec":{{"git":{{"url":"{url}"}}}}}}"#);
        let (code, answer) = server.send("POST", "/apis/gaia.dev/v1alpha1/sources", "application/json", &body);
        assert_eq!(code, 422, "{answer}");
        assert!(answer.contains("they belong into credentials"), "{answer}");
        assert!(!answer.contains("hunter2"), "{answer}");
    }
}
