//! MLOC's part of the server: the bus and the results, the controllers of tasks and workers, and the facade on one listener or two.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use super::{Parts, StartError};
use crate::{
    adapters::{
        bus::{SharedBus, both::BothBuses, embedded::EmbeddedBus, redis::RedisBus},
        results::ResultFiles,
    },
    config,
    controllers::{
        self,
        task::{self, retention::Limits},
        worker,
    },
    facades::tasks::{self as facade, Mloc},
    mloc::{amounts::MemoryReading, needs::Weights, retry::Backoff, signed::Signer},
    registry::RandomIds,
    runtime::{
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor},
    },
    server::{self, Audit, Auth},
    telemetry::tasks::TaskMetrics,
};

/// Where results are kept unless told otherwise: in the data directory.
const RESULTS: &str = "results";

/// The listener of MLOC's own port, when there is to be one.
pub(super) async fn listen(settings: &config::Tasks) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = settings.listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|source| StartError::Listen { address, source })
}

fn settings(given: &config::Tasks) -> task::Settings {
    task::Settings {
        limits: Limits { age: given.retention_age, done: given.retention_count, failed: given.dead_letters },
        backoff: Backoff { base: given.retry_base, max: given.retry_max },
        weights: Weights {
            cpu_only: given.cpu_only_weight,
            gpu: given.gpu_weight,
            low: given.low_ratio,
            high: given.high_ratio,
            most_shards: given.most_shards,
        },
        reading: if given.lenient_memory { MemoryReading::Lenient } else { MemoryReading::Exact },
    }
}

impl Parts {
    /// The controllers, the facade on its own port, and its routes for the main one.
    pub(super) fn spawn_tasks(
        &self,
        context: &controllers::Context<RegistryObjects>,
        metrics: TaskMetrics,
        (listener, audit): (Option<TcpListener>, &Audit),
        supervisor: &mut Supervisor,
    ) -> Result<Router, StartError> {
        let given = &self.config.tasks;
        let sockets = EmbeddedBus::new(given.heartbeat_ttl);
        let bus: SharedBus = match &given.redis_url {
            Some(url) => {
                let redis = RedisBus::new(url.reveal(), given.redis_ca_file.as_deref());
                let redis = redis.map_err(|error| StartError::Bus(error.to_string()))?;
                Arc::new(BothBuses { redis, embedded: sockets.clone() })
            }
            None => Arc::new(sockets.clone()),
        };
        let directory = given.results_dir.clone().unwrap_or_else(|| self.config.data_dir.join(RESULTS));
        let results = ResultFiles::new(&directory).map_err(|source| StartError::Results { directory, source })?;
        let workers = worker::Settings { heartbeat_ttl: given.heartbeat_ttl };
        worker::spawn(context, bus.clone(), workers, metrics.clone(), supervisor);
        let signer = given.token.as_ref().map(|token| Signer::new(token.reveal()));
        let reality = task::Reality {
            bus: bus.clone(),
            results: Arc::new(results.clone()),
            metrics: metrics.clone(),
            signer: signer.clone(),
            outbox: self.clients.outbox.clone(),
            base_url: given.base_url.clone(),
            settings: settings(given),
        };
        task::spawn(context, reality, supervisor);
        let mloc = Mloc {
            objects: RegistryObjects { registry: self.registry.clone(), field_manager: facade::FIELD_MANAGER },
            bus,
            sockets,
            shutdown: supervisor.token(Stage::Intake),
            results: Arc::new(results.clone()),
            files: results,
            clock: self.clock.clone(),
            ids: Arc::new(RandomIds),
            token: given.token.as_ref().map(|token| token.reveal().into()),
            most_bytes: given.most_upload_bytes,
            taking: facade::Taking::default(),
            metrics,
            signer,
        };
        if let Some(listener) = listener {
            // The facade asks for its token itself.
            let auth = Auth::tokens(given.token.iter().map(|token| token.reveal().to_owned()));
            let router = audit.over(facade::router(mloc.clone()), auth);
            supervisor.spawn(Stage::Intake, "tasks-server", |stop| server::serve(listener, router, stop));
        }
        // Where the main listener asks for tokens of its own, those are enough.
        let token = mloc.token.clone().filter(|_| self.config.tokens.is_empty());
        Ok(facade::guest(Mloc { token, ..mloc }))
    }
}
