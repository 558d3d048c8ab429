//! The HTTP API of MLOC's orchestrator, as its clients and workers know it: contract section 1, on the objects of ours.
//!
//! A submitted document becomes `Task` objects, and what is answered is read from them; results and artifacts are files. Nothing is
//! decided here: which worker gets what, and what an attempt came to, is the controllers' to say.
//!
//! | file | question |
//! |---|---|
//! | [`routes`] | which path and method is which call, and who may call |
//! | [`submit`] | which document is in a body, and which tasks come of it |
//! | [`records`] | how tasks and workers look on the wire |
//! | [`results`] | results come in and go out |
//! | [`artifacts`] | files come in and go out |
//! | [`logs`] | what tasks printed goes out |
//! | [`metrics`] | what is counted |
//! | [`wishes`] | tasks are to stop, or to be tried again |
//! | [`socket`] | workers that are connected to us |

mod artifacts;
mod logs;
mod metrics;
mod records;
mod results;
mod routes;
mod socket;
mod submit;
mod wishes;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use axum::{Router, http::StatusCode};
use futures::lock::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::reply::{Answer, Refusal, ok};
use crate::{
    adapters::{
        bus::{SharedBus, embedded::EmbeddedBus, stamp},
        results::{FileError, ResultFiles, SharedResults},
    },
    api::task::Task,
    mloc::{names, signed::Signer},
    registry::{Ids, ObjectName},
    runtime::clock::Clock,
    runtime::objects::Objects,
    runtime::registry_objects::RegistryObjects,
    telemetry::tasks::TaskMetrics,
};

/// Under which name the facade writes.
pub const FIELD_MANAGER: &str = "mloc-facade";

/// What the calls are answered from. Clones share everything.
#[derive(Clone)]
pub struct Mloc {
    pub objects: RegistryObjects,
    pub bus: SharedBus,
    /// The part of it that workers connect to.
    pub sockets: EmbeddedBus,
    /// When connections are to end.
    pub shutdown: CancellationToken,
    pub results: SharedResults,
    /// Artifacts and logs, beside the results.
    pub files: ResultFiles,
    pub clock: Arc<dyn Clock>,
    /// What tasks are called.
    pub ids: Arc<dyn Ids>,
    /// The bearer token that every call but `/healthz` must show. None: nobody is asked.
    pub token: Option<Arc<str>>,
    /// Of an artifact.
    pub most_bytes: u64,
    /// Results of a task are taken one after another, so that of two at once one finds the other.
    pub taking: Taking,
    pub metrics: TaskMetrics,
    /// Of URLs of artifacts that need no token.
    pub signer: Option<Signer>,
}

/// A lock for every task; a few share one.
#[derive(Clone, Default)]
pub struct Taking(Arc<[Mutex<()>; 32]>);

impl Taking {
    async fn of(&self, task: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        task.hash(&mut hasher);
        self.0[hasher.finish() as usize % self.0.len()].lock().await
    }
}

/// All calls, and 404 in MLOC's words: for a listener of its own.
pub fn router(mloc: Mloc) -> Router {
    routes::router(mloc.clone()).merge(routes::health()).merge(metrics::router(mloc)).fallback(routes::not_found)
}

/// The calls whose paths nobody else has: beside the other APIs.
pub fn guest(mloc: Mloc) -> Router {
    routes::router(mloc)
}

impl Mloc {
    async fn task(&self, id: &str) -> Result<Option<Arc<Task>>, Refusal> {
        let (namespace, name) = names::from_wire(id);
        let name = ObjectName { namespace: Some(namespace.to_owned()), name: name.to_owned() };
        Ok(self.objects.get::<Task>(&name).await?)
    }

    /// `/admin/cleanup`: workers without a heartbeat go. The answer counts them.
    async fn clean_up(&self) -> Answer {
        let unavailable = |error: crate::adapters::bus::BusError| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("the bus of the workers does not answer: {error}"))
        };
        let roll = self.bus.roll(&[]).await.map_err(unavailable)?;
        let mut removed = 0;
        for record in roll.iter().filter(|record| record.registered && record.heartbeat.is_none()) {
            self.bus.remove(&record.id, self.clock.now()).await.map_err(unavailable)?;
            removed += 1;
        }
        ok(&serde_json::json!({"ok": true, "removed": removed}))
    }
}

fn now(mloc: &Mloc) -> String {
    stamp(mloc.clock.now())
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        match &error {
            FileError::Name => Self::new(StatusCode::BAD_REQUEST, "invalid filename"),
            FileError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            FileError::BrokenOff(_) => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
            FileError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, format!("{error}: {source}"))
            }
            FileError::Io { source, .. } => {
                tracing::error!(%error, %source, "results cannot be kept");
                Self::failed(format!("{error}: {source}"))
            }
        }
    }
}
