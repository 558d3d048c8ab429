//! What is counted: as MLOC has it, in JSON; for Prometheus where the client asks for text. On the tasks' own port, for on the main one
//! `/metrics` is the whole process's.

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;

use super::{Mloc, records};
use crate::{
    api::worker::Worker,
    facades::reply::{Answer, Refusal, ok, with_header},
    mloc::names::NAMESPACE,
    runtime::objects::Objects,
};

/// What Prometheus calls the text that we write.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whoever asks is answered, as by MLOC and on our main port.
pub fn router(mloc: Mloc) -> Router {
    let answer = move |request: Request| {
        let mloc = mloc.clone();
        async move {
            if *request.method() != Method::GET {
                let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into_response();
                return with_header(refusal, header::ALLOW, "GET");
            }
            let answer = if wants_text(request.headers()) { text(&mloc) } else { whole(&mloc).await };
            answer.unwrap_or_else(IntoResponse::into_response)
        }
    };
    Router::new().route("/metrics", any(answer))
}

/// Prometheus names the texts it takes; everybody else gets what MLOC gives.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let mut ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    let first = ranges.find(|range| ["application/json", "text/plain", "application/openmetrics-text"].contains(range));
    first.is_some_and(|range| range != "application/json")
}

fn text(mloc: &Mloc) -> Answer {
    let mut registry = Registry::default();
    mloc.metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Refusal::failed(error.to_string()))?;
    Ok::<Response, Refusal>(([(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))], text).into_response())
}

async fn whole(mloc: &Mloc) -> Answer {
    let workers = mloc.objects.list::<Worker>(Some(NAMESPACE)).await?;
    let workers: Vec<_> = workers.iter().filter(|worker| records::is_registered(worker)).collect();
    let live = workers.iter().filter(|worker| worker.status.as_ref().is_some_and(|status| !status.stale)).count();
    let mut told = mloc.metrics.as_mloc_has_it();
    told["workers"] = json!(workers.iter().map(|worker| records::worker_record(worker)).collect::<Vec<_>>());
    told["active_workers_count"] = json!(live);
    ok(&told)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("*/*", false)]
    #[case("application/json, text/plain", false)]
    #[case("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", true)]
    #[case("text/plain", true)]
    fn the_first_shape_that_is_known_counts(#[case] accept: &str, #[case] expected: bool) {
        let accept = HeaderValue::from_str(accept).expect("a header");
        assert_eq!(wants_text(&HeaderMap::from_iter([(header::ACCEPT, accept)])), expected);
    }
}
