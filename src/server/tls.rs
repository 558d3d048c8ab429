//! TLS on a listener: a certificate chain and its key from two PEM files, read again when they change, so that whoever renews
//! them (an ACME client, cert-manager) needs no restart.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tls_listener::{Error, TlsListener};
use tokio::{net::TcpListener, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two looks at the files. Two `stat`s; watching a directory would miss what a mount of a container turns around.
const LOOK: Duration = Duration::from_secs(60);
/// For a client to shake hands; then its connection is closed.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A listener that cannot accept (no file descriptors left) is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Why there is no TLS. `file` is the one to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{} holds no {wanted} in PEM: {source}", file.display())]
    NotPem { file: PathBuf, wanted: &'static str, source: pem::Error },
    #[error("the key in {} does not fit the certificate in {}: {source}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("no version of TLS can be spoken")]
    Versions(#[source] rustls::Error),
}

/// The two files, and what they held when they were last good.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<(Stamp, Arc<CertifiedKey>)>,
}

/// What tells that a file has changed.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificates {
    /// Reads both. `certificate` holds the server's own first, then those that lead to its issuer.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let stamp = stamp(&certificate, &key);
        let current = RwLock::new((stamp, Arc::new(read(&certificate, &key)?)));
        Ok(Self { certificate, key, current })
    }

    /// Reads the files again if they have changed, and answers whether they had. What cannot be read leaves the last good pair.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let stamp = stamp(&self.certificate, &self.key);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamp {
            return Ok(false);
        }
        let key = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (stamp, key);
        Ok(true)
    }

    /// Looks at the files now and then, until cancelled.
    pub async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        while cancel.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let files = self.clone();
            // A file system may hang.
            let looked = tokio::task::spawn_blocking(move || files.refresh()).await;
            match looked {
                Ok(Ok(false)) | Err(_) => {}
                Ok(Ok(true)) => info!(certificate = %self.certificate.display(), "new certificate"),
                // Perhaps only one of the two has been replaced yet.
                Ok(Err(error)) => warn!(%error, "the certificate stays the last good one"),
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone())
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|file| {
        let about = fs::metadata(file).ok()?;
        Some((about.modified().ok()?, about.len()))
    })
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let text = |file: &Path| fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source });
    let no = |file: &Path, wanted| {
        let file = file.to_owned();
        move |source| TlsError::NotPem { file, wanted, source }
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(no(certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(no(certificate, "certificate")(pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_slice(&text(key)?).map_err(no(key, "private key"))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|source| TlsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// Connections whose hands are shaken. A client that takes its time delays no other.
pub struct Secured(TlsListener<TcpListener, TlsAcceptor>);

impl Secured {
    /// TLS 1.2 and 1.3; HTTP/2 for whoever offers it.
    pub fn over(listener: TcpListener, certificates: Arc<Certificates>) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Versions)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self(tls_listener::builder(acceptor).handshake_timeout(HANDSHAKE).listen(listener)))
    }
}

/// Of the connection that would have been accepted, not of the listener (accept(2), "Error handling").
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl axum::serve::Listener for Secured {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(connection) => return connection,
                // Who has gone again before we looked delays nobody.
                Err(Error::ListenerError(error)) if is_of_one_client(&error) => {}
                Err(Error::ListenerError(error)) => {
                    warn!(%error, "no connection can be accepted");
                    sleep(AGAIN).await;
                }
                // A scan, plain HTTP, a client that does not trust our issuer: the client's to mend, and it is told.
                Err(error) => info!(%error, "no TLS with a client"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
