//! Which path and method is which call, and who may call. 404, 405 and 307 are answered as MLOC's own service does.

use std::collections::HashMap;

use axum::{
    Router,
    extract::{RawPathParams, Request},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{Mloc, artifacts, logs, records, results, socket, submit, wishes};
use crate::facades::reply::{Answer, Refusal, json, method_not_allowed, without_slash};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Workers,
    Worker,
    CleanUp,
    Submit,
    Tasks,
    Task,
    Cancel,
    Retry,
    DeadLetters,
    Logs,
    Log,
    TakeResult,
    Result,
    TakeFile,
    File,
    Socket,
}

/// `{}` in a path is an id or a name.
const ROUTES: &[(&str, &[(Method, Call)])] = &[
    ("/workers", &[(Method::GET, Call::Workers)]),
    ("/workers/{id}", &[(Method::GET, Call::Worker)]),
    ("/admin/cleanup", &[(Method::POST, Call::CleanUp)]),
    ("/api/v1/tasks", &[(Method::POST, Call::Submit), (Method::GET, Call::Tasks)]),
    ("/api/v1/tasks/{id}", &[(Method::GET, Call::Task)]),
    ("/api/v1/tasks/{id}/cancel", &[(Method::POST, Call::Cancel)]),
    ("/api/v1/tasks/{id}/retry", &[(Method::POST, Call::Retry)]),
    ("/api/v1/tasks/{id}/logs", &[(Method::GET, Call::Logs)]),
    ("/api/v1/tasks/{id}/logs/{attempt}", &[(Method::GET, Call::Log)]),
    ("/api/v1/dead_letters", &[(Method::GET, Call::DeadLetters)]),
    ("/api/v1/results", &[(Method::POST, Call::TakeResult)]),
    ("/api/v1/results/{id}", &[(Method::GET, Call::Result)]),
    ("/api/v1/results/{id}/files", &[(Method::POST, Call::TakeFile)]),
    ("/api/v1/results/{id}/files/{name}", &[(Method::GET, Call::File)]),
    ("/ws/worker", &[(Method::GET, Call::Socket)]),
];

pub fn router(mloc: Mloc) -> Router {
    let mut router = Router::new();
    for (path, calls) in ROUTES {
        let mloc = mloc.clone();
        let answer = move |params: RawPathParams, mut request: Request| {
            let mloc = mloc.clone();
            let call = calls.iter().find(|(method, _)| method == request.method()).map(|(_, call)| *call);
            let names: Vec<String> = params.iter().map(|(_, value)| value.to_owned()).collect();
            async move {
                let Some(call) = call else { return method_not_allowed(calls.iter().map(|(method, _)| method)) };
                let answer = match admit(&mloc, request.headers()) {
                    Err(_) if call == Call::File && is_signed(&mloc, &names, request.uri()) => {
                        answer(&mloc, call, &names, request).await
                    }
                    Ok(()) => answer(&mloc, call, &names, request).await,
                    Err(refusal) => match pass(&mloc, request.headers()).filter(|pass| pass.is_for(call, &names)) {
                        Some(pass) => {
                            request.extensions_mut().insert(pass);
                            answer(&mloc, call, &names, request).await
                        }
                        None => Err(refusal),
                    },
                };
                answer.unwrap_or_else(IntoResponse::into_response)
            }
        };
        router = router.route(path, any(answer)).route(&format!("{path}/"), any(without_slash));
    }
    router
}

/// For a listener of our own: it says that the process answers, and asks nobody else.
pub fn health() -> Router {
    let answer = |request: Request| async move {
        match *request.method() {
            Method::GET => json(StatusCode::OK, &json!({"ok": true})),
            _ => method_not_allowed([&Method::GET].into_iter()),
        }
    };
    Router::new().route("/healthz", any(answer)).route("/healthz/", any(without_slash))
}

pub async fn not_found() -> Response {
    Refusal::new(StatusCode::NOT_FOUND, "Not Found").into_response()
}

/// Whoever shows the token, in exactly this form.
fn admit(mloc: &Mloc, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = &mloc.token else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let given = given.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "Missing bearer token"))?;
    match bool::from(token.as_bytes().ct_eq(given)) {
        true => Ok(()),
        false => Err(Refusal::new(StatusCode::FORBIDDEN, "Invalid token")),
    }
}

/// Its bearer may deliver for this task, and do nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass(pub String);

impl Pass {
    /// Of a result the body says whose it is: that is looked at when it is read.
    fn is_for(&self, call: Call, names: &[String]) -> bool {
        call == Call::TakeResult || (call == Call::TakeFile && names.first() == Some(&self.0))
    }
}

fn pass(mloc: &Mloc, headers: &HeaderMap) -> Option<Pass> {
    let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    mloc.signer.as_ref()?.passes(shown, mloc.clock.now()).map(|task| Pass(task.to_owned()))
}

/// The URL of a file carries a signature that opens it.
fn is_signed(mloc: &Mloc, names: &[String], uri: &Uri) -> bool {
    let (Some(signer), [task, file]) = (&mloc.signer, names) else { return false };
    let Ok(query) = axum::extract::Query::<HashMap<String, String>>::try_from_uri(uri) else { return false };
    let Some((expires, signature)) = query.get("expires").zip(query.get("signature")) else { return false };
    expires.parse().is_ok_and(|expires| signer.opens(task, file, expires, signature, mloc.clock.now()))
}

async fn answer(mloc: &Mloc, call: Call, names: &[String], request: Request) -> Answer {
    let name = |n: usize| names.get(n).map(String::as_str).unwrap_or_default();
    match call {
        Call::Workers => records::workers(mloc).await,
        Call::Worker => records::worker(mloc, name(0)).await,
        Call::CleanUp => mloc.clean_up().await,
        Call::Submit => submit::submit(mloc, request).await,
        Call::Tasks => records::tasks(mloc, &request.into_parts().0.uri).await,
        Call::Task => records::task(mloc, name(0)).await,
        Call::Cancel => wishes::cancel(mloc, name(0), request.uri()).await,
        Call::Retry => wishes::retry(mloc, name(0), request.uri()).await,
        Call::Logs => logs::list(mloc, name(0)).await,
        Call::Log => logs::give(mloc, name(0), name(1), request.uri()).await,
        Call::DeadLetters => wishes::dead_letters(mloc).await,
        Call::TakeResult => results::take(mloc, request).await,
        Call::Result => results::give(mloc, name(0)).await,
        Call::TakeFile => artifacts::take(mloc, name(0), request).await,
        Call::Socket => socket::upgrade(mloc, request).await,
        Call::File => artifacts::give(mloc, name(0), name(1), &request.into_parts().0.headers).await,
    }
}
