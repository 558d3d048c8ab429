//! What the benches of the wire share: a plain client that costs little, figures, and the program at work.
#![allow(dead_code, reason = "compiled into every bench that uses some of it")]

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// One connection that is kept, over HTTP/1.1.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream: BufReader::with_capacity(64 * 1024, stream) }
    }

    /// Status and body; the answer must say how long it is.
    pub async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        timeout(PATIENCE, self.exchange(method, path, body)).await.expect("an answer in time")
    }

    async fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.send(method, path, body).await;
        let (status, length) = self.head().await;
        let mut answer = vec![0; length.expect("the answer says how long it is")];
        self.stream.read_exact(&mut answer).await.expect("the whole answer");
        (status, answer)
    }

    async fn send(&mut self, method: &str, path: &str, body: &[u8]) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        self.stream.get_mut().write_all(&request).await.expect("the server reads");
    }

    async fn head(&mut self) -> (u16, Option<usize>) {
        let (mut status, mut length, mut line) = (0, None, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.expect("an answer");
            let text = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(rest) = text.strip_prefix("content-length: ") {
                length = rest.parse().ok();
            } else if text.is_empty() {
                return (status, length);
            }
        }
    }

    /// Begins a watch, from what is sent later on.
    pub async fn watch(&mut self, path: &str) {
        self.send("GET", path, b"").await;
        let (status, _) = self.head().await;
        assert_eq!(status, 200, "{path}");
    }

    /// The next event of a watch as it came; framing is passed over.
    pub async fn event(&mut self, line: &mut Vec<u8>) {
        loop {
            line.clear();
            let read = timeout(PATIENCE, self.stream.read_until(b'\n', line)).await.expect("an event in time");
            assert!(read.expect("the stream can be read") > 0, "the watch has ended");
            if line.starts_with(b"{\"type\"") {
                return;
            }
        }
    }
}

/// About the size of a workload with its status: 1.5 KB.
pub fn config_map(name: &str, number: u64) -> Value {
    let value = |at: u64| format!("{:016x}", number.wrapping_mul(31 + at)).repeat(3);
    let data: serde_json::Map<String, Value> = (0..24).map(|at| (format!("key{at}"), json!(value(at)))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub struct Latencies {
    sorted: Vec<Duration>,
    wall: Duration,
}

impl Latencies {
    pub fn new(mut all: Vec<Duration>, wall: Duration) -> Self {
        assert!(!all.is_empty(), "nothing was measured");
        all.sort_unstable();
        Self { sorted: all, wall }
    }

    pub fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.wall.as_secs_f64()
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        self.sorted[(self.sorted.len() - 1) * percent / 100]
    }

    pub fn median(&self) -> f64 {
        self.percentile(50).as_secs_f64()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        write!(f, "{:>8.0}/s  p50 {:>7} us  p99 {:>7} us", self.rate(), p50.as_micros(), p99.as_micros())
    }
}

/// The middle of what the rounds came to.
pub fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A port that is free now.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}

/// A program; `alone` on processor 0, where there are two.
pub fn command(program: &Path, alone: bool) -> Command {
    if !alone {
        return Command::new(program);
    }
    // It becomes the program, so the process is the program's.
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// A server of its own process, killed when dropped.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// `gaia` on a directory, in simulated reality: nothing but the API has anything to do.
    pub async fn gaia(data: &Path) -> Self {
        Self::gaia_on(data, false).await
    }

    /// `alone`: on processor 0.
    pub async fn gaia_on(data: &Path, alone: bool) -> Self {
        let address = free_address();
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_gaia")), alone);
        command
            .env_clear()
            .args(["serve", "--reality", "simulated", "--listen", &address.to_string(), "--data-dir"])
            .arg(data);
        Self::start(command, address).await
    }

    pub async fn etcd(data: &Path) -> Self {
        let (address, peer) = (free_address(), free_address());
        let (clients, peers) = (format!("http://{address}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}"), "--data-dir"]).arg(data);
        Self::start(command, address).await
    }

    /// Ready when it takes connections.
    pub async fn start(mut command: Command, address: SocketAddr) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self { address, child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")) };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Time of the processor so far, of the process that was started.
    pub fn processor(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // Behind the name, which may hold anything; in ticks of 10 ms.
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
