//! Texts and bytes that somebody may not have thought of.

use super::{once_in, pick};

const ODD: [&str; 58] = [
    "",
    " ",
    "\u{0}",
    "\n",
    "\r\n",
    "\t",
    "a",
    "one",
    "two",
    "ONE",
    "a/b",
    "../../etc/passwd",
    "a.b",
    "-",
    ".",
    "_",
    "é",
    "日本語",
    "👩‍👩‍👧",
    "\u{202e}x",
    "\u{feff}",
    "\u{2028}",
    "\u{7f}",
    "1",
    "0",
    "-1",
    "1e3",
    "0x10",
    "1Gi",
    "9999999999999999Ei",
    "1.5m",
    "-1Gi",
    "true",
    "null",
    "~",
    "on",
    "2026-11-30T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "2026-13-45T99:99:99Z",
    "-009999-01-01T00:00:00Z",
    "2026-11-30T00:00:00+14:00",
    "http://x",
    "http://[::1]:1/%00",
    "Live",
    "Candidate",
    "Always",
    "*",
    "a=b",
    "a,b",
    "${A}",
    "${A:-${B:?c}}",
    "$",
    "{}",
    "[1]",
    "{\"a\":",
    "0123456789abcdef",
    "default",
];

pub fn odd(rng: &mut fastrand::Rng) -> String {
    match rng.u8(..24) {
        0 => "a".repeat(pick(rng, &[50, 51, 63, 64, 253, 254, 1000, 20_000])),
        1 => "é".repeat(rng.usize(..300)),
        2 => (0..rng.usize(..20)).map(|_| rng.char(..)).collect(),
        3 => format!("{}{}", pick(rng, &ODD), pick(rng, &ODD)),
        _ => (pick(rng, &ODD)).to_owned(),
    }
}

/// Changes bytes without regard to what they mean.
pub fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.usize(..3) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..8) {
            0 => bytes.insert(at, rng.u8(..)),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            3 if at < bytes.len() => bytes[at] = pick(rng, b"\0\n\t{}[]:,\"'\\%&*!|>-#\xff\xc0\xed"),
            4 => drop(bytes.splice(
                at..at,
                pick(rng, &[&b"\xff\xfe"[..], b"\xed\xa0\x80", b"\xc0\x80", b"\0", b"\xef\xbb\xbf"]).to_vec(),
            )),
            5 if at < bytes.len() => drop(bytes.drain(at..(at + rng.usize(1..20)).min(bytes.len()))),
            6 if at < bytes.len() => {
                let again = bytes[at..(at + rng.usize(1..40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let odd = odd(rng);
                bytes.splice(at..at, odd.into_bytes());
            }
        }
    }
}

/// Changes lines: left out, said twice, moved, indented, given another value.
pub fn change_lines(rng: &mut fastrand::Rng, text: &str, tokens: &[&str]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.usize(1..5) {
        if lines.is_empty() {
            break;
        }
        let at = rng.usize(..lines.len());
        match rng.u8(..9) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = rng.usize(..lines.len());
                lines.swap(at, other);
            }
            3 => lines[at].insert_str(0, pick(rng, &["  ", " ", "\t", "- ", "# "])),
            4 => lines[at] = lines[at].trim_start_matches([' ', '-']).to_owned(),
            5 | 6 => {
                let value = if once_in(rng, 3) { odd(rng) } else { (pick(rng, tokens)).to_owned() };
                let key = lines[at].split_once(':').map_or("", |(key, _)| key).to_owned();
                lines[at] = format!("{key}: {value}");
            }
            7 => lines[at].push_str(pick(rng, tokens)),
            _ => {
                let token = (pick(rng, tokens)).to_owned();
                let indent: String = lines[at].chars().take_while(|c| *c == ' ').collect();
                lines.insert(at, format!("{indent}{token}"));
            }
        }
    }
    lines.join("\n") + "\n"
}
