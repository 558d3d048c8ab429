//! Services made of memory: a process that answers probes answers requests, and does about its memory on cards what those
//! known to GAIA's steps ask of it.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};

use super::containers::{Asked, SimulatedContainers, Wish};
use crate::adapters::{
    containers::Container,
    peers::{Peer, PeerError, PeerRequest, Peers},
};

#[derive(Clone)]
pub struct SimulatedPeers {
    containers: SimulatedContainers,
}

impl SimulatedPeers {
    pub fn new(containers: SimulatedContainers) -> Self {
        Self { containers }
    }

    async fn ask(
        &self,
        container: &Container,
        path: &str,
        body: Option<&str>,
        timeout: Duration,
    ) -> Result<String, PeerError> {
        let name = &container.name;
        match self.containers.ask(&container.id, path, wish(path, body), timeout).await {
            Asked::Answered { holds } => Ok(answer(path, &container.image, holds).to_string()),
            Asked::Refused => Err(PeerError::Refused(format!("{name}{path}: 503 Service Unavailable"))),
            Asked::Silent => Err(PeerError::Unreachable(format!("{name} does not answer"))),
        }
    }
}

impl Peers for SimulatedPeers {
    fn call<'a>(&'a self, request: &'a PeerRequest, timeout: Duration) -> BoxFuture<'a, Result<String, PeerError>> {
        match &request.peer {
            Peer::Container { container, path, .. } => {
                self.ask(container, path, request.body.as_deref(), timeout).boxed()
            }
            Peer::Url(url) => {
                let answer = Err(PeerError::Unreachable(format!("{url}: there is no network in a simulation")));
                std::future::ready(answer).boxed()
            }
        }
    }
}

/// GAIA's own services, vLLM, ComfyUI, llama.cpp, Ollama.
fn wish(path: &str, body: Option<&str>) -> Wish {
    match path.split('?').next().unwrap_or_default() {
        "/gpu/release" | "/study/gpu-release" | "/sleep" | "/free" | "/models/unload" => Wish::LetGo,
        "/gpu/reclaim" | "/study/gpu-ready" | "/wake_up" | "/models/load" => Wish::Take,
        "/api/generate" => {
            let body: Value = body.and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
            if body["keep_alive"] == 0 { Wish::LetGo } else { Wish::Take }
        }
        _ => Wish::Nothing,
    }
}

/// Those who are asked what they have loaded say it: one model, called like the image.
fn answer(path: &str, image: &str, holds: bool) -> Value {
    match path {
        "/api/ps" if holds => json!({"models": [{"name": image}]}),
        "/api/ps" => json!({"models": []}),
        "/models" => json!({"data": [{"id": image}]}),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::vllm("/sleep?level=2", None, Wish::LetGo)]
    #[case::vllm("/wake_up", None, Wish::Take)]
    #[case::study("/study/gpu-release", None, Wish::LetGo)]
    #[case::study("/study/gpu-ready", None, Wish::Take)]
    #[case::ollama("/api/generate", Some(r#"{"model": "m", "keep_alive": 0}"#), Wish::LetGo)]
    #[case::ollama("/api/generate", Some(r#"{"model": "m", "keep_alive": -1}"#), Wish::Take)]
    #[case::another("/health", None, Wish::Nothing)]
    fn requests_are_understood(#[case] path: &str, #[case] body: Option<&str>, #[case] expected: Wish) {
        assert_eq!(wish(path, body), expected);
    }
}
