//! Who changes what a file states is told where it is stated.

use super::*;

const SOURCES: &str = "/apis/gaia.dev/v1alpha1/sources";

/// A Workload as gitops leaves it: its fields are owned, and the Source says where they are stated.
async fn stated(server: &Server) -> String {
    let web = format!("{WORKLOADS}/web");
    let apply = format!("{web}?fieldManager=gitops");
    let made = server.patch(&apply, "application/apply-patch+yaml", &workload("web")).await.expect(201);
    let source = json!({"metadata": {"name": "desired"}, "spec": {"directory": "/etc/gaia/desired"}});
    server.post(SOURCES, &source).await.expect(201);
    let entry = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "namespace": "default", "name": "web",
        "file": "stack/web.yaml:7", "uid": made["metadata"]["uid"]});
    let status = json!({"status": {"files": 1, "objects": 1, "inventory": [entry]}});
    server.merge(&format!("{SOURCES}/desired/status"), &status).await.expect(200);
    web
}

fn warnings(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all(header::WARNING).iter().map(|value| value.to_str().expect("readable")).collect()
}

fn image(image: &str) -> Value {
    json!({"spec": {"live": {"container": {"image": image}}}})
}

#[tokio::test]
async fn a_change_of_what_a_file_states_names_file_and_line() {
    let server = Server::new().await;
    let web = stated(&server).await;
    let told =
        ["299 - \"spec.live.container.image is stated by /etc/gaia/desired/stack/web.yaml:7 and will be set back\""];
    let tried = server.merge(&format!("{web}?dryRun=All"), &image("mine:1")).await;
    assert_eq!(warnings(&tried), told);
    let patched = server.merge(&web, &image("mine:1")).await;
    assert_eq!(warnings(&patched), told);
    assert_eq!(patched.expect(200)["spec"]["live"]["container"]["image"], "mine:1", "a warning is no refusal");
    let again = server.merge(&web, &image("mine:2")).await;
    assert!(warnings(&again).is_empty(), "it was taken already");
}

#[tokio::test]
async fn what_no_file_states_is_changed_without_a_word() {
    let server = Server::new().await;
    let web = stated(&server).await;
    let left_out = server.merge(&web, &json!({"spec": {"active": "Live", "live": {"running": false}}})).await;
    assert!(warnings(&left_out).is_empty(), "{:?}", warnings(&left_out));
    server.delete(&format!("{SOURCES}/desired")).await.expect(200);
    let unkept = server.merge(&web, &image("mine:1")).await;
    assert!(warnings(&unkept).is_empty(), "nothing keeps it so any longer");
}

#[tokio::test]
async fn a_suspended_source_sets_back_later() {
    let server = Server::new().await;
    let web = stated(&server).await;
    server.merge(&format!("{SOURCES}/desired"), &json!({"spec": {"suspend": true}})).await.expect(200);
    let patched = server.merge(&web, &image("mine:1")).await;
    assert!(warnings(&patched)[0].ends_with("will be set back when Source desired is resumed\""));
}

#[tokio::test]
async fn a_deleted_object_will_be_made_again() {
    let server = Server::new().await;
    let web = stated(&server).await;
    let deleted = server.delete(&web).await;
    let told = "299 - \"Workload web is stated by /etc/gaia/desired/stack/web.yaml:7 and will be made again\"";
    assert_eq!(warnings(&deleted), [told]);
    deleted.expect(200);
    server.workload("other").await;
    assert!(warnings(&server.delete(&format!("{WORKLOADS}/other")).await).is_empty());
}
