//! FPAI's part of the server: the registry, the history and the controller of droplets, and the facade on one listener or two.

use std::{net::SocketAddr, sync::Arc};

use prometheus_client::registry::Registry as Exposition;
use tokio::net::TcpListener;

use super::{Parts, StartError};
use crate::{
    adapters::{
        calls::Calls,
        peers::{listing_file::ListingFile, targets::Targets},
    },
    config::{self, droplets::History},
    controllers::{
        self,
        droplet::{self, Settings, directory::Directory, routing::Routing},
    },
    facades::droplets::{self as facade, Droplets},
    runtime::{
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor},
    },
    server::{self, Audit, Auth, Direct},
};

/// In the data directory.
const CALLS: &str = "droplets/calls.db";
const LISTING: &str = "droplets";

/// The listener of FPAI's own port, when there is to be one.
pub(super) async fn listen(settings: &config::Droplets) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = settings.listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|source| StartError::Listen { address, source })
}

/// Whoever can be asked. The registry's host may have an address that droplets may not have.
pub(super) fn targets(given: &config::Droplets) -> Result<Targets, StartError> {
    let registry = given.registry_url.clone().unwrap_or_else(|| Settings::default().registry_url);
    let registry = reqwest::Url::parse(&registry).ok();
    let trusted = registry.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    Targets::new(trusted).map_err(StartError::Droplets)
}

fn settings(given: &config::Droplets, (scheme, own): (&str, SocketAddr)) -> Settings {
    let default = Settings::default();
    let follow_registry = given.registry_url.is_some() || given.listen.is_some();
    Settings {
        registry_url: given.registry_url.clone().unwrap_or(default.registry_url),
        follow_registry,
        sync_interval: given.sync_interval,
        registry_timeout: given.registry_timeout,
        cache_expiry: given.cache_expiry,
        task_timeout: given.task_timeout,
        attempts: given.attempts,
        durable_history: given.history == History::Durable,
        own_url: format!("{scheme}://localhost:{}", own.port()),
        ..Settings::default()
    }
}

impl Parts {
    /// The controller, the facade on its own port, and its calls for the main one. `listeners`: the main one's address, and its own.
    pub(super) fn spawn_droplets(
        &self,
        context: &controllers::Context<RegistryObjects>,
        (main, listener): (SocketAddr, Option<TcpListener>),
        audit: &Audit,
        exposition: &mut Exposition,
        supervisor: &mut Supervisor,
    ) -> Result<Direct, StartError> {
        let given = &self.config.droplets;
        let apart = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        // Only the main one may have a certificate.
        let scheme = if apart.is_none() && self.config.tls.is_some() { "https" } else { "http" };
        let own = (scheme, apart.unwrap_or(main));
        let settings = settings(given, own);
        let targets = self.clients.droplets.clone();
        let (calls, queued) = match given.history {
            History::Memory => (Calls::in_memory(given.most_history), Vec::new()),
            History::Batched | History::Durable => {
                let file = self.config.data_dir.join(CALLS);
                // Blocks while the history is read; nobody waits for us yet.
                tokio::task::block_in_place(|| Calls::open(&file, given.most_history))
                    .map_err(|source| StartError::Calls { file, source })?
            }
        };
        let cache = given.cache_dir.clone().unwrap_or_else(|| self.config.data_dir.join(LISTING));
        let file = Some(ListingFile::new(cache));
        let directory = Directory::new(settings, targets.clone(), file, self.clock.clone());
        let routing = Arc::new(Routing::new(directory, targets, calls, self.clock.clone(), queued));
        droplet::figures::register(&routing, exposition);
        droplet::spawn(context, &routing, supervisor);
        let droplets = Droplets { routing };
        if let Some(listener) = listener {
            let tokens = self.config.tokens.iter().map(|token| token.reveal().to_owned());
            let router = server::guarded(facade::router(droplets.clone()), Auth::tokens(tokens), audit);
            supervisor.spawn(Stage::Intake, "droplets-server", |stop| server::serve(listener, router, stop));
        }
        Ok(Arc::new(facade::direct(droplets)))
    }
}
