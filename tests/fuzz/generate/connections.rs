//! What a client sends on a connection: a request in HTTP/1.1, framed well or badly, and frames of a WebSocket behind it.

use super::{once_in, pick, text};

/// A request before it is written.
pub struct Request {
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

const HEADERS: [&str; 22] = [
    "Prefer: respond-async",
    "Prefer: wait=5, respond-async; x",
    "Expect: 100-continue",
    "Accept: text/plain",
    "Accept: application/openmetrics-text;version=1.0.0",
    "Accept-Encoding: gzip, deflate, br",
    "Content-Encoding: gzip",
    "Origin: http://evil.example",
    "Range: bytes=0-3",
    "Range: bytes=-0",
    "Range: bytes=18446744073709551615-",
    "If-None-Match: *, \"x\"",
    "If-Range: \"x\"",
    "gaia-attempt: 1-x",
    "Authorization: Bearer",
    "Authorization: Basic ZGV2LXRva2Vu",
    "X-Forwarded-For: \u{e9}",
    "Transfer-Encoding: identity",
    "Content-Length: 5",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Upgrade: h2c",
    "Cookie: a=b; c",
];

/// Mostly in order.
pub fn written(rng: &mut fastrand::Rng, request: Request) -> Vec<u8> {
    let Request { method, target, mut headers, mut body } = request;
    for _ in 0..rng.usize(..2) {
        headers.push((pick(rng, &HEADERS)).to_owned());
    }
    if once_in(rng, 12) {
        body = chunked(rng, &body);
        headers.push("Transfer-Encoding: chunked".to_owned());
    } else if !body.is_empty() || once_in(rng, 4) {
        let length = if once_in(rng, 25) { pick(rng, &[0, 1, body.len() + 7, usize::MAX]) } else { body.len() };
        headers.push(format!("Content-Length: {length}"));
    }
    let host = if once_in(rng, 30) { "evil.example.org" } else { "localhost" };
    let version = if once_in(rng, 40) { "1.0" } else { "1.1" };
    let close = if once_in(rng, 10) { "" } else { "Connection: close\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {target} HTTP/{version}\r\nHost: {host}\r\n{close}{headers}\r\n");
    let mut bytes = [head.into_bytes(), body].concat();
    if once_in(rng, 20) {
        text::damage(rng, &mut bytes);
    }
    bytes
}

fn chunked(rng: &mut fastrand::Rng, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(rng.usize(1..400)) {
        out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    if !once_in(rng, 8) {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    out
}

/// An upgrade to a WebSocket, nearly always a right one, and what is said on it.
pub fn socket(rng: &mut fastrand::Rng, target: String, mut headers: Vec<String>, frames: Vec<Vec<u8>>) -> Vec<u8> {
    let mut needed = vec![
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    if once_in(rng, 8) {
        let left_out = rng.usize(..needed.len());
        needed.remove(left_out);
    }
    headers.extend(needed.into_iter().map(str::to_owned));
    if once_in(rng, 12) {
        headers.push("Sec-WebSocket-Extensions: permessage-deflate".to_owned());
    }
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    [head.into_bytes(), frames.concat()].concat()
}

/// A masked frame of these bytes; sometimes one that no client may send.
pub fn frame(rng: &mut fastrand::Rng, payload: &[u8]) -> Vec<u8> {
    const TEXT: u8 = 1;
    let opcode = if once_in(rng, 10) { pick(rng, &[0, 2, 3, 8, 9, 10, 15]) } else { TEXT };
    let first = opcode | if once_in(rng, 20) { pick(rng, &[0x00, 0x40, 0xf0]) } else { 0x80 };
    let masked = if once_in(rng, 30) { 0 } else { 0x80 };
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length @ 126..=65535 => {
            out.push(masked | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    if once_in(rng, 60) {
        // So much will never come.
        out.truncate(1);
        out.push(masked | 127);
        out.extend(u64::MAX.to_be_bytes());
    }
    let mask = [7, 11, 13, 17];
    if masked != 0 {
        out.extend_from_slice(&mask);
    }
    let byte = |(n, byte): (usize, &u8)| if masked != 0 { byte ^ mask[n % 4] } else { *byte };
    out.extend(payload.iter().enumerate().map(byte));
    if once_in(rng, 40) {
        text::damage(rng, &mut out);
    }
    out
}
