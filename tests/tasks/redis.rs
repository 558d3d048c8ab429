//! A Redis of our own: Debian's `redis-server` on a loopback port, without anything on disk, ended when dropped.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::eventually;

pub struct Redis {
    port: u16,
    server: Option<Child>,
}

impl Redis {
    pub async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it listens").port();
        let mut redis = Self { port, server: None };
        redis.begin().await;
        redis
    }

    /// Again, on the same port and with nothing in it.
    pub async fn begin(&mut self) {
        let port = self.port.to_string();
        let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"];
        let server = Command::new("redis-server").args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.server = Some(server.expect("Debian's redis-server is installed (./test does that)"));
        let url = self.url();
        eventually("Redis answers", Duration::from_secs(30), async || {
            let client = redis::Client::open(url.as_str()).expect("a URL");
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }

    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("it runs");
            server.wait().expect("it has ended");
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("Redis answers")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}
