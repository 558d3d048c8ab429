//! One request to the endpoint, made again while it is busy or breaks off.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{self, Answer, Events, LARGEST_BYTES};
use crate::{
    runtime::clock::{Clock, SystemClock},
    worker::{
        WorkerError,
        delivery::without_url,
        logs::{Log, Stream},
        output::Output,
    },
};

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
/// Not a byte for so long, also while the request waits in the endpoint's queue.
const STALLS_FOR: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Answers that broke off, or none came. What is busy is asked as long as the task may take.
const MOST_BROKEN: u32 = 5;
/// Of what an endpoint says with a refusal.
const LONGEST_MESSAGE: usize = 500;

pub struct Endpoint {
    client: Client,
    base: String,
    token: Option<String>,
}

pub struct Asked<'a> {
    pub path: &'static str,
    pub body: Value,
    /// Where the answer is shown as it comes.
    pub log: Option<&'a Log>,
    /// Nothing is waited for beyond this.
    pub deadline: Instant,
}

/// Why there is no answer, and will be none.
#[derive(Debug)]
pub struct Refusal(pub String);

enum Trouble {
    Refused(String),
    /// It says that it has too much to do.
    Busy {
        why: String,
        wait: Option<Duration>,
    },
    Broken(String),
}

impl Endpoint {
    pub fn new(base: &str, token: Option<String>) -> Result<Self, WorkerError> {
        rustls::crypto::ring::default_provider().install_default().ok();
        // A redirect would lead a request with a key elsewhere. A proxy of the environment is used: providers are outside.
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECTS_WITHIN)
            .read_timeout(STALLS_FOR)
            .build()
            .map_err(WorkerError::Client)?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// `told` is told why it waits, and how long.
    pub async fn answer(&self, asked: &Asked<'_>, told: &(dyn Fn(String, Duration) + Sync)) -> Result<Answer, Refusal> {
        let (mut broken, mut pause) = (0, FIRST_PAUSE);
        loop {
            let (why, wait) = match self.once(asked).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Refused(why)) => return Err(Refusal(format!("{}: {why}", asked.path))),
                Err(Trouble::Busy { why, wait }) => (why, wait),
                Err(Trouble::Broken(why)) => {
                    broken += 1;
                    if broken == MOST_BROKEN {
                        return Err(Refusal(format!("{}: {why} ({MOST_BROKEN} times)", asked.path)));
                    }
                    (why, None)
                }
            };
            // Not all at once, when many were sent away at once.
            let wait = wait.unwrap_or_else(|| pause.mul_f64(0.5 + fastrand::f64() / 2.0)).max(FIRST_PAUSE / 2);
            if Instant::now() + wait >= asked.deadline {
                let seconds = wait.as_secs_f64();
                return Err(Refusal(format!(
                    "{}: {why}; {seconds:.0} s more are not within the time limit",
                    asked.path
                )));
            }
            told(format!("{}: {why}", asked.path), wait);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(&self, asked: &Asked<'_>) -> Result<Answer, Trouble> {
        let request = self.client.post(format!("{}/{}", self.base, asked.path)).json(&asked.body);
        let answer = self.signed(request).send().await.map_err(|error| Trouble::Broken(without_url(error)))?;
        if !answer.status().is_success() {
            return Err(refused(answer).await);
        }
        let streams = answer.headers().get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok());
        if streams.is_some_and(|given| given.starts_with("text/event-stream")) {
            streamed(answer, asked.log).await
        } else {
            whole(answer, asked.log).await
        }
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

async fn streamed(answer: Response, log: Option<&Log>) -> Result<Answer, Trouble> {
    let mut shown = log.map(|log| Output::new(log.clone(), Stream::Stdout));
    let (mut events, mut taken) = (Events::default(), Answer::default());
    let mut bytes = answer.bytes_stream();
    // To the end: what the usage is comes behind the last piece.
    while let Some(chunk) = bytes.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(_) if taken.done => break,
            Err(error) => return Err(Trouble::Broken(format!("the answer broke off: {}", without_url(error)))),
        };
        for event in events.take(&chunk).map_err(Trouble::Refused)? {
            let text = taken.take(&event).map_err(Trouble::Broken)?;
            if let Some(shown) = &mut shown {
                shown.take(text.as_bytes());
            }
        }
    }
    if let Some(shown) = shown {
        shown.finish();
    }
    if !taken.done {
        return Err(Trouble::Broken("the answer broke off".to_owned()));
    }
    Ok(taken)
}

async fn whole(answer: Response, log: Option<&Log>) -> Result<Answer, Trouble> {
    let body = body(answer, LARGEST_BYTES).await.map_err(Trouble::Broken)?;
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| Trouble::Refused(format!("the answer is neither events nor JSON: {error}")))?;
    let (answer, text) = Answer::whole(&body).map_err(Trouble::Refused)?;
    if let Some(log) = log {
        let mut shown = Output::new(log.clone(), Stream::Stdout);
        shown.take(text.as_bytes());
        shown.finish();
    }
    Ok(answer)
}

/// At most so many bytes of it.
async fn body(answer: Response, most: usize) -> Result<Vec<u8>, String> {
    let (mut body, mut bytes) = (Vec::new(), answer.bytes_stream());
    while let Some(chunk) = bytes.next().await {
        body.extend_from_slice(&chunk.map_err(without_url)?);
        if body.len() > most {
            return Err(format!("the answer is larger than {most} bytes"));
        }
    }
    Ok(body)
}

async fn refused(answer: Response) -> Trouble {
    let status = answer.status();
    let wait = answer.headers().get(header::RETRY_AFTER).and_then(|given| given.to_str().ok());
    let wait = wait.and_then(|given| retry_after(given, SystemClock.now()));
    let text = body(answer, 64 * 1024).await.unwrap_or_default();
    let said = serde_json::from_slice(&text).ok().and_then(|body: Value| answer::message(&body));
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(&text).trim().to_owned());
    let said: String = said.chars().take(LONGEST_MESSAGE).collect();
    let why = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Trouble::Busy { why, wait },
        StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Trouble::Broken(why),
        _ => Trouble::Refused(why),
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(given: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = given.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(given.trim()).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("3", Some(Duration::from_secs(3)))]
    #[case("0.5", Some(Duration::from_millis(500)))]
    #[case("Mon, 30 Nov 2026 10:00:05 GMT", Some(Duration::from_secs(5)))]
    #[case("Mon, 30 Nov 2026 09:00:00 GMT", Some(Duration::ZERO))]
    #[case("soon", None)]
    #[case("-1", None)]
    fn how_long_to_wait_is_told_in_seconds_or_as_a_date(#[case] given: &str, #[case] expected: Option<Duration>) {
        let now = "2026-11-30T10:00:00Z".parse().expect("a time");
        assert_eq!(retry_after(given, now), expected);
    }
}
