//! Where the path of a request leads at a droplet, and which addresses nobody is sent to.
//!
//! The original put both texts together, so that a caller could choose another host (`@host/x`). Here a path never leaves the
//! droplet's scheme, host and port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{
    self, Uri,
    uri::{Authority, InvalidUri, Scheme},
};
use reqwest::Url;

/// A request's destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// As it is reported: as it was written.
    pub shown: String,
    /// As it is asked.
    pub uri: Uri,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misled {
    #[error("path: {0}")]
    Path(&'static str),
    #[error("the droplet's endpoint {endpoint:?} cannot be used: {why}")]
    Endpoint { endpoint: String, why: String },
}

/// Where a droplet is. It is read once, and not for every call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    written: String,
    base: Url,
    scheme: Scheme,
    authority: Authority,
}

impl Endpoint {
    pub fn parse(endpoint: &str) -> Result<Self, Misled> {
        let unusable = |why: &str| Misled::Endpoint { endpoint: endpoint.to_owned(), why: why.to_owned() };
        let base = Url::parse(endpoint).map_err(|error| unusable(&error.to_string()))?;
        let scheme = match base.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(unusable("only http and https are spoken")),
        };
        if base.host().is_none() || !base.username().is_empty() || base.password().is_some() {
            return Err(unusable("it must have a host, and no user name"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(unusable("it must have no query and no fragment"));
        }
        let authority = base.authority().parse().map_err(|error: InvalidUri| unusable(&error.to_string()))?;
        Ok(Self { written: endpoint.to_owned(), base, scheme, authority })
    }

    /// The path behind the endpoint. A missing slash between them is put there, a doubled one is made single.
    pub fn join(&self, path: &str) -> Result<Destination, Misled> {
        check(path)?;
        let stem = self.written.trim_end_matches('/');
        let shown = if path.starts_with('/') { [stem, path].concat() } else { [stem, "/", path].concat() };
        let uri = match is_plain(path) {
            true => self.uri(&[self.base.path().trim_end_matches('/'), path].concat()),
            false => self.read(&shown)?,
        };
        Ok(Destination { uri: uri.map_err(|error| self.unusable(&error.to_string()))?, shown })
    }

    /// A path that has to be read as browsers read it (WHATWG URL): escapes, `..`, `#`.
    fn read(&self, shown: &str) -> Result<Result<Uri, http::Error>, Misled> {
        let url = Url::parse(shown).map_err(|error| self.unusable(&error.to_string()))?;
        // What the rules of paths forgot must not lead elsewhere.
        if url.origin() != self.base.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(Misled::Path("must not lead to another host"));
        }
        let query = url.query().map(|query| ["?", query].concat()).unwrap_or_default();
        Ok(self.uri(&[url.path(), &query].concat()))
    }

    fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        let whole = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        whole.path_and_query(path).build()
    }

    fn unusable(&self, why: &str) -> Misled {
        Misled::Endpoint { endpoint: self.written.clone(), why: why.to_owned() }
    }
}

/// A path in which reading would change nothing.
fn is_plain(path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    path.starts_with('/')
        && path.bytes().all(is_plain)
        && !path.split('/').any(|segment| matches!(segment, "." | ".."))
        && query.bytes().all(|byte| is_plain(byte) || b"=&,:?".contains(&byte))
}

fn check(path: &str) -> Result<(), Misled> {
    if path.chars().any(|c| c.is_control()) {
        return Err(Misled::Path("must hold no control characters"));
    }
    let start = path.trim_start();
    if start.starts_with(['@', ':', '\\']) {
        return Err(Misled::Path("must not begin with '@', ':' or '\\'"));
    }
    if start.starts_with("//") || start.starts_with("/\\") {
        return Err(Misled::Path("must not begin with '//'"));
    }
    let scheme = start.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|s| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))) {
        return Err(Misled::Path("must be a path and no URL"));
    }
    Ok(())
}

/// Addresses that belong to the host's surroundings and not to any service: link-local ones, where clouds have their metadata,
/// and the metadata addresses elsewhere.
pub fn is_refused(address: IpAddr) -> bool {
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    const METADATA_V4: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
    match embedded(address) {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.is_multicast() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast() || v6 == METADATA_V6,
    }
}

/// The IPv4 address that an IPv6 one stands for (mapped, or translated by NAT64: RFC 6052), else the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => v6.to_canonical(),
        },
        IpAddr::V4(_) => address,
    }
}

/// The address that a URL's host is, without any look-up.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn join(endpoint: &str, path: &str) -> Result<Destination, Misled> {
        Endpoint::parse(endpoint)?.join(path)
    }

    #[rstest]
    #[case("http://h:1", "/x", "http://h:1/x", "http://h:1/x")]
    #[case("http://h:1/", "/x", "http://h:1/x", "http://h:1/x")]
    #[case("http://h:1", "x?a=1#f", "http://h:1/x?a=1#f", "http://h:1/x?a=1")]
    #[case("http://h:1/base", "/x", "http://h:1/base/x", "http://h:1/base/x")]
    #[case("http://h:1/base/", "/../x", "http://h:1/base/../x", "http://h:1/x")]
    #[case("http://h:1", "/ä b%20c", "http://h:1/ä b%20c", "http://h:1/%C3%A4%20b%20c")]
    #[case("https://[::1]:8443", "/x@y:80", "https://[::1]:8443/x@y:80", "https://[::1]:8443/x@y:80")]
    #[case("http://h", "/go?to=http://e/", "http://h/go?to=http://e/", "http://h/go?to=http://e/")]
    fn a_path_is_put_behind_the_endpoint(
        #[case] endpoint: &str,
        #[case] path: &str,
        #[case] shown: &str,
        #[case] url: &str,
    ) {
        let joined = join(endpoint, path).expect("a good path");
        assert_eq!((joined.shown, joined.uri.to_string()), (shown.to_owned(), url.to_owned()));
    }

    #[rstest]
    #[case("@evil:80/x")]
    #[case(":80@evil/x")]
    #[case("//evil/x")]
    #[case("/\\evil/x")]
    #[case("\\\\evil/x")]
    #[case("http://evil/x")]
    #[case(" @evil/x")]
    #[case("\t//evil")]
    #[case("/x\r\nHost: evil")]
    fn a_path_does_not_leave_the_droplet(#[case] path: &str) {
        assert!(matches!(join("http://h:1", path), Err(Misled::Path(_))), "{path:?}");
    }

    #[rstest]
    #[case("ftp://h/")]
    #[case("h:80")]
    #[case("http://user@h/")]
    #[case("http://h/?q")]
    #[case("")]
    fn an_endpoint_must_be_one(#[case] endpoint: &str) {
        assert!(matches!(join(endpoint, "/x"), Err(Misled::Endpoint { .. })), "{endpoint:?}");
    }

    #[rstest]
    #[case("169.254.169.254", true)]
    #[case("::ffff:169.254.169.254", true)]
    #[case("fe80::1", true)]
    #[case("fd00:ec2::254", true)]
    #[case("64:ff9b::a9fe:a9fe", true)]
    #[case("100.100.100.200", true)]
    #[case("192.0.0.192", true)]
    #[case("127.0.0.1", false)]
    #[case("10.0.0.1", false)]
    #[case("::1", false)]
    #[case("64:ff9b::a00:1", false)]
    fn surroundings_are_refused(#[case] address: &str, #[case] refused: bool) {
        assert_eq!(is_refused(address.parse().expect("an address")), refused);
    }

    proptest::proptest! {
        #[test]
        fn no_path_leads_elsewhere(path in "\\PC{0,40}") {
            if let Ok(joined) = join("http://h:1/base", &path) {
                proptest::prop_assert_eq!(joined.uri.authority().map(Authority::as_str), Some("h:1"));
            }
        }

        #[test]
        fn a_plain_path_is_what_it_would_be_read_as(path in "/[a-z./~?=&,:-]{0,20}", end in "(|/|/base|/base//)") {
            let endpoint = Endpoint::parse(&format!("http://H:1{end}")).expect("an endpoint");
            if let Ok(joined) = endpoint.join(&path) {
                let read = endpoint.read(&joined.shown).expect("it leads here").expect("a URI");
                proptest::prop_assert_eq!(joined.uri, read);
            }
        }
    }
}
