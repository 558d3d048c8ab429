//! What the wire costs: a GET beside a bare route of axum, one write to 1,000 watchers beside the same bytes written to 1,000
//! sockets; and what the program needs with 1,000 objects: its start, its memory with 100 watchers.
//!
//! `cargo bench --bench wire`. A thousand watchers are two thousand open files in one process: `ulimit -n 4096`.

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, routing::get};
use common::{CONFIG_MAPS, Client, Latencies, Server, config_map, middle};
use futures::future::join_all;
use gaia::{
    registry::{Kinds, RandomIds, Registry},
    runtime::clock::SystemClock,
    server::{AlwaysReady, Auth, ServerMetrics, ServerState, router},
    store::{EmbeddedStore, MemoryEngine, Options},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;
const SPAN: Duration = Duration::from_secs(3);
const CLIENTS: usize = 16;
const WATCHERS: usize = 1000;
const WRITES: u64 = 50;
const OBJECTS: u64 = 1000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let ours = in_this_process().await;
        let mut client = Client::connect(ours).await;
        let (status, object) = client.call("POST", CONFIG_MAPS, config_map("one", 0).to_string().as_bytes()).await;
        assert_eq!(status, 201);
        gets(ours, &object).await;
        fan_out(ours, client).await;
        program().await;
    });
}

/// The API without a disk and without controllers.
async fn in_this_process() -> SocketAddr {
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("a fresh store opens");
    let kinds = Kinds::from_crds(&gaia::api::crds()).expect("our own definitions are valid");
    let clock = Arc::new(SystemClock);
    let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("the registry opens");
    let mut exposition = prometheus_client::registry::Registry::default();
    let metrics = ServerMetrics::register(&mut exposition);
    serve(router(ServerState {
        registry,
        shutdown: CancellationToken::new(),
        auth: Auth::open(),
        audit: gaia::server::Audit::default(),
        readiness: Arc::new(AlwaysReady),
        clock,
        metrics,
        exposition: Arc::new(exposition),
    }))
    .await
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// One object, read over and over on 16 connections. The bare route has the same object as a value and serialises it, as one
/// would write it with axum.
async fn gets(ours: SocketAddr, object: &[u8]) {
    let value: Arc<Value> = Arc::new(serde_json::from_slice(object).expect("an object"));
    let bare = serve(Router::new().route("/one", get(move || async move { Json(value) }))).await;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (mine, theirs) = (read(ours, &format!("{CONFIG_MAPS}/one")).await, read(bare, "/one").await);
        println!("GET, {CLIENTS} connections: gaia {mine}\n{:>27} axum {theirs}", "");
        ratios.push(mine.rate() / theirs.rate());
    }
    println!("{:>27} gaia / axum, rate: {:.2}", "", middle(ratios));
}

async fn read(address: SocketAddr, path: &str) -> Latencies {
    let start = Instant::now();
    let tasks = (0..CLIENTS).map(|_| {
        let path = path.to_owned();
        tokio::spawn(async move {
            let (mut client, mut all) = (Client::connect(address).await, Vec::new());
            while start.elapsed() < SPAN {
                let begun = Instant::now();
                let (status, _) = client.call("GET", &path, b"").await;
                assert_eq!(status, 200);
                all.push(begun.elapsed());
            }
            all
        })
    });
    let all = join_all(tasks).await.into_iter().flat_map(|all| all.expect("no reader panics")).collect();
    Latencies::new(all, start.elapsed())
}

/// From before a write until the last watcher has it; beside one task that writes the same bytes to as many sockets.
async fn fan_out(ours: SocketAddr, mut client: Client) {
    let (tell, mut told) = mpsc::channel(WATCHERS);
    let length = watch_all(ours, &mut client, &tell).await;
    let mut sockets = raw_sockets(length, &tell).await;
    let bytes = vec![b'x'; length];
    let mut ratios = Vec::new();
    for round in 0..ROUNDS as u64 {
        let (mut mine, mut raw) = (Vec::new(), Vec::new());
        for number in 0..WRITES {
            let body = config_map("one", 1 + round * WRITES + number).to_string();
            let begun = Instant::now();
            let (status, _) = client.call("PUT", &format!("{CONFIG_MAPS}/one"), body.as_bytes()).await;
            assert_eq!(status, 200);
            all_told(&mut told).await;
            mine.push(begun.elapsed());
            let begun = Instant::now();
            for socket in &mut sockets {
                socket.write_all(&bytes).await.expect("somebody reads");
            }
            all_told(&mut told).await;
            raw.push(begun.elapsed());
        }
        let wall = Duration::from_secs(1);
        let (mine, raw) = (Latencies::new(mine, wall), Latencies::new(raw, wall));
        println!("one write to {WATCHERS}: gaia p50 {:?}, sockets p50 {:?}", mine.percentile(50), raw.percentile(50));
        ratios.push(mine.median() / raw.median());
    }
    println!("{:>27} gaia / sockets: {:.2}", "", middle(ratios));
}

async fn all_told(told: &mut mpsc::Receiver<()>) {
    for _ in 0..WATCHERS {
        tokio::time::timeout(common::PATIENCE, told.recv())
            .await
            .expect("everybody is told in time")
            .expect("watchers live");
    }
}

/// Begins the watches; answers how long an event is.
async fn watch_all(ours: SocketAddr, client: &mut Client, tell: &mpsc::Sender<()>) -> usize {
    let (_, list) = client.call("GET", CONFIG_MAPS, b"").await;
    let list: Value = serde_json::from_slice(&list).expect("a list");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a list has a version");
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}");
    for _ in 0..WATCHERS {
        let (mut watcher, tell) = (Client::connect(ours).await, tell.clone());
        watcher.watch(&path).await;
        tokio::spawn(async move {
            let mut line = Vec::new();
            loop {
                watcher.event(&mut line).await;
                if tell.send(()).await.is_err() {
                    return;
                }
            }
        });
    }
    list["items"][0].to_string().len() + "{\"type\":\"MODIFIED\",\"object\":}\n".len()
}

async fn raw_sockets(length: usize, tell: &mpsc::Sender<()>) -> Vec<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    let mut sockets = Vec::new();
    for _ in 0..WATCHERS {
        let mut reader = TcpStream::connect(address).await.expect("we listen");
        let (socket, _) = listener.accept().await.expect("a connection");
        socket.set_nodelay(true).expect("a socket option");
        sockets.push(socket);
        let tell = tell.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; length];
            while reader.read_exact(&mut bytes).await.is_ok() && tell.send(()).await.is_ok() {}
        });
    }
    sockets
}

/// The program on a real disk with 1,000 objects.
async fn program() {
    let directory = tempfile::tempdir().expect("a directory to write in");
    let fresh = Server::gaia(directory.path()).await;
    let empty = fresh.memory();
    let mut client = Client::connect(fresh.address).await;
    for number in 0..OBJECTS {
        let body = config_map(&format!("c{number}"), number).to_string();
        let (status, _) = client.call("POST", CONFIG_MAPS, body.as_bytes()).await;
        assert_eq!(status, 201);
    }
    drop(fresh);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let server = Server::gaia(directory.path()).await;
        let (status, _) = Client::connect(server.address).await.call("GET", "/readyz", b"").await;
        let ready = begun.elapsed();
        assert_eq!(status, 200);
        let loaded = server.memory();
        let mut watchers = Vec::new();
        for _ in 0..100 {
            let mut watcher = Client::connect(server.address).await;
            watcher.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
            let mut line = Vec::new();
            for _ in 0..OBJECTS {
                watcher.event(&mut line).await;
            }
            watchers.push(watcher);
        }
        println!(
            "{OBJECTS} objects: ready after {ready:?} from the start; memory {empty} KiB empty, {loaded} KiB with them, {} KiB with 100 watchers",
            server.memory()
        );
    }
}
