//! A Source of a git repository, on git's own server over HTTP.

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use gaia::{api::source::SourceStatus, registry::ListOptions};
use serde_json::{Value, json};

use crate::{
    gitserver::GitServer,
    world::{World, workload},
};

/// The syncer at work, and a repository with one Workload; no Source of it yet.
async fn world(credentials: Option<&str>) -> (World, GitServer) {
    let world = World::start().await;
    let server = GitServer::start(&world.scratch().join("server"), credentials);
    server.write("gpu1/web.yaml", workload("web", "web:1"));
    server.push("First");
    (world, server)
}

/// A fetch a second: what a push leads to is soon seen.
fn spec(server: &GitServer, more: Value) -> Value {
    let mut spec = json!({"git": {"url": server.url(), "branch": "main", "path": "gpu1"}, "intervalSeconds": 1});
    json_patch::merge(&mut spec, &more);
    spec
}

async fn followed(credentials: Option<&str>) -> (World, GitServer) {
    let (world, server) = world(credentials).await;
    world.make_source("hosts", spec(&server, json!({}))).await;
    world.until_image("web", "web:1").await;
    (world, server)
}

pub fn condition(status: &SourceStatus, type_: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    found.map(|c| format!("{} {}: {}", c.status, c.reason, c.message)).unwrap_or_default()
}

pub async fn until(world: &World, type_: &str, part: &str) {
    world.until(part, async || condition(&world.status_of("hosts").await, type_).contains(part)).await;
}

async fn until_commit(world: &World, commit: &str) {
    let applied =
        async || world.status_of("hosts").await.git.unwrap_or_default().applied_commit.as_deref() == Some(commit);
    world.until(commit, applied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_applied_and_what_it_removes_is_deleted() {
    let (world, server) = followed(None).await;
    server.write("gpu1/stack/db.yaml", workload("db", "db:1"));
    server.write("gpu2/other.yaml", workload("other", "other:1"));
    server.write("gpu1/web.yaml", workload("web", "web:2"));
    let commit = server.push("Two\n\nand why");
    world.until_image("web", "web:2").await;
    world.until_image("db", "db:1").await;
    until_commit(&world, &commit).await;
    let status = world.status_of("hosts").await;
    let git = status.git.clone().expect("it is of git");
    assert_eq!((git.observed_commit.as_ref(), git.subject.as_deref()), (Some(&commit), Some("Two")));
    assert!(git.last_fetch_time.is_some());
    assert_eq!(condition(&status, "Fetched"), format!("True Fetched: {commit} Two"));
    assert_eq!(condition(&status, "Ready"), "True Applied: 2 objects from 2 files");
    assert!(world.workload("other").await.is_none(), "it is beside the path");

    fs::remove_file(server.path("gpu1/stack/db.yaml")).expect("was there");
    let commit = server.push("Without db");
    world.until_gone("db").await;
    until_commit(&world, &commit).await;
    // Drift is set back from the commit.
    world.patch("Workload", "web", json!({"spec": {"live": {"container": {"image": "mine"}}}})).await;
    world.until_image("web", "web:2").await;
    // One commit is kept on the disk.
    let below = |directory: PathBuf| {
        fs::read_dir(directory).expect("is there").map(|e| e.expect("readable").path()).collect::<Vec<_>>()
    };
    let all = below(world.scratch().join("git/hosts"));
    let [own] = &all[..] else { panic!("one repository: {all:?}") };
    let others = below(own.clone()).into_iter().filter(|path| !path.ends_with(&commit));
    // The next fetch may be under way.
    let others: Vec<_> = others.filter(|path| !path.display().to_string().contains("incoming")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_branch_is_followed() {
    let (world, server) = followed(None).await;
    server.write("gpu1/web.yaml", workload("web", "web:2"));
    let second = server.push("Second");
    until_commit(&world, &second).await;
    server.git(&["reset", "-q", "--hard", "HEAD~1"]);
    server.write("gpu1/web.yaml", workload("web", "web:3"));
    let other = server.push("Instead");
    until_commit(&world, &other).await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_or_repository_that_is_gone_takes_nothing_away() {
    let (mut world, server) = followed(None).await;
    let repository = server.repository();
    fs::rename(&repository, repository.with_extension("away")).expect("can be renamed");
    until(&world, "Fetched", "False FetchFailed: there is no repository at").await;
    let status = world.status_of("hosts").await;
    let commit = status.git.clone().unwrap_or_default().applied_commit.expect("it was applied");
    assert!(condition(&status, "Ready").starts_with("False FetchFailed"), "{status:#?}");
    assert!(condition(&status, "Ready").ends_with(&format!("what commit {commit} says is kept")), "{status:#?}");
    world.until_note("there is no repository at").await;
    // What was applied is still kept.
    world.patch("Workload", "web", json!({"spec": {"live": {"container": {"image": "mine"}}}})).await;
    world.until_image("web", "web:1").await;

    fs::rename(repository.with_extension("away"), &repository).expect("can be renamed");
    until(&world, "Ready", "True Applied").await;
    server.git(&["push", "-q", "origin", "--delete", "main"]);
    until(&world, "Fetched", &format!("False NoSuchRef: {} has no branch main", server.url())).await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    let again = server.push("Again");
    until_commit(&world, &again).await;
    until(&world, "Ready", "True Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_read_from_their_file_and_told_nobody() {
    let (mut world, server) = world(Some("deploy:s3cret-t0ken")).await;
    world.make_source("hosts", spec(&server, json!({}))).await;
    until(&world, "Ready", "asks for credentials, and the Source has none").await;
    let file = world.scratch().join("token");
    let credentials = json!({"spec": {"git": {"credentials": {"username": "deploy", "file": file}}}});
    world.patch("Source", "hosts", credentials).await;
    until(&world, "Ready", "cannot be read: No such file").await;
    fs::write(&file, "wr0ng-t0ken\n").expect("can be written");
    until(&world, "Fetched", "False AuthenticationFailed").await;
    until(&world, "Fetched", "does not accept what credentials.file").await;
    assert!(world.workload("web").await.is_none());
    fs::write(&file, "s3cret-t0ken\nsecond line\n").expect("can be written");
    world.until_image("web", "web:1").await;
    until(&world, "Ready", "True Applied").await;

    fs::write(&file, "wr0ng-t0ken").expect("can be written");
    until(&world, "Ready", "False AuthenticationFailed").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    let mut said = format!("{:#?}", world.status_of("hosts").await);
    while let Ok(recorded) = world.notes.try_recv() {
        said.push_str(&recorded.note.message);
    }
    let list = world.registry.list(&world.kind("Source"), None, &ListOptions::default()).await.expect("a list");
    list.items.iter().for_each(|version| said.push_str(&version.object.to_string()));
    for secret in ["s3cret", "wr0ng", "ZGVwbG95"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_in_a_commit_is_told_and_nothing_is_deleted() {
    let (world, server) = followed(None).await;
    server.write("gpu1/db.yaml", workload("db", "db:1"));
    server.push("With db");
    world.until_image("db", "db:1").await;

    fs::remove_file(server.path("gpu1/db.yaml")).expect("was there");
    server.write("gpu1/web.yaml", "kind: [unfinished");
    server.push("Broken");
    until(&world, "Ready", "False InvalidFiles: web.yaml:").await;
    assert_eq!((world.image("web").await, world.workload("db").await.is_some()), (Some("web:1".to_owned()), true));

    server.write("gpu1/web.yaml", workload("web", "web:2"));
    symlink("../elsewhere.yaml", server.path("gpu1/linked.yaml")).expect("can be made");
    symlink("web.yaml", server.path("gpu1/no-concern.txt")).expect("can be made");
    symlink("/etc", server.path("gpu1/etc")).expect("can be made");
    server.push("Links");
    world.until_image("web", "web:2").await;
    until(&world, "Ready", "False InvalidFiles: etc: is a symbolic link").await;
    let links = ["etc", "linked.yaml"]
        .map(|name| format!("{name}: is a symbolic link, and in a git repository none is followed"));
    assert_eq!(world.errors_of("hosts").await, links);
    assert!(world.workload("db").await.is_some());

    for link in ["etc", "linked.yaml"] {
        fs::remove_file(server.path(&format!("gpu1/{link}"))).expect("was there");
    }
    server.push("In order");
    world.until_gone("db").await;
    until(&world, "Ready", "True Applied").await;

    fs::rename(server.path("gpu1"), server.path("gpu9")).expect("can be renamed");
    let moved = server.push("Moved");
    until(&world, "Ready", &format!("//gpu1 does not exist in commit {moved}; everything is left as it is")).await;
    until(&world, "Ready", "False PathNotFound").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:2"));
    world.patch("Source", "hosts", json!({"spec": {"git": {"path": "gpu9"}}})).await;
    until(&world, "Ready", "True Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_commits_are_read_as_well() {
    let (world, server) = followed(None).await;
    let first = server.git(&["rev-parse", "HEAD"]);
    server.write("gpu1/web.yaml", workload("web", "web:2"));
    server.push("Second");
    server.git(&["tag", "-a", "v2", "-m", "Two"]);
    server.git(&["push", "-q", "origin", "v2"]);
    server.write("gpu1/web.yaml", workload("web", "web:3"));
    server.push("Third");
    world.until_image("web", "web:3").await;
    for (git, image) in [
        (json!({"branch": null, "tag": "v2"}), "web:2"),
        (json!({"tag": null, "commit": first}), "web:1"),
        (json!({"commit": null}), "web:3"),
        (json!({"url": format!("file://{}", server.repository().display()), "branch": "main"}), "web:3"),
    ] {
        world.patch("Source", "hosts", json!({"spec": {"git": git}})).await;
        world.until_image("web", image).await;
        until(&world, "Ready", "True Applied").await;
    }
    for (git, said) in [
        (json!({"branch": "nope"}), "has no branch nope"),
        (json!({"branch": null, "tag": "v9"}), "has no tag v9"),
        (json!({"tag": null, "commit": "0123456789012345678901234567890123456789"}), "has no commit 0123456789"),
    ] {
        world.patch("Source", "hosts", json!({"spec": {"git": git}})).await;
        until(&world, "Ready", said).await;
        assert_eq!(world.image("web").await.as_deref(), Some("web:3"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compose_file_of_the_same_commit_counts() {
    let (world, server) = world(None).await;
    server.write("stack/compose.yaml", "services: {core: {image: 'core:${TAG}', env_file: core.env}}\n");
    server.write("stack/.env", "TAG=v1\n");
    server.write("stack/core.env", "A=a\n");
    let text = |file: &str| {
        format!(
            "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: core}}\nspec: {{live: {{container: {{compose: {{file: {file}, service: core}}}}}}}}\n"
        )
    };
    server.write("gpu1/core.yaml", text("../stack/compose.yaml"));
    server.push("Composed");
    world.make_source("hosts", spec(&server, json!({}))).await;
    world.until_image("core", "core:v1").await;
    let container = world.workload("core").await.expect("is there")["spec"]["live"]["container"].clone();
    assert_eq!(container["env"], json!({"A": "a"}));
    assert_eq!(container["compose"]["file"], "/gaia.git/hosts/hosts/stack/compose.yaml");
    assert_eq!(container["compose"]["project"], "stack");
    server.write("stack/.env", "TAG=v2\n");
    server.push("Only the variable");
    world.until_image("core", "core:v2").await;
    // A file of the host is none of the repository's.
    server.write("gpu1/core.yaml", text("/etc/hostname"));
    server.push("Out of it");
    until(&world, "Ready", "is not in the repository: what its files name must be in it").await;
    assert_eq!(world.image("core").await.as_deref(), Some("core:v2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_holds_up_nothing() {
    let (mut world, server) = followed(None).await;
    server.hang();
    world.patch("Source", "hosts", json!({"spec": {"git": {"timeoutSeconds": 1}}})).await;
    until(&world, "Fetched", "False FetchFailed").await;
    world.patch("Workload", "web", json!({"spec": {"live": {"container": {"image": "mine"}}}})).await;
    world.until_image("web", "web:1").await;
    // A fetch is under way, or soon will be: the end does not wait for it.
    world.patch("Source", "hosts", json!({"spec": {"git": {"timeoutSeconds": 3600}}})).await;
    world.stop().await;
    server.answer();
    world.run();
    server.write("gpu1/web.yaml", workload("web", "web:2"));
    server.push("At last");
    world.until_image("web", "web:2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_it_fetched_at_once() {
    let (world, server) = world(None).await;
    world.make_source("hosts", spec(&server, json!({"intervalSeconds": 3600}))).await;
    world.until_image("web", "web:1").await;
    server.write("gpu1/web.yaml", workload("web", "web:2"));
    let second = server.push("Second");
    world.patch("Source", "hosts", json!({"metadata": {"annotations": {"gaia.dev/reconcile-at": "now"}}})).await;
    world
        .until("it is answered", async || world.status_of("hosts").await.handled_request.as_deref() == Some("now"))
        .await;
    until_commit(&world, &second).await;
    // Also where the fetch finds what is there already.
    world.patch("Source", "hosts", json!({"metadata": {"annotations": {"gaia.dev/reconcile-at": "again"}}})).await;
    world
        .until("it is answered", async || world.status_of("hosts").await.handled_request.as_deref() == Some("again"))
        .await;
    until(&world, "Ready", "True Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_goes_on_with_what_it_finds() {
    let (mut world, server) = followed(None).await;
    until(&world, "Ready", "True Applied").await;
    world.stop().await;
    // The server is away, and somebody deleted what files state.
    fs::rename(server.repository(), server.repository().with_extension("away")).expect("can be renamed");
    world.delete("Workload", "web").await;
    world.run();
    world.until_image("web", "web:1").await;
    world.stop().await;
    // And where the fetched commit is damaged, nothing is changed and it is fetched anew.
    for pack in walk(&world.scratch().join("git/hosts"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "pack"))
    {
        // git makes them read-only.
        fs::remove_file(&pack).expect("can be removed");
        fs::write(pack, "no pack").expect("can be written");
    }
    world.run();
    until(&world, "Ready", "False FetchFailed").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    fs::rename(server.repository().with_extension("away"), server.repository()).expect("can be renamed");
    until(&world, "Ready", "True Applied").await;
    // With the Source goes what was fetched; its objects stay.
    world.delete("Source", "hosts").await;
    let gone = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while world.scratch().join("git/hosts").exists() {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is removed");
    assert!(world.workload("web").await.is_some());
}

fn walk(directory: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("can be read").map(|entry| entry.expect("can be read").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_a_revision_and_can_be_gone_back_to() {
    let (world, server) = followed(None).await;
    let first = server.git(&["rev-parse", "HEAD"]);
    server.write("gpu1/web.yaml", workload("web", "web:2"));
    let second = server.push("Second");
    until_commit(&world, &second).await;
    let revision = world.object("SourceRevision", None, "hosts-1").await.expect("is kept");
    assert_eq!(revision["spec"]["cause"]["commit"], first.as_str());
    assert_eq!(revision["spec"]["cause"]["subject"], "First");
    world.patch("Source", "hosts", json!({"spec": {"pin": 1}})).await;
    world.until_image("web", "web:1").await;
    until(&world, "Pinned", "the files say otherwise: changed Workload default/web (web.yaml:1)").await;
    // Held, whatever becomes of the repository.
    fs::rename(server.repository(), server.repository().with_extension("away")).expect("can be renamed");
    until(&world, "Fetched", "False FetchFailed").await;
    until(&world, "Ready", "True Applied: 1 objects of revision 1").await;
    fs::rename(server.repository().with_extension("away"), server.repository()).expect("can be renamed");
    until(&world, "Fetched", "True Fetched").await;
    world.patch("Source", "hosts", json!({"spec": {"pin": null}})).await;
    until_commit(&world, &second).await;
    world.until_image("web", "web:2").await;
}
