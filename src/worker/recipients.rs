//! Who may have results beside the server. A document names whom it likes, and the worker would send in its own name from its own
//! network: what is allowed there is for its owner to say.

use std::str::FromStr;

use reqwest::Url;

/// None are named: everybody may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

/// As it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// Whoever is named beside it.
    Nobody,
    /// Over http or https; None: at any port.
    Host { host: String, port: Option<u16> },
    /// This URL, and what is below its path.
    Below(Url),
}

impl Recipients {
    /// These and no others; if there are none, all.
    pub fn only(named: Vec<Recipient>) -> Self {
        Self(named)
    }

    /// Err: why nothing may be sent there. It names the host alone, for the rest may hold secrets.
    pub fn check(&self, url: &str) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let url = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
        if self.0.iter().any(|recipient| recipient.allows(&url)) {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        Err(format!("this worker may not deliver there ({host}): it is not among those of its --deliver-to"))
    }
}

impl Recipient {
    fn allows(&self, url: &Url) -> bool {
        if !matches!(url.scheme(), "http" | "https") {
            return false;
        }
        match self {
            Recipient::Nobody => false,
            Recipient::Host { host, port } => {
                url.host_str() == Some(host.as_str())
                    && port.is_none_or(|port| url.port_or_known_default() == Some(port))
            }
            Recipient::Below(base) => {
                let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port());
                origin(url) == origin(base) && is_below(url.path(), base.path())
            }
        }
    }
}

/// Dots in paths are resolved by now. A slash that is written as `%2f` may hide some from us and not from who gets it.
fn is_below(path: &str, base: &str) -> bool {
    let base = base.trim_end_matches('/');
    let hides = || ["%2f", "%5c"].iter().any(|hidden| path.to_ascii_lowercase().contains(hidden));
    match path.strip_prefix(base) {
        Some(_) if base.is_empty() => true,
        Some(rest) => (rest.is_empty() || rest.starts_with('/')) && !hides(),
        None => false,
    }
}

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "nobody" {
            return Ok(Recipient::Nobody);
        }
        let whole = text.contains("://");
        let url = Url::parse(&if whole { text.to_owned() } else { format!("http://{text}/") });
        let url = url.map_err(|error| format!("{text:?} is neither a host nor a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{text:?} must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{text:?} must be a host, or a URL without user, query and fragment"));
        }
        match url.host_str() {
            _ if whole => Ok(Recipient::Below(url)),
            Some(host) if url.path() == "/" && !text.contains('/') => {
                // Of a URL the usual port is left out.
                let port = text.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
                Ok(Recipient::Host { host: host.to_owned(), port: port.and_then(|(_, port)| port.parse().ok()) })
            }
            _ => Err(format!("{text:?} is no host; a URL begins with http:// or https://")),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn allowed(named: &str, url: &str) -> Result<(), String> {
        let named = named.split(',').filter(|text| !text.is_empty()).map(|text| text.parse().expect("a recipient"));
        Recipients::only(named.collect()).check(url)
    }

    #[rstest]
    #[case("", "http://anywhere/x")]
    #[case("Example.com", "https://example.COM:8443/hook?x=1")]
    #[case("example.com:443", "https://example.com/hook")]
    #[case("example.com:80", "http://example.com/hook")]
    #[case("10.0.0.7", "http://10.0.0.7:9/x")]
    #[case("[::1]:8443", "https://[::1]:8443/x")]
    #[case("[::1]", "https://[::1]/x")]
    #[case("a,b", "http://b/")]
    #[case("nobody,b", "http://b/")]
    #[case("https://example.com", "https://example.com/anything%2felse")]
    #[case("https://example.com/hooks/", "https://example.com/hooks")]
    #[case("https://example.com/hooks", "https://example.com:443/hooks/a?token=1")]
    fn it_is_among_those(#[case] named: &str, #[case] url: &str) {
        assert_eq!(allowed(named, url), Ok(()));
    }

    #[rstest]
    #[case("nobody", "http://b/", "(b)")]
    #[case("example.com", "http://example.com.evil.net/", "(example.com.evil.net)")]
    #[case("example.com", "http://example.com@evil.net/", "(evil.net)")]
    #[case("example.com", "http://sub.example.com/", "(sub.example.com)")]
    #[case("example.com", "ftp://example.com/", "(example.com)")]
    #[case("example.com:443", "http://example.com/", "(example.com)")]
    #[case("https://example.com", "http://example.com/", "(example.com)")]
    #[case("https://example.com:1", "https://example.com/", "(example.com)")]
    #[case("https://example.com/hooks", "https://example.com/hooksandmore", "(example.com)")]
    #[case("https://example.com/hooks", "https://example.com/hooks/../admin", "(example.com)")]
    #[case("https://example.com/hooks", "https://example.com/hooks/%2e%2e/admin", "(example.com)")]
    #[case("https://example.com/hooks", "https://example.com/hooks/..%2Fadmin", "(example.com)")]
    #[case("example.com", "somewhere?secret", "is no URL")]
    fn it_is_not_and_is_told_so_without_secrets(#[case] named: &str, #[case] url: &str, #[case] told: &str) {
        let why = allowed(named, url).expect_err("refused");
        assert!(why.contains(told) && !why.contains("secret"), "{why}");
    }

    #[rstest]
    #[case("")]
    #[case("exa mple")]
    #[case("example.com/hooks")]
    #[case("user@example.com")]
    #[case("example.com:port")]
    #[case("ftp://example.com")]
    #[case("https://u:p@example.com")]
    #[case("https://example.com/?q")]
    #[case("https://example.com/#f")]
    #[case("://x")]
    fn what_is_no_recipient_is_told_with_its_text(#[case] text: &str) {
        let why = text.parse::<Recipient>().expect_err("refused");
        assert!(why.contains(text), "{why}");
    }
}
