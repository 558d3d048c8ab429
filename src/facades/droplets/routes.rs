//! Which path and method is which call. 404, 405 and 307 are answered as the original does, and every answer carries the request's id.

use axum::{
    Router,
    extract::{RawPathParams, Request},
    http::{HeaderName, HeaderValue, Method},
    response::{Html, IntoResponse, Response},
    routing::any,
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

pub fn router(droplets: Droplets) -> Router {
    routes(&droplets, ROUTES)
}

pub fn with_everything(droplets: Droplets) -> Router {
    let all = routes(&droplets, ROUTES).merge(routes(&droplets, OWN));
    all.fallback(|request| identified(request, |_| async { overview::not_found().into_response() }))
}

fn routes(droplets: &Droplets, routes: &'static [Route]) -> Router {
    let mut router = Router::new();
    for (path, calls) in routes {
        let droplets = droplets.clone();
        let answer = move |params: RawPathParams, request: Request| {
            let droplets = droplets.clone();
            let call = calls.iter().find(|(method, _)| method == request.method()).map(|(_, call)| *call);
            let id = params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
            identified(request, move |request| async move {
                let Some(call) = call else { return method_not_allowed(calls.iter().map(|(method, _)| method)) };
                answer(&droplets, call, &id, request).await.unwrap_or_else(IntoResponse::into_response)
            })
        };
        let elsewhere = |request: Request| identified(request, |request| without_slash(request.uri().clone()));
        router = router.route(path, any(answer)).route(&format!("{path}/"), any(elsewhere));
    }
    router
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
        None => HeaderValue::from_str(&Uuid::new_v4().to_string()).ok(),
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
