//! Probes: one look at whether a container answers. How often, and what follows, is decided elsewhere.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::net::TcpStream;

use super::containers::{Container, ContainerId, ContainerState, Containers, EngineError, EngineHealth};
use crate::api::{
    container::Protocol,
    workload::{HttpProbe, HttpScheme, Probe},
};

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    Success,
    Failure(String),
    /// Nothing was found out: no engine to ask, no address to ask at, no verdict yet. Counts neither way.
    Unknown(String),
}

/// Whoever can look.
pub trait Probes: Send + Sync + 'static {
    /// One look at `target`, which the caller has just inspected. Ends within `timeout`.
    fn probe<'a>(&'a self, target: &'a Container, action: &'a Probe, timeout: Duration) -> BoxFuture<'a, ProbeOutcome>;

    /// The models that `target` says it serves: `data[].id` of what an OpenAI-compatible server answers at `path`.
    fn models<'a>(
        &'a self,
        target: &'a Container,
        port: u16,
        path: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, String>>;
}

/// Probes over the network and through the engine.
pub struct NetworkProbes {
    containers: Arc<dyn Containers>,
    client: reqwest::Client,
}

impl NetworkProbes {
    /// Fails only when the host cannot give a TLS client.
    pub fn new(containers: Arc<dyn Containers>) -> Result<Self, reqwest::Error> {
        // Somebody else in this process may have chosen a provider already; any will do.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(true)
            .no_proxy()
            // A kept connection would go on answering for a process that no longer accepts new ones.
            .pool_max_idle_per_host(0)
            .user_agent("gaia-probe")
            .build()?;
        Ok(Self { containers, client })
    }

    async fn http(&self, target: &Container, probe: &HttpProbe, timeout: Duration) -> ProbeOutcome {
        let Some(address) = address(target, probe.port) else { return no_address(probe.port) };
        let scheme = match probe.scheme.unwrap_or_default() {
            HttpScheme::HTTP => "http",
            HttpScheme::HTTPS => "https",
        };
        let slash = if probe.path.starts_with('/') { "" } else { "/" };
        let url = format!("{scheme}://{address}{slash}{}", probe.path);
        // The head decides; dropping the response closes the connection and leaves the body unread.
        match self.client.get(&url).timeout(timeout).send().await {
            Ok(response) if (200..400).contains(&response.status().as_u16()) => ProbeOutcome::Success,
            Ok(response) => ProbeOutcome::Failure(format!("GET {url}: {}", response.status())),
            Err(error) => ProbeOutcome::Failure(format!("GET {url}: {}", innermost(&error))),
        }
    }

    async fn tcp(&self, target: &Container, port: u16, timeout: Duration) -> ProbeOutcome {
        let Some(address) = address(target, port) else { return no_address(port) };
        match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(Ok(_)) => ProbeOutcome::Success,
            Ok(Err(error)) => ProbeOutcome::Failure(format!("connecting to {address}: {error}")),
            Err(_) => ProbeOutcome::Failure(format!("connecting to {address}: no answer in time")),
        }
    }
}

impl Probes for NetworkProbes {
    fn probe<'a>(&'a self, target: &'a Container, action: &'a Probe, timeout: Duration) -> BoxFuture<'a, ProbeOutcome> {
        async move {
            if target.state != ContainerState::Running {
                return ProbeOutcome::Failure("the container does not run".to_owned());
            }
            if let Some(http) = &action.http {
                self.http(target, http, timeout).await
            } else if let Some(tcp) = &action.tcp {
                self.tcp(target, tcp.port, timeout).await
            } else if let Some(exec) = &action.exec {
                probe_exec(&*self.containers, &target.id, &exec.command, timeout).await
            } else {
                probe_engine_health(target)
            }
        }
        .boxed()
    }

    fn models<'a>(
        &'a self,
        target: &'a Container,
        port: u16,
        path: &'a str,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, String>> {
        async move {
            let Some(address) = address(target, port) else {
                return Err(format!("the container has no address at which port {port} could be asked"));
            };
            let slash = if path.starts_with('/') { "" } else { "/" };
            let url = format!("http://{address}{slash}{path}");
            let asking = async {
                let response = self.client.get(&url).send().await.map_err(|error| innermost(&error))?;
                if !response.status().is_success() {
                    return Err(response.status().to_string());
                }
                read_models(response).await
            };
            let answer =
                tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            answer.map_err(|why| format!("GET {url}: {why}"))
        }
        .boxed()
    }
}

/// Lists of models are short; whatever sends more than this is something else.
const MOST_OF_A_LIST: usize = 1024 * 1024;

async fn read_models(mut response: reqwest::Response) -> Result<Vec<String>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_OF_A_LIST {
            return Err("the answer is too long for a list of models".to_owned());
        }
    }
    models_in(&body)
}

fn models_in(body: &[u8]) -> Result<Vec<String>, String> {
    let answer: serde_json::Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    let data = answer["data"].as_array().ok_or("there is no list `data` in the answer")?;
    Ok(data.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}

/// A command in the container; 0 passes.
pub(super) async fn probe_exec(
    containers: &dyn Containers,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> ProbeOutcome {
    match containers.exec(id, command, timeout).await {
        Ok(result) if result.exit_code == 0 => ProbeOutcome::Success,
        Ok(result) => ProbeOutcome::Failure(format!("exit code {}: {}", result.exit_code, result.output.trim())),
        Err(error @ EngineError::Unreachable(_)) => ProbeOutcome::Unknown(error.to_string()),
        // Among others a command that ran out of time: it hangs, and that is a failure.
        Err(error @ (EngineError::MayHaveTakenEffect(_) | EngineError::Terminal { .. } | EngineError::NotFound(_))) => {
            ProbeOutcome::Failure(error.to_string())
        }
    }
}

/// The verdict of the engine's own health check, as inspected.
pub(super) fn probe_engine_health(target: &Container) -> ProbeOutcome {
    match target.health {
        Some(EngineHealth::Healthy) => ProbeOutcome::Success,
        Some(EngineHealth::Unhealthy) => ProbeOutcome::Failure("the engine's health check fails".to_owned()),
        Some(EngineHealth::Starting) => {
            ProbeOutcome::Unknown("the engine's health check has no verdict yet".to_owned())
        }
        None => ProbeOutcome::Unknown("the container has no health check".to_owned()),
    }
}

/// The container's own address, else (host networking, an engine elsewhere) where the port is published.
pub(super) fn address(target: &Container, port: u16) -> Option<SocketAddr> {
    let own = target.attachments.iter().find_map(|attachment| attachment.ip.as_ref()?.parse::<IpAddr>().ok());
    if let Some(ip) = own {
        return Some(SocketAddr::new(ip, port));
    }
    let published = target
        .ports
        .iter()
        .find(|published| published.container_port == port && published.protocol == Protocol::TCP)?;
    let ip: IpAddr = published.host_ip.parse().ok()?;
    let loopback = if ip.is_ipv6() { "::1" } else { "127.0.0.1" };
    let ip = if ip.is_unspecified() { loopback.parse().ok()? } else { ip };
    Some(SocketAddr::new(ip, published.host_port))
}

fn no_address(port: u16) -> ProbeOutcome {
    ProbeOutcome::Unknown(format!("the container has no address at which port {port} could be asked"))
}

/// What lies at the bottom of an error: "connection refused" rather than "error sending request".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::vllm(r#"{"object": "list", "data": [{"id": "qwen3", "object": "model"}, {"id": "b"}]}"#, Ok(vec!["qwen3", "b"]))]
    #[case::none_yet(r#"{"data": []}"#, Ok(Vec::new()))]
    #[case::without_ids(r#"{"data": [{"name": "x"}]}"#, Ok(Vec::new()))]
    #[case::another_answer(r#"{"models": []}"#, Err("there is no list `data` in the answer"))]
    fn models_are_the_ids_of_data(#[case] body: &str, #[case] expected: Result<Vec<&str>, &str>) {
        let expected = expected.map(|ids| ids.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
        assert_eq!(models_in(body.as_bytes()), expected);
    }
}
