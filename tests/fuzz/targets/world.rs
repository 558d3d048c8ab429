//! The server in this process over a store in memory, and what must hold of both whatever was sent. Time is paused and ids are
//! seeded, so that the same requests in the same order come to the same answers.

use std::{
    cell::RefCell,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use futures::StreamExt;
use gaia::{
    api,
    registry::{Kinds, Registry, SeededIds},
    runtime::clock::SimulatedClock,
    server::{AlwaysReady, Auth, ServerMetrics, ServerState, router},
    store::{EmbeddedStore, MemoryEngine, Options, Prefix, Snapshot, Store},
};
use prometheus_client::registry::Registry as Exposition;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::http;

/// So many cases share one world; then it is looked over, and the next one begins. A case can thus be played again with
/// those before it.
pub const CASES_PER_WORLD: u64 = 250;

/// Of paused time: what has not answered by then waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// So much is read of an answer without end.
const MOST_OF_A_STREAM: usize = 256 * 1024;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

pub struct World {
    runtime: Runtime,
    engine: MemoryEngine,
    store: Arc<EmbeddedStore>,
    router: Router,
    pub registry: Arc<Registry>,
    cases: u64,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// A stream that would have gone on.
    pub goes_on: bool,
}

impl Answer {
    /// None when it is no JSON, or compressed.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Acts on the present world. A panic leaves none behind.
pub fn with<T>(act: impl FnOnce(&World) -> T) -> T {
    let mut world = WORLD.take().unwrap_or_else(World::new);
    let out = act(&world);
    world.cases += 1;
    if world.cases < CASES_PER_WORLD {
        WORLD.set(Some(world));
    } else {
        world.look_over();
    }
    out
}

/// Looks the present world over and forgets it.
pub fn renew() {
    if let Some(world) = WORLD.take() {
        world.look_over();
    }
}

/// Our kinds, compiled once: that is most of what a fresh world costs.
pub fn kinds() -> Kinds {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    KINDS.get_or_init(|| Kinds::from_crds(&api::crds()).expect("our own definitions are valid")).clone()
}

/// What every world begins with.
fn furnished() -> &'static Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let world = World::over(MemoryEngine::default());
        for (path, object) in http::samples() {
            let answer = world.send(http::request(Method::POST, path, &object));
            assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", String::from_utf8_lossy(&answer.body));
        }
        world.runtime.block_on(world.store.list(&Prefix::all())).expect("the store lists")
    })
}

impl World {
    fn new() -> Self {
        Self::over(MemoryEngine::holding(furnished()))
    }

    fn over(engine: MemoryEngine) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("a runtime can be built");
        let store = EmbeddedStore::open(engine.clone(), Options::default()).expect("what was written can be read");
        let registry = runtime.block_on(async {
            let clock = Arc::new(SimulatedClock::starting_at("2026-11-30T00:00:00Z".parse().expect("a time")));
            let ids = Arc::new(SeededIds::new(4));
            let registry = Registry::open(store.clone(), kinds(), clock.clone(), ids).await;
            (registry.expect("what was written can be served"), clock)
        });
        let (registry, clock) = registry;
        let mut exposition = Exposition::default();
        let metrics = ServerMetrics::register(&mut exposition);
        let router = router(ServerState {
            registry: registry.clone(),
            shutdown: CancellationToken::new(),
            auth: Auth::open(),
            audit: gaia::server::Audit::default(),
            readiness: Arc::new(AlwaysReady),
            clock,
            metrics,
            exposition: Arc::new(exposition),
        });
        Self { runtime, engine, store, router, registry, cases: 0 }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(PATIENCE, future).await.expect("it ends in time") })
    }

    /// How many writes there have been.
    pub fn revision(&self) -> u64 {
        self.block_on(self.store.revision()).expect("the store answers").0
    }

    pub fn send(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let response = timeout(PATIENCE, self.router.clone().call(request)).await.expect("an answer in time");
            let (parts, body) = response.expect("a router does not fail").into_parts();
            let (mut read, mut goes_on) = (Vec::new(), false);
            let mut body = body.into_data_stream();
            loop {
                match timeout(PATIENCE, body.next()).await {
                    Ok(Some(bytes)) => read.extend_from_slice(&bytes.expect("the answer can be read")),
                    Ok(None) => break,
                    Err(_) => goes_on = true,
                }
                goes_on |= read.len() > MOST_OF_A_STREAM && is_stream(&parts.headers, &read);
                if goes_on {
                    break;
                }
            }
            Answer { status: parts.status, headers: parts.headers, body: read.into(), goes_on }
        })
    }

    /// Every object can be read, listed, printed and decoded, and written back without becoming another; and a server that
    /// starts on the same disk finds the same.
    fn look_over(&self) {
        let kinds = self.registry.kinds();
        for kind in kinds.iter() {
            let version = match kind.group.as_str() {
                "" => format!("/api/{}", kind.version),
                group => format!("/apis/{group}/{}", kind.version),
            };
            let all = format!("{version}/{}", kind.plural);
            let list = self.must(Method::GET, &all, &Value::Null);
            let table = http::get_as(&all, "application/json;as=Table;g=meta.k8s.io;v=v1");
            assert_eq!(self.send(table).status, StatusCode::OK, "{all} as a table");
            for object in list["items"].as_array().expect("a list has items") {
                let name = object["metadata"]["name"].as_str().expect("an object has a name");
                let path = match object["metadata"]["namespace"].as_str() {
                    Some(namespace) => format!("{version}/namespaces/{namespace}/{}/{name}", kind.plural),
                    None => format!("{all}/{name}"),
                };
                let read = self.must(Method::GET, &path, &Value::Null);
                // What its definition says now, an object of a kind that clients brought need not fit.
                if kind.added {
                    continue;
                }
                let written = self.must(Method::PUT, &path, &read);
                assert_eq!(written, read, "{path}: written back it became another");
                decodes(&read);
            }
        }
        let before = self.block_on(self.store.list(&Prefix::all())).expect("the store lists");
        let again = World::over(self.engine.clone());
        let after = again.block_on(again.store.list(&Prefix::all())).expect("the store lists");
        assert_eq!(before.items, after.items, "a restart changed what is there");
    }

    fn must(&self, method: Method, path: &str, object: &Value) -> Value {
        let answer = self.send(http::request(method.clone(), path, object));
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, StatusCode::OK, "{method} {path}: {} for {object}", text());
        answer.json().unwrap_or_else(|| panic!("{path}: {}", text()))
    }
}

/// Only watches go on for long.
fn is_stream(headers: &HeaderMap, read: &[u8]) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind == "text/event-stream" || read.starts_with(b"{\"type\":")
}

/// An object of ours fits its Rust type: controllers pass over what does not.
pub fn decodes(object: &Value) {
    macro_rules! decode {
        ($($module:ident::$kind:ident,)+) => {
            match object["kind"].as_str().unwrap_or_default() {
                $(stringify!($kind) if object["apiVersion"] == json!("gaia.dev/v1alpha1") => {
                    serde_json::from_value::<api::$module::$kind>(object.clone()).err()
                })+
                _ => None,
            }
        };
    }
    let error = gaia::kinds!(decode);
    assert!(error.is_none(), "{error:?}: {object}");
}
