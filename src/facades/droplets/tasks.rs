//! A call to a droplet is taken, routed and answered; and what was recorded of others.

use std::{borrow::Cow, convert::Infallible, ops::RangeInclusive, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, stream};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use super::{Answer, Droplets, Refusal, body, reply::json as answer_json, reply::ok, reply::with_header, udc};
use crate::{
    adapters::peers::targets::Room,
    controllers::droplet::{
        gate::Refused,
        idempotency::{Claim, Known},
        lasting::Lasting,
        later::{self, Promised},
        routing::{self, Call, Unrouted},
    },
    droplets::{
        idempotency::{Made, Once},
        record::{Filter, Record, UdcError},
        retry::Verdict,
    },
};

/// Characters.
const NAME: RangeInclusive<usize> = 1..=255;
const PATH: RangeInclusive<usize> = 1..=2048;
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
/// A caller that says `1` takes its call with it when it leaves; else the call goes on and is recorded.
const CANCEL: &str = "x-cancel-on-disconnect";
const CALLBACK: &str = "x-callback-url";
const KEY: &str = "idempotency-key";
const LARGE_BYTES: usize = 64 * 1024;
/// Says that an answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

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
    let body = body::whole(body).await?;
    let asked = match body::plain(&parts.headers, &body).and_then(Plain::asked) {
        Some(asked) => asked,
        None => judged(&parts.headers, &body)?,
    };
    let routing = &droplets.routing;
    let promising = prefers_async(&parts.headers);
    let claim = match once(&parts.headers, &asked)? {
        None => None,
        Some(once) => {
            let now = routing::seconds(routing.clock.now());
            match routing.claims.wait(&routing.calls, once, now, promising).await {
                Ok(claim) => Some(claim),
                Err(known) => return told_again(&asked.name, known, promising),
            }
        }
    };
    let known = match routing.directory.find(&asked.name).await {
        Ok(known) => known,
        Err(available) => return Err(not_found(&asked.name, &available)),
    };
    if promising {
        let destination = known.join(&asked.path).map_err(|error| failed(&error.to_string()))?;
        return promise(droplets, asked, &parts.headers, destination.shown, claim).await;
    }
    let call = Call {
        id: Uuid::new_v4().to_string(),
        droplet: asked.name.as_str().into(),
        method: asked.method.parse().unwrap_or(Method::GET),
        path: asked.path,
        payload: asked.payload.map(|payload| body.slice_ref(payload.get().as_bytes())),
        request_id: parts.headers.get("x-request-id").cloned(),
        idempotency_key: parts.headers.get(KEY).cloned(),
    };
    let work = {
        let routing = routing.clone();
        async move { routing.route_while_running(&known, &call, claim.as_ref()).await }
    };
    let ended = match parts.headers.get(CANCEL).is_some_and(|value| value == "1" || value == "true") {
        true => work.await,
        false => {
            let work = AssertUnwindSafe(Lasting::new(&routing.under_way, work));
            work.catch_unwind().await.map_err(|_| Refusal::failed("Internal Server Error"))?
        }
    };
    match ended {
        Ok(reply) => Ok(told(&reply.record, reply.body, reply.room)),
        Err(Unrouted::Misled(error)) => Err(failed(&error.to_string())),
        Err(Unrouted::Refused(refused)) => Ok(unavailable(&asked.name, &refused)),
    }
}

/// Reads a body field by field, and tells all that is wrong.
fn judged<'a>(headers: &HeaderMap, body: &'a Bytes) -> Result<Asked<'a>, Refusal> {
    let mut fields = body::fields(headers, body)?;
    let name = fields.text("droplet_name", NAME);
    let method = fields.word("method", &METHODS, Some(METHODS[0]));
    let path = fields.text("path", PATH);
    let payload = fields.object("payload", true);
    // Checked, and of no further use.
    fields.texts("meta");
    fields.judged(Asked { name, method, path, payload })
}

/// What most bodies are. Whatever is otherwise is [`judged`], which says the same of these.
#[derive(Deserialize)]
struct Plain<'a> {
    droplet_name: String,
    method: Option<Cow<'a, str>>,
    path: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

impl<'a> Plain<'a> {
    fn asked(self) -> Option<Asked<'a>> {
        let Self { droplet_name: name, method, path, payload, meta } = self;
        let fits = |text: &str, length: RangeInclusive<usize>| !text.is_empty() && text.len() <= *length.end();
        let fine = fits(&name, NAME) && fits(&path, PATH) && meta.is_none();
        let fine = fine && payload.is_none_or(|payload| payload.get().starts_with('{'));
        // A method that is null is wrong, and one that is absent is not: which it is, is not to be seen here.
        let method = METHODS.into_iter().find(|word| method.as_deref() == Some(word))?;
        fine.then_some(Asked { name, method, path, payload })
    }
}

struct Asked<'a> {
    name: String,
    method: &'static str,
    path: String,
    payload: Option<&'a RawValue>,
}

/// A body that is passed on, and its room until it is gone.
struct Passed {
    text: Box<str>,
    _room: Room,
}

impl AsRef<[u8]> for Passed {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// 200. A large body is passed on as it is, and not copied into the text around it.
fn told(record: &Record, body: Option<Box<RawValue>>, room: Room) -> Response {
    // Quotes within texts are escaped, so this can only be the field.
    const FIELD: &str = r#""response_body":"#;
    let large = match body {
        Some(body) if body.get().len() >= LARGE_BYTES => body,
        body => return answer_json(StatusCode::OK, &routed(record, body.as_deref())),
    };
    let around = serde_json::to_string(&routed(record, Some(RawValue::NULL))).unwrap_or_default();
    let Some((before, after)) = around.split_once(&format!("{FIELD}null")) else {
        return Refusal::failed("Internal Server Error").into_response();
    };
    let large = Bytes::from_owner(Passed { text: large.into(), _room: room });
    let chunks = [Bytes::from(format!("{before}{FIELD}")), large, Bytes::from(after.to_owned())];
    let length: usize = chunks.iter().map(Bytes::len).sum();
    let body = Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)));
    let response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    with_header(response, header::CONTENT_LENGTH, &length.to_string())
}

/// What the key of a request stands for; nothing without one.
fn once(headers: &HeaderMap, asked: &Asked<'_>) -> Result<Option<Once>, Refusal> {
    let Some(key) = headers.get(KEY) else { return Ok(None) };
    match key.to_str().map(str::trim) {
        Ok(key) if !key.is_empty() => {
            let payload = asked.payload.map(RawValue::get);
            Ok(Some(Once::new(key, &asked.name, asked.method, &asked.path, payload)))
        }
        _ => Err(bad_key("string_pattern_mismatch", "Input should be at least 1 visible ASCII character")),
    }
}

fn bad_key(kind: &str, msg: &str) -> Refusal {
    Refusal::invalid(vec![json!({"type": kind, "loc": ["header", KEY], "msg": msg, "input": null})])
}

/// The answer where somebody has come with this key before.
fn told_again(name: &str, known: Known, promising: bool) -> Answer {
    let promised = |id: &str, status: &str, url: &str| with_header(accepted(id, status, url), REPLAYED, "true");
    match known {
        Known::Made(Made { record, .. }) if promising => {
            Ok(promised(&record.id, record.status.as_str(), &record.target_url))
        }
        Known::Made(made) => {
            let response = answer_json(StatusCode::OK, &routed(&made.record, made.body()));
            Ok(with_header(response, REPLAYED, "true"))
        }
        Known::Promised { id, target_url } => Ok(promised(&id, Verdict::Queued.as_str(), &target_url)),
        Known::OtherPayload => {
            let msg = "This key was used with another payload for this droplet, method and path; use a new key for a new call";
            Err(bad_key("idempotency_key_reused", msg))
        }
        Known::StillUnderWay => {
            let why = "the call under this key is still under way".to_owned();
            Ok(unavailable(name, &Refused { why, retry_after: std::time::Duration::from_secs(5) }))
        }
    }
}

/// 202 for a promised call.
fn accepted(id: &str, status: &str, target_url: &str) -> Response {
    let told = json!({"task_id": id, "status": status, "target_url": target_url});
    let response = answer_json(StatusCode::ACCEPTED, &told);
    let response = with_header(response, header::LOCATION, &format!("/orchestrator/tasks/{id}"));
    with_header(response, HeaderName::from_static("preference-applied"), "respond-async")
}

fn routed<'a>(record: &'a Record, body: Option<&'a RawValue>) -> Routed<'a> {
    Routed {
        task_id: &record.id,
        status: record.status.as_str(),
        target_url: &record.target_url,
        response_status: record.response_status,
        response_body: body,
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
fn unavailable(name: &str, refused: &Refused) -> Response {
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
async fn promise(
    droplets: &Droplets,
    asked: Asked<'_>,
    headers: &HeaderMap,
    target_url: String,
    claim: Option<Claim>,
) -> Answer {
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
        payload: asked.payload.map(ToOwned::to_owned),
        idempotency_key: header(KEY).map(|key| key.trim().to_owned()),
        request_id: header("x-request-id"),
        target_url,
        callback_url,
        created_at: routing::seconds(droplets.routing.clock.now()),
    };
    let Some(record) = later::promise(&droplets.routing, promised, claim).await else {
        let refused = Refused {
            why: "no more calls can be kept for later".to_owned(),
            retry_after: std::time::Duration::from_secs(5),
        };
        return Ok(unavailable(&name, &refused));
    };
    Ok(accepted(&record.id, record.status.as_str(), &record.target_url))
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
