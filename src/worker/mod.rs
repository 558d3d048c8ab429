//! `gaia worker`: takes tasks from a server over WebSocket, runs them, and gives back what came of them.
//!
//! Expected flow of one task:
//! 1. The server hands it over with the token of the attempt. It is run unless it was seen before; one at a time ([`agent`]).
//! 2. An executor runs it ([`executors`]), and what it prints goes to the server ([`logs`]).
//! 3. Files and the result go up over HTTP until the server says that it has them ([`delivery`]), with the token: of an attempt that is
//!    another's by now it takes nothing (409).
//! 4. TASK_SUCCEEDED or TASK_FAILED is told until the server answers TASK_RELEASED. The same message in the middle of a task says that
//!    nobody waits for it any more: it is stopped.
//!
//! Guarantees: an attempt is run once at most. A connection that breaks costs nothing: the process goes on, and says at
//! its return what it is at ([`link`]). Asked to end it takes nothing new, gives the running task its grace, and takes its leave.
//! When it is killed, its tasks go to others; what it left behind on this host is cleared away by its next start in the same
//! directory ([`home`]).

pub mod agent;
mod artifacts;
pub mod delivery;
pub mod executors;
mod hardware;
pub mod home;
pub mod link;
pub mod logs;
pub mod message;
mod output;
pub mod processes;
pub mod recipients;

use std::{path::PathBuf, sync::Arc, time::Duration};

use executors::Executor;
use recipients::Recipients;

/// What a worker is started with.
pub struct Settings {
    /// `http://host:port`, without a slash at the end.
    pub server: String,
    /// Shown to the server with every call. Never logged.
    pub token: Option<String>,
    /// What it calls itself; one process at a time.
    pub id: String,
    pub tags: Vec<String>,
    pub executors: Vec<Arc<dyn Executor>>,
    /// Who may have results beside the server.
    pub deliver_to: Recipients,
    pub heartbeat: Duration,
    /// A running task has so long when the worker is asked to end.
    pub grace: Duration,
    /// This worker's alone ([`home`]): tasks have their directories in it, which are removed with their end.
    pub directory: PathBuf,
}

/// Why a worker ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The very first attempt to connect was refused for good.
    #[error("the server does not want this worker: {0}")]
    Refused(String),
    #[error("cannot use {}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    /// What tasks leave there could be read or changed by others.
    #[error("{} is not used: {why}", path.display())]
    Unsafe { path: PathBuf, why: &'static str },
    #[error("cannot make a client for HTTP")]
    Client(#[source] reqwest::Error),
}
