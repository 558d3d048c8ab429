//! Results that go out over HTTP, to whoever a task names; not to addresses of [`is_refused`], whether the URL names one or its host
//! leads to it.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Method, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header, redirect,
};
use serde_json::Value;
use tracing::info;

use crate::droplets::address::{is_refused, literal};

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Whom, and how. Headers and URL may hold secrets.
pub struct Letter<'l> {
    pub url: &'l str,
    pub method: &'l str,
    pub headers: &'l [(String, String)],
    /// For all of one try.
    pub timeout: Duration,
    /// Further tries after a failure; before the `n`th it is waited `n` times as long.
    pub retries: u32,
    pub backoff: Duration,
}

/// A client. Clones share its connections.
#[derive(Clone)]
pub struct Outbox(Client);

impl Outbox {
    /// Fails only when the host cannot give a TLS client.
    pub fn new() -> Result<Self, reqwest::Error> {
        rustls::crypto::ring::default_provider().install_default().ok();
        // A redirect would take headers to where nobody wanted them.
        let client = Client::builder().redirect(redirect::Policy::none()).connect_timeout(CONNECTS_WITHIN);
        client.dns_resolver(Arc::new(Careful)).build().map(Self)
    }

    /// Until it is answered with 2xx, or there are no more tries. The error names neither URL nor headers. Cancel-safe, though it may have
    /// arrived.
    pub async fn send(&self, letter: &Letter<'_>, document: &Value) -> Result<(), String> {
        let url = Url::parse(letter.url).map_err(|error| format!("its URL is none: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("its URL is not one of http or https".to_owned());
        }
        if url.host_str().and_then(literal).is_some_and(is_refused) {
            return Err("nothing is sent to link-local addresses".to_owned());
        }
        let method = Method::from_bytes(letter.method.as_bytes()).map_err(|_| "its method is none".to_owned())?;
        let mut tries = 0;
        loop {
            match self.once(method.clone(), url.clone(), letter, document).await {
                Ok(()) => return Ok(()),
                Err(error) if tries >= letter.retries => return Err(error),
                Err(error) => info!(error, "a result is not taken; it is tried again"),
            }
            tries += 1;
            tokio::time::sleep((letter.backoff * tries).min(LONGEST_PAUSE)).await;
        }
    }

    async fn once(&self, method: Method, url: Url, letter: &Letter<'_>, document: &Value) -> Result<(), String> {
        let mut request = self.0.request(method, url).timeout(letter.timeout);
        if !letter.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header::CONTENT_TYPE.as_str())) {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in letter.headers {
            request = request.header(name, value);
        }
        match request.body(document.to_string()).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it was answered with {}", answer.status())),
            Err(error) => Err(causes(&error.without_url())),
        }
    }
}

/// The system's resolver without the addresses that nothing is sent to. What it answers is what is connected to.
struct Careful;

impl Resolve for Careful {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let fine: Vec<SocketAddr> = found.filter(|address| !is_refused(address.ip())).collect();
            if fine.is_empty() {
                return Err(Box::from("its host leads to link-local addresses, and nothing is sent to these"));
            }
            Ok(Box::new(fine.into_iter()) as Addrs)
        })
    }
}

fn causes(error: &reqwest::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        told = format!("{told}: {cause}");
        source = cause.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://169.254.169.254/latest", "POST", "nothing is sent to link-local addresses")]
    #[case("http://[fe80::1]/", "POST", "nothing is sent to link-local addresses")]
    #[case("http://[::ffff:169.254.0.1]/", "POST", "nothing is sent to link-local addresses")]
    #[case("file:///etc/passwd", "POST", "its URL is not one of http or https")]
    #[case("somewhere", "POST", "its URL is none: relative URL without a base")]
    #[case("http://127.0.0.1:1/", "PO ST", "its method is none")]
    #[tokio::test]
    async fn what_must_not_go_out_is_told_at_once(#[case] url: &str, #[case] method: &str, #[case] why: &str) {
        let timeout = Duration::from_secs(60);
        let letter = Letter { url, method, headers: &[], timeout, retries: 10, backoff: timeout };
        let sent = Outbox::new().expect("a client").send(&letter, &Value::Null).await;
        assert_eq!(sent, Err(why.to_owned()));
    }
}
