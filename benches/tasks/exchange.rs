//! Tasks through the program and through the floor, in turns: so many in flight, from the submission until the result is stored and that
//! was answered.

use std::{net::SocketAddr, process::Command, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::{
    IN_FLIGHT, ROUNDS, Redis, SPAN,
    common::{Client, Latencies, Server, free_address, middle},
    gaia,
    workers::{self, Ends},
};

const WARM_UP: Duration = Duration::from_secs(1);

struct Way {
    name: &'static str,
    server: Server,
    ends: Ends,
    _workers: JoinSet<()>,
    _redis: Redis,
    _directory: tempfile::TempDir,
}

fn document() -> String {
    // JSON is YAML.
    let document = json!({
        "apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "bench"},
        "spec": {"taskType": "echo", "resources": {"replicas": 1, "hardware": {"cpu": "1", "memory": "1Gi"}},
            "data": {"type": "list", "items": ["hello", "again", "x".repeat(200)]},
            "output": {"destination": {"type": "http", "url": "http://127.0.0.1/api/v1/results"}}},
    });
    json!({"yaml": document.to_string()}).to_string()
}

/// Answers the program's rate with most in flight.
pub async fn measure() -> f64 {
    let ways = [of_gaia().await, of_floor().await];
    let mut best = 0.0;
    for in_flight in IN_FLIGHT {
        let mut figures: Vec<Vec<Latencies>> = ways.iter().map(|_| Vec::new()).collect();
        for way in &ways {
            run(way, in_flight, WARM_UP).await;
        }
        for _ in 0..ROUNDS {
            for (way, figures) in ways.iter().zip(&mut figures) {
                let before = way.server.processor();
                let figure = run(way, in_flight, SPAN).await;
                let spent = (way.server.processor() - before).as_secs_f64() / SPAN.as_secs_f64();
                println!("{in_flight:>3} in flight  {:<6} {figure}  {spent:.2} of a processor", way.name);
                figures.push(figure);
            }
        }
        let ratio = |of: fn(&Latencies) -> f64| {
            middle(figures[0].iter().zip(&figures[1]).map(|(mine, theirs)| of(mine) / of(theirs)).collect())
        };
        println!(
            "{in_flight:>3} in flight  gaia / floor: rate {:.2}, p50 {:.2}",
            ratio(Latencies::rate),
            ratio(Latencies::median)
        );
        best = middle(figures[0].iter().map(Latencies::rate).collect());
    }
    println!("memory after all of it: gaia {} KiB, floor {} KiB", ways[0].server.memory(), ways[1].server.memory());
    best
}

async fn of_gaia() -> Way {
    let (redis, directory) = (Redis::start(false).await, tempfile::tempdir().expect("a directory to write in"));
    let server = gaia(directory.path(), Some(&redis.url)).await;
    way("gaia", server, redis, directory).await
}

async fn of_floor() -> Way {
    let (redis, directory) = (Redis::start(false).await, tempfile::tempdir().expect("a directory to write in"));
    let address = free_address();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["floor", &address.to_string(), &redis.url]).arg(directory.path());
    // It listens once its workers are there.
    let ends = Ends::default();
    let workers = workers::start(&redis.url, address, &ends).await;
    let server = Server::start(command, address).await;
    Way { name: "floor", server, ends, _workers: workers, _redis: redis, _directory: directory }
}

async fn way(name: &'static str, server: Server, redis: Redis, directory: tempfile::TempDir) -> Way {
    let ends = Ends::default();
    let workers = workers::start(&redis.url, server.address, &ends).await;
    let mut client = Client::connect(server.address).await;
    let deadline = Instant::now() + super::common::PATIENCE;
    loop {
        let (_, known) = client.call("GET", "/workers", b"").await;
        let known: Value = serde_json::from_slice(&known).expect("JSON");
        if known.as_array().is_some_and(|known| known.len() == workers::WORKERS) {
            break;
        }
        assert!(Instant::now() < deadline, "the workers are not known: {known}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Way { name, server, ends, _workers: workers, _redis: redis, _directory: directory }
}

async fn run(way: &Way, in_flight: usize, span: Duration) -> Latencies {
    let start = Instant::now();
    let submitters = (0..in_flight).map(|_| {
        let (address, ends) = (way.server.address, way.ends.clone());
        tokio::spawn(submit(address, ends, start, span))
    });
    let all = join_all(submitters).await.into_iter().flat_map(|all| all.expect("no submitter panics")).collect();
    Latencies::new(all, start.elapsed())
}

/// One after the other.
async fn submit(address: SocketAddr, ends: Ends, start: Instant, span: Duration) -> Vec<Duration> {
    let (mut client, body, mut all) = (Client::connect(address).await, document(), Vec::new());
    while start.elapsed() < span {
        let begun = Instant::now();
        let (status, answer) = client.call("POST", "/api/v1/tasks", body.as_bytes()).await;
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(status, 200, "{answer}");
        ends.of(answer["tasks"][0]["task_id"].as_str().expect("an id")).await;
        all.push(begun.elapsed());
    }
    all
}
