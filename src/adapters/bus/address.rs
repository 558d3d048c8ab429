//! Where Redis is, and how it is spoken to: `REDIS_URL` as the workers have it, for they are given the same one.
//!
//! `redis://` and, with TLS, `rediss://`; user and password in front of the host. The workers' library takes more behind a `?`, of which
//! is read what concerns the connection: `db`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`. Certificates are always checked.

use std::path::{Path, PathBuf};

use redis::{Client, ClientTlsConfig, TlsCertificates};
use reqwest::Url;

use super::{BusError, BusResult};

/// What a URL says, without what only the workers' library reads.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    url: Url,
    ca: Option<PathBuf>,
    /// Certificate and key of this client.
    identity: Option<(PathBuf, PathBuf)>,
}

/// A client for the URL. `ca`: the file of certificates that may have signed the server's, in place of the host's. Never names what
/// may hold a password.
pub(super) fn client(url: &str, ca: Option<&Path>) -> BusResult<Client> {
    let address = read(url, ca)?;
    if address.url.scheme() != "rediss" {
        return Client::open(address.url).map_err(super::redis::failed);
    }
    // What encrypts is named once for the process; reqwest and kube have the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let root_cert = address.ca.as_deref().map(pem).transpose()?;
    let client_tls = match &address.identity {
        Some((certificate, key)) => Some(ClientTlsConfig { client_cert: pem(certificate)?, client_key: pem(key)? }),
        None => None,
    };
    let certificates = TlsCertificates { client_tls, root_cert };
    Client::build_with_tls(address.url, certificates).map_err(super::redis::failed)
}

fn read(url: &str, ca: Option<&Path>) -> BusResult<Address> {
    let mut url = Url::parse(url).map_err(|error| BusError(format!("not a URL: {error}")))?;
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(BusError(format!("the URL begins with {:?} instead of redis: or rediss:", url.scheme())));
    }
    if url.fragment().is_some() {
        return Err(BusError("a URL of Redis ends before the #".to_owned()));
    }
    let said: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let last = |name: &str| said.iter().rfind(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value);
    if let Some(checks) = last("ssl_cert_reqs").filter(|checks| *checks != "required") {
        return Err(BusError(format!(
            "ssl_cert_reqs={checks}: certificates are always checked; name the CA with REDIS_CA_FILE"
        )));
    }
    let path = |name: &str| last(name).map(PathBuf::from);
    let ca = ca.map(Path::to_owned).or_else(|| path("ssl_ca_certs"));
    let identity = match (path("ssl_certfile"), path("ssl_keyfile")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(BusError("ssl_certfile and ssl_keyfile: both are needed, or none".to_owned())),
    };
    if url.scheme() == "redis" && (ca.is_some() || identity.is_some()) {
        return Err(BusError("certificates are given, but redis: is without TLS; rediss: is with it".to_owned()));
    }
    if let Some(db) = last("db").filter(|_| url.path().trim_matches('/').is_empty()) {
        url.set_path(&format!("/{db}"));
    }
    url.set_query(None);
    Ok(Address { url, ca, identity })
}

/// A file that holds something in PEM.
fn pem(path: &Path) -> BusResult<Vec<u8>> {
    let text = std::fs::read(path).map_err(|error| BusError(format!("cannot read {}: {error}", path.display())))?;
    match text.windows(11).any(|window| window == b"-----BEGIN ") {
        true => Ok(text),
        false => Err(BusError(format!("{} holds nothing in PEM", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn address(url: &str, ca: Option<&str>, identity: Option<(&str, &str)>) -> Address {
        let identity = identity.map(|(certificate, key)| (certificate.into(), key.into()));
        Address { url: Url::parse(url).expect("a URL"), ca: ca.map(PathBuf::from), identity }
    }

    #[rstest]
    #[case("redis://h:1/2", None, address("redis://h:1/2", None, None))]
    #[case("redis://h?db=3&socket_timeout=5", None, address("redis://h/3", None, None))]
    #[case("redis://h/1?db=3", None, address("redis://h/1", None, None))]
    #[case("rediss://u:p%40w@h:6380/0", Some("/ca"), address("rediss://u:p%40w@h:6380/0", Some("/ca"), None))]
    #[case(
        "rediss://h/0?ssl_ca_certs=/a%20b&ssl_certfile=/c&ssl_keyfile=/k&ssl_cert_reqs=required",
        None,
        address("rediss://h/0", Some("/a b"), Some(("/c", "/k")))
    )]
    #[case("rediss://h/0?ssl_ca_certs=/other", Some("/ca"), address("rediss://h/0", Some("/ca"), None))]
    fn a_url_is_read_as_workers_read_it(#[case] url: &str, #[case] ca: Option<&str>, #[case] expected: Address) {
        assert_eq!(read(url, ca.map(Path::new)), Ok(expected));
    }

    #[rstest]
    #[case("", None, "not a URL")]
    #[case("http://h", None, "begins with \"http\"")]
    #[case("rediss://h#insecure", None, "before the #")]
    #[case("rediss://h?ssl_cert_reqs=none", None, "REDIS_CA_FILE")]
    #[case("rediss://h?ssl_certfile=/c", None, "both are needed")]
    #[case("redis://u:secret@h", Some("/ca"), "without TLS")]
    #[case("rediss://u:secret@h", Some("/nowhere/ca.pem"), "cannot read /nowhere/ca.pem")]
    fn what_cannot_be_is_told_without_a_password(#[case] url: &str, #[case] ca: Option<&str>, #[case] told: &str) {
        let error = client(url, ca.map(Path::new)).expect_err("it cannot be").0;
        assert!(error.contains(told) && !error.contains("secret"), "{error}");
    }
}
