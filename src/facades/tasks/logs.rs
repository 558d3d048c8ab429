//! What the attempts at a task printed, as far as their worker told: `GET /api/v1/tasks/{id}/logs` names them, in their order, and
//! `GET /api/v1/tasks/{id}/logs/{attempt}?from=BYTES` gives one, lines of JSON, from where the client has read to.

use std::{io::SeekFrom, time::UNIX_EPOCH};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, Uri, header},
    response::IntoResponse,
};
use serde_json::{Value, json};
use tokio::io::AsyncSeekExt;

use super::{Mloc, artifacts};
use crate::facades::reply::{Answer, Refusal, ok};

/// How the file of an attempt ends.
const ENDING: &str = ".jsonl";

pub async fn list(mloc: &Mloc, id: &str) -> Answer {
    if mloc.task(id).await?.is_none() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "task not found"));
    }
    let mut found = Vec::new();
    for (name, file) in mloc.files.logs(id).await {
        let Some(attempt) = name.strip_suffix(ENDING).map(str::to_owned) else { continue };
        let made = file.created().or_else(|_| file.modified()).unwrap_or(UNIX_EPOCH);
        found.push((made, attempt, file.len()));
    }
    found.sort();
    let logs: Vec<Value> =
        found.into_iter().map(|(_, attempt, size)| json!({"attempt": attempt, "size_bytes": size})).collect();
    ok(&json!({"task_id": id, "logs": logs}))
}

pub async fn give(mloc: &Mloc, id: &str, attempt: &str, uri: &Uri) -> Answer {
    let from = from(uri)?;
    let path = mloc.files.log(id, &format!("{attempt}{ENDING}")).await?;
    let path = path.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "log not found"))?;
    let unreadable = |error: std::io::Error| Refusal::failed(format!("cannot read the log {attempt}: {error}"));
    let mut file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
    // As long as it is now: what is appended meanwhile is the next answer's.
    let length = file.metadata().await.map_err(unreadable)?.len();
    let from = from.min(length);
    file.seek(SeekFrom::Start(from)).await.map_err(unreadable)?;
    let body = Body::from_stream(artifacts::chunks(file, length - from));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], body).into_response())
}

fn from(uri: &Uri) -> Result<u64, Refusal> {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let given = query.0.iter().rfind(|(key, _)| key == "from").map(|(_, value)| value.parse());
    let wrong = |_| Refusal::new(StatusCode::BAD_REQUEST, "from must be a whole number of bytes");
    given.transpose().map_err(wrong).map(Option::unwrap_or_default)
}
