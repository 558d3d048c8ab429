//! A call to a droplet is taken, routed and answered; and what was recorded of others.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
};
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use super::{Answer, Droplets, Refusal, body, reply::json as answer_json, reply::ok, reply::with_header, udc};
use crate::{
    controllers::droplet::{
        later::{self, Promised},
        routing::{self, Call, Reply, Unrouted},
    },
    droplets::{
        address::join,
        record::{Filter, Record, UdcError},
    },
};

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
/// A caller that says `1` takes its call with it when it leaves; else the call goes on and is recorded.
const CANCEL: &str = "x-cancel-on-disconnect";
const CALLBACK: &str = "x-callback-url";

/// What a client is answered with.
#[derive(Serialize)]
struct Routed<'a> {
    task_id: &'a str,
    status: &'a str,
    target_url: &'a str,
    response_status: Option<u16>,
    response_body: Option<&'a RawValue>,
    retry_count: u32,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a UdcError>,
}

pub async fn submit(droplets: &Droplets, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let mut fields = body::read(&parts.headers, body).await?;
    let name = fields.text("droplet_name", 1..=255);
    let method = fields.word("method", &METHODS, Some("GET"));
    let path = fields.text("path", 1..=2048);
    let payload = fields.object("payload", true);
    // Checked, and of no further use.
    fields.texts("meta");
    let asked = fields.judged(Asked { name, method, path, payload })?;
    let routing = &droplets.routing;
    let known = match routing.directory.find(&asked.name).await {
        Ok(known) => known,
        Err(available) => return Err(not_found(&asked.name, &available)),
    };
    if prefers_async(&parts.headers) {
        let destination = join(&known.entry.endpoint, &asked.path).map_err(|error| failed(&error.to_string()))?;
        return promise(droplets, asked, &parts.headers, destination.shown).await;
    }
    let id = Uuid::new_v4().to_string();
    let call = Call {
        id,
        droplet: asked.name.as_str().into(),
        method: asked.method.parse().unwrap_or(Method::GET),
        path: asked.path,
        payload: asked.payload.map(|payload| Bytes::from(String::from(Box::<str>::from(payload)))),
        request_id: parts.headers.get("x-request-id").cloned(),
        idempotency_key: parts.headers.get("idempotency-key").cloned(),
    };
    let work = {
        let routing = routing.clone();
        async move { routing.route(&known, call).await }
    };
    let ended = match parts.headers.get(CANCEL).is_some_and(|value| value == "1" || value == "true") {
        true => work.await,
        // A caller that leaves drops only its wait.
        false => tokio::spawn(work).await.map_err(|_| Refusal::failed("Internal Server Error"))?,
    };
    match ended {
        Ok(reply) => ok(&routed(&reply)),
        Err(Unrouted::Misled(error)) => Err(failed(&error.to_string())),
        Err(Unrouted::Refused(refused)) => Ok(unavailable(&asked.name, &refused)),
    }
}

struct Asked {
    name: String,
    method: &'static str,
    path: String,
    payload: Option<Box<RawValue>>,
}

fn routed(reply: &Reply) -> Routed<'_> {
    let record = &reply.record;
    Routed {
        task_id: &record.id,
        status: record.status.as_str(),
        target_url: &record.target_url,
        response_status: record.response_status,
        response_body: reply.body.as_deref(),
        retry_count: record.retry_count,
        duration_ms: record.duration_ms.unwrap_or_default(),
        error: record.error.as_ref(),
    }
}

fn not_found(name: &str, available: &[String]) -> Refusal {
    let details = json!({"requested_droplet": name, "available_droplets": available});
    let error = UdcError::new("DROPLET_NOT_FOUND", format!("Droplet '{name}' not found in registry"), details);
    udc(StatusCode::BAD_REQUEST, &error)
}

fn failed(why: &str) -> Refusal {
    let error = UdcError::new("INVALID_REQUEST", "Failed to execute task", json!({"error": why}));
    udc(StatusCode::BAD_REQUEST, &error)
}

/// Not now: nothing was sent, and it may be tried again.
fn unavailable(name: &str, refused: &crate::controllers::droplet::gate::Refused) -> Response {
    use axum::response::IntoResponse;
    // Whole seconds, and none too few.
    let seconds = refused.retry_after.as_millis().div_ceil(1000).max(1);
    let message = format!("Droplet '{name}' takes no calls now: {}", refused.why);
    let details = json!({"droplet_name": name, "retry_after_seconds": u64::try_from(seconds).unwrap_or(u64::MAX)});
    let refusal = udc(StatusCode::SERVICE_UNAVAILABLE, &UdcError::new("DROPLET_UNREACHABLE", message, details));
    with_header(refusal.into_response(), header::RETRY_AFTER, &seconds.to_string())
}

/// RFC 7240.
fn prefers_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences
        .any(|preference| preference.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async"))
}

/// 202 once the call is on the disk.
async fn promise(droplets: &Droplets, asked: Asked, headers: &HeaderMap, target_url: String) -> Answer {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let callback_url = header(CALLBACK);
    let usable =
        |url: &str| Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if callback_url.as_deref().is_some_and(|url| !usable(url)) {
        return Err(failed("X-Callback-URL: must be an http or https URL"));
    }
    let name = asked.name.clone();
    let promised = Promised {
        id: Uuid::new_v4().to_string(),
        droplet: asked.name,
        method: asked.method.to_owned(),
        path: asked.path,
        payload: asked.payload,
        idempotency_key: header("idempotency-key"),
        request_id: header("x-request-id"),
        callback_url,
        created_at: routing::seconds(droplets.routing.clock.now()),
    };
    let Some(record) = later::promise(&droplets.routing, promised, target_url).await else {
        let refused = crate::controllers::droplet::gate::Refused {
            why: "no more calls can be kept for later".to_owned(),
            retry_after: std::time::Duration::from_secs(5),
        };
        return Ok(unavailable(&name, &refused));
    };
    let location = format!("/orchestrator/tasks/{}", record.id);
    let told = json!({"task_id": record.id, "status": record.status.as_str(), "target_url": record.target_url});
    let response = with_header(answer_json(StatusCode::ACCEPTED, &told), header::LOCATION, &location);
    Ok(with_header(response, header::HeaderName::from_static("preference-applied"), "respond-async"))
}

#[derive(Serialize)]
struct Listed<'a> {
    tasks: Vec<&'a Record>,
    total: usize,
    limit: usize,
}

pub fn list(droplets: &Droplets, uri: &Uri) -> Answer {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let last = |name: &str| query.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let limit = limit(last("limit"))?;
    let text = |name: &str| last(name).filter(|value| !value.is_empty());
    let filter = Filter { status: text("status"), droplet_name: text("droplet_name") };
    let page = droplets.routing.calls.page(&filter, limit);
    ok(&Listed { tasks: page.records.iter().map(|record| &**record).collect(), total: page.total, limit })
}

fn limit(given: Option<String>) -> Result<usize, Refusal> {
    let Some(given) = given else { return Ok(100) };
    let refused = |kind: &str, msg: &str, ctx: Value| {
        Refusal::invalid(vec![json!({"type": kind, "loc": ["query", "limit"], "msg": msg, "input": given, "ctx": ctx,
            "url": format!("https://errors.pydantic.dev/2.5/v/{kind}")})])
    };
    match given.trim().parse::<i64>() {
        Ok(limit @ 1..=1000) => Ok(limit as usize),
        Ok(..1) => Err(refused("greater_than_equal", "Input should be greater than or equal to 1", json!({"ge": 1}))),
        Ok(_) => Err(refused("less_than_equal", "Input should be less than or equal to 1000", json!({"le": 1000}))),
        Err(_) => {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            Err(refused("int_parsing", msg, json!({})))
        }
    }
}

pub fn task(droplets: &Droplets, id: &str) -> Answer {
    match droplets.routing.calls.get(id) {
        Some(record) => ok(&Arc::unwrap_or_clone(record)),
        None => {
            let error = UdcError::new("TASK_NOT_FOUND", format!("Task {id} not found"), json!({}));
            Err(udc(StatusCode::NOT_FOUND, &error))
        }
    }
}
