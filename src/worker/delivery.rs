//! What came of a task goes up over HTTP: its files, then its result, each until the server has answered for good. In between the result
//! goes to whom else the document names, with as many tries as that says: before the server has it, for with that the task is done.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::body::Bytes;
use futures::{StreamExt, stream};
use reqwest::{Body, Client, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    fs::{self, File},
    io::AsyncReadExt,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Settings, WorkerError, message::Order};
use crate::{
    adapters::outbox::{Letter, Outbox},
    mloc::destination::{self, Destination},
};

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
/// No byte goes either way for so long: the request is given up and made again.
const STALLS_FOR: Duration = Duration::from_secs(120);
const CHUNK_BYTES: usize = 256 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Names the attempt where a body has no place for it.
pub const ATTEMPT_HEADER: &str = "gaia-attempt";

/// Why it could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// The attempt is another's now: nobody wants it.
    NotWanted(String),
    /// It will never be taken.
    Refused(String),
    Cancelled,
}

/// Delivers for one worker. Clones share its connections.
#[derive(Clone)]
pub struct Delivery {
    settings: Arc<Settings>,
    client: Client,
    outbox: Outbox,
}

impl Delivery {
    pub fn new(settings: Arc<Settings>) -> Result<Self, WorkerError> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder().no_proxy().connect_timeout(CONNECTS_WITHIN).read_timeout(STALLS_FOR);
        let outbox = Outbox::new().map_err(WorkerError::Client)?;
        Ok(Self { settings, client: client.build().map_err(WorkerError::Client)?, outbox })
    }

    /// Every file below `directory` (of it alone, not of directories in it), then the result.
    pub async fn deliver(
        &self,
        order: &Order,
        result: &Value,
        directory: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), Undelivered> {
        for name in files(directory).await.map_err(|error| unreadable(directory, &error))? {
            let path = directory.join(&name);
            self.until_answered(order, cancel, &Part::File { name, path }).await?;
        }
        if order.delivers_elsewhere {
            let sent = cancel.run_until_cancelled(self.deliver_elsewhere(order, result)).await;
            sent.ok_or(Undelivered::Cancelled)??;
        }
        let body =
            json!({"task_id": order.task, "result": result, "worker_id": self.settings.id, "attempt": order.attempt});
        self.until_answered(order, cancel, &Part::Result(Bytes::from(body.to_string()))).await
    }

    /// As workers of MLOC do: nobody else takes tokens of attempts, nor is told where files are beyond what the result says.
    async fn deliver_elsewhere(&self, order: &Order, result: &Value) -> Result<(), Undelivered> {
        let Some(to) = destination::of(&order.document) else { return Ok(()) };
        let Destination { url, method, headers, timeout, retries, backoff } = &to;
        let letter = Letter { url, method, headers, timeout: *timeout, retries: *retries, backoff: *backoff };
        let body = json!({"task_id": order.task, "result": result, "worker_id": self.settings.id});
        self.outbox.send(&letter, &body).await.map_err(|why| {
            Undelivered::Refused(format!("spec.output.destination: the result could not be delivered: {why}"))
        })?;
        info!(task = order.task, attempt = order.attempt, "delivered to whom the document names");
        Ok(())
    }

    async fn request(&self, order: &Order, part: &Part) -> Result<RequestBuilder, Undelivered> {
        match part {
            Part::File { name, path } => self.upload(order, name, path).await,
            Part::Result(text) => {
                let request = self.client.post(format!("{}/api/v1/results", self.settings.server));
                Ok(self.signed(request, order).header(header::CONTENT_TYPE, "application/json").body(text.clone()))
            }
        }
    }

    fn signed(&self, request: RequestBuilder, order: &Order) -> RequestBuilder {
        let request = request.header(ATTEMPT_HEADER, &order.attempt);
        match &self.settings.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A form of one part, the file as it is read.
    async fn upload(&self, order: &Order, name: &str, path: &Path) -> Result<RequestBuilder, Undelivered> {
        let file = File::open(path).await.map_err(|error| unreadable(path, &error))?;
        let length = file.metadata().await.map_err(|error| unreadable(path, &error))?.len();
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        // In a quoted string these two would end it.
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{quoted}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let total = head.len() as u64 + length + tail.len() as u64;
        let text = |text: String| stream::iter([Ok::<_, io::Error>(Bytes::from(text))]);
        let body = text(head).chain(chunks(file, length)).chain(text(tail));
        let request = self.client.post(format!("{}/api/v1/results/{}/files", self.settings.server, order.task));
        Ok(self
            .signed(request, order)
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .header(header::CONTENT_LENGTH, total)
            .body(Body::wrap_stream(body)))
    }

    async fn until_answered(&self, order: &Order, cancel: &CancellationToken, part: &Part) -> Result<(), Undelivered> {
        let what = match part {
            Part::File { name, .. } => format!("file {name}"),
            Part::Result(_) => "result".to_owned(),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = async { Ok::<_, Undelivered>(self.answer(self.request(order, part).await?).await) };
            let answer = cancel.run_until_cancelled(answer).await.ok_or(Undelivered::Cancelled)??;
            match answer {
                Answer::Taken => {
                    info!(task = order.task, attempt = order.attempt, what, "delivered");
                    return Ok(());
                }
                Answer::NotWanted(why) => return Err(Undelivered::NotWanted(why)),
                Answer::Refused(why) => {
                    return Err(Undelivered::Refused(format!("the server does not take the {what}: {why}")));
                }
                Answer::None(why) => {
                    warn!(task = order.task, attempt = order.attempt, what, why, "not delivered; trying on");
                }
            }
            cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(Undelivered::Cancelled)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Answer {
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::None(without_url(error)),
        };
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let detail =
            serde_json::from_str::<Value>(&text).ok().and_then(|body| body["detail"].as_str().map(str::to_owned));
        let why = format!("{status}: {}", detail.unwrap_or(text));
        match status {
            status if status.is_success() => Answer::Taken,
            StatusCode::CONFLICT => Answer::NotWanted(why),
            // What passes, and what a person can repair while we wait.
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN => Answer::None(why),
            status if status.is_client_error() => Answer::Refused(why),
            _ => Answer::None(why),
        }
    }
}

/// What goes up in one request.
enum Part {
    File { name: String, path: PathBuf },
    Result(Bytes),
}

enum Answer {
    Taken,
    NotWanted(String),
    Refused(String),
    /// Nothing that would be an answer.
    None(String),
}

/// What went wrong, without the URL: it may hold a password.
pub(super) fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Undelivered {
    Undelivered::Refused(format!("cannot read {}: {error}", path.display()))
}

/// The names of plain files; links are none, for they may lead anywhere. Sorted.
async fn files(directory: &Path) -> io::Result<Vec<String>> {
    match fs::symlink_metadata(directory).await {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let mut entries = fs::read_dir(directory).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_type().await?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Exactly so many bytes: a file that grows meanwhile is sent as long as it was.
fn chunks(file: File, length: u64) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(read);
        Ok(Some((Bytes::from(chunk), (file, left - read as u64))))
    })
}
