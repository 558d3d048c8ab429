//! Stages and graphs: results of earlier steps reach later ones.

use serde_json::{Value, json};

use super::{
    doubles::{Generation, Manners},
    world::{World, document},
};

/// As the two-stage templates have it: the headers of JSON go with the archive, and the token stands in the document.
#[tokio::test]
async fn an_archive_of_one_stage_is_loaded_by_the_next() {
    let world = World::with(&[("ORCHESTRATOR_TOKEN", "dev-token")]).await;
    let _workers = world.workers(2, Manners { generation: Generation::Later, ..Manners::default() }).await;
    let headers = json!({"Authorization": "Bearer dev-token", "Content-Type": "application/json"});
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results/", world.url()), "headers": headers});
    let load = json!({"type": "http", "url": "${gsm8k-stage.result.final_model_archive_url}"});
    let stages = json!([
        {"name": "gsm8k-stage", "spec": {"double": {"archive": "final_model.zip"}}},
        {"name": "second", "spec": {"checkpoint": {"load": load}, "note": "by ${gsm8k-stage.worker_id}", "keep": "${UNKNOWN}"}},
    ]);
    let ids = world.submitted(&document(json!({"stages": stages, "output": {"destination": destination}}))).await;
    let first = world.status_is(&ids[0], "DONE").await;
    world.status_is(&ids[1], "DONE").await;
    let got = &world.ledger.documents(&ids[1])[0]["spec"];
    let url = got["checkpoint"]["load"]["url"].as_str().expect("a URL");
    let plain = format!("{}/api/v1/results/{}/files/final_model.zip", world.url(), ids[0]);
    assert!(url.starts_with(&format!("{plain}?expires=")), "{url}");
    // Whoever loads it has no token.
    let anonymous = async |url: &str| {
        let answer = reqwest::get(url).await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    };
    assert_eq!(anonymous(url).await, (200, format!("archive of {}", ids[0])));
    assert_eq!(anonymous(&plain).await.0, 401);
    assert_eq!(anonymous(&url.replace("final_model.zip", "other.zip")).await.0, 401);
    assert_eq!(anonymous(&format!("{url}0")).await.0, 401);
    assert_eq!(got["note"], format!("by {}", first["assigned_worker"].as_str().expect("a worker")));
    assert_eq!(got["keep"], "");
    assert_eq!(got["_upstreamResults"]["gsm8k-stage"]["task_id"], ids[0]);
    let (status, archive) = world.get(&format!("/api/v1/results/{}/files/final_model.zip", ids[0])).await;
    assert_eq!((status.as_u16(), archive), (200, json!(format!("archive of {}", ids[0]))));
    // What is recorded keeps its placeholders.
    let record = world.task(&ids[1]).await;
    assert_eq!(record["parsed"]["spec"]["checkpoint"]["load"]["url"], "${gsm8k-stage.result.final_model_archive_url}");
    assert_eq!(world.object(&format!("tasks/{}", ids[0])).await["status"]["artifacts"][0]["name"], "final_model.zip");
}

#[tokio::test]
async fn a_graph_runs_in_its_order_and_keeps_types_when_asked() {
    let world = World::start().await;
    let _workers = world.workers(3, Manners::default()).await;
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results", world.url())});
    let nodes = json!([
        {"name": "synthesis", "dependsOn": ["a", "b"], "spec": {"seen": "${a.result.items}", "both": "${a.result.echo}${b.result.echo}"}},
        {"name": "a", "spec": {"double": {"echo": "A"}}},
        {"name": "b", "spec": {"double": {"echo": "B"}}},
    ]);
    let mut document: Value =
        serde_json::from_str(&document(json!({"graph": {"nodes": nodes}, "output": {"destination": destination}})))
            .expect("JSON");
    let ids = world.submitted(&document.to_string()).await;
    world.all_done(&ids).await;
    let waiting = world.task(&ids[2]).await;
    assert_eq!(waiting["graph_node_name"], "synthesis");
    let got = &world.ledger.documents(&ids[2])[0]["spec"];
    assert_eq!((&got["seen"], &got["both"]), (&json!("['hello', 'again']"), &json!("AB")));
    document["metadata"]["annotations"] = json!({"gaia.dev/placeholders": "typed"});
    let ids = world.submitted(&document.to_string()).await;
    world.all_done(&ids).await;
    let got = &world.ledger.documents(&ids[2])[0]["spec"];
    assert_eq!((&got["seen"], &got["both"]), (&json!(["hello", "again"]), &json!("AB")));
}

#[tokio::test]
async fn results_on_shared_storage_are_read_as_they_are() {
    let world = World::start().await;
    let ids = world
        .submitted(&document(json!({"stages": [{"name": "a"}, {"name": "b", "spec": {"note": "${a.result.answer}"}}]})))
        .await;
    let directory = world.directory().join("results").join(&ids[0]);
    std::fs::create_dir_all(&directory).expect("made");
    std::fs::write(directory.join("responses.json"), r#"{"answer": 42}"#).expect("written");
    let _workers = world.workers(1, Manners::default()).await;
    world.all_done(&ids).await;
    assert_eq!(world.ledger.documents(&ids[1])[0]["spec"]["note"], "42");
}
