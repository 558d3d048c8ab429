//! Droplets and registries as tests need them: what they answer can be changed at any time, and what they were asked is noted down.

use std::{
    convert::Infallible,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

use crate::support::port::own_port;

/// What a service says to a request.
#[derive(Clone)]
pub enum Says {
    Json(u16, Value),
    Bytes(u16, &'static str, Vec<u8>),
    /// Nothing, until the notification.
    Nothing(Arc<Notify>),
    Redirect(String),
    /// `[1,1,…]`, an element at a time.
    Drips {
        every: Duration,
        elements: usize,
    },
    /// A JSON string of so many bytes, compressed.
    Gzip(usize),
}

#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A service on a port of its own, until it is dropped.
pub struct Service {
    pub address: SocketAddr,
    state: Arc<Mutex<Inner>>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    /// The first ones once each, the last for ever.
    says: Vec<(String, Vec<Says>)>,
    asked: Vec<Asked>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    pub async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(Mutex::new(Inner { says: Vec::new(), asked: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(state.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, state, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is said at a path, one after the other; the last goes on.
    pub fn says(&self, path: &str, says: impl IntoIterator<Item = Says>) {
        let says = says.into_iter().collect();
        let mut inner = self.state.lock().expect("nobody panicked");
        inner.says.retain(|(known, _)| known != path);
        inner.says.push((path.to_owned(), says));
    }

    pub fn lists(&self, droplets: Value) {
        self.says("/droplets", [Says::Json(200, json!({"droplets": droplets, "total": 1}))]);
    }

    pub fn asked(&self, line: &str) -> Vec<Asked> {
        let inner = self.state.lock().expect("nobody panicked");
        inner.asked.iter().filter(|asked| asked.line.starts_with(line)).cloned().collect()
    }
}

async fn answer(State(state): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    let line = format!("{} {}", parts.method, parts.uri);
    let says = {
        let mut inner = state.lock().expect("nobody panicked");
        inner.asked.push(Asked { line, headers: parts.headers, body: body.clone() });
        match inner.says.iter_mut().find(|(path, _)| path == parts.uri.path()) {
            Some((_, says)) if says.len() > 1 => says.remove(0),
            Some((_, says)) => says[0].clone(),
            None => Says::Json(200, json!({"status": "ok", "service": "registry"})),
        }
    };
    match says {
        Says::Json(status, body) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
        }
        Says::Bytes(status, media, body) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::CONTENT_TYPE, media)], Body::from(body)).into_response()
        }
        Says::Nothing(go_on) => {
            go_on.notified().await;
            StatusCode::OK.into_response()
        }
        Says::Drips { every, elements } => {
            let drops = stream::iter(0..=elements).then(move |n| async move {
                tokio::time::timeout(every, std::future::pending::<()>()).await.ok();
                Ok::<_, Infallible>(if n == 0 {
                    "[1"
                } else if n == elements {
                    "]"
                } else {
                    ",1"
                })
            });
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(drops)).into_response()
        }
        Says::Gzip(length) => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(format!("\"{}\"", "x".repeat(length - 2)).as_bytes()).expect("it fits in memory");
            let packed = packed.finish().expect("it fits in memory");
            ([(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")], packed).into_response()
        }
        Says::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
    }
}

/// What a peer does to a connection once it has read something.
#[derive(Clone, Copy)]
pub enum Rude {
    /// Closes it.
    Ends,
    /// Resets it.
    Resets,
    /// Promises more than it sends.
    Truncates,
    /// Resets it in the middle of a body.
    ResetsMidway,
    /// Sends something that is no HTTP.
    Babbles,
    /// Begins a head that never ends, a letter every 10 ms.
    DripsHead,
}

/// A peer that is rude `times` times and then answers `{"ok":true}`.
pub async fn rude(how: Rude, times: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        let mut left = times;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            if !matches!(tokio::time::timeout(Duration::from_secs(10), stream.read(&mut read)).await, Ok(Ok(1..))) {
                continue;
            }
            let polite = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"ok\":true}";
            let text = match (left, how) {
                (0, _) => polite,
                (_, Rude::Ends) => "",
                (_, Rude::Truncates) => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
                (_, Rude::Babbles) => "NONSENSE\r\n\r\n",
                (_, Rude::ResetsMidway) => {
                    let head =
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"a\":";
                    stream.write_all(head.as_bytes()).await.ok();
                    // So that it is read before the reset drops what is on its way.
                    tokio::time::timeout(Duration::from_millis(100), std::future::pending::<()>()).await.ok();
                    socket2_linger(&stream);
                    ""
                }
                (_, Rude::DripsHead) => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nx-head: ").await.ok();
                    let mut ticks = tokio::time::interval(Duration::from_millis(10));
                    while stream.write_all(b"x").await.is_ok() {
                        ticks.tick().await;
                    }
                    ""
                }
                (_, Rude::Resets) => {
                    socket2_linger(&stream);
                    ""
                }
            };
            left = left.saturating_sub(1);
            stream.write_all(text.as_bytes()).await.ok();
        }
    });
    address
}

/// Closing then resets.
fn socket2_linger(stream: &tokio::net::TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], own_port()))
}
