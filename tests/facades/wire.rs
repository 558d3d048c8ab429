//! Requests byte by byte as GAIA's clients send them, and answers as they come.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::world::{DEADLINE, World};

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    pub fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or_else(|| panic!("{key} is no text: {}", self.body))
    }
}

/// `curl -X METHOD`, with `-H` and `-d` as given: without `-d` there is not even a length.
pub fn curl(method: &str, path: &str, header: &str, body: Option<&str>) -> String {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let (length, body) = match body {
        Some(body) if header.to_lowercase().contains("content-type") => {
            (format!("Content-Length: {}\r\n", body.len()), body)
        }
        Some(body) => {
            let form = "Content-Type: application/x-www-form-urlencoded\r\n";
            (format!("Content-Length: {}\r\n{form}", body.len()), body)
        }
        None => (String::new(), ""),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:6410\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n{header}{length}\r\n{body}"
    )
}

/// `httpx.post(url, json=…)` and `httpx.get(url)`.
pub fn httpx(method: &str, path: &str, body: Option<&str>) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: gaia-orchestrator:6410\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\
         Connection: keep-alive\r\nUser-Agent: python-httpx/0.27.0\r\n"
    );
    match (method, body) {
        (_, Some(body)) => {
            format!("{head}Content-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}", body.len())
        }
        ("POST", None) => format!("{head}Content-Length: 0\r\n\r\n"),
        _ => format!("{head}\r\n"),
    }
}

/// `urllib.request.urlopen`, with `data` as given.
pub fn urllib(method: &str, path: &str, body: Option<&str>) -> String {
    let (length, body) = match body {
        Some(body) => (format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()), body),
        None => (String::new(), ""),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nAccept-Encoding: identity\r\n{length}Host: gaia-orchestrator:6410\r\n\
         User-Agent: Python-urllib/3.11\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Sends exactly these bytes and reads one answer.
pub async fn send(world: &World, request: &str) -> Answer {
    timeout(DEADLINE, exchange(world, request)).await.expect("answered in time")
}

async fn exchange(world: &World, request: &str) -> Answer {
    let mut socket = TcpStream::connect(world.url.trim_start_matches("http://")).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = find(&read, b"\r\n\r\n") {
            break end;
        }
        assert_ne!(socket.read_buf(&mut read).await.expect("an answer"), 0, "closed before the head was whole");
    };
    let text = String::from_utf8(read[..head].to_vec()).expect("a head of text");
    let length = header(&text, "content-length").expect("a length").parse::<usize>().expect("a number");
    while read.len() < head + 4 + length {
        assert_ne!(socket.read_buf(&mut read).await.expect("a body"), 0, "closed before the body was whole");
    }
    let status = text.split(' ').nth(1).expect("a status line").parse().expect("a status");
    assert_eq!(header(&text, "content-type").as_deref(), Some("application/json"), "{text}");
    let body = serde_json::from_slice(&read[head + 4..head + 4 + length]).expect("JSON");
    Answer { status, head: text, body }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}
