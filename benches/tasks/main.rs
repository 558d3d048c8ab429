//! What tasks cost: through the program and a real Redis with durable results, beside the same exchange of messages by a bare
//! orchestrator and beside three queues of Python; and an artifact of 1 GiB, up and down, beside plain copies and nginx.
//!
//! `cargo bench --bench tasks [-- exchange|queues|files]`. redis-server must be there, python3 with pip for the queues, and nginx for one
//! comparison; what is missing says so. Everything runs on loopback, in turns, on all processors.

#[path = "../common/mod.rs"]
mod common;
mod exchange;
mod files;
mod floor;
mod queues;
mod workers;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::{Server, free_address};

const ROUNDS: usize = 3;
const SPAN: Duration = Duration::from_secs(5);
/// Of tasks at once.
const IN_FLIGHT: [usize; 2] = [1, 64];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    if let [mode, listen, redis, directory] = args.as_slice()
        && mode == "floor"
    {
        let listen: SocketAddr = listen.parse().expect("an address");
        return runtime.block_on(floor::serve(listen, redis, directory.as_ref()));
    }
    let wanted = |part: &str| args.first().is_none_or(|only| only == part);
    runtime.block_on(async {
        let mut best = None;
        if wanted("exchange") {
            best = Some(exchange::measure().await);
        }
        if wanted("queues") {
            queues::measure(best).await;
        }
        if wanted("files") {
            files::measure().await;
        }
    });
}

/// A Redis without anything on disk, or one that syncs every write before it answers.
pub struct Redis {
    _server: Server,
    pub url: String,
    _directory: tempfile::TempDir,
}

impl Redis {
    pub async fn start(durable: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory to write in");
        let address = free_address();
        let mut command = Command::new("redis-server");
        let port = address.port().to_string();
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]).arg(directory.path());
        if durable {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        let server = Server::start(command, address).await;
        Self { _server: server, url: format!("redis://{address}/0"), _directory: directory }
    }
}

/// The program with a Redis, and its results below `directory`.
pub async fn gaia(directory: &Path, redis: Option<&str>) -> Server {
    let address = free_address();
    let mut command = common::command(Path::new(env!("CARGO_BIN_EXE_gaia")), false);
    command.env_clear();
    if let Some(redis) = redis {
        command.env("REDIS_URL", redis);
    }
    command
        .env("GAIA_TASKS_RETENTION_COUNT", "100000")
        .env("GAIA_TASKS_MAX_UPLOAD_BYTES", (4_u64 << 30).to_string())
        .args(["serve", "--reality", "simulated", "--listen", &address.to_string(), "--data-dir"])
        .arg(directory);
    Server::start(command, address).await
}

/// Where this bench's own files are.
pub fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/tasks")
}
