//! Requests to droplets and to their registry: one attempt a call, over kept connections, with every byte of the answer up to a bound.
//!
//! Nobody is sent to the addresses of [`is_refused`], whether a URL names one or a name leads to it: what is looked up is what is
//! connected to, so a name cannot change in between. The registry's own host is excepted; who runs it there means it. A redirect
//! of the registry's counts as a URL like any other.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Bytes, http::HeaderMap};
use futures::{FutureExt, future::BoxFuture};
use reqwest::{
    Method, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

use crate::{
    adapters::probes::innermost,
    droplets::address::{is_refused, literal},
};

/// Connections to one droplet that are kept while nobody uses them.
const IDLE_CONNECTIONS: usize = 32;
/// Servers close idle connections after a while; ours go before most of them do.
const IDLE: Duration = Duration::from_secs(30);
/// Of the registry, for one request.
const MOST_REDIRECTS: usize = 5;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    /// JSON. None: no body, and no type of one.
    pub body: Option<Bytes>,
    /// For all of the attempt.
    pub timeout: Duration,
    /// Of the answer's body.
    pub most_bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not in time.
    #[error("{0}")]
    Timeout(String),
    /// Refused, reset, ended early, no such host: trying again may help.
    #[error("{0}")]
    Broken(String),
    /// Trying again will not help.
    #[error("{0}")]
    Hopeless(String),
}

/// Which addresses a name has: the system's answer, or a test's.
pub trait Lookup: Send + Sync + 'static {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let name = name.to_owned();
        async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed()
    }
}

/// Whoever can be asked. Clones share the connections.
#[derive(Clone)]
pub struct Targets {
    client: reqwest::Client,
    /// For the registry, which may redirect.
    following: reqwest::Client,
    trusted: Arc<str>,
}

impl Targets {
    /// `trusted` is the registry's host. Fails only when the host cannot give a TLS client.
    pub fn new(trusted: &str) -> Result<Self, reqwest::Error> {
        Self::resolving(trusted, Arc::new(SystemLookup))
    }

    /// As [`new`](Self::new), with names that mean what `lookup` says.
    pub fn resolving(trusted: &str, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let trusted: Arc<str> = trusted.into();
        let client = |redirects| {
            reqwest::Client::builder()
                .redirect(redirects)
                .no_proxy()
                .dns_resolver(Arc::new(Careful { trusted: trusted.clone(), lookup: lookup.clone() }))
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE)
                .tcp_nodelay(true)
                .user_agent("gaia-droplets")
                .build()
        };
        let follow = {
            let trusted = trusted.clone();
            Policy::custom(move |attempt| {
                if attempt.previous().len() > MOST_REDIRECTS {
                    return attempt.error(format!("more than {MOST_REDIRECTS} redirects"));
                }
                match fine(attempt.url(), &trusted) {
                    Ok(()) => attempt.follow(),
                    Err(why) => attempt.error(why),
                }
            })
        };
        Ok(Self { client: client(Policy::none())?, following: client(follow)?, trusted: trusted.clone() })
    }

    /// Redirects are answers.
    pub async fn send(&self, request: Request) -> Result<Response, Fault> {
        fine(&request.url, &self.trusted).map_err(Fault::Hopeless)?;
        attempt(&self.client, request).await
    }

    /// As [`send`](Self::send), to the registry: redirects are followed.
    pub async fn ask_registry(&self, request: Request) -> Result<Response, Fault> {
        attempt(&self.following, request).await
    }
}

/// Whether anybody may be sent to the host that a URL names. Names are looked at when they are looked up.
fn fine(url: &Url, trusted: &str) -> Result<(), String> {
    match literal(url).is_some_and(is_refused) && url.host_str() != Some(trusted) {
        true => Err(format!("{}: this address is not for droplets", authority(url))),
        false => Ok(()),
    }
}

async fn attempt(client: &reqwest::Client, request: Request) -> Result<Response, Fault> {
    let timeout = request.timeout;
    let at = authority(&request.url);
    match tokio::time::timeout(timeout, exchange(client, request)).await {
        Ok(ended) => ended,
        Err(_) => Err(Fault::Timeout(format!("{at}: no answer within {} s (timeout)", timeout.as_secs_f64()))),
    }
}

async fn exchange(client: &reqwest::Client, request: Request) -> Result<Response, Fault> {
    let at = authority(&request.url);
    let mut call = client.request(request.method.clone(), request.url).headers(request.headers);
    call = match request.body {
        Some(body) => call.header("content-type", "application/json").body(body),
        // Servers that want a length get one.
        None if request.method != Method::GET && request.method != Method::DELETE => call.header("content-length", "0"),
        None => call,
    };
    let broken = |error: reqwest::Error| match error.is_builder() {
        true => Fault::Hopeless(format!("{at}: {}", innermost(&error))),
        false => Fault::Broken(format!("{at}: {}", told(&error))),
    };
    let mut response = call.send().await.map_err(broken)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > request.most_bytes {
            return Err(Fault::Hopeless(format!("{at}: the answer is larger than {} bytes", request.most_bytes)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, body: body.into() })
}

fn told(error: &reqwest::Error) -> String {
    let phase = if error.is_connect() { "cannot connect" } else { "the connection broke" };
    format!("{phase}: {}", innermost(error))
}

fn authority(url: &Url) -> String {
    match url.port_or_known_default() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    }
}

/// A resolver without the addresses nobody is sent to.
struct Careful {
    trusted: Arc<str>,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for Careful {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = name.as_str() == &*self.trusted;
        let found = self.lookup.lookup(name.as_str());
        Box::pin(async move {
            let fine: Vec<SocketAddr> =
                found.await?.into_iter().filter(|address| trusted || !is_refused(address.ip())).collect();
            if fine.is_empty() {
                return Err(format!("{} leads to no address that droplets may have", name.as_str()).into());
            }
            Ok(Box::new(fine.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
