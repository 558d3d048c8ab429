//! `gaia worker` delivers to whom a document names, when that is not us: over real HTTP, to somebody who is busy, refuses, and sends on.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::{OriginalUri, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Value, json};

use super::{
    command::result,
    workers::{Program, task_of},
    world::World,
};

/// What came in: method and path, the note in a header, and the body.
type Told = (String, Option<String>, Value);

#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Vec<Told>>>);

impl Hook {
    /// Its URL.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let router = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn of(&self, path: &str) -> Vec<Told> {
        self.0.lock().expect("no panic").iter().filter(|told| told.0.ends_with(path)).cloned().collect()
    }
}

async fn take(
    State(hook): State<Hook>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let note = headers.get("x-note").and_then(|note| note.to_str().ok()).map(str::to_owned);
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    hook.0.lock().expect("no panic").push((format!("{method} {}", uri.path()), note, body));
    match uri.path() {
        "/busy" if hook.of("/busy").len() < 3 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "/refuses" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "/redirects" => Redirect::temporary("/busy").into_response(),
        _ => StatusCode::CREATED.into_response(),
    }
}

fn to(url: &str, more: Value) -> String {
    let mut destination = json!({"type": "http", "url": url, "retryBackoffSec": 0.05});
    json_patch::merge(&mut destination, &more);
    task_of(
        "command",
        json!({
            "command": {"argv": ["sh", "-c", "echo kept > $GAIA_ARTIFACTS/final_model.zip; echo 7 > $GAIA_RESULT"]},
            "output": {"destination": destination},
        }),
    )
}

async fn world(variables: &[(&str, &str)]) -> (World, Hook, String, Program) {
    let world = World::without_redis(&[&[("RETRY_BASE_DELAY_SEC", "0")], variables].concat()).await;
    let hook = Hook::default();
    let url = hook.start().await;
    let worker = Program::start(&world, "w0", &["--executors", "command"]).await;
    (world, hook, url, worker)
}

#[tokio::test]
async fn a_result_goes_to_whom_the_document_names_and_to_us() {
    let (world, hook, url, _worker) = world(&[]).await;
    let more = json!({"method": "put", "headers": {"X-Note": "n", "Content-Type": "application/json"}});
    let ids = world.submitted(&to(&format!("{url}/busy"), more)).await;
    world.all_done(&ids).await;
    let told = hook.of("/busy");
    assert_eq!(told.len(), 3, "it was busy twice");
    let ours = result(&world, &ids[0]).await;
    assert_eq!(ours["value"], 7);
    let body = json!({"task_id": ids[0], "worker_id": "w0", "result": ours});
    assert_eq!(told[2], ("PUT /busy".to_owned(), Some("n".to_owned()), body));
    // Files are with us; what was delivered says where.
    let file = told[2].2["result"]["final_model_archive_url"].as_str().expect("a URL").to_owned();
    assert_eq!(reqwest::get(file).await.expect("an answer").text().await.expect("a text"), "kept\n");
    assert_eq!(hook.0.lock().expect("no panic").len(), 3);
}

#[tokio::test]
async fn what_is_not_taken_fails_and_says_why() {
    let (world, hook, url, _worker) = world(&[]).await;
    let cases = [
        (to(&format!("{url}/refuses"), json!({"retries": 1})), "it was answered with 500 Internal Server Error"),
        (to(&format!("{url}/redirects"), json!({"retries": 0})), "it was answered with 307 Temporary Redirect"),
        (to("http://169.254.169.254/latest", json!({})), "nothing is sent to link-local addresses"),
        (to("elsewhere", json!({})), "its URL is none: relative URL without a base"),
    ];
    let mut submitted = Vec::new();
    for (document, why) in cases {
        submitted.push((world.submitted(&document).await.remove(0), why));
    }
    for (id, why) in submitted {
        let task = world.status_is(&id, "FAILED").await;
        let told = format!("spec.output.destination: the result could not be delivered: {why}");
        assert_eq!(task["error"], json!(told));
        assert_eq!(world.get(&format!("/api/v1/results/{id}")).await.0, 404, "what failed has no result");
    }
    // Two tries in each of four attempts, and one.
    assert_eq!((hook.of("/refuses").len(), hook.of("/redirects").len(), hook.of("/busy").len()), (8, 4, 0));
}

#[tokio::test]
async fn nothing_goes_to_whom_the_worker_may_not_deliver_to() {
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let hook = Hook::default();
    let url = hook.start().await;
    let allowed = format!("{url}/hooks");
    let args = ["--executors", "command", "--deliver-to", "example.com", "--deliver-to", &allowed];
    let _worker = Program::start(&world, "w0", &args).await;
    let fine = world.submitted(&to(&format!("{allowed}/a"), json!({}))).await;
    let refused = world.submitted(&to(&format!("{url}/elsewhere"), json!({}))).await;
    world.all_done(&fine).await;
    let task = world.status_is(&refused[0], "FAILED").await;
    let why = "spec.output.destination.url: this worker may not deliver there (127.0.0.1): it is not among those of its --deliver-to";
    assert_eq!(task["error"], why);
    assert_eq!((hook.of("/hooks/a").len(), hook.of("/elsewhere").len()), (1, 0));
}

/// Who takes results as we do is us under another name, unless we are told our own.
#[tokio::test]
async fn another_orchestrator_is_somebody_else_once_we_know_who_we_are() {
    for (variables, expected) in [(vec![], 0), (vec![("ORCHESTRATOR_BASE_URL", "{url}")], 1)] {
        let (world, hook, url, _worker) = world(&variables).await;
        let ids = world.submitted(&to(&format!("{url}/api/v1/results"), json!({}))).await;
        world.all_done(&ids).await;
        assert_eq!(hook.of("/api/v1/results").len(), expected);
        let ids = world.submitted(&to(&format!("{}/api/v1/results/", world.url()), json!({}))).await;
        world.all_done(&ids).await;
        assert_eq!(result(&world, &ids[0]).await["value"], 7);
    }
}
