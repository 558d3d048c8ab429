//! The HTTP API of FPAI's orchestrator, as its clients know it: contract section 1, with its table of precedence.
//!
//! Requests are routed while their callers wait ([`Routing`]), so no object is written for one; who can be routed to are the
//! `Droplet` objects and the registry's list. Nothing is decided or kept here.
//!
//! | file | question |
//! |---|---|
//! | [`routes`] | which path and method is which call |
//! | [`body`] | which fields a body has, and what is wrong with them |
//! | [`tasks`] | a call is routed, or promised; and what was recorded |
//! | [`overview`] | health, info, droplets, metrics, and what FPAI's services tell of themselves |
//! | [`messages`] | messages between droplets |

mod body;
mod messages;
mod overview;
mod routes;
mod tasks;

use std::sync::Arc;

use axum::{Router, extract::Request, http::StatusCode, response::Response};
use futures::future::{BoxFuture, Either};
use serde_json::json;

use super::reply::{self, Answer, Refusal};
use crate::{controllers::droplet::routing::Routing, droplets::record::UdcError};

/// What the calls are answered from. Clones share everything.
#[derive(Clone)]
pub struct Droplets {
    pub routing: Arc<Routing>,
}

/// All calls, and 404 in the original's words: for a listener of its own.
pub fn router(droplets: Droplets) -> Router {
    routes::with_everything(droplets)
}

/// The calls whose paths nobody else has: beside the other APIs, whose requests are given back.
pub fn direct(
    droplets: Droplets,
) -> impl Fn(Request) -> Either<BoxFuture<'static, Response>, Request> + Send + Sync + 'static {
    move |request| routes::direct(&droplets, request)
}

/// An error as FPAI's clients expect it: at the top, as the seed has it, and under `detail`, as the code has it.
fn udc(status: StatusCode, error: &UdcError) -> Refusal {
    let both = json!({"status": "error", "error": error});
    let refusal = Refusal { status, detail: both, more: serde_json::Map::new() };
    refusal.with("status", "error").with("error", json!(error))
}
