//! Pulling an image: progress out of Docker's many lines, and what its refusals mean.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bollard::{errors::Error, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use futures::{StreamExt, pin_mut};

use super::{DockerEngine, errors::Call};
use crate::adapters::containers::{EngineError, EngineResult, PullProgress, TerminalReason};

/// A pull may last for hours, but not say nothing for so long.
const STALL: Duration = Duration::from_secs(120);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn pull(
    engine: &DockerEngine,
    image: &str,
    progress: &(dyn Fn(PullProgress) + Send + Sync),
) -> EngineResult<()> {
    let docker = engine.client().await?;
    let call = Call::effect("pull", image);
    let options = CreateImageOptionsBuilder::default().from_image(&with_tag(image)).build();
    let lines = docker.create_image(Some(options), None, None);
    pin_mut!(lines);
    let mut layers = Layers::default();
    let mut told: Option<Instant> = None;
    loop {
        let line = tokio::time::timeout(STALL, lines.next()).await;
        let Some(line) = line.map_err(|_| call.unanswered(format!("no progress for {STALL:?}")))? else {
            progress(layers.progress());
            return Ok(());
        };
        layers.update(line.map_err(|error| verdict(call, error))?);
        if !layers.0.is_empty() && told.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) {
            told = Some(Instant::now());
            progress(layers.progress());
        }
    }
}

/// Without a tag Docker would pull every tag there is.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// The registry's answer comes as prose, in the stream or with a status of Docker's choice.
fn verdict(call: Call<'_>, error: Error) -> EngineError {
    let message = match &error {
        Error::DockerStreamError { error } => error.clone(),
        Error::DockerResponseServerError { message, .. } => message.clone(),
        _ => return call.failed(error),
    };
    let absent = ["manifest unknown", "not found", "pull access denied", "unauthorized", "denied", "does not exist"];
    if absent.iter().any(|words| message.contains(words)) {
        return EngineError::Terminal { reason: TerminalReason::ImageNotFound, message: format!("{call}: {message}") };
    }
    match error {
        Error::DockerResponseServerError { status_code: 400..=499, .. } => call.failed(error),
        // The registry is away: the engine has not got the image, and may ask again.
        _ => EngineError::Unreachable(format!("{call}: {message}")),
    }
}

/// By id: bytes done, bytes, done.
#[derive(Default)]
struct Layers(BTreeMap<String, Layer>);

#[derive(Default)]
struct Layer {
    current: u64,
    total: u64,
    done: bool,
}

impl Layers {
    fn update(&mut self, line: CreateImageInfo) {
        let (Some(id), Some(status)) = (line.id, line.status) else { return };
        // `Pulling from library/x` has the tag as its id.
        if status.starts_with("Pulling from") {
            return;
        }
        let layer = self.0.entry(id).or_default();
        let detail = line.progress_detail.unwrap_or_default();
        let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        match status.as_str() {
            // Extracting counts the same bytes once more: only the download tells how far it is.
            "Downloading" => {
                layer.current = bytes(detail.current).unwrap_or(layer.current);
                layer.total = bytes(detail.total).unwrap_or(layer.total);
            }
            "Download complete" => layer.current = layer.total,
            "Extracting" => layer.total = layer.total.max(bytes(detail.total).unwrap_or(0)),
            "Pull complete" | "Already exists" => {
                layer.current = layer.total;
                layer.done = true;
            }
            _ => {}
        }
    }

    fn progress(&self) -> PullProgress {
        PullProgress {
            layers_done: self.0.values().filter(|layer| layer.done).count(),
            layers: self.0.len(),
            bytes_done: self.0.values().map(|layer| layer.current).sum(),
            bytes: self.0.values().map(|layer| layer.total).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("app", "app:latest")]
    #[case("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest")]
    #[case("127.0.0.1:5000/app:v1", "127.0.0.1:5000/app:v1")]
    #[case("app@sha256:00", "app@sha256:00")]
    fn one_tag_is_pulled(#[case] image: &str, #[case] asked: &str) {
        assert_eq!(with_tag(image), asked);
    }

    #[rstest]
    #[case("manifest for app:latest not found: manifest unknown: manifest unknown", true)]
    #[case("pull access denied for app, repository does not exist or may require 'docker login'", true)]
    #[case("Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host", false)]
    #[case("Get \"http://127.0.0.1:5/v2/\": dial tcp 127.0.0.1:5: connect: connection refused", false)]
    fn absence_and_silence_are_told_apart(#[case] message: &str, #[case] absent: bool) {
        let error = verdict(Call::effect("pull", "app"), Error::DockerStreamError { error: message.to_owned() });
        let is_absent = matches!(error, EngineError::Terminal { reason: TerminalReason::ImageNotFound, .. });
        assert_eq!(is_absent, absent, "{error:?}");
        assert_eq!(matches!(error, EngineError::Unreachable(_)), !absent);
    }
}
