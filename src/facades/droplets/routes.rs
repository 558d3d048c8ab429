//! Which path and method is which call. 404, 405 and 307 are answered as the original does, and every answer carries the request's id.

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method},
    response::{Html, IntoResponse, Response},
};
use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use uuid::Uuid;

use super::{Answer, Droplets, messages, overview, tasks};
use crate::facades::reply::{method_not_allowed, without_slash};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Health,
    Info,
    Droplets,
    Submit,
    Tasks,
    Task,
    Metrics,
    Capabilities,
    State,
    Dependencies,
    Message,
    Send,
    PlainHealth,
    Openapi,
    Docs,
}

/// What stands for the id in a path.
const ID: &str = "{id}";

type Route = (&'static str, &'static [(Method, Call)]);

const ROUTES: &[Route] = &[
    ("/orchestrator/health", &[(Method::GET, Call::Health)]),
    ("/orchestrator/info", &[(Method::GET, Call::Info)]),
    ("/orchestrator/droplets", &[(Method::GET, Call::Droplets)]),
    ("/orchestrator/tasks", &[(Method::POST, Call::Submit), (Method::GET, Call::Tasks)]),
    ("/orchestrator/tasks/{id}", &[(Method::GET, Call::Task)]),
    ("/orchestrator/metrics", &[(Method::GET, Call::Metrics)]),
    ("/orchestrator/capabilities", &[(Method::GET, Call::Capabilities)]),
    ("/orchestrator/state", &[(Method::GET, Call::State)]),
    ("/orchestrator/dependencies", &[(Method::GET, Call::Dependencies)]),
    ("/orchestrator/message", &[(Method::POST, Call::Message)]),
    ("/orchestrator/send", &[(Method::POST, Call::Send)]),
];

/// Paths that others have on the main listener.
const OWN: &[Route] = &[
    ("/health", &[(Method::GET, Call::PlainHealth)]),
    ("/openapi.json", &[(Method::GET, Call::Openapi)]),
    ("/docs", &[(Method::GET, Call::Docs)]),
    ("/redoc", &[(Method::GET, Call::Docs)]),
];

/// Answers what is ours on the main listener, and gives back what is not. No router: it would cost more than most of these calls.
pub fn direct(droplets: &Droplets, request: Request) -> Either<BoxFuture<'static, Response>, Request> {
    match find(ROUTES, request.uri().path()) {
        Some(found) => Either::Left(respond(droplets.clone(), found, request).boxed()),
        None => Either::Right(request),
    }
}

pub fn with_everything(droplets: Droplets) -> Router {
    Router::new().fallback(async move |request: Request| {
        let path = request.uri().path();
        match find(ROUTES, path).or_else(|| find(OWN, path)) {
            Some(found) => respond(droplets, found, request).await,
            None => identified(request, |_| async { overview::not_found().into_response() }).await,
        }
    })
}

enum Found {
    /// And the id in the path, where there is one.
    Calls(&'static [(Method, Call)], String),
    /// A path of ours with a slash too many.
    Elsewhere,
}

fn find(routes: &'static [Route], path: &str) -> Option<Found> {
    let (bare, slash) = path.strip_suffix('/').map_or((path, false), |bare| (bare, true));
    let id = |route: &str| match route.strip_suffix(ID) {
        Some(before) => bare.strip_prefix(before).filter(|id| !id.is_empty() && !id.contains('/')),
        None => (bare == route).then_some(""),
    };
    let (calls, id) = routes.iter().find_map(|(route, calls)| Some((*calls, id(route)?)))?;
    Some(if slash { Found::Elsewhere } else { Found::Calls(calls, id.to_owned()) })
}

async fn respond(droplets: Droplets, found: Found, request: Request) -> Response {
    identified(request, async move |request| match found {
        Found::Elsewhere => without_slash(request.uri().clone()).await,
        Found::Calls(calls, id) => {
            let Some((_, call)) = calls.iter().find(|(method, _)| method == request.method()) else {
                return method_not_allowed(calls.iter().map(|(method, _)| method));
            };
            answer(&droplets, *call, &id, request).await.unwrap_or_else(IntoResponse::into_response)
        }
    })
    .await
}

async fn answer(droplets: &Droplets, call: Call, id: &str, request: Request) -> Answer {
    match call {
        Call::Health => overview::health(droplets).await,
        Call::Info => overview::info(droplets).await,
        Call::Droplets => overview::droplets(droplets).await,
        Call::Submit => tasks::submit(droplets, request).await,
        Call::Tasks => tasks::list(droplets, request.uri()),
        Call::Task => tasks::task(droplets, id),
        Call::Metrics => overview::metrics(droplets),
        Call::Capabilities => overview::capabilities(droplets),
        Call::State => overview::state(droplets),
        Call::Dependencies => overview::dependencies(droplets).await,
        Call::Message => messages::receive(droplets, request).await,
        Call::Send => messages::send(droplets, request).await,
        Call::PlainHealth => overview::plain_health(),
        Call::Openapi => overview::openapi(listed()),
        Call::Docs => {
            let lines: String = listed().map(|(path, method)| format!("<li>{method} {path}</li>")).collect();
            Ok(Html(format!("<!doctype html><title>Orchestrator</title><ul>{lines}</ul>")).into_response())
        }
    }
}

fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().flat_map(|(path, calls)| {
        let name = |method: &Method| if *method == Method::GET { "GET" } else { "POST" };
        calls.iter().map(move |(method, _)| (*path, name(method)))
    })
}

/// Gives the answer the id of the request, or a new one; the droplet hears the same.
async fn identified<F: Future<Output = Response>>(mut request: Request, answer: impl FnOnce(Request) -> F) -> Response {
    let id = match request.headers().get(REQUEST_ID) {
        Some(given) => Some(given.clone()),
        None => HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut Uuid::encode_buffer())).ok(),
    };
    if let Some(id) = &id {
        request.headers_mut().insert(REQUEST_ID, id.clone());
    }
    let mut response = answer(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
