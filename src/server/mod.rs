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
mod front;
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

use std::{borrow::Cow, sync::Arc};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::Method,
    response::Response,
};
use futures::future::{BoxFuture, Either};
use prometheus_client::registry::Registry as Exposition;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use audit::Audit;
pub use auth::Auth;
pub use backup::backup;
pub use front::{Answers, Front};
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

/// Takes the requests whose paths it knows, and gives all others back: for calls that come so often that a router would show.
pub type Direct = Arc<dyn Fn(Request) -> Either<BoxFuture<'static, Response>, Request> + Send + Sync>;

/// Another API on the same listener, behind the same tokens.
#[derive(Default)]
pub struct Guest {
    /// Asked before the routes.
    pub direct: Option<Direct>,
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
    Router::new().fallback_service(with_guest(state, Guest::default()))
}

/// As [`router`], with another API beside ours.
pub fn with_guest(state: ServerState, guest: Guest) -> Front<impl Answers> {
    let (audit, auth, metrics) = (state.audit.clone(), state.auth.clone(), state.metrics.clone());
    let beside = Extension(Beside { directory: Arc::new(guest.directory), shelf: Arc::default() });
    let ours = Router::new().fallback(handle).layer(beside).with_state(state);
    let counted = Arc::new(Counted { direct: guest.direct, routes: guest.routes.merge(ours), metrics });
    let entrance = front::entrance(auth.clone(), move |request| counted.answer(request));
    Front::new(front::compressing(entrance), auth, &audit)
}

/// Another API on a listener of its own, behind our tokens.
pub fn guarded(service: impl Answers, auth: Auth, audit: &Audit) -> Front<impl Answers> {
    let entrance = front::entrance(auth.clone(), move |request| answered(service, request));
    Front::new(entrance, auth, audit)
}

async fn answered(mut service: impl Answers, request: Request) -> Response {
    let Ok(response) = service.call(request).await;
    response
}

/// Routes, and where their calls are counted.
struct Counted {
    direct: Option<Direct>,
    routes: Router,
    metrics: ServerMetrics,
}

/// What a call of ours counts as, told with its answer.
#[derive(Clone)]
struct CountedAs(&'static str, String);

impl Counted {
    /// Calls beside ours count under one name: their paths hold names and ids.
    fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = Response> + Send + 'static {
        let started = Instant::now();
        let verb = if request.method() == Method::GET { "get" } else { "post" };
        let resource = if request.uri().path() == backup::PATH { "backup" } else { "facade" };
        async move {
            let taken = match &self.direct {
                Some(direct) => direct(request),
                None => Either::Right(request),
            };
            let mut response = match taken {
                Either::Left(answer) => answer.await,
                Either::Right(request) => answered(self.routes.clone(), request).await,
            };
            let (verb, resource) = match response.extensions_mut().remove() {
                Some(CountedAs(verb, resource)) => (verb, Cow::Owned(resource)),
                None => (verb, Cow::Borrowed(resource)),
            };
            self.metrics.answered(verb, resource, response.status().as_u16(), started.elapsed());
            response
        }
    }
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
