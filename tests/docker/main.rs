//! The main job, on real parts: the binary, a real Docker engine, files that are edited, the real `kubectl`, a WebSocket
//! client that sees it happen, and `kill -9` in the middle.
//!
//! Every test has workloads of its own names, so that they can share one engine: to each other they are strangers whose
//! containers must not be touched.

#[path = "../cli/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod program;
#[path = "../support/mod.rs"]
mod support;

mod compose;
mod host;
mod watcher;

use std::time::Duration;

use host::Host;
use watcher::Watcher;

fn workload(name: &str, image: &str, level: &str, more: &str) -> String {
    format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\nspec:\n  stopGraceSeconds: 2\n  live:\n    \
         container:\n      image: {image}\n      env:\n        LEVEL: \"{level}\"\n{more}"
    )
}

const PROBED: &str = "  probes:\n    readiness:\n      http: {port: 8080, path: /healthz}\n      periodSeconds: 1\n";

#[tokio::test]
async fn a_file_is_edited_and_the_containers_follow_and_a_watcher_sees_it() {
    let host = Host::new().await;
    let (db, web) = (host.name("db"), host.name("web"));
    let mut watcher = Watcher::connect(&host.server, "kind=Workload").await;

    let depends = format!("{PROBED}  dependsOn:\n  - {{workload: {db}, condition: Healthy}}\n");
    host.write("stack/web.yaml", &workload(&web, &host.image, "1", &depends));
    host.write("stack/db.yaml", &workload(&db, &host.image, "1", PROBED));
    let first = host.running(&format!("{web}-live")).await;
    let db_first = host.running(&format!("{db}-live")).await;
    assert!(first.started_at > db_first.started_at, "the one that depends starts later");
    assert_eq!(first.restart_policy, "no");

    watcher.until("web is added", |f| f.kind == "ADDED" && f.name == web).await;
    watcher
        .until("db is Ready before web is", |f| {
            assert!(!(f.name == web && f.ready()), "web is Ready before db");
            f.name == db && f.ready()
        })
        .await;
    watcher.until("web is Ready", |f| f.name == web && f.ready()).await;

    host.write("stack/web.yaml", &workload(&web, &host.image, "2", &depends));
    let second = host.replaced(&first).await;
    assert!(second.env.contains(&"LEVEL=2".to_owned()), "{:?}", second.env);
    watcher.until("web is Ready anew", |f| f.name == web && f.ready() && f.container() == Some(&second.id)).await;
    let db_now = host.running(&format!("{db}-live")).await;
    assert_eq!(db_now, db_first, "what was not edited is not touched");

    host.remove("stack/web.yaml");
    host.gone(&second.name).await;
    watcher.until("web is deleted", |f| f.kind == "DELETED" && f.name == web).await;
    assert_eq!(host.running(&db_first.name).await, db_first);
}

#[tokio::test]
async fn a_half_written_file_is_told_and_removes_nothing() {
    let host = Host::new().await;
    let (kept, edited) = (host.name("kept"), host.name("edited"));
    host.write("a.yaml", &workload(&kept, &host.image, "1", ""));
    host.write("b.yaml", &workload(&edited, &host.image, "1", ""));
    let before = [host.running(&format!("{kept}-live")).await, host.running(&format!("{edited}-live")).await];

    host.write("b.yaml", "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: [half");
    host.remove("a.yaml");
    let told = host.until_says(&["get", "source", "desired", "-o", "yaml"], |said| said.contains("InvalidFiles")).await;
    assert!(told.contains("file: b.yaml") && told.contains("line: "), "{told}");
    for container in &before {
        assert_eq!(&host.running(&container.name).await, container);
    }

    host.write("b.yaml", &workload(&edited, &host.image, "1", ""));
    host.gone(&before[0].name).await;
    assert_eq!(host.running(&before[1].name).await, before[1]);
}

#[tokio::test]
async fn kubectl_applies_patches_and_swaps() {
    let host = Host::new().await;
    let name = host.name("swap");
    let candidate = format!("  candidate:\n    container:\n      image: {}\n      env: {{LEVEL: \"9\"}}\n", host.image);
    let manifest = host.scratch("swap.yaml", &workload(&name, &host.image, "1", &candidate));
    host.kubectl(&["apply", "--server-side", "-f", &manifest]);
    let live = host.running(&format!("{name}-live")).await;
    host.kubectl(&["wait", &format!("workload/{name}"), "--for=condition=Ready", "--timeout=60s"]);
    assert!(live.aliases.contains(&name), "{:?}", live.aliases);

    host.kubectl(&["patch", "workload", &name, "--type=merge", "-p", r#"{"spec":{"candidate":{"running":true}}}"#]);
    let candidate = host.running(&format!("{name}-candidate")).await;
    assert!(!candidate.aliases.contains(&name), "{:?}", candidate.aliases);

    host.kubectl(&["patch", "workload", &name, "--type=merge", "-p", r#"{"spec":{"active":"Candidate"}}"#]);
    host.until(&candidate.name, "answers under the workload's name", |c| c.aliases.contains(&name)).await;
    let live_now = host.until(&live.name, "no longer answers", |c| !c.aliases.contains(&name)).await;
    assert_eq!((live_now.id, live_now.started_at), (live.id.clone(), live.started_at), "a swap restarts nothing");

    host.kubectl(&["patch", "workload", &name, "--type=merge", "-p", r#"{"spec":{"live":{"running":false}}}"#]);
    host.until(&live.name, "is stopped", |c| !c.running).await;

    host.kubectl(&["delete", "workload", &name, "--timeout=60s"]);
    host.gone(&live.name).await;
    host.gone(&candidate.name).await;
}

#[tokio::test]
async fn kill_9_in_the_middle_loses_nothing_and_touches_nothing_that_runs() {
    let mut host = Host::new().await;
    let (quiet, busy) = (host.name("quiet"), host.name("busy"));
    host.write("quiet.yaml", &workload(&quiet, &host.image, "1", ""));
    host.write("busy.yaml", &workload(&busy, &host.image, "0", ""));
    let before = host.running(&format!("{quiet}-live")).await;
    let mut last = host.running(&format!("{busy}-live")).await;
    for level in 1..=5_u64 {
        host.write("busy.yaml", &workload(&busy, &host.image, &level.to_string(), ""));
        // Somewhere in the middle: a little later each round.
        host.kill_after(Duration::from_millis(40 * level));
        host.restart();
        last = host.replaced(&last).await;
        assert!(last.env.contains(&format!("LEVEL={level}")), "{:?}", last.env);
    }
    assert_eq!(host.running(&before.name).await, before, "a restart of gaia touches no running container");
    assert_eq!(host.count_of(&busy), 1, "nothing is made twice");
}

#[tokio::test]
async fn what_people_do_to_containers_is_put_right_and_told() {
    let host = Host::new().await;
    let name = host.name("drift");
    host.write("drift.yaml", &workload(&name, &host.image, "1", ""));
    let container = host.running(&format!("{name}-live")).await;

    host.docker(&["stop", "-t", "1", &container.name]);
    let restarted = host.until(&container.name, "runs again", |c| c.running).await;
    assert_eq!(restarted.id, container.id);

    let strange = format!("{name}-strange");
    host.docker(&["rename", &container.name, &strange]);
    let renamed = host.until(&container.name, "has its name again", |c| c.running).await;
    assert_eq!(renamed.id, container.id);

    host.docker(&["update", "--restart", "always", &container.name]);
    host.until_says(&["describe", &format!("workload/{name}")], |said| said.contains("RestartsForbidden")).await;
    host.until(&container.name, "has no restart policy again", |c| c.restart_policy == "no").await;

    host.docker(&["rm", "-f", &container.name]);
    let new = host.replaced(&container).await;
    assert_ne!(new.id, container.id);

    let workload = format!("workload/{name}");
    let events = host.until_says(&["describe", &workload], |said| said.contains(&strange)).await;
    assert!(events.contains("Warning"), "{events}");
}

#[tokio::test]
async fn a_container_made_by_hand_is_adopted_and_left_alone_otherwise() {
    let host = Host::new().await;
    let (name, made, foreign) = (host.name("adopts"), host.name("handmade"), host.name("foreign"));
    for container in [&made, &foreign] {
        host.docker(&["run", "-d", "--name", container, &host.image, "serve"]);
    }
    let stranger = host.running(&foreign).await;
    let before = host.running(&made).await;
    host.write(
        "adopt.yaml",
        &format!(
            "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  live:\n    container:\n      \
             adopt: {{name: {made}}}\n"
        ),
    );
    let workload = format!("workload/{name}");
    host.kubectl(&["wait", &workload, "--for=create", "--timeout=30s"]);
    host.kubectl(&["wait", &workload, "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(host.running(&made).await, before, "adopting does not touch it");

    host.docker(&["stop", "-t", "1", &made]);
    assert_eq!(host.until(&made, "runs again", |c| c.running).await.id, before.id);
    host.remove("adopt.yaml");
    host.kubectl(&["wait", &workload, "--for=delete", "--timeout=60s"]);
    assert_eq!(host.running(&made).await.id, before.id, "it is not ours to remove");
    assert_eq!(host.running(&foreign).await, stranger);
    host.docker(&["rm", "-f", &made, &foreign]);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let host = Host::new().await;
    let (absent, crashing) = (host.name("absent"), host.name("crashing"));
    host.write("absent.yaml", &workload(&absent, "127.0.0.1:1/no/such:image", "1", ""));
    let crash = format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {crashing}}}\nspec:\n  live:\n    container:\n      \
         image: {}\n      args: [serve, --exit-after, \"0\", --exit-code, \"3\"]\n",
        host.image
    );
    host.write("crash.yaml", &crash);
    let said = host.until_says(&["describe", &format!("workload/{absent}")], |said| said.contains("ImagePull")).await;
    assert!(said.contains("no/such:image") && !said.contains("engine does not answer"), "{said}");
    let get = ["get", "workload", &crashing, "-o", "json"];
    host.until_says(&get, |said| {
        let object: serde_json::Value = serde_json::from_str(said).expect("JSON");
        let live = &object["status"]["live"];
        live["restarts"].as_u64() >= Some(2) && live["exitCode"] == 3
    })
    .await;
    host.until_says(&["describe", &format!("workload/{crashing}")], |said| said.contains("CrashLoopBackOff")).await;
}

#[tokio::test]
async fn sigterm_ends_it_in_time_and_leaves_the_containers() {
    let mut host = Host::new().await;
    let name = host.name("stays");
    host.write("stays.yaml", &workload(&name, &host.image, "1", ""));
    let before = host.running(&format!("{name}-live")).await;
    let _watcher = Watcher::connect(&host.server, "").await;
    host.terminate();
    assert_eq!(host.inspect(&before.name).as_ref(), Some(&before));
}
