//! A Redis of our own: Debian's `redis-server` on a loopback port, without anything on disk, ended when dropped.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{certificates::Certificates, eventually, port::own_port};

pub struct Redis {
    port: u16,
    server: Option<Child>,
    tls: Option<Certificates>,
}

impl Redis {
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// One that speaks nothing but TLS, to clients with a certificate of its CA and the password of a user.
    pub async fn with_tls() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        Self::with(Some(Certificates::make())).await
    }

    async fn with(tls: Option<Certificates>) -> Self {
        let port = own_port();
        let mut redis = Self { port, server: None, tls };
        redis.begin().await;
        redis
    }

    /// Again, on the same port and with nothing in it.
    pub async fn begin(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"]);
        match &self.tls {
            None => command.args(["--port", &port]),
            Some(tls) => {
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "yes"]);
                for (setting, file) in [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")] {
                    command.arg(format!("--tls-{setting}-file")).arg(tls.file(file));
                }
                command.args(["--user", "default", "off", "--user", "gaia", "on", ">p@ss", "~*", "&*", "+@all"])
            }
        };
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.server = Some(server.expect("Debian's redis-server is installed (./test does that)"));
        let client = self.client();
        eventually("Redis answers", Duration::from_secs(30), async || {
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

    /// As workers and server are given it.
    pub fn url(&self) -> String {
        match &self.tls {
            None => format!("redis://127.0.0.1:{}/0", self.port),
            Some(tls) => {
                let file = |name: &str| tls.file(name).display().to_string();
                let identity = format!("ssl_certfile={}&ssl_keyfile={}", file("client.pem"), file("client.key"));
                format!("rediss://gaia:p%40ss@127.0.0.1:{}/0?{identity}", self.port)
            }
        }
    }

    /// Of the CA, where there is one.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(|tls| tls.file("ca.pem"))
    }

    pub fn client(&self) -> redis::Client {
        let Some(tls) = &self.tls else { return redis::Client::open(self.url()).expect("a URL") };
        let read = |file: PathBuf| std::fs::read(file).expect("it was made");
        let identity = redis::ClientTlsConfig {
            client_cert: read(tls.file("client.pem")),
            client_key: read(tls.file("client.key")),
        };
        let certificates =
            redis::TlsCertificates { client_tls: Some(identity), root_cert: Some(read(tls.file("ca.pem"))) };
        redis::Client::build_with_tls(self.url(), certificates).expect("a URL")
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.client().get_multiplexed_async_connection().await.expect("Redis answers")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}
