//! Answers: values, errors and warnings put on the wire.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::negotiate::{Accepted, Format};
use crate::registry::{ApiError, ApiResult, Reason};

/// Bytes of a known media type.
pub fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body.into()).into_response()
}

/// Plain text, as of health checks.
pub fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    bytes(status, "text/plain; charset=utf-8", body)
}

/// A value as JSON.
pub fn json(status: StatusCode, value: &Value) -> Response {
    bytes(status, "application/json", value.to_string())
}

/// A value in the format that was agreed on.
pub fn value(status: StatusCode, accepted: Accepted, pretty: bool, value: &Value) -> ApiResult<Response> {
    Ok(bytes(status, accepted.content_type(), encode(accepted, pretty, value)?))
}

/// A value as bytes of the format that was agreed on.
pub fn encode(accepted: Accepted, pretty: bool, value: &Value) -> ApiResult<Bytes> {
    let unwritable = |error: &dyn std::fmt::Display| {
        ApiError::new(Reason::InternalError, format!("the answer cannot be written: {error}"))
    };
    match accepted.format {
        Format::Json if pretty => serde_json::to_vec_pretty(value).map(Bytes::from).map_err(|e| unwritable(&e)),
        Format::Json => serde_json::to_vec(value).map(Bytes::from).map_err(|e| unwritable(&e)),
        Format::Yaml => serde_saphyr::to_string(value).map(Bytes::from).map_err(|e| unwritable(&e)),
    }
}

/// The error of a path that nobody has: a `Status`, and `detail` for clients who know no `Status`.
pub fn nowhere(error: &ApiError) -> Response {
    let mut body = error.to_status();
    body["detail"] = Value::from("Not Found");
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::NOT_FOUND);
    json(status, &body)
}

/// The `Status` object of an error. Always JSON: a client that cannot read anything else must still learn why.
pub fn error(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &error.to_status());
    if let Some(seconds) = error.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if error.reason == Reason::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gaia\""));
    }
    response
}

/// As upstream; clients refuse answers whose headers are larger than so many kilobytes.
const MOST_WARNING_BYTES: usize = 4096;

/// Adds `Warning: 299 - "…"` headers, which kubectl and client-go print; of too many the first ones.
pub fn with_warnings(mut response: Response, warnings: &[String]) -> Response {
    let mut room = MOST_WARNING_BYTES;
    for warning in warnings {
        let Some(left) = room.checked_sub(warning.len()) else { break };
        room = left;
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, header);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        let response = with_warnings(text(StatusCode::OK, ""), &["unknown field \"spec.x\"\n".to_owned()]);
        assert_eq!(response.headers()[header::WARNING], r#"299 - "unknown field \"spec.x\"""#);
    }

    #[test]
    fn no_client_gets_more_headers_than_it_can_take() {
        let warnings: Vec<String> = (0..10_000).map(|n| format!("unknown field \"spec.x{n}\"")).collect();
        let response = with_warnings(text(StatusCode::OK, ""), &warnings);
        let told: Vec<_> = response.headers().get_all(header::WARNING).iter().collect();
        assert!(told.len() > 100 && told.iter().map(|told| told.len()).sum::<usize>() < 16 * 1024, "{}", told.len());
    }

    #[test]
    fn an_error_is_a_status_object_with_its_code() {
        let response = error(&ApiError::new(Reason::Unauthorized, "Unauthorized"));
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
