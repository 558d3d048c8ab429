//! Brings notifications to gaia-web (`ORCHESTRATOR_WEB_URL`), from where they go to people. In order, again and again for a
//! while, and never in the way of anything else: when gaia-web stays away, the oldest are lost, and that is logged.

use std::{convert::Infallible, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::{StatusCode, Url, header};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::hub::{Frame, Hub};

/// Where gaia-web is asked, unless its URL names a path.
const PATH: &str = "/api/notifications";

/// Where notifications are posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebTarget(Url);

impl WebTarget {
    /// The URL of gaia-web as GAIA's settings have it, `http://gaia-web:6414`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let mut parsed = Url::parse(url).map_err(|error| format!("{url:?} is not an URL: {error}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("{url:?} is not an http URL"));
        }
        if parsed.path() == "/" {
            parsed.set_path(PATH);
        }
        Ok(Self(parsed))
    }
}

/// How long one notification is tried: by default for about two minutes.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub answer_within: Duration,
    pub first_delay: Duration,
    pub longest_delay: Duration,
    pub attempts: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(5),
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(30),
            attempts: 8,
        }
    }
}

pub struct Delivery {
    pub hub: Hub,
    pub target: WebTarget,
    pub patience: Patience,
}

/// What one attempt came to.
enum Outcome {
    Taken,
    /// It does not want it; asking again is no use.
    Refused(StatusCode),
    Later(String),
}

impl Delivery {
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        // Somebody else in this process may have chosen a provider already; any will do.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client =
            reqwest::Client::builder().timeout(self.patience.answer_within).no_proxy().user_agent("gaia").build();
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                warn!(%error, "notifications are not delivered to gaia-web");
                stop.cancelled().await;
                return Ok(());
            }
        };
        let (_, mut frames) = self.hub.listen(0);
        loop {
            // `recv` takes nothing unless it is ready; a delivery that is broken off at the end is lost with the process.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                frame = frames.recv() => match frame {
                    Ok(frame) => tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        () = self.deliver(&client, &frame) => {}
                    },
                    Err(RecvError::Lagged(lost)) => warn!(lost, "notifications for gaia-web were lost"),
                    Err(RecvError::Closed) => {
                        stop.cancelled().await;
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn deliver(&self, client: &reqwest::Client, frame: &Frame) {
        let delays = ExponentialBuilder::new()
            .with_min_delay(self.patience.first_delay)
            .with_max_delay(self.patience.longest_delay)
            .with_max_times(self.patience.attempts.saturating_sub(1))
            .with_jitter()
            .build();
        let mut why = String::new();
        for delay in delays.map(Some).chain([None]) {
            match self.attempt(client, frame).await {
                Outcome::Taken => return,
                Outcome::Refused(status) => {
                    debug!(%status, "gaia-web does not take a notification");
                    return;
                }
                Outcome::Later(reason) => why = reason,
            }
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
        }
        warn!(attempts = self.patience.attempts, why, "a notification could not be delivered to gaia-web");
    }

    async fn attempt(&self, client: &reqwest::Client, frame: &Frame) -> Outcome {
        let request = client.post(self.target.0.clone()).header(header::CONTENT_TYPE, "application/json");
        match request.body(frame.to_string()).send().await {
            Ok(answer) if answer.status().is_success() => Outcome::Taken,
            Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS || answer.status().is_server_error() => {
                Outcome::Later(answer.status().to_string())
            }
            Ok(answer) => Outcome::Refused(answer.status()),
            Err(error) => Outcome::Later(error.to_string()),
        }
    }
}
