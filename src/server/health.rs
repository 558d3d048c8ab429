//! `/healthz`, `/livez`, `/readyz`, in the words kubelet and kubectl know.

use axum::{http::StatusCode, response::Response};

use super::{query::Params, reply};

/// One thing that must hold, and why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub result: Result<(), String>,
}

/// What the rest of the process says about its own state. Must answer at once: it reads what is known, it asks nobody.
pub trait Readiness: Send + Sync + 'static {
    /// Whether work can be taken.
    fn ready(&self) -> Vec<Check>;
    /// Whether a restart would help if it were not so.
    fn live(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// Always ready.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysReady;

impl Readiness for AlwaysReady {
    fn ready(&self) -> Vec<Check> {
        Vec::new()
    }
}

/// `ok`, or 500 with the checks that failed; `?verbose` tells them all. The reasons of failed checks are told too:
/// who can ask is local, or holds the same host.
pub fn answer(endpoint: &str, checks: &[Check], params: &Params) -> Response {
    let failed = checks.iter().any(|check| check.result.is_err());
    if !failed && params.get("verbose").is_none() {
        return reply::text(StatusCode::OK, "ok");
    }
    let mut body = String::from("[+]ping ok\n");
    for check in checks {
        match &check.result {
            Ok(()) => body.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => body.push_str(&format!("[-]{} failed: {why}\n", check.name)),
        }
    }
    if failed {
        body.push_str(&format!("{endpoint} check failed\n"));
        reply::text(StatusCode::INTERNAL_SERVER_ERROR, body)
    } else {
        body.push_str(&format!("{endpoint} check passed\n"));
        reply::text(StatusCode::OK, body)
    }
}
