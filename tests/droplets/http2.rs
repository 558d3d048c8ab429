//! Droplets behind TLS: HTTP/2 where they offer it, HTTP/1.1 where they do not, and nobody who cannot show who they are. The program is
//! asked, for which authorities it trusts is a matter of its environment (`SSL_CERT_FILE`).

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, extract::Request};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Barrier,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    program::{Program, Server, gaia},
    services::Service,
    support::eventually,
    world::{DEADLINE, listed},
};

/// Made for 127.0.0.1, by an authority that exists for these tests alone.
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/droplets/tls");
const AT_ONCE: usize = 20;

/// Counts who comes.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    came: Arc<AtomicUsize>,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                self.came.fetch_add(1, Ordering::Relaxed);
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Tells in which version it is asked, at `/together` once so many ask at the same time.
async fn droplet(protocols: &[&str]) -> (String, Arc<AtomicUsize>) {
    let file = |name: &str| Path::new(TLS).join(name);
    let chain = vec![CertificateDer::from_pem_file(file("leaf.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(file("leaf.key")).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.expect("they belong together");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let came = Arc::new(AtomicUsize::new(0));
    let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)), came: came.clone() };
    let together = Arc::new(Barrier::new(AT_ONCE));
    let answer = move |request: Request| {
        let together = together.clone();
        async move {
            if request.uri().path() == "/together" {
                together.wait().await;
            }
            Json(json!({"version": format!("{:?}", request.version())}))
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (format!("https://{address}"), came)
}

async fn program(data: &Path, registry: &str, trusts: &Path) -> Server {
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir"]).arg(data);
    command.env("REGISTRY_URL", registry).env("SSL_CERT_FILE", trusts).env("GAIA_LOG_LEVEL", "warn");
    Server::of(Program::start(&mut command))
}

async fn call(client: &reqwest::Client, server: &Server, name: &str, path: &str) -> Value {
    let url = format!("{}/orchestrator/tasks", server.url);
    let answer = client.post(url).json(&json!({"droplet_name": name, "path": path})).send().await;
    answer.expect("an answer").json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_droplet_that_offers_http_2_is_asked_in_it_over_one_connection() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (new, came) = droplet(&["h2", "http/1.1"]).await;
    let (old, _) = droplet(&["http/1.1"]).await;
    let (silent, _) = droplet(&[]).await;
    let registry = Service::start().await;
    registry.lists(json!([listed("new", &new), listed("old", &old), listed("silent", &silent)]));
    let data = tempfile::tempdir().expect("a directory");
    let server = program(data.path(), &registry.url(), &Path::new(TLS).join("ca.pem")).await;
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    for (name, version) in [("new", "HTTP/2.0"), ("old", "HTTP/1.1"), ("silent", "HTTP/1.1")] {
        let told = call(&client, &server, name, "/x").await;
        assert_eq!(told["response_body"], json!({"version": version}), "{name}: {told}");
    }
    // Whoever probes has come by now too.
    let before = eventually("there is one connection", DEADLINE, async || {
        let before = came.load(Ordering::Relaxed);
        (call(&client, &server, "new", "/x").await["status"] == "success" && came.load(Ordering::Relaxed) == before)
            .then_some(before)
    })
    .await;
    let calls = (0..AT_ONCE).map(|_| call(&client, &server, "new", "/together"));
    for told in futures::future::join_all(calls).await {
        assert_eq!(told["response_body"], json!({"version": "HTTP/2.0"}), "{told}");
    }
    assert_eq!(came.load(Ordering::Relaxed), before, "{AT_ONCE} calls shared what was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_show_who_it_is_is_not_asked() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (url, came) = droplet(&["h2"]).await;
    let registry = Service::start().await;
    registry.lists(json!([listed("stranger", &url)]));
    let data = tempfile::tempdir().expect("a directory");
    // The leaf is no authority.
    let server = program(data.path(), &registry.url(), &Path::new(TLS).join("leaf.pem")).await;
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let told = call(&client, &server, "stranger", "/x").await;
    assert_eq!((&told["status"], &told["error"]["code"]), (&json!("error"), &json!("DROPLET_UNREACHABLE")), "{told}");
    let why = told["error"]["details"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(came.load(Ordering::Relaxed), 0);
}
