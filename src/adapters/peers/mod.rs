//! Requests to services: a workload's own container, or somebody elsewhere. One attempt a call; who asks decides about the next.

pub mod listing_file;
pub mod targets;

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, future::BoxFuture};

use super::{
    containers::{Container, ContainerState},
    probes::{address, innermost},
};
use crate::api::gpustep::HttpMethod;

/// Answers are read so far; the rest is of no interest.
const MOST_BODY: usize = 256 * 1024;

#[derive(Debug, Clone)]
pub enum Peer {
    Url(String),
    Container { container: Box<Container>, port: u16, path: String },
}

#[derive(Debug, Clone)]
pub struct PeerRequest {
    pub method: HttpMethod,
    pub peer: Peer,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nobody answered: trying again may help.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that is not 2xx.
    #[error("{0}")]
    Refused(String),
}

pub trait Peers: Send + Sync + 'static {
    /// The body of a 2xx answer. Ends within `timeout`; redirects are not followed.
    fn call<'a>(&'a self, request: &'a PeerRequest, timeout: Duration) -> BoxFuture<'a, Result<String, PeerError>>;
}

/// Over the network.
pub struct HttpPeers {
    client: reqwest::Client,
}

impl HttpPeers {
    /// Fails only when the host cannot give a TLS client.
    pub fn new() -> Result<Self, reqwest::Error> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent("gaia-handoff")
            .build()?;
        Ok(Self { client })
    }
}

impl Peers for HttpPeers {
    fn call<'a>(&'a self, request: &'a PeerRequest, timeout: Duration) -> BoxFuture<'a, Result<String, PeerError>> {
        async move {
            let url = url(&request.peer)?;
            let method = match request.method {
                HttpMethod::GET => reqwest::Method::GET,
                HttpMethod::POST => reqwest::Method::POST,
                HttpMethod::PUT => reqwest::Method::PUT,
                HttpMethod::DELETE => reqwest::Method::DELETE,
            };
            let mut call = self.client.request(method, &url).timeout(timeout);
            for (name, value) in &request.headers {
                call = call.header(name, value);
            }
            let body = request.body.clone().unwrap_or_default();
            let unreachable = |error: reqwest::Error| PeerError::Unreachable(format!("{url}: {}", innermost(&error)));
            let response = call.body(body).send().await.map_err(unreachable)?;
            let status = response.status();
            if !status.is_success() {
                return Err(PeerError::Refused(format!("{url}: {status}")));
            }
            let mut response = response;
            let mut read = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
                read.extend_from_slice(&chunk);
                if read.len() > MOST_BODY {
                    break;
                }
            }
            Ok(String::from_utf8_lossy(&read).into_owned())
        }
        .boxed()
    }
}

fn url(peer: &Peer) -> Result<String, PeerError> {
    match peer {
        Peer::Url(url) => Ok(url.clone()),
        Peer::Container { container, port, path } => {
            if container.state != ContainerState::Running {
                return Err(PeerError::Unreachable(format!("{} does not run", container.name)));
            }
            let at = address(container, *port).ok_or_else(|| {
                PeerError::Unreachable(format!("{} has no address at which port {port} could be asked", container.name))
            })?;
            Ok(format!("http://{at}{path}"))
        }
    }
}
