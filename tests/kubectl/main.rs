//! Clients that people have, against a real listener: every command of the newest kubectl, the daily work with each older one,
//! the `kube` crate, and the python client.

mod daily;
mod kube_crate;
mod python;
mod support;

use gaia::api::workload::Workload;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{Cluster, manifest};

async fn applied(cluster: &Cluster, name: &str) {
    let file = cluster.file(&format!("{name}.yaml"), &manifest(name));
    let said = cluster.run(&format!("apply -f {file}")).await.ok();
    assert_eq!(said, format!("workload.gaia.dev/{name} created\n"));
}

async fn status(cluster: &Cluster, name: &str, status: Value) -> Workload {
    let patch = Patch::Merge(json!({"status": status}));
    cluster.workloads().patch_status(name, &PatchParams::default(), &patch).await.expect("the status is written")
}

fn ready(value: &str) -> Value {
    json!({"active": "Live", "conditions": [{
        "type": "Ready", "status": value, "reason": "Running", "message": "it runs",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_a_line_for_each_change() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let mut watch = cluster.start("get wl -w");
    watch.line_with("web").await;
    status(&cluster, "web", ready("False")).await;
    watch.line_with("False").await;
    applied(&cluster, "other").await;
    watch.line_with("other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_ends_when_what_is_waited_for_is_so() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let condition = cluster.start("wait wl/web --for=condition=Ready --timeout=50s");
    let jsonpath = cluster.start("wait wl/web --for=jsonpath={.status.active}=Live --timeout=50s");
    let gone = cluster.start("wait wl/web --for=delete --timeout=50s");
    status(&cluster, "web", ready("True")).await;
    condition.succeeds().await;
    jsonpath.succeeds().await;
    cluster.run("delete wl web").await.ok();
    gone.succeeds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_of_applying_agree_on_who_owns_what() {
    let Some(cluster) = Cluster::modern().await else { return };
    let file = cluster.file("web.yaml", &manifest("web"));
    let server_side = format!("apply --server-side -f {file}");
    assert!(cluster.run(&server_side).await.ok().contains("serverside-applied"));
    let before = cluster.workloads().get("web").await.expect("there");
    cluster.run(&server_side).await.ok();
    let after = cluster.workloads().get("web").await.expect("there");
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "nothing changed");
    assert_eq!(cluster.run(&format!("diff -f {file}")).await.ok(), "", "kubectl sends `annotations: {{}}`");
    let other = cluster.file("other.yaml", &manifest("web").replace("busybox", "nginx"));
    let conflict = cluster.run(&format!("apply --server-side --field-manager=other -f {other}")).await.fails();
    assert!(conflict.contains("conflict") && conflict.contains(".spec.live.container.image"), "{conflict}");
    cluster.run(&format!("apply --server-side --field-manager=other --force-conflicts -f {other}")).await.ok();
    let managers =
        cluster.run("get wl web --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
    assert_eq!(managers.ok(), "kubectl other");
}

/// kubectl moves the fields of a client-side applied object over to server-side apply by rewriting managedFields; when
/// that is not honoured it does so again with every apply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_moves_from_client_side_to_server_side_apply_once() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let file = cluster.file("web.yaml", &manifest("web"));
    cluster.run(&format!("apply --server-side -f {file}")).await.ok();
    let managers =
        cluster.run("get wl web --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
    let mut managers: Vec<String> = managers.ok().split(' ').map(str::to_owned).collect();
    managers.sort();
    assert_eq!(managers, ["kubectl", "kubectl-last-applied"], "the client-side manager is gone");
    let before = cluster.workloads().get("web").await.expect("there");
    cluster.run(&format!("apply --server-side -f {file}")).await.ok();
    let after = cluster.workloads().get("web").await.expect("there");
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "nothing changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_all_kinds_are_taken() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let operations = r#"[{"op":"replace","path":"/spec/suspend","value":true}]"#;
    cluster.run_words(&["patch", "wl", "web", "--type=json", "-p", operations]).await.ok();
    assert_eq!(cluster.run("get wl web -o jsonpath={.spec.suspend}").await.ok(), "true");
    let status = r#"{"status":{"active":"Candidate"}}"#;
    cluster.run_words(&["patch", "wl", "web", "--subresource=status", "--type=merge", "-p", status]).await.ok();
    assert_eq!(cluster.run("get wl web -o jsonpath={.status.active}").await.ok(), "Candidate");
    let strategic = cluster.run_words(&["patch", "wl", "web", "-p", "{}"]).await.fails();
    assert!(strategic.contains("application/strategic-merge-patch+json is not supported"), "{strategic}");
    let invalid = r#"{"spec":{"restartPolicy":"Sometimes"}}"#;
    let invalid = cluster.run_words(&["patch", "wl", "web", "--type=merge", "-p", invalid]).await.fails();
    assert!(invalid.contains("spec.restartPolicy: Unsupported value"), "{invalid}");
}

/// kubectl sends no `fieldValidation` with a patch, and upstream would drop the field with a warning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misspelt_field_is_refused_whatever_the_command() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let before = cluster.run("get wl web -o yaml").await.ok();
    let merge = r#"{"spec":{"live":{"container":{"imagee":"nginx"}}}}"#;
    let json = r#"[{"op":"add","path":"/spec/live/container/imagee","value":"nginx"}]"#;
    for (kind, patch) in [("merge", merge), ("json", json)] {
        let refused = cluster.run_words(&["patch", "wl", "web", "--type", kind, "-p", patch]).await.fails();
        assert!(refused.contains("unknown field \"spec.live.container.imagee\""), "{refused}");
    }
    let file = cluster.file("imagee.yaml", &manifest("web").replace("image:", "imagee:"));
    for command in ["apply", "apply --server-side", "replace", "create --dry-run=server"] {
        let refused = cluster.run(&format!("{command} -f {file}")).await.fails();
        assert!(refused.contains("unknown field \"spec.live.container.imagee\""), "{command}: {refused}");
    }
    assert_eq!(cluster.run("get wl web -o yaml").await.ok(), before, "nothing was written");
    // A client that asks for leniency gets it, and of built-in kinds we know a part only.
    let spare = cluster.file("spare.yaml", &manifest("web").replace("suspend:", "sspend:"));
    cluster.run(&format!("apply --validate=warn -f {spare}")).await.ok();
    let told = cluster.run_words(&["patch", "ns", "default", "--type=merge", "-p", r#"{"spec":{"more":"x"}}"#]).await;
    assert!(told.stderr.contains("unknown field \"spec.more\""), "{}", told.stderr);
    told.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_edited_and_objects_are_replaced() {
    let Some(cluster) = Cluster::modern().await else { return };
    let file = cluster.file("web.yaml", &manifest("web"));
    assert_eq!(cluster.run(&format!("create -f {file}")).await.ok(), "workload.gaia.dev/web created\n");
    assert!(cluster.run(&format!("create -f {file}")).await.fails().contains("already exists"));
    assert_eq!(cluster.run("annotate wl web note=x").await.ok(), "workload.gaia.dev/web annotated\n");
    assert_eq!(cluster.run("label wl web tier=front").await.ok(), "workload.gaia.dev/web labeled\n");
    assert_eq!(cluster.run("label wl web tier-").await.ok(), "workload.gaia.dev/web unlabeled\n");
    let editor = cluster.file("editor.sh", "#!/bin/sh\nsed -i 's/suspend: false/suspend: true/' \"$1\"\n");
    let editor = format!("sh {editor}");
    assert_eq!(cluster.run_with(("KUBE_EDITOR", &editor), "edit wl web").await.ok(), "workload.gaia.dev/web edited\n");
    assert_eq!(cluster.run("get wl web -o jsonpath={.spec.suspend}").await.ok(), "true");
    assert_eq!(cluster.run(&format!("replace -f {file}")).await.ok(), "workload.gaia.dev/web replaced\n");
    assert_eq!(cluster.run("get wl web -o jsonpath={.spec.suspend}").await.ok(), "false");
    let dry = cluster.run(&format!("apply --dry-run=server -f {file}")).await.ok();
    assert!(dry.contains("(server dry run)"), "{dry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_deleted_at_once() {
    let Some(cluster) = Cluster::modern().await else { return };
    for name in ["a", "b", "c"] {
        applied(&cluster, name).await;
    }
    let said = cluster.run("delete wl --all").await.ok();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(cluster.run("get wl").await.stderr.contains("No resources found in default namespace."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explanations_come_from_the_schema() {
    let Some(cluster) = Cluster::modern().await else { return };
    let all = cluster.run("explain wl --recursive").await.ok();
    for field in ["restartPolicy", "dependsOn", "conditions", "creationTimestamp", "ownerReferences"] {
        assert!(all.contains(field), "{field} is missing of\n{all}");
    }
    let field = cluster.run("explain workload.spec.stopGraceSeconds").await.ok();
    assert!(field.contains("Seconds between the stop signal and the kill"), "{field}");
    assert!(cluster.run("explain namespace.status.phase").await.ok().contains("phase"));
    assert!(cluster.run("explain source.spec").await.ok().contains("directory"));
    cluster.run("explain workload.spec.nothing").await.fails();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_shown_with_their_object() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let web = cluster.workloads().get("web").await.expect("there");
    let uid = web.metadata.uid.expect("a uid");
    let event = format!(
        "apiVersion: v1\nkind: Event\nmetadata:\n  name: web.1\n  namespace: default\ntype: Warning\nreason: ImageMissing\n\
         message: there is no image\nfirstTimestamp: 2026-01-01T00:00:00Z\nlastTimestamp: 2026-01-01T00:00:00Z\ncount: 3\n\
         source: {{component: gaia}}\ninvolvedObject: {{apiVersion: gaia.dev/v1alpha1, kind: Workload, name: web, \
         namespace: default, uid: {uid}}}\n"
    );
    let file = cluster.file("event.yaml", &event);
    cluster.run(&format!("create -f {file}")).await.ok();
    let described = cluster.run("describe wl web").await.ok();
    assert!(described.contains("ImageMissing") && described.contains("there is no image"), "{described}");
    let table = cluster.run("get events").await.ok();
    let mut lines = table.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert!(lines.next().is_some_and(|line| line.contains("workload/web")), "{table}");
    let listed = cluster.run("events --for workload.gaia.dev/web").await.ok();
    assert!(listed.contains("ImageMissing") && listed.contains("(x3 over"), "{listed}");
    assert!(cluster.run("events --types=Normal").await.stderr.contains("No events found"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_can_be_found_out() {
    let Some(cluster) = Cluster::modern().await else { return };
    applied(&cluster, "web").await;
    let resources = cluster.run("api-resources --verbs=list -o name").await.ok();
    for name in ["workloads.gaia.dev", "sources.gaia.dev", "namespaces", "events", "customresourcedefinitions"] {
        assert!(resources.contains(name), "{name} is missing of\n{resources}");
    }
    assert!(cluster.run("api-versions").await.ok().contains("gaia.dev/v1alpha1"));
    assert!(cluster.run("get all").await.ok().contains("web"));
    assert!(cluster.run("get all,ns").await.ok().contains("workload.gaia.dev/web"));
    assert!(cluster.run("get wl -A").await.ok().contains("default"));
    assert!(cluster.run("get ns").await.ok().contains("Active"));
    assert!(cluster.run("get crd workloads.gaia.dev -o name").await.ok().contains("workloads.gaia.dev"));
    assert_eq!(cluster.run("get --raw /readyz").await.ok(), "ok");
}
