//! What routing costs: a call to a droplet through the program, beside the same call through a bare forwarder of hyper's and through
//! nginx, all three to the same target; and what 10,000 records of the history weigh.
//!
//! `cargo bench --bench droplets`. Who forwards runs alone on processor 0, one after the other; client and target are on the others.
//! nginx must be there (`apt-get install -y nginx-light`); without it that part says so.

mod common;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use axum::{Router, http::header, routing::post};
use common::{Client, Latencies, Server, free_address, middle};
use futures::future::join_all;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};

const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(300);
const RECORDS: usize = 10_000;
const PATH: &str = "/echo";
const TASKS: &str = "/orchestrator/tasks";
/// 300 bytes, sent by callers and answered by the target.
const PAYLOAD: &str = concat!(
    r#"{"request":"550e8400-e29b-41d4-a716-446655440000","model":"gaia-prime","input":""#,
    "What follows from an attempt depends on how it ended: an answer below 500 is final, and everything else is tried again after a ",
    "second, then after two. Whoever asks is told how often, and how long it took in all.",
    r#""}"#
);

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("forward") {
        let mut address = || args.next().and_then(|text| text.parse().ok()).expect("an address");
        let (listen, target) = (address(), address());
        return runtime().block_on(forward(listen, target));
    }
    let pinned = pin_others();
    println!(
        "{}",
        if pinned { "forwarders on processor 0, client and target on the others" } else { "nothing is pinned" }
    );
    runtime().block_on(async {
        let target = target().await;
        memory(target).await;
        routing(target, pinned).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built")
}

/// Leaves processor 0 to those who forward. Before any thread begins, for they inherit it.
fn pin_others() -> bool {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let pin =
        || Command::new("taskset").args(["-cp", &format!("1-{}", count - 1), &std::process::id().to_string()]).output();
    count > 1 && pin().is_ok_and(|output| output.status.success())
}

async fn target() -> SocketAddr {
    let echo = async || ([(header::CONTENT_TYPE, "application/json")], PAYLOAD);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    let health = axum::routing::get(async || "{}");
    let router = Router::new().route(PATH, post(echo)).route("/health", health);
    tokio::spawn(async move {
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |io| drop(io.set_nodelay(true))), router).await
    });
    address
}

/// The least that passes a request on over kept connections.
async fn forward(listen: SocketAddr, target: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: legacy::Client<_, Incoming> = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind(listen).await.expect("a free port");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).expect("a socket option");
        let client = client.clone();
        let pass = service_fn(move |mut request: hyper::Request<Incoming>| {
            let uri = format!("http://{target}{}", request.uri().path());
            *request.uri_mut() = uri.parse().expect("a URI");
            client.request(request)
        });
        tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await });
    }
}

/// Somebody who forwards, and how it is asked.
struct Way {
    name: &'static str,
    server: Server,
    path: &'static str,
    body: String,
}

async fn routing(target: SocketAddr, pinned: bool) {
    let directory = tempfile::tempdir().expect("a directory to write in");
    let mut ways = vec![gaia(directory.path(), target, pinned).await, bare(target, pinned).await];
    match nginx(directory.path(), target, pinned).await {
        Some(way) => ways.push(way),
        None => println!("nginx is NOT installed, so nothing is compared with it: apt-get install -y nginx-light"),
    }
    for connections in [1, 32] {
        let mut figures: Vec<Vec<Figure>> = ways.iter().map(|_| Vec::new()).collect();
        for way in &ways {
            ask(way, connections, WARM_UP).await;
        }
        for _ in 0..ROUNDS {
            for (way, figures) in ways.iter().zip(&mut figures) {
                let figure = ask(way, connections, SPAN).await;
                println!("{connections:>3} connections  {:<6} {figure}", way.name);
                figures.push(figure);
            }
        }
        for (way, theirs) in ways.iter().zip(&figures).skip(1) {
            let ratio = |of: fn(&Figure) -> f64| {
                middle(figures[0].iter().zip(theirs).map(|(mine, theirs)| of(mine) / of(theirs)).collect())
            };
            println!(
                "{connections:>3} connections  gaia / {}: rate {:.2}, p50 {:.2}, processor {:.2}",
                way.name,
                ratio(|figure| figure.calls.rate()),
                ratio(|figure| figure.calls.median()),
                ratio(|figure| figure.processor_us),
            );
        }
    }
}

/// What a while of asking came to.
struct Figure {
    calls: Latencies,
    /// Of who forwards, for one call.
    processor_us: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  processor {:>5.0} us a call", self.calls, self.processor_us)
    }
}

async fn ask(way: &Way, connections: usize, span: Duration) -> Figure {
    let (start, before) = (Instant::now(), way.server.processor());
    let tasks = (0..connections).map(|_| {
        let (address, path, body) = (way.server.address, way.path, way.body.clone());
        tokio::spawn(async move {
            let (mut client, mut all) = (Client::connect(address).await, Vec::new());
            while start.elapsed() < span {
                let begun = Instant::now();
                let (status, _) = client.call("POST", path, body.as_bytes()).await;
                assert_eq!(status, 200);
                all.push(begun.elapsed());
            }
            all
        })
    });
    let all: Vec<Duration> = join_all(tasks).await.into_iter().flat_map(|all| all.expect("no caller panics")).collect();
    let processor_us = (way.server.processor() - before).as_secs_f64() * 1e6 / all.len() as f64;
    Figure { calls: Latencies::new(all, start.elapsed()), processor_us }
}

async fn gaia(directory: &Path, target: SocketAddr, pinned: bool) -> Way {
    let server = Server::gaia_on(&directory.join("gaia"), pinned).await;
    declare(&server, target).await;
    Way { name: "gaia", server, path: TASKS, body: task() }
}

fn task() -> String {
    let payload: Value = serde_json::from_str(PAYLOAD).expect("JSON");
    json!({"droplet_name": "bench", "method": "POST", "path": PATH, "payload": payload}).to_string()
}

/// Ready when it is routed to.
async fn declare(server: &Server, target: SocketAddr) {
    let droplet = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Droplet", "metadata": {"name": "bench"},
        "spec": {"endpoint": format!("http://{target}")}});
    let mut client = Client::connect(server.address).await;
    let all = "/apis/gaia.dev/v1alpha1/namespaces/default/droplets";
    let (status, answer) = client.call("POST", all, droplet.to_string().as_bytes()).await;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
    let deadline = Instant::now() + common::PATIENCE;
    while client.call("POST", TASKS, task().as_bytes()).await.0 != 200 {
        assert!(Instant::now() < deadline, "the droplet cannot be called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn bare(target: SocketAddr, pinned: bool) -> Way {
    let address = free_address();
    let mut command = common::command(&std::env::current_exe().expect("this program"), pinned);
    command.args(["forward", &address.to_string(), &target.to_string()]);
    Way { name: "hyper", server: Server::start(command, address).await, path: PATH, body: PAYLOAD.to_owned() }
}

async fn nginx(directory: &Path, target: SocketAddr, pinned: bool) -> Option<Way> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].map(PathBuf::from);
    let program = program.into_iter().find(|program| program.exists())?;
    let (address, at) = (free_address(), directory.display());
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {at}/{what}; "))
        .concat();
    // One process, as the others are; connections are kept on both sides, nothing is logged.
    let config = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr crit; events {{ worker_connections 1024; }}
        http {{ access_log off; {paths}
        upstream target {{ server {target}; keepalive 64; keepalive_requests 1000000000; }}
        server {{ listen {address}; keepalive_requests 1000000000; location / {{
            proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, config).expect("the directory can be written in");
    let mut command = common::command(&program, pinned);
    command.arg("-p").arg(directory).arg("-c").arg(&file);
    let server = Server::start(command, address).await;
    Some(Way { name: "nginx", server, path: PATH, body: PAYLOAD.to_owned() })
}

/// The program with as many records as it keeps unless told otherwise: while they come, and after a restart.
async fn memory(target: SocketAddr) {
    let directory = tempfile::tempdir().expect("a directory to write in");
    let server = Server::gaia_on(directory.path(), false).await;
    declare(&server, target).await;
    let mut client = Client::connect(server.address).await;
    let body = task();
    let call = async |client: &mut Client| assert_eq!(client.call("POST", TASKS, body.as_bytes()).await.0, 200);
    for _ in 0..RECORDS / 100 {
        call(&mut client).await;
    }
    let before = server.memory();
    for _ in 0..RECORDS {
        call(&mut client).await;
    }
    let full = server.memory();
    let (_, page) = client.call("GET", "/orchestrator/tasks?limit=1", b"").await;
    let page: Value = serde_json::from_slice(&page).expect("JSON");
    assert_eq!(page["total"], RECORDS);
    let bytes = page["tasks"][0].to_string().len();
    drop((client, server));
    let again = Server::gaia_on(directory.path(), false).await.memory();
    println!(
        "{RECORDS} records of {bytes} bytes: {before} KiB before, {full} KiB with them ({} bytes a record), {again} KiB after a restart",
        full.saturating_sub(before) * 1024 / RECORDS as u64
    );
}
