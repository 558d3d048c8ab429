//! One server, spoken to over HTTP as any other client would: requests out, objects or a clear refusal back.

use std::{fmt::Display, future::Future, path::PathBuf, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Request, Response, Uri, header},
};
use clap::Args;
use futures::{StreamExt, stream::BoxStream};
use http_body_util::BodyExt;
use kube::{
    Api, Client, Resource,
    client::Body,
    core::{Status, WatchEvent},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use super::{
    CliError,
    error::{Refusal, while_},
};
use crate::config::DEFAULT_LISTEN;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of one request and its whole answer. Watches have none: they end when the user does.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Of an answer that is not a stream.
const MAX_ANSWER: usize = 256 << 20;

/// Accept header for the server's own rendering as a table.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Which server a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// URL of the server
    #[arg(long, env = "GAIA_SERVER", default_value_t = format!("http://{DEFAULT_LISTEN}"), value_name = "URL")]
    pub server: String,
    /// Bearer token, when the server asks for one
    #[arg(long, env = "GAIA_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Trust the server's certificate by this file of authorities, in PEM [default: those of this host]
    #[arg(long, env = "GAIA_CERTIFICATE_AUTHORITY", value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Trust any certificate: whoever is in between can read the token
    #[arg(long, env = "GAIA_INSECURE_SKIP_TLS_VERIFY", conflicts_with = "certificate_authority")]
    pub insecure_skip_tls_verify: bool,
}

impl ServerArgs {
    /// A server without tokens and TLS, as that of this process.
    pub fn open(server: String) -> Self {
        Self { server, token: None, certificate_authority: None, insecure_skip_tls_verify: false }
    }

    /// The authorities to trust instead of the host's, in PEM.
    pub fn authorities(&self) -> Result<Option<Vec<u8>>, CliError> {
        let Some(file) = &self.certificate_authority else { return Ok(None) };
        let text = std::fs::read(file).map_err(CliError::file(format!("cannot read {}", file.display())))?;
        let none = |why: &dyn Display| {
            let file = file.display();
            CliError::Usage(format!("--certificate-authority: {file} holds no certificate in PEM: {why}"))
        };
        match CertificateDer::pem_slice_iter(&text).next() {
            Some(Ok(_)) => Ok(Some(text)),
            Some(Err(error)) => Err(none(&error)),
            None => Err(none(&"there is none in it")),
        }
    }

    /// The server's URL, checked.
    pub fn url(&self) -> Result<Uri, CliError> {
        let wrong = |why: &dyn Display| CliError::Usage(format!("--server {:?} is not a URL: {why}", self.server));
        let url: Uri = self.server.parse().map_err(|e| wrong(&e))?;
        match url.scheme_str() {
            Some("http" | "https") => Ok(url),
            _ => Err(wrong(&"it must begin with http:// or https://")),
        }
    }
}

/// Runs a client command to its end on a runtime of its own.
pub fn block_on<T>(command: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::file("cannot start the runtime"))?
        .block_on(command)
}

/// In DER, one by one.
fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).flatten().map(|certificate| certificate.to_vec()).collect()
}

/// A connection to a server. Says nothing to it until the first request.
pub struct Session {
    client: Client,
    server: String,
}

impl Session {
    /// Must be called inside a runtime.
    pub fn connect(args: &ServerArgs) -> Result<Self, CliError> {
        let url = args.url()?;
        let mut config = kube::Config::new(url);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.accept_invalid_certs = args.insecure_skip_tls_verify;
        config.root_cert = args.authorities()?.map(|pem| certificates(&pem));
        config.auth_info.token = args.token.clone().map(Into::into);
        config.headers.push((header::USER_AGENT, header::HeaderValue::from_static(super::FIELD_MANAGER)));
        let client = Client::try_from(config)
            .map_err(|e| CliError::Usage(format!("cannot talk to --server {}: {e}", args.server)))?;
        Ok(Self { client, server: args.server.clone() })
    }

    /// Sends a request and reads the whole answer. Warnings of the server go to stderr.
    pub async fn ask(&self, request: Request<Vec<u8>>) -> Result<Value, Refusal> {
        let bytes = self.fetch(request).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.unreachable(&e))
    }

    /// As [`ask`](Self::ask), whatever the answer is.
    pub async fn fetch(&self, request: Request<Vec<u8>>) -> Result<Bytes, Refusal> {
        let answer = async {
            let response = self.client.send(request.map(Body::from)).await.map_err(|e| self.unreachable(&e))?;
            show_warnings(response.headers());
            read(response).await.map_err(|e| self.unreachable(&*e))?
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unreachable {
                server: self.server.clone(),
                why: format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()),
            }),
        }
    }

    /// Sends a request and hands on the answer as it comes, however large; answers how many bytes it was. A silence ends it, not
    /// the time that all of it takes.
    pub async fn stream(
        &self,
        request: Request<Vec<u8>>,
        mut take: impl FnMut(&[u8]) -> Result<(), CliError>,
        doing: &str,
    ) -> Result<u64, CliError> {
        let silent = |_| Refusal::Unreachable {
            server: self.server.clone(),
            why: format!("nothing came for {} s", REQUEST_TIMEOUT.as_secs()),
        };
        let failed = |refusal: Refusal| while_(doing.to_owned())(refusal);
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, self.client.send(request.map(Body::from))).await;
        let response = sent.map_err(silent).map_err(failed)?.map_err(|error| failed(self.unreachable(&error)))?;
        if !response.status().is_success() {
            let told = tokio::time::timeout(REQUEST_TIMEOUT, read(response)).await.map_err(silent).map_err(failed)?;
            let refused = told.map_err(|error| failed(self.unreachable(&*error)))?;
            return Err(refused.err().map_or_else(|| CliError::Failed(doing.to_owned()), failed));
        }
        let mut chunks = response.into_body().into_data_stream();
        let mut length = 0;
        while let Some(chunk) =
            tokio::time::timeout(REQUEST_TIMEOUT, chunks.next()).await.map_err(silent).map_err(failed)?
        {
            let chunk = chunk.map_err(|error| failed(self.unreachable(&error)))?;
            length += chunk.len() as u64;
            take(&chunk)?;
        }
        Ok(length)
    }

    /// As [`ask`](Self::ask), answered as a table.
    pub async fn ask_table(&self, request: Request<Vec<u8>>) -> Result<Value, Refusal> {
        self.ask(accepting(request, TABLE)).await
    }

    /// Opens a watch whose objects are tables of one row.
    pub async fn watch_tables(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<BoxStream<'static, kube::Result<WatchEvent<Value>>>, Refusal> {
        let events = self.client.request_events(accepting(request, TABLE)).await.map_err(|e| self.refused(e))?;
        Ok(events.boxed())
    }

    /// The objects of one of our kinds, of all namespaces.
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// For what kube does better than we: watches of typed objects.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What went wrong, in terms of the server.
    pub fn refused(&self, error: kube::Error) -> Refusal {
        match error {
            kube::Error::Api(status) => Refusal::Status(status),
            other => self.unreachable(&other),
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Refusal {
        Refusal::Unreachable { server: self.server.clone(), why: super::error::chain(error) }
    }
}

fn accepting(mut request: Request<Vec<u8>>, accept: &'static str) -> Request<Vec<u8>> {
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static(accept));
    request
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The outer error is the transport's, the inner one the server's.
async fn read(response: Response<Body>) -> Result<Result<Bytes, Refusal>, BoxError> {
    let code = response.status();
    let bytes = axum::body::to_bytes(axum::body::Body::new(response.into_body()), MAX_ANSWER).await?;
    if code.is_success() {
        return Ok(Ok(bytes));
    }
    // A facade has words of its own, and so may a proxy in between.
    let told = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
    let status = serde_json::from_value(told.clone()).ok().filter(|_| told["kind"] == "Status").unwrap_or_else(|| {
        let text = match &told["detail"] {
            Value::Null => String::from_utf8_lossy(&bytes).into_owned(),
            Value::String(detail) => detail.clone(),
            // FPAI's form.
            other => other["error"]["message"].as_str().map_or_else(|| other.to_string(), str::to_owned),
        };
        Status::failure(if text.is_empty() { code.as_str() } else { text.trim() }, "").with_code(code.as_u16())
    });
    Ok(Err(Refusal::Status(Box::new(status))))
}

/// `Warning: 299 - "text"`, as RFC 9111 writes them.
fn show_warnings(headers: &HeaderMap) {
    for value in headers.get_all(header::WARNING).iter().filter_map(|v| v.to_str().ok()) {
        let text = value.splitn(3, ' ').nth(2).unwrap_or(value);
        eprintln!("Warning: {}", text.trim_matches('"').replace("\\\"", "\""));
    }
}
