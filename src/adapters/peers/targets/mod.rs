//! Requests to droplets and to their registry: one attempt a call, over kept connections, with every byte of the answer up to a bound.
//!
//! Nobody is sent to the addresses of [`is_refused`], whether a URL names one or a name leads to it: what is looked up is what is
//! connected to, so a name cannot change in between. The registry's own host is excepted; who runs it there means it. A redirect
//! of the registry's counts as a URL like any other.

mod room;

use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
    vec,
};

use axum::{
    body::{Bytes, HttpBody},
    http::{self, HeaderMap, HeaderValue, Method, Uri, header, uri::Scheme},
};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use tower::{Service, ServiceExt, util::MapErr};
use tower_http::{
    decompression::Decompression,
    follow_redirect::{
        FollowRedirect,
        policy::{Action, Attempt, FilterCredentials, Policy, PolicyExt},
    },
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
    pub uri: Uri,
    pub headers: HeaderMap,
    /// JSON. None: no body, and no type of one.
    pub body: Option<Bytes>,
    /// For all of the attempt.
    pub timeout: Duration,
    /// Of the answer's body.
    pub most_bytes: usize,
}

/// What a request to a URL has of it: credentials become a header.
pub fn addressed(url: &Url) -> Result<(Uri, HeaderMap), Fault> {
    let host = url.host_str().unwrap_or_default();
    let uri = Uri::try_from(url.as_str()).map_err(|why| Fault::Hopeless(format!("{host}: {why}")))?;
    let credentials = credentials(url).map(|credentials| (header::AUTHORIZATION, credentials));
    Ok((uri, credentials.into_iter().collect()))
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

type Plain = Decompression<legacy::Client<HttpsConnector<HttpConnector<Careful>>, Full<Bytes>>>;
type Client = MapErr<Plain, fn(legacy::Error) -> Unanswered>;

/// Whoever can be asked. Clones share the connections.
#[derive(Clone)]
pub struct Targets {
    client: Client,
    rooms: Rooms,
    trusted: Arc<str>,
}

impl Targets {
    /// `trusted` is the registry's host. Fails only when the host cannot give a TLS client.
    pub fn new(trusted: &str) -> io::Result<Self> {
        Self::resolving(trusted, Arc::new(SystemLookup))
    }

    /// As [`new`](Self::new), with names that mean what `lookup` says.
    pub fn resolving(trusted: &str, lookup: Arc<dyn Lookup>) -> io::Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let trusted: Arc<str> = trusted.into();
        let mut plain = HttpConnector::new_with_resolver(Careful { trusted: trusted.clone(), lookup });
        plain.enforce_http(false);
        plain.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_all_versions();
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE)
            .build(tls.wrap_connector(plain));
        let client = Decompression::new(client).map_err(Unanswered::Failed as fn(_) -> _);
        Ok(Self { client, rooms: Rooms::default(), trusted })
    }

    /// Redirects are answers.
    pub async fn send(&self, request: Request) -> Result<Response, Fault> {
        fine(&request.uri, &self.trusted).map_err(Fault::Hopeless)?;
        attempt(self.client.clone(), request, &self.rooms).await
    }

    /// As [`send`](Self::send), to the registry: redirects are followed.
    pub async fn ask_registry(&self, request: Request) -> Result<Response, Fault> {
        let redirects = Redirects { followed: 0, trusted: self.trusted.clone() };
        // The password in the registry's URL is for nobody else.
        let policy = PolicyExt::and::<_, Full<Bytes>, Unanswered>(redirects, FilterCredentials::new());
        attempt(FollowRedirect::with_policy(self.client.clone(), policy), request, &self.rooms).await
    }
}

/// Why there is no answer.
enum Unanswered {
    Failed(legacy::Error),
    /// A redirect to where nobody is sent.
    Misled(String),
}

#[derive(Clone)]
struct Redirects {
    followed: usize,
    trusted: Arc<str>,
}

impl<B: Clone> Policy<B, Unanswered> for Redirects {
    fn redirect(&mut self, attempt: &Attempt<'_>) -> Result<Action, Unanswered> {
        self.followed += 1;
        if self.followed > MOST_REDIRECTS {
            return Err(Unanswered::Misled(format!("more than {MOST_REDIRECTS} redirects")));
        }
        // Read as URLs are: `0x7f.1` is an address too.
        let misled = |why: String| Unanswered::Misled(why);
        let url = Url::parse(&attempt.location().to_string()).map_err(|error| misled(error.to_string()))?;
        let (uri, _) = addressed(&url).map_err(|fault| misled(fault.to_string()))?;
        fine(&uri, &self.trusted).map_err(misled)?;
        Ok(Action::Follow)
    }

    fn clone_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Whether anybody may be sent to the host that a URL names. Names are looked at when they are looked up.
fn fine(uri: &Uri, trusted: &str) -> Result<(), String> {
    match uri.host().and_then(literal).is_some_and(is_refused) && uri.host() != Some(trusted) {
        true => Err(format!("{}: this address is not for droplets", authority(uri))),
        false => Ok(()),
    }
}

async fn attempt<S, B>(client: S, request: Request, rooms: &Rooms) -> Result<Response, Fault>
where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<B>, Error = Unanswered>,
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let (timeout, most_bytes, uri) = (request.timeout, request.most_bytes, request.uri.clone());
    let waits_for_room = AtomicBool::new(false);
    let exchange = async {
        let answer = client.oneshot(prepared(request)).await.map_err(|why| unanswered(&uri, why))?;
        read(answer, &uri, most_bytes, rooms, &waits_for_room).await
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(ended) => ended,
        Err(_) => {
            let why = match waits_for_room.load(Ordering::Relaxed) {
                true => format!("no room for its answer: others hold {} MiB", rooms.most_mebibytes()),
                false => "no answer".to_owned(),
            };
            Err(Fault::Timeout(format!("{}: {why} within {} s (timeout)", authority(&uri), timeout.as_secs_f64())))
        }
    }
}

fn prepared(request: Request) -> http::Request<Full<Bytes>> {
    let mut headers = request.headers;
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("gaia-droplets"));
    if request.body.is_some() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    } else if request.method != Method::GET && request.method != Method::DELETE {
        // Servers that want a length get one.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut prepared = http::Request::new(Full::new(request.body.unwrap_or_default()));
    (*prepared.method_mut(), *prepared.uri_mut(), *prepared.headers_mut()) = (request.method, request.uri, headers);
    prepared
}

/// Of a URL with a user's name or password, as Basic (RFC 7617): hyper does not look at them.
fn credentials(url: &Url) -> Option<HeaderValue> {
    let (name, password) = (url.username(), url.password());
    if name.is_empty() && password.is_none() {
        return None;
    }
    let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
    let both = [decoded(name), b":".to_vec(), decoded(password.unwrap_or_default())].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(both))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn read<B>(
    answer: http::Response<B>,
    uri: &Uri,
    most_bytes: usize,
    rooms: &Rooms,
    waits_for_room: &AtomicBool,
) -> Result<Response, Fault>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let fits = |bytes: usize| match bytes > most_bytes {
        true => Err(Fault::Hopeless(format!("{}: the answer is larger than {most_bytes} bytes", authority(uri)))),
        false => Ok(bytes),
    };
    let status = answer.status().as_u16();
    let mut rest = pin!(answer.into_body());
    let mut room = Room::default();
    // Unknown where it is compressed, or not told beforehand.
    let length = rest.size_hint().exact().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let length = fits(length)?;
    cover(&mut room, length, rooms, waits_for_room).await;
    let mut body = Vec::with_capacity(length);
    while let Some(frame) = rest.frame().await {
        let frame = frame.map_err(|error| broken(uri, "the connection broke", &*error.into()))?;
        // Trailers tell nothing that anybody wants to know.
        let Ok(chunk) = frame.into_data() else { continue };
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

fn unanswered(uri: &Uri, why: Unanswered) -> Fault {
    match why {
        Unanswered::Failed(error) if error.is_connect() => broken(uri, "cannot connect", &error),
        Unanswered::Failed(error) => broken(uri, "the connection broke", &error),
        Unanswered::Misled(why) => Fault::Hopeless(format!("{}: {why}", authority(uri))),
    }
}

fn broken(uri: &Uri, phase: &str, error: &dyn Error) -> Fault {
    Fault::Broken(format!("{}: {phase}: {}", authority(uri), innermost(error)))
}

/// Host and port, never a password.
fn authority(uri: &Uri) -> String {
    let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual))
}

/// A resolver without the addresses nobody is sent to.
#[derive(Clone)]
struct Careful {
    trusted: Arc<str>,
    lookup: Arc<dyn Lookup>,
}

impl Service<Name> for Careful {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let trusted = name.as_str() == &*self.trusted;
        let found = self.lookup.lookup(name.as_str());
        async move {
            let fine: Vec<SocketAddr> =
                found.await?.into_iter().filter(|address| trusted || !is_refused(address.ip())).collect();
            if fine.is_empty() {
                let why = format!("{} leads to no address that droplets may have", name.as_str());
                return Err(io::Error::other(why));
            }
            Ok(fine.into_iter())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
