//! The Kubernetes API on the wire: paths, negotiation, discovery, OpenAPI, tables, watch streams. One handler for every
//! kind; no rule of a write is decided here, and no state is kept.

mod age;
mod audit;
mod auth;
mod backup;
mod body;
mod builtin_columns;
mod discovery;
mod documents;
mod feed;
mod health;
mod live;
mod metrics;
mod negotiate;
mod openapi;
mod openapi_paths;
mod openapi_protobuf;
mod path;
mod protobuf;
mod query;
mod reply;
mod resources;
mod reviews;
mod scale;
mod serve;
mod shape;
mod shelf;
mod stated;
mod table;
mod tls;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, convert::Infallible, sync::Arc};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::Method,
    response::Response,
};
use prometheus_client::registry::Registry as Exposition;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt};
use tower_http::compression::{CompressionLayer, predicate::Predicate};

pub use audit::Audit;
pub use auth::Auth;
pub use backup::backup;
pub use health::{AlwaysReady, Check, Readiness};
pub use metrics::ServerMetrics;
pub use serve::serve;
pub use tls::{Certificates, Secured, TlsError};

use crate::{
    registry::{ApiError, ApiResult, Reason, Registry},
    runtime::clock::Clock,
};
use path::Target;
use query::Params;
use shelf::Shelf;

/// What clients take us for.
pub const GIT_VERSION: &str = "v1.32.0+gaia";

/// What requests are answered from. Clones share everything.
#[derive(Clone)]
pub struct ServerState {
    pub registry: Arc<Registry>,
    /// Ends every watch when cancelled.
    pub shutdown: CancellationToken,
    pub auth: Auth,
    pub readiness: Arc<dyn Readiness>,
    /// Of requests that may change something.
    pub audit: Audit,
    /// For ages in tables.
    pub clock: Arc<dyn Clock>,
    /// Where requests are counted.
    pub metrics: ServerMetrics,
    /// What `/metrics` shows: of the whole process, the server's metrics among them.
    pub exposition: Arc<Exposition>,
}

/// Another API on the same listener, behind the same tokens.
#[derive(Default)]
pub struct Guest {
    /// Takes exactly its own paths; whatever it does not name stays ours.
    pub routes: Router,
    /// What `GET /` tells beside our paths, an object.
    pub directory: Map<String, Value>,
}

/// What one router has beside the state.
#[derive(Clone, Default)]
struct Beside {
    /// The [`Guest`]'s part of `GET /`.
    directory: Arc<Map<String, Value>>,
    shelf: Arc<Shelf>,
}

/// The API as a tower service: serve it, or put a `kube::Client` on top of it in this process.
pub fn router(state: ServerState) -> Router {
    with_guest(state, Guest::default())
}

/// As [`router`], with another API beside ours.
pub fn with_guest(state: ServerState, guest: Guest) -> Router {
    let (audit, auth, metrics) = (state.audit.clone(), state.auth.clone(), state.metrics.clone());
    let beside = Extension(Beside { directory: Arc::new(guest.directory), shelf: Arc::default() });
    let ours = Router::new().fallback(handle).layer(beside).with_state(state);
    let counted = Counted { routes: guest.routes.merge(ours), metrics };
    let entrance = entrance(auth.clone(), move |request| counted.clone().answer(request));
    audit.over(Router::new().fallback_service(compression().layer(entrance)), auth)
}

/// Another API on a listener of its own, behind our tokens.
pub fn guarded(routes: Router, auth: Auth, audit: &Audit) -> Router {
    let entrance = entrance(auth.clone(), move |request| answered(routes.clone(), request));
    audit.over(Router::new().fallback_service(entrance), auth)
}

/// Lets in whoever [`Auth`] does. What every request goes through is one service around the routes: as a layer of the router it
/// would be boxed and cloned for each request, which costs several times what it does.
fn entrance<A, F>(
    auth: Auth,
    answer: A,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync
where
    A: FnOnce(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send,
{
    tower::service_fn(move |request: Request| {
        let refused = auth.refused(&request);
        let answer = answer.clone();
        async move {
            Ok(match refused {
                Some(refused) => refused,
                None => answer(request).await,
            })
        }
    })
}

async fn answered(routes: Router, request: Request) -> Response {
    routes.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// Routes, and where their calls are counted.
#[derive(Clone)]
struct Counted {
    routes: Router,
    metrics: ServerMetrics,
}

/// What a call of ours counts as, told with its answer.
#[derive(Clone)]
struct CountedAs(&'static str, String);

impl Counted {
    /// Calls beside ours count under one name: their paths hold names and ids.
    async fn answer(self, request: Request) -> Response {
        let started = Instant::now();
        let verb = if request.method() == Method::GET { "get" } else { "post" };
        let resource = if request.uri().path() == backup::PATH { "backup" } else { "facade" };
        let mut response = answered(self.routes, request).await;
        let (verb, resource) = match response.extensions_mut().remove() {
            Some(CountedAs(verb, resource)) => (verb, Cow::Owned(resource)),
            None => (verb, Cow::Borrowed(resource)),
        };
        self.metrics.answered(verb, &resource, response.status().as_u16(), started.elapsed());
        response
    }
}

/// Answers that are large and end: a watch must not wait for a block to fill.
fn compression() -> CompressionLayer<impl Predicate> {
    const LARGE_BYTES: u16 = 32 * 1024;
    let ends = |_, _, _: &_, extensions: &axum::http::Extensions| extensions.get::<watch::Streaming>().is_none();
    CompressionLayer::new().compress_when(tower_http::compression::predicate::SizeAbove::new(LARGE_BYTES).and(ends))
}

async fn handle(State(state): State<ServerState>, Extension(beside): Extension<Beside>, request: Request) -> Response {
    let target = path::parse(request.uri().path());
    let params = Params::of(request.uri());
    let (verb, resource) = labels(&state, &target, request.method(), params.as_ref().ok());
    // Whatever is asked for in no form of ours is told in the words of either API.
    let nowhere = target == Target::Unknown;
    let answer = match params {
        Ok(params) => dispatch(&state, &beside, target, params, request).await,
        Err(error) => Err(error),
    };
    let mut response = answer.unwrap_or_else(|error| {
        // Ours to mend, not the client's to hear only.
        if matches!(error.reason, Reason::InternalError | Reason::ServiceUnavailable) {
            tracing::error!(verb, resource, error = %error, "a request could not be answered");
        }
        if nowhere { reply::nowhere(&error) } else { reply::error(&error) }
    });
    response.extensions_mut().insert(CountedAs(verb, resource));
    response
}

async fn dispatch(
    state: &ServerState,
    beside: &Beside,
    target: Target,
    params: Params,
    request: Request,
) -> ApiResult<Response> {
    match target {
        Target::Resource(path) => resources::handle(state, path, params, request).await,
        Target::WebSocketWatch => live::websocket(state, &params, request).await,
        Target::SseWatch => live::sse(state, &params, request.headers()).await,
        Target::Root if matches!(*request.method(), Method::GET | Method::HEAD) => {
            Ok(documents::root(&state.registry.kinds(), (*beside.directory).clone()))
        }
        document if matches!(*request.method(), Method::GET | Method::HEAD) => {
            documents::answer(state, &beside.shelf, &document, &params, request.headers())
        }
        Target::Unknown => Err(not_found()),
        _ => Err(method_not_allowed()),
    }
}

fn not_found() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

fn method_not_allowed() -> ApiError {
    let message = "the server does not allow this method on the requested resource";
    ApiError::new(Reason::MethodNotAllowed, message)
}

/// Verb and resource for the metrics. Bounded: what we do not serve is `other`.
fn labels(state: &ServerState, target: &Target, method: &Method, params: Option<&Params>) -> (&'static str, String) {
    match target {
        Target::Resource(path) => {
            let known = state.registry.kinds().by_plural(&path.group, &path.version, &path.plural).is_some()
                || reviews::at(&path.group, &path.version, &path.plural).is_some();
            let resource = if known { path.plural.clone() } else { "other".to_owned() };
            let watching = params.is_some_and(|params| matches!(params.flag("watch"), Ok(true)));
            (resources::verb(method, path.name.is_some(), watching), resource)
        }
        Target::WebSocketWatch | Target::SseWatch => ("watch", "live".to_owned()),
        Target::Healthz | Target::Livez | Target::Readyz => ("get", "health".to_owned()),
        Target::Metrics => ("get", "metrics".to_owned()),
        Target::OpenApiV2 | Target::OpenApiV3Index | Target::OpenApiV3 { .. } => ("get", "openapi".to_owned()),
        Target::Root
        | Target::Version
        | Target::LegacyVersions
        | Target::Groups
        | Target::Group(_)
        | Target::GroupVersion { .. } => ("get", "discovery".to_owned()),
        Target::Unknown => ("other", "other".to_owned()),
    }
}
