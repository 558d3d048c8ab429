//! Answers as the old services give them, all made with FastAPI: compact JSON, and errors as `{"detail": …}`.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::registry::{ApiError, Reason};

/// What a call comes to.
pub type Answer = Result<Response, Refusal>;

/// An error as their clients expect it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    /// A sentence, or the list of faults of a 422.
    pub detail: Value,
    /// Keys beside `detail`, which the old clients pass over.
    pub more: Map<String, Value>,
}

impl Refusal {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: Value::String(detail.into()), more: Map::new() }
    }

    /// 500: what was asked for did not come about.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// 422 with what is wrong, field by field.
    pub fn invalid(faults: Vec<Value>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, detail: Value::Array(faults), more: Map::new() }
    }

    /// The process ends; whoever waits shall ask the next one.
    pub fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Orchestrator is shutting down")
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        if matches!(error.reason, Reason::InternalError | Reason::ServiceUnavailable) {
            tracing::error!(error = %error, "a facade call could not be answered");
        }
        let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, error.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = self.more;
        body.insert("detail".to_owned(), self.detail);
        json(self.status, &body)
    }
}

pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, json!({"detail": "Internal Server Error"}).to_string()).into_response()
        }
    }
}

pub fn ok(body: &impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, body))
}

/// Adds a header whose value we made ourselves.
pub fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// UTC with microseconds and a `Z`.
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

pub fn stamp_of(time: Option<&MicroTime>) -> Option<String> {
    time.map(|time| stamp(time.0))
}

/// What is not said counts as JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return true };
    let given = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    given == "application/json" || (given.starts_with("application/") && given.ends_with("+json"))
}

pub fn method_not_allowed<'a>(allowed: impl Iterator<Item = &'a Method>) -> Response {
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").into_response();
    let allowed: Vec<&str> = allowed.map(Method::as_str).collect();
    with_header(refusal, header::ALLOW, &allowed.join(", "))
}

/// 307 keeps method and body.
pub async fn without_slash(uri: Uri) -> Response {
    let path = uri.path().trim_end_matches('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    with_header(StatusCode::TEMPORARY_REDIRECT.into_response(), header::LOCATION, &format!("{path}{query}"))
}
