//! Docker, through its HTTP API (1.41, which is Docker 20.10, and later).

mod differences;
mod errors;
mod events;
mod exec;
mod logs;
mod networks;
mod observe;
mod pull;
mod request;
mod teardowns;
mod verbs;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bollard::{Docker, errors::Error};
use errors::Call;
pub use logs::{Printed, PrintedTo};
use tokio::{sync::Semaphore, time::Instant};
use tracing::debug;

use super::{EngineError, EngineResult};

/// Where Docker listens unless `DOCKER_HOST` says otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Of every call but those that wait for a container or a registry.
const DEADLINE: Duration = Duration::from_secs(10);
/// The client's own timeout would cut off long stops; ours are set call by call.
const NO_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A Docker engine, there or not: the connection is made when it is needed, and again when the engine comes back.
/// Clones share it.
#[derive(Clone)]
pub struct DockerEngine {
    host: Arc<str>,
    /// With the API version that was agreed on; forgotten when the engine goes away, as it may come back another.
    client: Arc<Mutex<Option<Docker>>>,
    /// Docker makes two networks of one name if it is asked twice at a time.
    making_network: Arc<Semaphore>,
    overdue: exec::Overdue,
    teardowns: teardowns::Teardowns,
    events: events::Shared,
}

impl DockerEngine {
    /// `unix:///path` or `tcp://host:port`.
    pub fn at(host: &str) -> Self {
        Self {
            host: host.into(),
            client: Arc::default(),
            making_network: Arc::new(Semaphore::new(1)),
            overdue: exec::Overdue::default(),
            teardowns: teardowns::Teardowns::default(),
            events: events::Shared::default(),
        }
    }

    /// At `DOCKER_HOST`, else at the usual socket.
    pub fn from_env() -> Self {
        let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        Self::at(host.as_deref().unwrap_or(DEFAULT_HOST))
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    async fn client(&self) -> EngineResult<Docker> {
        if let Some(client) = self.cached().clone() {
            return Ok(client);
        }
        let call = Call::read("connect to", &self.host);
        let client = Docker::connect_with_host(&self.host).map_err(|error| call.failed(error))?;
        let client = self.within(call, DEADLINE, client.with_timeout(NO_TIMEOUT).negotiate_version()).await?;
        *self.cached() = Some(client.clone());
        Ok(client)
    }

    /// The answer within the deadline, or what its lack means.
    async fn within<T>(
        &self,
        call: Call<'_>,
        deadline: Duration,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> EngineResult<T> {
        let begun = Instant::now();
        let result = match tokio::time::timeout(deadline, answer).await {
            Ok(result) => result.map_err(|error| call.failed(error)),
            Err(_) => Err(call.unanswered(format!("no answer within {deadline:?}"))),
        };
        debug!(call = %call, took = ?begun.elapsed(), answered = result.is_ok(), "the engine was asked");
        if let Err(EngineError::Unreachable(_)) = &result {
            *self.cached() = None;
        }
        result
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Option<Docker>> {
        self.client.lock().expect("nothing panics while it holds the client")
    }
}
