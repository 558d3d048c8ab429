//! Results that go out over HTTP, to whoever a task names. Tried once; trying again is the caller's.

use std::time::Duration;

use reqwest::{Client, Method, header, redirect};
use serde_json::Value;

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);

/// Whom, and how. Headers and URL may hold secrets.
pub struct Letter<'l> {
    pub url: &'l str,
    pub method: &'l str,
    pub headers: &'l [(String, String)],
    /// For all of it.
    pub timeout: Duration,
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
        client.build().map(Self)
    }

    /// Taken when it is answered with 2xx. The error names neither URL nor headers.
    pub async fn send(&self, letter: &Letter<'_>, document: &Value) -> Result<(), String> {
        let method = Method::from_bytes(letter.method.as_bytes()).map_err(|_| "its method is none".to_owned())?;
        let mut request = self.0.request(method, letter.url).timeout(letter.timeout);
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

fn causes(error: &reqwest::Error) -> String {
    let mut told = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        told = format!("{told}: {cause}");
        source = cause.source();
    }
    told
}
