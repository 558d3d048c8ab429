//! Bodies of droplets' answers: JSON as it came, whatever its type says; else text. Nothing is converted, so that big numbers and the
//! order of keys are the droplet's.

use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

/// What a record keeps of a body at most, measured as the original measures it.
const MOST_KEPT_BYTES: usize = 10 * 1024;
/// Deeper values are not kept: readers of the history could not parse them.
const DEEPEST_KEPT: usize = 64;

/// None for an empty body. A large one that is JSON is not copied.
pub fn read(bytes: Vec<u8>) -> Option<Box<RawValue>> {
    let text = decode(bytes);
    if text.is_empty() {
        return None;
    }
    // NaN and Infinity are no JSON and so are text.
    let value = match serde_json::from_str::<&RawValue>(&text) {
        Ok(_) => RawValue::from_string(text),
        Err(_) => to_raw_value(&text),
    };
    value.ok().filter(|value| value.get() != "null")
}

/// UTF-8, or UTF-16 and UTF-32 as told by the zeros among the first bytes (RFC 4627, 3). A byte order mark is no part of it.
fn decode(bytes: Vec<u8>) -> String {
    let wide = |size: usize, little: bool| {
        let number = |unit: &[u8]| {
            unit.iter().fold((0u32, 0), |(sum, n), byte| {
                let shift = if little { 8 * n } else { 8 * (size - 1 - n) };
                (sum | u32::from(*byte) << shift, n + 1)
            })
        };
        let units = bytes.chunks_exact(size).map(|unit| number(unit).0);
        match size {
            4 => units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
            _ => String::from_utf16_lossy(&units.map(|unit| unit as u16).collect::<Vec<_>>()),
        }
    };
    let text: String = match bytes.as_slice() {
        [0xff, 0xfe, 0, 0, ..] => wide(4, true),
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] => wide(4, false),
        [0xff, 0xfe, ..] => wide(2, true),
        [0xfe, 0xff, ..] => wide(2, false),
        [first, 0, 0, 0, ..] if *first != 0 => wide(4, true),
        [first, 0, ..] if *first != 0 => wide(2, true),
        [0, second, ..] if *second != 0 => wide(2, false),
        _ => {
            let lossy = |error: std::string::FromUtf8Error| String::from_utf8_lossy(error.as_bytes()).into_owned();
            return strip_mark(String::from_utf8(bytes).unwrap_or_else(lossy));
        }
    };
    strip_mark(text)
}

fn strip_mark(text: String) -> String {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        // Not copied.
        None => text,
    }
}

/// What the history keeps of a body.
pub fn kept(body: &RawValue) -> Box<RawValue> {
    let text = body.get();
    // Most are small and flat. A byte is written as three at most (half of `\uXXXX` for two, of two of them for four).
    let opened = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if text.len() * 3 <= MOST_KEPT_BYTES && opened <= DEEPEST_KEPT {
        return body.to_owned();
    }
    let (size, depth) = measure(text);
    if size <= MOST_KEPT_BYTES && body.get().len() <= 4 * MOST_KEPT_BYTES && depth <= DEEPEST_KEPT {
        return body.to_owned();
    }
    let size_kb = (size as f64 / 1024.0 * 100.0).round() / 100.0;
    let told = to_raw_value(&json!({
        "_truncated": true, "_original_size_kb": size_kb, "_max_size_kb": MOST_KEPT_BYTES / 1024,
        "_message": "Response body exceeded size limit and was truncated",
    }));
    told.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The length of a JSON text as Python's `json.dumps` writes it (a blank after `,` and `:`, ASCII only), and how deep it goes.
fn measure(json: &str) -> (usize, usize) {
    let (mut size, mut depth, mut deepest) = (0, 0usize, 0);
    let mut chars = json.chars();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        if in_string {
            size += match c {
                '"' => {
                    in_string = false;
                    1
                }
                '\\' => match chars.next() {
                    Some('u') => escaped(&chars.by_ref().take(4).collect::<String>()),
                    Some('/') => 1,
                    _ => 2,
                },
                c => written(c),
            };
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => continue,
            '"' => in_string = true,
            '{' | '[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        size += if matches!(c, ',' | ':') { 2 } else { 1 };
    }
    (size, deepest)
}

fn escaped(digits: &str) -> usize {
    let unit = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
    match unit {
        Some(c) if c.is_ascii() => written(c),
        // Half of a pair, or beyond ASCII: written as it came.
        _ => 6,
    }
}

fn written(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='~' => 1,
        '\u{7f}' => 1,
        c if u32::from(c) > 0xffff => 12,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::object(
        br#"{"b": 1, "a": 123456789012345678901234567890}"#,
        Some(r#"{"b": 1, "a": 123456789012345678901234567890}"#)
    )]
    #[case::array(b"[1,2]", Some("[1,2]"))]
    #[case::number(b"1e400", Some("1e400"))]
    #[case::text(b"hello", Some("\"hello\""))]
    #[case::nan(br#"{"a": NaN}"#, Some(r#""{\"a\": NaN}""#))]
    #[case::nothing(b"", None)]
    #[case::null(b"null", None)]
    #[case::mark(b"\xef\xbb\xbf{}", Some("{}"))]
    #[case::utf16(b"{\0}\0", Some("{}"))]
    #[case::utf16_marked(b"\xfe\xff\0{\0}", Some("{}"))]
    #[case::utf32(b"\0\0\0{\0\0\0}", Some("{}"))]
    #[case::bytes(b"\xff\xff\xff", Some("\"\u{fffd}\u{fffd}\u{fffd}\""))]
    #[case::surrogate(br#""\ud800""#, Some(r#""\ud800""#))]
    fn bodies_are_as_they_came(#[case] bytes: &[u8], #[case] expected: Option<&str>) {
        assert_eq!(read(bytes.to_vec()).as_deref().map(RawValue::get), expected);
    }

    /// The sizes are what Python 3 says: `len(json.dumps(json.loads(text)))`.
    #[rstest]
    #[case(r#"{"a":1,"b":[true,null]}"#, 27)]
    #[case("{ \"a\" :\n 1 }", 8)]
    #[case("\"é\"", 8)]
    #[case("\"😀\"", 14)]
    #[case(r#""\u0041\/\n\u00e9""#, 12)]
    fn sizes_are_the_originals(#[case] json: &str, #[case] size: usize) {
        assert_eq!(measure(json).0, size, "{json}");
    }

    #[test]
    fn large_and_deep_bodies_are_not_kept() {
        let body = |text: String| RawValue::from_string(text).expect("JSON");
        let fits = body(format!("\"{}\"", "x".repeat(10 * 1024 - 2)));
        assert_eq!(kept(&fits).get(), fits.get());
        let large: serde_json::Value =
            serde_json::from_str(kept(&body(format!("\"{}\"", "x".repeat(20 * 1024)))).get()).expect("JSON");
        assert_eq!((&large["_truncated"], &large["_original_size_kb"]), (&json!(true), &json!(20.0)));
        assert!(kept(&body("[".repeat(100) + &"]".repeat(100))).get().contains("_truncated"));
    }
}
