//! Durable writes and watches beside etcd's, each a process of its own on the same disk, in turns. A write of ours goes through
//! all of the API (schema, defaults, managed fields, rules) and carries the same bytes as etcd's value.
//!
//! `cargo bench --bench etcd`, or with `-- DIRECTORY` for another disk; etcd must be installed (Debian: etcd-server).

mod common;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use axum::{
    body::Bytes,
    http::{Request, header},
};
use common::{CONFIG_MAPS, Client, Latencies, PATIENCE, Server, config_map, middle};
use futures::future::join_all;
use h2::{RecvStream, SendStream, client::SendRequest};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};

const ROUNDS: usize = 3;
const SPAN: Duration = Duration::from_secs(3);
const EVENTS: u64 = 300;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let directory = parent.map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("a directory to write in");
    runtime.block_on(async {
        let gaia = Server::gaia(&directory.path().join("gaia")).await;
        let etcd = Server::etcd(&directory.path().join("etcd")).await;
        println!("values of {} bytes, in {}", config_map("c0", 0).to_string().len(), directory.path().display());
        for clients in [1, 64] {
            let (mut latency, mut rate) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let ours = puts(clients, |client| Ours::connect(gaia.address, client)).await;
                let theirs = puts(clients, |client| Etcd::connect(etcd.address, client)).await;
                println!("{clients:>4} clients: gaia put {ours}\n{:>14} etcd put {theirs}", "");
                latency.push(ours.median() / theirs.median());
                rate.push(ours.rate() / theirs.rate());
            }
            println!("{:>14} gaia / etcd: latency {:.2}, rate {:.2}", "", middle(latency), middle(rate));
        }
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let (ours, theirs) = (our_events(gaia.address).await, their_events(etcd.address).await);
            println!("put to watch event: gaia {ours}\n{:>19} etcd {theirs}", "");
            ratios.push(ours.median() / theirs.median());
        }
        println!("{:>19} gaia / etcd: {:.2}", "", middle(ratios));
    });
}

/// Whoever can make a value durable.
trait Writer: Send + 'static {
    fn put(&mut self, number: u64) -> impl Future<Output = ()> + Send;
}

struct Ours {
    client: Client,
    name: String,
}

impl Ours {
    async fn connect(address: SocketAddr, number: u64) -> Self {
        let (mut client, name) = (Client::connect(address).await, format!("c{number}"));
        let (status, _) = client.call("POST", CONFIG_MAPS, config_map(&name, 0).to_string().as_bytes()).await;
        assert!(matches!(status, 201 | 409), "{status}");
        Self { client, name }
    }
}

impl Writer for Ours {
    async fn put(&mut self, number: u64) {
        let body = config_map(&self.name, number).to_string();
        let (status, answer) = self.client.call("PUT", &format!("{CONFIG_MAPS}/{}", self.name), body.as_bytes()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }
}

struct Etcd {
    requests: SendRequest<Bytes>,
    key: String,
}

impl Etcd {
    async fn connect(address: SocketAddr, number: u64) -> Self {
        let stream = TcpStream::connect(address).await.expect("etcd listens");
        stream.set_nodelay(true).expect("a socket option");
        let (requests, connection) = h2::client::handshake(stream).await.expect("etcd speaks HTTP/2");
        tokio::spawn(connection);
        Self { requests, key: format!("/registry/configmaps/default/c{number}") }
    }

    /// Begins a call of gRPC.
    async fn call(&mut self, method: &str, message: &[u8], end: bool) -> (SendStream<Bytes>, RecvStream) {
        let request = Request::post(format!("http://etcd/etcdserverpb.{method}"));
        let request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
        let requests = self.requests.clone().ready().await.expect("the connection is open");
        self.requests = requests;
        let (answer, mut body) =
            self.requests.send_request(request.body(()).expect("a request"), false).expect("it can be sent");
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        body.send_data([&[0], &length[..], message].concat().into(), end).expect("it can be sent");
        let answer = timeout(PATIENCE, answer).await.expect("an answer in time").expect("an answer");
        (body, answer.into_body())
    }
}

impl Writer for Etcd {
    async fn put(&mut self, number: u64) {
        let value = config_map("c", number).to_string();
        let message = [field(1, self.key.as_bytes()), field(2, value.as_bytes())].concat();
        let (_sent, mut answer) = self.call("KV/Put", &message, true).await;
        while let Some(data) = answer.data().await {
            let data = data.expect("the answer can be read");
            answer.flow_control().release_capacity(data.len()).expect("it was received");
        }
        let trailers = answer.trailers().await.expect("the answer ends").expect("gRPC has trailers");
        assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
    }
}

/// A field of protobuf that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// Each client writes its own key as fast as it is acknowledged.
async fn puts<W: Writer, F: Future<Output = W>>(clients: u64, connect: impl Fn(u64) -> F) -> Latencies {
    let writers = join_all((0..clients).map(connect)).await;
    let start = Instant::now();
    let tasks = writers.into_iter().map(|mut writer| {
        tokio::spawn(async move {
            let mut all = Vec::new();
            // Never what another round has written.
            let mut number = fastrand::u64(..u64::MAX / 2);
            while start.elapsed() < SPAN {
                number += 1;
                let begun = Instant::now();
                writer.put(number).await;
                all.push(begun.elapsed());
            }
            all
        })
    });
    let all = join_all(tasks).await.into_iter().flat_map(|all| all.expect("no writer panics")).collect();
    Latencies::new(all, start.elapsed())
}

/// From before a write until a watcher has it.
async fn events<W: Writer>(mut writer: W, mut seen: mpsc::Receiver<Instant>) -> Latencies {
    let (mut all, start, first) = (Vec::new(), Instant::now(), fastrand::u64(..u64::MAX / 2));
    for number in 0..EVENTS {
        let begun = Instant::now();
        writer.put(first + number).await;
        let seen = timeout(PATIENCE, seen.recv()).await.expect("an event in time").expect("the watcher lives");
        all.push(seen - begun);
    }
    Latencies::new(all, start.elapsed())
}

async fn our_events(address: SocketAddr) -> Latencies {
    let writer = Ours::connect(address, 0).await;
    let mut watcher = Client::connect(address).await;
    let (_, list) = watcher.call("GET", &format!("{CONFIG_MAPS}?limit=1"), b"").await;
    let list: serde_json::Value = serde_json::from_slice(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a list has a version");
    watcher.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}")).await;
    let (tell, seen) = mpsc::channel(1000);
    let watching = tokio::spawn(async move {
        let mut line = Vec::new();
        loop {
            watcher.event(&mut line).await;
            if tell.send(Instant::now()).await.is_err() {
                return;
            }
        }
    });
    let all = events(writer, seen).await;
    watching.abort();
    all
}

async fn their_events(address: SocketAddr) -> Latencies {
    let writer = Etcd::connect(address, 0).await;
    let mut watcher = Etcd::connect(address, 0).await;
    let create = field(1, &[field(1, b"/registry/"), field(2, b"/registry0")].concat());
    let (sent, mut answer) = watcher.call("Watch/Watch", &create, false).await;
    let (tell, seen) = mpsc::channel(1000);
    let (created, is_created) = tokio::sync::oneshot::channel();
    let watching = tokio::spawn(async move {
        let _open = (sent, watcher);
        let (mut buffer, mut created) = (Vec::new(), Some(created));
        while let Some(data) = answer.data().await {
            let data = data.expect("the stream can be read");
            answer.flow_control().release_capacity(data.len()).expect("it was received");
            buffer.extend_from_slice(&data);
            while let Some(length) =
                buffer.get(1..5).map(|length| u32::from_be_bytes([length[0], length[1], length[2], length[3]]))
            {
                let whole = 5 + length as usize;
                if buffer.len() < whole {
                    break;
                }
                buffer.drain(..whole);
                // The first message says that the watch is there.
                match created.take() {
                    Some(created) => drop(created.send(())),
                    None if tell.send(Instant::now()).await.is_err() => return,
                    None => {}
                }
            }
        }
    });
    timeout(PATIENCE, is_created).await.expect("the watch begins in time").expect("the watch begins");
    let all = events(writer, seen).await;
    watching.abort();
    all
}
