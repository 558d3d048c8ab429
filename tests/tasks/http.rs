//! `gaia worker --executors http` before an endpoint that streams, is busy, breaks off and hangs. What it does is said by the name
//! of the model that it is asked for.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{OriginalUri, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    command::{log, result},
    workers::{Program, task_of},
    world::{DEADLINE, World},
};
use crate::support::eventually;

#[derive(Default)]
struct Told {
    /// Path, bearer and body of each request.
    asked: Vec<(String, Option<String>, Value)>,
    times: HashMap<String, u32>,
    /// Answers that nobody reads any more.
    given_up: u32,
}

#[derive(Clone, Default)]
pub struct Endpoint(Arc<Mutex<Told>>);

impl Endpoint {
    /// Its URL.
    pub async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1/", listener.local_addr().expect("it listens"));
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .route("/v1/completions", post(answer))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    pub fn asked(&self) -> Vec<(String, Option<String>, Value)> {
        self.0.lock().expect("no panic").asked.clone()
    }

    fn given_up(&self) -> u32 {
        self.0.lock().expect("no panic").given_up
    }
}

/// Counts when it is dropped.
struct GivenUp(Endpoint);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.0.lock().expect("no panic").given_up += 1;
    }
}

async fn answer(
    State(endpoint): State<Endpoint>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let model = body["model"].as_str().expect("a model").to_owned();
    let nth = {
        let mut told = endpoint.0.lock().expect("no panic");
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        told.asked.push((uri.path().to_owned(), bearer, body.clone()));
        let times = told.times.entry(model.clone()).or_default();
        *times += 1;
        *times
    };
    let busy = |status: StatusCode, after: Option<&str>| {
        let mut answer = (status, Json(json!({"error": {"message": "too much to do"}}))).into_response();
        if let Some(after) = after {
            answer.headers_mut().insert(header::RETRY_AFTER, after.parse().expect("a header"));
        }
        answer
    };
    let said = match body["messages"].as_array() {
        Some(messages) => messages.last().expect("a message")["content"].clone(),
        None => body["prompt"].clone(),
    };
    let text = format!("You said:\n{}", said.as_str().expect("a text"));
    match (model.as_str(), nth) {
        ("busy", 1) => busy(StatusCode::TOO_MANY_REQUESTS, Some("1")),
        ("busy", 2) => busy(StatusCode::SERVICE_UNAVAILABLE, None),
        ("patient", _) => busy(StatusCode::TOO_MANY_REQUESTS, Some("86400")),
        ("absent", _) => (StatusCode::NOT_FOUND, Json(json!({"error": {"message": "no such model"}}))).into_response(),
        ("moved", _) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        ("hangs", _) => {
            let guard = GivenUp(endpoint.clone());
            let never = stream::once(async move {
                let _guard = guard;
                std::future::pending::<Result<Bytes, Infallible>>().await
            });
            events(stream::iter([Ok(piece("begun", &model, true))]).chain(never))
        }
        ("breaks", 1) => {
            let broken = io::Error::other("cut");
            events(stream::iter([Ok(piece("half", &model, true)), Err(broken)]))
        }
        ("whole", _) => {
            let message = json!({"role": "assistant", "content": text});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            Json(json!({"model": model, "choices": [choice], "usage": {"total_tokens": 7}})).into_response()
        }
        _ => {
            let chat = body["messages"].is_array();
            let mut pieces: Vec<Result<Bytes, io::Error>> =
                text.split_inclusive(' ').map(|word| Ok(piece(word, &model, chat))).collect();
            let end = json!({"model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
            let usage = json!({"model": model, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}});
            pieces.push(Ok(format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n").into()));
            events(stream::iter(pieces))
        }
    }
}

fn piece(text: &str, model: &str, chat: bool) -> Bytes {
    let choice = if chat { json!({"index": 0, "delta": {"content": text}}) } else { json!({"index": 0, "text": text}) };
    format!("data: {}\n\n", json!({"model": model, "choices": [choice]})).into()
}

fn events<E>(pieces: impl futures::Stream<Item = Result<Bytes, E>> + Send + 'static) -> Response
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

/// A world with an endpoint, and a worker that asks it.
async fn with_endpoint() -> (World, Endpoint, Program) {
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let endpoint = Endpoint::default();
    let url = endpoint.start().await;
    let key = world.directory().join("key");
    std::fs::write(&key, "k3y\n").expect("written");
    let args = ["--executors", "http", "--http-url", &url, "--http-token-file", key.to_str().expect("a path")];
    let worker = Program::start(&world, "w0", &args).await;
    (world, endpoint, worker)
}

fn asks(model: &str, more: Value) -> String {
    let mut spec = json!({"data": {"items": []}, "http": {"model": model, "messages": [{"role": "user", "content": "hello you"}]}});
    json_patch::merge(&mut spec, &more);
    task_of("http", spec)
}

#[tokio::test]
async fn answers_are_streamed_into_the_log_and_become_a_result() {
    let (world, endpoint, _worker) = with_endpoint().await;
    let ids = world.submitted(&asks("m", json!({"http": {"parameters": {"temperature": 0}}}))).await;
    world.all_done(&ids).await;
    let expected = json!({"ok": true, "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        "items": [{"index": 0, "output": "You said:\nhello you", "finish_reason": "stop"}]});
    assert_eq!(result(&world, &ids[0]).await, expected);
    let lines = log(&world, &ids[0]).await;
    let of_the_answer: Vec<&String> = lines.iter().filter(|line| line.starts_with("stdout")).collect();
    assert_eq!(of_the_answer, ["stdout You said:", "stdout hello you"]);
    let asked = endpoint.asked();
    let (path, bearer, body) = &asked[0];
    assert_eq!((path.as_str(), bearer.as_deref()), ("/v1/chat/completions", Some("Bearer k3y")));
    assert_eq!((&body["temperature"], &body["stream"]), (&json!(0), &json!(true)));

    // An item each, behind what is the same for all; and texts to go on with.
    let system = json!({"messages": [{"role": "system", "content": "s"}]});
    let items = json!({"type": "list", "items": ["a", "b", "c"]});
    let many = asks("m", json!({"http": system, "data": items}));
    let prompts = asks("whole", json!({"http": {"messages": null}, "data": {"items": [{"prompt": "p"}]}}));
    let ids = [world.submitted(&many).await, world.submitted(&prompts).await].concat();
    world.all_done(&ids).await;
    let told = result(&world, &ids[0]).await;
    let outputs: Vec<&Value> = told["items"].as_array().expect("items").iter().map(|item| &item["output"]).collect();
    assert_eq!(outputs, ["You said:\na", "You said:\nb", "You said:\nc"]);
    assert_eq!((&told["items"][2]["input"], &told["usage"]["prompt_tokens"]), (&json!("c"), &json!(9)));
    let told = result(&world, &ids[1]).await;
    assert_eq!((&told["items"][0]["output"], &told["usage"]["total_tokens"]), (&json!("You said:\np"), &json!(7)));
    assert_eq!(endpoint.asked().last().expect("a request").0, "/v1/completions");
}

#[tokio::test]
async fn a_busy_endpoint_is_asked_again_when_it_says_and_a_broken_answer_anew() {
    let (world, endpoint, _worker) = with_endpoint().await;
    let begun = Instant::now();
    let ids = world.submitted(&asks("busy", json!({}))).await;
    world.all_done(&ids).await;
    assert!(begun.elapsed().as_secs_f64() > 1.0, "it said: in a second");
    let lines = log(&world, &ids[0]).await;
    for told in ["429 Too Many Requests: too much to do; it is asked again in 1.0 s", "503 Service Unavailable"] {
        assert!(lines.iter().any(|line| line.contains(told)), "{told}: {lines:?}");
    }
    let ids = world.submitted(&asks("breaks", json!({}))).await;
    world.all_done(&ids).await;
    assert_eq!(result(&world, &ids[0]).await["items"][0]["output"], "You said:\nhello you");
    assert_eq!((world.task(&ids[0]).await["retries"].clone(), endpoint.asked().len()), (json!(0), 5));
}

#[tokio::test]
async fn what_will_not_be_answered_fails_and_says_why() {
    let (world, endpoint, _worker) = with_endpoint().await;
    let cases = [
        (asks("absent", json!({})), "chat/completions: 404 Not Found: no such model"),
        (asks("moved", json!({})), "chat/completions: 307 Temporary Redirect"),
        (
            asks("patient", json!({"http": {"timeoutSeconds": 60}})),
            "chat/completions: 429 Too Many Requests: too much to do; 86400 s more are not within the time limit",
        ),
        (
            asks("hangs", json!({"http": {"timeoutSeconds": 1}})),
            "spec.http.timeoutSeconds: not everything was answered within 1 seconds",
        ),
        (
            asks("absent", json!({"data": {"items": ["a", "b"]}})),
            "spec.data.items[0]: chat/completions: 404 Not Found: no such model",
        ),
        (asks("", json!({})), "spec.http.model: must name a model"),
        (asks("m", json!({"http": {"url": "http://elsewhere"}})), "spec.http.url: unknown field `url`"),
    ];
    let mut submitted = Vec::new();
    for (document, told) in cases {
        submitted.push((world.submitted(&document).await.remove(0), told));
    }
    for (id, told) in submitted {
        let task = world.status_is(&id, "FAILED").await;
        assert!(task["error"].as_str().is_some_and(|error| error.starts_with(told)), "{}: {told}", task["error"]);
    }
    assert!(endpoint.asked().iter().all(|(path, ..)| path.starts_with("/v1/")), "nobody followed the redirect");
}

#[tokio::test]
async fn a_cancel_gives_up_the_request() {
    let (world, endpoint, _worker) = with_endpoint().await;
    let ids = world.submitted(&asks("hangs", json!({}))).await;
    eventually("it is asked", DEADLINE, async || (!endpoint.asked().is_empty()).then_some(())).await;
    assert_eq!(endpoint.given_up(), 0);
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    eventually("its connection is closed", DEADLINE, async || (endpoint.given_up() == 1).then_some(())).await;
    let next = world.submitted(&asks("m", json!({}))).await;
    world.all_done(&next).await;
}

#[tokio::test]
async fn without_an_endpoint_no_worker_begins() {
    let world = World::without_redis(&[]).await;
    let mut worker = Program::new("w0");
    worker.begin(&world.url(), &["--executors", "http"]);
    assert_eq!(worker.ends().await, Some(2));
    worker.begin(&world.url(), &["--executors", "http", "--http-url", "localhost:8000"]);
    assert_eq!(worker.ends().await, Some(2));
}
