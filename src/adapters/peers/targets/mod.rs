//! Requests to droplets and to their registry: one attempt a call, over kept connections, with every byte of the answer up to a bound.
//!
//! Nobody is sent to the addresses of [`is_refused`], whether a URL names one or a name leads to it: what is looked up is what is
//! connected to, so a name cannot change in between. The registry's own host is excepted; who runs it there means it. A redirect
//! of the registry's counts as a URL like any other.

mod room;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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
pub use room::{Room, Rooms};

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

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// For the body, wherever it goes.
    pub room: Room,
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
    rooms: Rooms,
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
        let (client, following) = (client(Policy::none())?, client(follow)?);
        Ok(Self { client, following, rooms: Rooms::default(), trusted })
    }

    /// Redirects are answers.
    pub async fn send(&self, request: Request) -> Result<Response, Fault> {
        fine(&request.url, &self.trusted).map_err(Fault::Hopeless)?;
        attempt(&self.client, request, &self.rooms).await
    }

    /// As [`send`](Self::send), to the registry: redirects are followed.
    pub async fn ask_registry(&self, request: Request) -> Result<Response, Fault> {
        attempt(&self.following, request, &self.rooms).await
    }
}

/// Whether anybody may be sent to the host that a URL names. Names are looked at when they are looked up.
fn fine(url: &Url, trusted: &str) -> Result<(), String> {
    match literal(url).is_some_and(is_refused) && url.host_str() != Some(trusted) {
        true => Err(format!("{}: this address is not for droplets", authority(url))),
        false => Ok(()),
    }
}

async fn attempt(client: &reqwest::Client, request: Request, rooms: &Rooms) -> Result<Response, Fault> {
    let timeout = request.timeout;
    let at = authority(&request.url);
    let waits_for_room = AtomicBool::new(false);
    match tokio::time::timeout(timeout, exchange(client, request, rooms, &waits_for_room)).await {
        Ok(ended) => ended,
        Err(_) => {
            let why = match waits_for_room.load(Ordering::Relaxed) {
                true => format!("no room for its answer: others hold {} MiB", rooms.most_mebibytes()),
                false => "no answer".to_owned(),
            };
            Err(Fault::Timeout(format!("{at}: {why} within {} s (timeout)", timeout.as_secs_f64())))
        }
    }
}

async fn exchange(
    client: &reqwest::Client,
    request: Request,
    rooms: &Rooms,
    waits_for_room: &AtomicBool,
) -> Result<Response, Fault> {
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
    let fits = |bytes: usize| match bytes > request.most_bytes {
        true => Err(Fault::Hopeless(format!("{at}: the answer is larger than {} bytes", request.most_bytes))),
        false => Ok(bytes),
    };
    let mut room = Room::default();
    // Unknown where it is compressed, or not told beforehand.
    let length = response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let length = fits(length)?;
    cover(&mut room, length, rooms, waits_for_room).await;
    let mut body = Vec::with_capacity(length);
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        cover(&mut room, fits(body.len() + chunk.len())?, rooms, waits_for_room).await;
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, body, room })
}

async fn cover(room: &mut Room, bytes: usize, rooms: &Rooms, waits: &AtomicBool) {
    waits.store(true, Ordering::Relaxed);
    room.cover(bytes, rooms).await;
    waits.store(false, Ordering::Relaxed);
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
