//! A Source of a git repository over ssh, with OpenSSH's own server; and over https, with a private authority.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    git::{condition, until},
    gitserver::GitServer,
    sshd::SshServer,
    world::{World, workload},
};

async fn world() -> (World, GitServer) {
    let world = World::start().await;
    let server = GitServer::start(&world.scratch().join("server"), None);
    server.write("web.yaml", workload("web", "web:1"));
    server.push("First");
    (world, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_a_push_is_followed() {
    let (world, server) = world().await;
    let sshd = SshServer::start(&world.scratch().join("ssh"));
    let credentials = json!({"file": sshd.client_key(), "knownHostsFile": sshd.known_hosts(true)});
    let url = sshd.url(&server.repository());
    let git = json!({"url": url, "branch": "main", "credentials": credentials});
    world.make_source("hosts", json!({"git": git, "intervalSeconds": 1})).await;
    world.until_image("web", "web:1").await;
    server.write("web.yaml", workload("web", "web:2"));
    let second = server.push("Second");
    world.until_image("web", "web:2").await;
    until(&world, "Fetched", &format!("True Fetched: {second}")).await;

    // Whom it does not know, and who does not know it, gets nothing; what was applied is kept.
    let strange = json!({"spec": {"git": {"credentials": {"file": sshd.strange_key()}}}});
    world.patch("Source", "hosts", strange).await;
    until(&world, "Fetched", "False AuthenticationFailed").await;
    until(&world, "Fetched", "does not accept what credentials.file").await;
    let wrong = json!({"file": sshd.client_key(), "knownHostsFile": sshd.known_hosts(false)});
    world.patch("Source", "hosts", json!({"spec": {"git": {"credentials": wrong}}})).await;
    until(&world, "Fetched", "what ssh said of it is in gaia's log").await;
    until(&world, "Fetched", "False FetchFailed").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:2"));

    world.patch("Source", "hosts", json!({"spec": {"git": {"credentials": credentials}}})).await;
    until(&world, "Ready", "True Applied").await;
    world.patch("Source", "hosts", json!({"spec": {"git": {"branch": "nope"}}})).await;
    until(&world, "Fetched", "has no branch nope").await;
    drop(sshd);
    world.patch("Source", "hosts", json!({"spec": {"git": {"branch": "main"}}})).await;
    until(&world, "Fetched", "False FetchFailed").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:2"));
}

/// An authority, and a certificate of it for 127.0.0.1, where the git server looks for it. Answers the authority's file.
fn certificates(server: &Path, authority: &Path) -> std::path::PathBuf {
    fs::create_dir_all(authority).expect("can be made");
    fs::create_dir_all(server).expect("can be made");
    let openssl = |args: &str| {
        let run = Command::new("openssl").current_dir(authority).args(args.split(' ')).output().expect("openssl runs");
        assert!(run.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&run.stderr));
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ours",
    );
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout host.key -out host.csr -subj /CN=git");
    fs::write(authority.join("host.ext"), "subjectAltName=IP:127.0.0.1\n").expect("can be written");
    openssl("x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile host.ext -out host.pem");
    let read = |name: &str| fs::read_to_string(authority.join(name)).expect("it was made");
    fs::write(server.join("tls.pem"), format!("{}{}", read("host.key"), read("host.pem"))).expect("can be written");
    authority.join("ca.pem")
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_a_private_authority_is_trusted_where_the_source_names_it() {
    let world = World::start().await;
    let place = world.scratch().join("server");
    let authority = certificates(&place, &world.scratch().join("authority"));
    let server = GitServer::start(&place, Some("deploy:t0ken"));
    server.write("web.yaml", workload("web", "web:1"));
    server.push("First");
    let token = world.scratch().join("token");
    fs::write(&token, "t0ken\n").expect("can be written");
    let url = server.url().replace("http:", "https:");
    let git = json!({"url": url, "branch": "main", "credentials": {"username": "deploy", "file": token}});
    world.make_source("hosts", json!({"git": git, "intervalSeconds": 1})).await;
    until(&world, "Fetched", "False FetchFailed").await;
    let said = condition(&world.status_of("hosts").await, "Fetched");
    assert!(said.contains("UnknownIssuer"), "it says that nobody vouches for it: {said}");
    assert!(world.workload("web").await.is_none());

    let empty = world.scratch().join("empty.pem");
    fs::write(&empty, "no certificate\n").expect("can be written");
    for (file, said) in [(empty.as_path(), "holds no certificate"), (Path::new("/nonexistent.pem"), "cannot be read")] {
        world.patch("Source", "hosts", json!({"spec": {"git": {"caFile": file}}})).await;
        until(&world, "Fetched", said).await;
    }
    world.patch("Source", "hosts", json!({"spec": {"git": {"caFile": authority}}})).await;
    world.until_image("web", "web:1").await;
    server.write("web.yaml", workload("web", "web:2"));
    server.push("Second");
    world.until_image("web", "web:2").await;
}
