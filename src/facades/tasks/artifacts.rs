//! Files come in and go out: contract sections 5.3 and 5.4. Both stream: memory does not grow with the file.

use std::{
    io::SeekFrom,
    ops::RangeInclusive,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use multer::Multipart;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Mloc;
use crate::facades::reply::{Answer, Refusal, ok, with_header};

/// At the head of a body that is multipart whatever its header says.
const LONGEST_BOUNDARY: usize = 200;
/// Of an upload: the token of the attempt that it is of.
const ATTEMPT: &str = "gaia-attempt";
/// Read from a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

pub async fn take(mloc: &Mloc, task: &str, request: Request) -> Answer {
    let task = task.trim();
    if task.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "task_id is required"));
    }
    let (parts, body) = request.into_parts();
    // A worker of ours says for which attempt it is; a late one must not write over the files of the next.
    let attempt = parts.headers.get(ATTEMPT).and_then(|value| value.to_str().ok());
    if let Some(attempt) = attempt
        && let Some(known) = mloc.task(task).await?
        && known.status.as_ref().and_then(|status| status.attempt_token.as_deref()) != Some(attempt)
    {
        return Err(Refusal::new(StatusCode::CONFLICT, "the file is of another attempt"));
    }
    let mut parts = multipart(&parts.headers, body).await?;
    loop {
        let field = parts.next_field().await.map_err(broken_off)?;
        let Some(field) = field else { return Err(no_file()) };
        if field.name() != Some("file") {
            continue;
        }
        // A part without a name is a text.
        let Some(name) = field.file_name().map(str::to_owned) else { return Err(no_file()) };
        let path = mloc.files.upload(task, &name, field, mloc.most_bytes).await?;
        return ok(&json!({"ok": true, "path": path}));
    }
}

fn no_file() -> Refusal {
    Refusal::invalid(vec![json!({"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": null})])
}

fn broken_off(error: multer::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("There was an error parsing the body: {error}"))
}

/// A form, by its header; or by its first line, for workers of MLOC send the headers of their JSON along with it.
async fn multipart(headers: &HeaderMap, body: Body) -> Result<Multipart<'static>, Refusal> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(boundary) = given.and_then(|given| multer::parse_boundary(given).ok()) {
        return Ok(Multipart::new(body.into_data_stream(), boundary));
    }
    let mut rest = body.into_data_stream();
    let mut head = Vec::new();
    while !head.contains(&b'\n') && head.len() < LONGEST_BOUNDARY {
        match rest.next().await {
            Some(Ok(bytes)) => head.extend_from_slice(&bytes),
            Some(Err(error)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
            None => break,
        }
    }
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let boundary = std::str::from_utf8(first).ok().and_then(|line| line.trim_end().strip_prefix("--"));
    let boundary = boundary.filter(|boundary| !boundary.is_empty()).ok_or_else(no_file)?.to_owned();
    let head = stream::iter([Ok::<Bytes, axum::Error>(Bytes::from(head))]);
    Ok(Multipart::new(head.chain(rest), boundary))
}

/// A file, or a range of it; 304 for who has it already.
pub async fn give(mloc: &Mloc, task: &str, name: &str, headers: &HeaderMap) -> Answer {
    // Such a path is another one.
    if name.contains('/') {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "Not Found"));
    }
    let found = mloc.files.find(task, name).await?;
    let path = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "artifact not found"))?;
    let unreadable = |error: std::io::Error| Refusal::failed(format!("cannot read {name}: {error}"));
    let mut file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    let tag = tag(modified, metadata.len());
    let says = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let with_tags = |response: Response| {
        let response = with_header(response, header::ETAG, &tag);
        let response = with_header(response, header::LAST_MODIFIED, &http_date(modified));
        with_header(response, header::ACCEPT_RANGES, "bytes")
    };
    if says(header::IF_NONE_MATCH).is_some_and(|given| given == "*" || given.split(',').any(|one| one.trim() == tag)) {
        return Ok(with_tags(StatusCode::NOT_MODIFIED.into_response()));
    }
    let length = metadata.len();
    // Of a file that is another one by now, all is wanted.
    let same = says(header::IF_RANGE).is_none_or(|given| given == tag);
    let (status, range) = match says(header::RANGE).filter(|_| same).map(|given| range(given, length)) {
        None | Some(Asked::All) => (StatusCode::OK, 0..=length.saturating_sub(1)),
        Some(Asked::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Nothing) => {
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "Range Not Satisfiable").into_response();
            return Ok(with_header(refusal, header::CONTENT_RANGE, &format!("bytes */{length}")));
        }
    };
    let wanted = if length == 0 { 0 } else { range.end() - range.start() + 1 };
    file.seek(SeekFrom::Start(*range.start())).await.map_err(unreadable)?;
    let body = Body::from_stream(chunks(file, wanted));
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(type_of(&path)));
    response = with_header(response, header::CONTENT_LENGTH, &wanted.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let told = format!("bytes {}-{}/{length}", range.start(), range.end());
        response = with_header(response, header::CONTENT_RANGE, &told);
    }
    Ok(with_tags(response))
}

/// So many bytes from where the file stands.
pub fn chunks(file: tokio::fs::File, wanted: u64) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((file, wanted), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(read);
        Ok(Some((Bytes::from(chunk), (file, left - read as u64))))
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    All,
    Part(RangeInclusive<u64>),
    /// Nothing of the file.
    Nothing,
}

/// What a `Range` header asks for. Several ranges, and what cannot be understood, are answered with all of it, as RFC 9110 allows.
fn range(given: &str, length: u64) -> Asked {
    let Some((first, last)) = given.trim().strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Asked::All;
    };
    let end = length.saturating_sub(1);
    match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), _) if first >= length => Asked::Nothing,
        (Ok(first), "") => Asked::Part(first..=end),
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) if last >= first => Asked::Part(first..=last.min(end)),
            Ok(_) | Err(_) => Asked::All,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(0) => Asked::Nothing,
            Ok(_) if length == 0 => Asked::Nothing,
            Ok(count) => Asked::Part(length.saturating_sub(count)..=end),
            Err(_) => Asked::All,
        },
        (Err(_), _) => Asked::All,
    }
}

/// Of the time and the size, 32 hexadecimal digits in quotes.
fn tag(modified: SystemTime, length: u64) -> String {
    let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let digest = Sha256::digest(format!("{}-{length}", age.as_nanos()));
    let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn http_date(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// By the name's end, as Python's `mimetypes` guesses it; what it does not know is text to MLOC.
fn type_of(path: &Path) -> &'static str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") || name.ends_with(".tar") {
        return "application/x-tar";
    }
    match name.rsplit_once('.').map(|(_, end)| end).unwrap_or_default() {
        "zip" => "application/zip",
        "bin" => "application/octet-stream",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "csv" => "text/csv; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("bytes=0-3", 10, Asked::Part(0..=3))]
    #[case("bytes=7-", 10, Asked::Part(7..=9))]
    #[case("bytes=7-99", 10, Asked::Part(7..=9))]
    #[case("bytes=-3", 10, Asked::Part(7..=9))]
    #[case("bytes=-30", 10, Asked::Part(0..=9))]
    #[case("bytes=10-", 10, Asked::Nothing)]
    #[case("bytes=-0", 10, Asked::Nothing)]
    #[case("bytes=0-", 0, Asked::Nothing)]
    #[case("bytes=5-2", 10, Asked::All)]
    #[case("bytes=0-1,3-4", 10, Asked::All)]
    #[case("items=0-1", 10, Asked::All)]
    #[case("bytes=x-y", 10, Asked::All)]
    fn a_range_is_a_part_nothing_or_all(#[case] given: &str, #[case] length: u64, #[case] expected: Asked) {
        assert_eq!(range(given, length), expected);
    }

    #[rstest]
    #[case("final_model.zip", "application/zip")]
    #[case("model.tar.gz", "application/x-tar")]
    #[case("responses.jsonl", "text/plain; charset=utf-8")]
    #[case("noending", "text/plain; charset=utf-8")]
    fn types_are_guessed_from_names(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(type_of(Path::new(name)), expected);
    }
}
