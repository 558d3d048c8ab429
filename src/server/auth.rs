//! Who may come in: a bearer token opens everything. When no tokens are set nobody is asked, but for browsers: a page of
//! another site that a user happens to have open must not steer the server on the user's own host.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, header, uri::Authority},
    response::Response,
};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{path, reply};
use crate::registry::{ApiError, Reason};

/// The tokens that are let in; none means everybody is.
#[derive(Clone, Default)]
pub struct Auth {
    tokens: Arc<Vec<String>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("tokens", &self.tokens.len()).finish()
    }
}

impl Auth {
    /// Empty tokens are passed over: an empty line in a file must not let in who sends none.
    pub fn tokens(tokens: impl IntoIterator<Item = String>) -> Self {
        Self { tokens: Arc::new(tokens.into_iter().filter(|token| !token.is_empty()).collect()) }
    }

    pub fn open() -> Self {
        Self::default()
    }

    /// Is nobody asked for a token?
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The answer to whoever is not let in: 401 without a token, 403 for a page of another site. The health checks are open.
    pub(super) fn refused(&self, request: &Request) -> Option<Response> {
        let (reason, message) = if !self.admits(request.headers()) {
            (Reason::Unauthorized, "Unauthorized")
        } else if self.is_open() && is_of_another_site(request) {
            (
                Reason::Forbidden,
                "this request comes from a page of another site; without tokens only our own pages are served",
            )
        } else if self.is_open() && is_by_another_name(request) {
            let message = "without tokens the server answers only to an address, or a name without dots or below localhost or internal";
            (Reason::Forbidden, message)
        } else {
            return None;
        };
        (!is_open_to_all(request.uri().path())).then(|| reply::error(&ApiError::new(reason, message)))
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        self.is_open() || self.number(headers).is_some()
    }

    /// Which of the tokens a request shows, from 1.
    pub fn number(&self, headers: &HeaderMap) -> Option<usize> {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        // Every token is compared, in time that does not depend on where they differ.
        let given = given?.as_bytes();
        let number =
            self.tokens.iter().zip(1_u64..).fold(0, |found, (token, number)| {
                u64::conditional_select(&found, &number, token.as_bytes().ct_eq(given))
            });
        usize::try_from(number).ok().filter(|number| *number > 0)
    }
}

/// What opens to everybody: a supervisor has no token.
fn is_open_to_all(path: &str) -> bool {
    match path::parse(path) {
        path::Target::Healthz | path::Target::Livez | path::Target::Readyz => true,
        // Of a facade, and no path of ours.
        path::Target::Unknown => path == "/health",
        path::Target::Root
        | path::Target::Version
        | path::Target::Metrics
        | path::Target::LegacyVersions
        | path::Target::Groups
        | path::Target::Group(_)
        | path::Target::GroupVersion { .. }
        | path::Target::OpenApiV2
        | path::Target::OpenApiV3Index
        | path::Target::OpenApiV3 { .. }
        | path::Target::WebSocketWatch
        | path::Target::SseWatch
        | path::Target::Resource(_) => false,
    }
}

/// Only browsers send an Origin. WebSockets and simple POSTs come without their asking first, so it is for us to look.
fn is_of_another_site(request: &Request) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    origin.is_none() || origin != host(request)
}

/// Anybody can have a name in the DNS point at this host and make a browser believe that his page and we are one site. A
/// name without dots is in nobody's zone, and neither are those that the DNS keeps free for private use (RFC 6761; ICANN on
/// `.internal`): Docker gives the host the name `host.docker.internal`.
fn is_by_another_name(request: &Request) -> bool {
    let Some(host) = host(request).and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let private = [".localhost", ".internal"].iter().any(|zone| name.trim_end_matches('.').ends_with(zone));
    !address && !private && name.contains('.')
}

fn host(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| request.uri().authority().map(Authority::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().expect("a header value"));
        headers
    }

    #[test]
    fn only_a_known_token_is_let_in() {
        let auth = Auth::tokens(["one".to_owned(), "two".to_owned(), String::new()]);
        assert!(auth.admits(&headers("Bearer two")));
        assert!(auth.admits(&headers("bearer one")));
        assert_eq!((auth.number(&headers("Bearer one")), auth.number(&headers("Bearer two"))), (Some(1), Some(2)));
        for refused in ["Bearer three", "Bearer ", "Bearer on", "Basic one", "one"] {
            assert!(!auth.admits(&headers(refused)), "{refused:?} was let in");
        }
        assert!(!auth.admits(&HeaderMap::new()));
        assert!(Auth::open().admits(&HeaderMap::new()));
    }

    #[rstest::rstest]
    #[case(None, false)]
    #[case(Some("http://127.0.0.1:8080"), false)]
    #[case(Some("http://127.0.0.1:9090"), true)]
    #[case(Some("https://elsewhere.example"), true)]
    #[case(Some("null"), true)]
    fn pages_of_other_sites_are_known(#[case] origin: Option<&str>, #[case] foreign: bool) {
        let mut request = Request::builder().uri("/ws/watch").header(header::HOST, "127.0.0.1:8080");
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let request = request.body(axum::body::Body::empty()).expect("a well-formed request");
        assert_eq!(is_of_another_site(&request), foreign);
    }

    #[rstest::rstest]
    #[case("127.0.0.1:6410", false)]
    #[case("[::1]:6410", false)]
    #[case("localhost:6410", false)]
    #[case("orchestrator", false)]
    #[case("host.docker.internal:6410", false)]
    #[case("gaia.localhost", false)]
    #[case("internal.rebound.example", true)]
    #[case("rebound.example:6410", true)]
    #[case("127.0.0.1.rebound.example", true)]
    fn names_that_anybody_can_have_are_known(#[case] host: &str, #[case] foreign: bool) {
        let request = Request::builder().uri("/apis").header(header::HOST, host);
        let request = request.body(axum::body::Body::empty()).expect("a well-formed request");
        assert_eq!(is_by_another_name(&request), foreign);
    }

    #[test]
    fn tokens_are_not_printed() {
        assert!(!format!("{:?}", Auth::tokens(["secret".to_owned()])).contains("secret"));
    }
}
