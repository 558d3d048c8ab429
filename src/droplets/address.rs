//! Where the path of a request leads at a droplet, and which addresses nobody is sent to.
//!
//! The original put both texts together, so that a caller could choose another host (`@host/x`). Here a path never leaves the
//! droplet's scheme, host and port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// A request's destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// As it is reported: as it was written.
    pub shown: String,
    /// As it is asked.
    pub url: Url,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misled {
    #[error("path: {0}")]
    Path(&'static str),
    #[error("the droplet's endpoint {endpoint:?} cannot be used: {why}")]
    Endpoint { endpoint: String, why: String },
}

/// The path behind the endpoint. A missing slash between them is put there, a doubled one is made single.
pub fn join(endpoint: &str, path: &str) -> Result<Destination, Misled> {
    let unusable = |why: &str| Misled::Endpoint { endpoint: endpoint.to_owned(), why: why.to_owned() };
    let base = Url::parse(endpoint).map_err(|error| unusable(&error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(unusable("only http and https are spoken"));
    }
    if base.host().is_none() || !base.username().is_empty() || base.password().is_some() {
        return Err(unusable("it must have a host, and no user name"));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(unusable("it must have no query and no fragment"));
    }
    check(path)?;
    let stem = endpoint.trim_end_matches('/');
    let shown = if path.starts_with('/') { format!("{stem}{path}") } else { format!("{stem}/{path}") };
    let mut url = Url::parse(&shown).map_err(|error| unusable(&error.to_string()))?;
    url.set_fragment(None);
    // What the rules above forgot must not lead elsewhere.
    if url.origin() != base.origin() || !url.username().is_empty() || url.password().is_some() {
        return Err(Misled::Path("must not lead to another host"));
    }
    Ok(Destination { shown, url })
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

/// The address that a URL names without any look-up.
pub fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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
        assert_eq!((joined.shown.as_str(), joined.url.as_str()), (shown, url));
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
                proptest::prop_assert_eq!(joined.url.host_str(), Some("h"));
                proptest::prop_assert_eq!(joined.url.port(), Some(1));
                proptest::prop_assert_eq!(joined.url.username(), "");
            }
        }
    }
}
