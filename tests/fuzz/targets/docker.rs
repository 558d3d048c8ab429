//! What dockerd says: events, containers and images, through the real client over a socket. The other end is ours and says
//! whatever it is given.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use gaia::{
    adapters::containers::{ContainerId, Containers, EngineEvent, docker::DockerEngine},
    api::container::ContainerSpec,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime, time::timeout};

/// Of real time: the client's own deadlines are longer, so what hits this has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a bounded text may say.
const MOST_EVENTS: usize = 100_000;
/// Between the stream of events, what inspecting the container answers, and what inspecting its image does.
const SEPARATOR: &[u8] = b"\n%%\n";

thread_local! {
    static DAEMON: RefCell<Option<Daemon>> = const { RefCell::new(None) };
}

/// What is said by the daemon in one case.
#[derive(Default)]
struct Said {
    events: Vec<u8>,
    container: Vec<u8>,
    image: Vec<u8>,
    id: String,
}

struct Daemon {
    runtime: Runtime,
    said: Arc<Mutex<Said>>,
    engine: DockerEngine,
    _directory: TempDir,
}

/// No event ends the stream's reader, however it is made; what is no container is an error, and never half of one.
pub fn docker_events(data: &[u8]) {
    let mut parts = split(data).into_iter();
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let mut said = Said { events: part(), container: part(), image: part(), id: String::new() };
    let id =
        serde_json::from_slice::<Value>(&said.container).ok().and_then(|seen| Some(seen["Id"].as_str()?.to_owned()));
    said.id = id.unwrap_or_else(|| "0123456789abcdef".to_owned());
    let id = ContainerId(said.id.clone());
    let daemon = DAEMON.take().unwrap_or_else(Daemon::start);
    *daemon.said.lock().expect("nobody panics with it") = said;
    daemon.runtime.block_on(async {
        timeout(PATIENCE, listen(&daemon.engine)).await.expect("the events end in time");
        timeout(PATIENCE, look(&daemon.engine, &id)).await.expect("the answers come in time");
    });
    DAEMON.set(Some(daemon));
}

async fn listen(engine: &DockerEngine) {
    let mut events = engine.events();
    assert_eq!(events.next().await, Some(EngineEvent::Connected), "our daemon answers");
    for _ in 0..MOST_EVENTS {
        match events.next().await.expect("events go on for ever") {
            EngineEvent::Disconnected(why) => {
                assert!(!why.is_empty());
                return;
            }
            EngineEvent::Connected => panic!("it was connected"),
            EngineEvent::Container { .. } => {}
        }
    }
    panic!("a text of bounded length tells of events without end");
}

async fn look(engine: &DockerEngine, id: &ContainerId) {
    match engine.inspect("one").await {
        Ok(Some(found)) => {
            assert!(found.id.0 == "one" || found.name == "one", "{found:?} is not the one that was asked for")
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match engine.differences(id, &spec()).await {
        Ok(differences) => assert!(differences.iter().all(|difference| !difference.is_empty())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn spec() -> ContainerSpec {
    let spec = json!({"image": "busybox", "env": {"A": "b"}, "command": ["sh"], "networks": ["n"],
        "ports": [{"containerPort": 80, "hostPort": 8080}], "mounts": [{"type": "Volume", "source": "v", "target": "/v"}]});
    serde_json::from_value(spec).expect("a spec")
}

impl Daemon {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("docker.sock");
        let said = Arc::new(Mutex::new(Said::default()));
        let router = Router::new().fallback(answer).with_state(said.clone());
        runtime.block_on(async {
            let listener = UnixListener::bind(&socket).expect("a socket of our own");
            tokio::spawn(async move { axum::serve(listener, router).await });
        });
        let engine = DockerEngine::at(&format!("unix://{}", socket.display()));
        Self { runtime, said, engine, _directory: directory }
    }
}

async fn answer(State(said): State<Arc<Mutex<Said>>>, request: Request) -> Response {
    let said = said.lock().expect("nobody panics with it");
    let path = request.uri().path();
    let body = if path.ends_with("/version") {
        Body::from(json!({"Version": "27.0", "ApiVersion": "1.41", "MinAPIVersion": "1.24"}).to_string())
    } else if path.ends_with("/info") {
        Body::from(json!({"SystemTime": "2026-11-30T00:00:00.000000001Z"}).to_string())
    } else if path.ends_with("/events") {
        Body::from(said.events.clone())
    } else if path.ends_with("/containers/json") {
        Body::from(json!([{"Id": said.id}]).to_string())
    } else if path.contains("/containers/") {
        Body::from(said.container.clone())
    } else if path.contains("/images/") {
        Body::from(said.image.clone())
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn split(data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        parts.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    parts.push(rest);
    parts
}
