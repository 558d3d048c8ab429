//! The server as its clients see it, in this process: requests into the router, answers out.

mod discovery;
mod kube_client;
mod live;
mod stated;
mod tables;
mod verbs;
mod watching;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use futures::StreamExt;
use kube::CustomResourceExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::*;
use crate::{
    api::{source::Source, workload::Workload},
    registry::{Kinds, RandomIds},
    runtime::clock::SystemClock,
    store::{EmbeddedStore, MemoryEngine, Options},
};

/// Longer than anything here takes, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const WORKLOADS: &str = "/apis/gaia.dev/v1alpha1/namespaces/default/workloads";

/// A server over an empty store in memory.
pub struct Server {
    pub router: Router,
    pub state: ServerState,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(&name).map(|value| value.to_str().expect("a readable header")).unwrap_or_default()
    }

    /// The answer's object, which must have come with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json()
    }
}

impl Server {
    pub async fn new() -> Self {
        Self::with(Options::default(), Auth::open()).await
    }

    pub async fn with(options: Options, auth: Auth) -> Self {
        Self::on(MemoryEngine::default(), options, auth).await
    }

    pub async fn on(disk: MemoryEngine, options: Options, auth: Auth) -> Self {
        let store = EmbeddedStore::open(disk, options).expect("the store opens");
        let kinds = Kinds::from_crds(&[Workload::crd(), Source::crd()]).expect("our own kinds are structural");
        let clock = Arc::new(SystemClock);
        let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds));
        let registry = registry.await.expect("the registry opens");
        let mut exposition = Exposition::default();
        let metrics = ServerMetrics::register(&mut exposition);
        let state = ServerState {
            registry,
            shutdown: CancellationToken::new(),
            auth,
            audit: Audit::default(),
            readiness: Arc::new(AlwaysReady),
            clock,
            metrics,
            exposition: Arc::new(exposition),
        };
        Self { router: router(state.clone()), state }
    }

    pub async fn call(&self, request: Request<Body>) -> axum::response::Response {
        let answer = timeout(PATIENCE, self.router.clone().call(request)).await;
        answer.expect("the router answers in time").expect("a router does not fail")
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.call(request).await.into_parts();
        let body = timeout(PATIENCE, axum::body::to_bytes(body, usize::MAX)).await;
        let body = body.expect("the answer ends in time").expect("the answer can be read");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, &[], "")).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(request(Method::GET, path, &[("accept", accept)], "")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(request(Method::POST, path, &[("content-type", "application/json")], &body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(request(Method::PUT, path, &[("content-type", "application/json")], &body.to_string())).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.patch(path, "application/merge-patch+json", patch).await
    }

    pub async fn patch(&self, path: &str, media: &str, patch: &Value) -> Answer {
        self.send(request(Method::PATCH, path, &[("content-type", media)], &patch.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(request(Method::DELETE, path, &[], "")).await
    }

    /// A Workload that is there now, as the server answered it.
    pub async fn workload(&self, name: &str) -> Value {
        self.post(WORKLOADS, &workload(name)).await.expect(201)
    }

    /// An answer that goes on.
    pub async fn watch(&self, path: &str) -> Lines {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Lines {
        let response = self.call(request(Method::GET, path, &[("accept", accept)], "")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Lines { stream: response.into_body().into_data_stream().boxed(), buffer: Vec::new() }
    }
}

/// A stream of lines, read as they come.
pub struct Lines {
    stream: futures::stream::BoxStream<'static, Result<Bytes, axum::Error>>,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; none at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8(line).expect("lines are UTF-8").trim_end().to_owned());
            }
            match timeout(PATIENCE, self.stream.next()).await.expect("the stream goes on in time") {
                Some(bytes) => self.buffer.extend_from_slice(&bytes.expect("the stream can be read")),
                None => return None,
            }
        }
    }

    pub async fn event(&mut self) -> Value {
        let line = self.line().await.expect("the stream has not ended");
        serde_json::from_str(&line).expect("events are JSON")
    }

    /// Type and name of the next event.
    pub async fn brief(&mut self) -> (String, String) {
        let event = self.event().await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).expect("a well-formed request")
}

pub fn workload(name: &str) -> Value {
    json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
        "spec": {"live": {"container": {"image": "busybox"}}},
    })
}

/// A resourceVersion of an object or list.
pub fn version_of(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().expect("everything has a resourceVersion").to_owned()
}
