//! Bodies in the protobuf of Kubernetes, which kubectl since 1.32 and controller-runtime send for the kinds every
//! cluster has. Read into the same values as JSON, by the table of what those kinds look like on the wire.
//!
//! Replies are never protobuf: a client that accepts it always accepts JSON too.

mod messages;

use base64::Engine;
use serde_json::{Map, Value, json};

use crate::registry::{ApiError, ApiResult, Reason};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// How one field is written, and so what it becomes in JSON.
///
/// Go writes the fields that are no pointers even when they are empty, and leaves the same out of its JSON: so empty
/// texts, zero [`Wire::Int`]s, zero times and empty messages are left out here.
#[derive(Debug, Clone, Copy)]
enum Wire {
    Text,
    Texts,
    Int,
    /// An integer that is left out when it is not meant: zero means zero.
    Count,
    Bool,
    Time,
    MicroTime,
    /// JSON inside a message: `fieldsV1`.
    Raw,
    TextMap,
    BytesMap,
    One(Fields),
    Many(Fields),
}

/// Number on the wire, name in JSON, how it is written.
type Fields = &'static [(u64, &'static str, Wire)];

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("a number is longer than 64 bits")]
    Overlong,
    #[error("field {0} has another type than it should")]
    Type(u64),
    #[error("{0} is not valid")]
    Content(&'static str),
}

/// The object in a protobuf body. A kind that is not in the table is 415, for the client may still send it as JSON.
pub fn object(bytes: &[u8]) -> ApiResult<Value> {
    let unreadable =
        |why| ApiError::new(Reason::BadRequest, format!("the request body cannot be decoded as protobuf: {why}"));
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(|| unreadable(Malformed::Content("the beginning")))?;
    let (api_version, kind, raw) = open(envelope).map_err(unreadable)?;
    let Some(fields) = messages::of(&api_version, &kind) else {
        let message =
            format!("{api_version} {kind} is not read as protobuf: send application/json or application/yaml");
        return Err(ApiError::new(Reason::UnsupportedMediaType, message));
    };
    let mut object = message(raw, fields).map_err(unreadable)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

/// The envelope: what the object is, and its bytes.
fn open(envelope: &[u8]) -> Result<(String, String, &[u8]), Malformed> {
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader(envelope) {
        match field? {
            (1, Token::Bytes(bytes)) => {
                for field in Reader(bytes) {
                    match field? {
                        (1, Token::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Token::Bytes(bytes)) => kind = text(bytes)?,
                        (_, Token::Bytes(_) | Token::Number(_)) => {}
                    }
                }
            }
            (2, Token::Bytes(bytes)) => raw = bytes,
            (_, Token::Bytes(_) | Token::Number(_)) => {}
        }
    }
    Ok((api_version, kind, raw))
}

/// Fields the table does not know are passed over, as upstream does. As deep as the table, so the stack is bounded.
fn message(bytes: &[u8], fields: Fields) -> Result<Map<String, Value>, Malformed> {
    let mut object = Map::new();
    for field in Reader(bytes) {
        let (number, token) = field?;
        let Some((_, name, wire)) = fields.iter().find(|(known, ..)| *known == number) else { continue };
        match (wire, token) {
            (Wire::Int, Token::Number(0)) => {}
            // Integers are written as the 64 bits of their two's complement.
            (Wire::Int | Wire::Count, Token::Number(n)) => put(&mut object, name, json!(n.cast_signed())),
            (Wire::Bool, Token::Number(n)) => put(&mut object, name, json!(n != 0)),
            (Wire::Text, Token::Bytes(b"")) => {}
            (Wire::Text, Token::Bytes(bytes)) => put(&mut object, name, json!(text(bytes)?)),
            (Wire::Texts, Token::Bytes(bytes)) => push(&mut object, name, json!(text(bytes)?)),
            (Wire::Time, Token::Bytes(bytes)) => put_some(&mut object, name, time(bytes, 0)?),
            (Wire::MicroTime, Token::Bytes(bytes)) => put_some(&mut object, name, time(bytes, 6)?),
            (Wire::Raw, Token::Bytes(bytes)) => put_some(&mut object, name, raw(bytes)?),
            (Wire::TextMap, Token::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                insert(&mut object, name, key, json!(text(value)?));
            }
            (Wire::BytesMap, Token::Bytes(bytes)) => {
                let (key, value) = entry(bytes)?;
                insert(&mut object, name, key, json!(base64::engine::general_purpose::STANDARD.encode(value)));
            }
            (Wire::One(fields), Token::Bytes(bytes)) => {
                let inner = message(bytes, fields)?;
                put_some(&mut object, name, (!inner.is_empty()).then_some(Value::Object(inner)));
            }
            (Wire::Many(fields), Token::Bytes(bytes)) => {
                push(&mut object, name, Value::Object(message(bytes, fields)?));
            }
            (_, Token::Bytes(_) | Token::Number(_)) => return Err(Malformed::Type(number)),
        }
    }
    Ok(object)
}

fn put(object: &mut Map<String, Value>, name: &str, value: Value) {
    object.insert(name.to_owned(), value);
}

fn put_some(object: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        put(object, name, value);
    }
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) {
    if let Value::Array(items) = object.entry(name).or_insert_with(|| json!([])) {
        items.push(value);
    }
}

fn insert(object: &mut Map<String, Value>, name: &str, key: String, value: Value) {
    if let Value::Object(entries) = object.entry(name).or_insert_with(|| json!({})) {
        entries.insert(key, value);
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Content("a text"))
}

/// A map is a list of pairs, of which an empty half may be left out.
fn entry(bytes: &[u8]) -> Result<(String, &[u8]), Malformed> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for field in Reader(bytes) {
        match field? {
            (1, Token::Bytes(bytes)) => key = text(bytes)?,
            (2, Token::Bytes(bytes)) => value = bytes,
            (number, Token::Bytes(_) | Token::Number(_)) => return Err(Malformed::Type(number)),
        }
    }
    Ok((key, value))
}

/// Nothing inside is Go's zero time.
fn time(bytes: &[u8], digits: usize) -> Result<Option<Value>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for field in Reader(bytes) {
        match field? {
            (1, Token::Number(n)) => seconds = n.cast_signed(),
            (2, Token::Number(n)) => nanos = i32::try_from(n).map_err(|_| Malformed::Content("a time"))?,
            (number, Token::Bytes(_) | Token::Number(_)) => return Err(Malformed::Type(number)),
        }
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| Malformed::Content("a time"))?;
    Ok(Some(json!(format!("{time:.digits$}"))))
}

fn raw(bytes: &[u8]) -> Result<Option<Value>, Malformed> {
    for field in Reader(bytes) {
        if let (1, Token::Bytes(inside)) = field? {
            return serde_json::from_slice(inside).map(Some).map_err(|_| Malformed::Content("fieldsV1"));
        }
    }
    Ok(None)
}

/// What a field holds, before its type is known.
enum Token<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order. After an error nothing more comes.
struct Reader<'a>(&'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u64, Token<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u64, Token<'a>), Malformed> {
        let tag = self.number()?;
        let token = match tag & 7 {
            0 => Token::Number(self.number()?),
            1 => Token::Bytes(self.take(8)?),
            2 => {
                let length = self.number()?;
                Token::Bytes(self.take(usize::try_from(length).map_err(|_| Malformed::Truncated)?)?)
            }
            5 => Token::Bytes(self.take(4)?),
            // Groups are long gone; the rest never was.
            _ => return Err(Malformed::Type(tag >> 3)),
        };
        Ok((tag >> 3, token))
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Overlong)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("short");
        assert!(length < 128, "one byte of length");
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn reads_what_kubectl_sends_for_a_config_map() {
        let metadata = [field(1, b"c"), field(2, b""), field(3, b"default"), vec![7 << 3, 0], field(8, b"")].concat();
        let entry = |key: &[u8], value: &[u8]| [field(1, key), field(2, value)].concat();
        let raw = [
            field(1, &metadata),
            field(2, &entry(b"a", "ж".as_bytes())),
            field(2, &field(1, b"empty")),
            field(3, &entry(b"bin", &[0xff, 0])),
            vec![4 << 3, 0],
        ];
        let read = object(&body("v1", "ConfigMap", &raw.concat())).expect("readable");
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "namespace": "default"},
            "data": {"a": "ж", "empty": ""}, "binaryData": {"bin": "/wA="}, "immutable": false,
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn reads_times_and_lists() {
        let time = [vec![1 << 3, 0x80, 0x94, 0xeb, 0xdc, 0x03], vec![2 << 3, 0xe8, 0x07]].concat();
        let metadata = [field(14, b"x/y"), field(14, b"z"), field(8, &time)].concat();
        let read = object(&body("v1", "Event", &[field(1, &metadata), field(10, &time)].concat())).expect("readable");
        assert_eq!(read["metadata"]["finalizers"], json!(["x/y", "z"]));
        assert_eq!(read["metadata"]["creationTimestamp"], "2001-09-09T01:46:40Z");
        assert_eq!(read["eventTime"], "2001-09-09T01:46:40.000001Z");
    }

    #[test]
    fn refuses_what_is_no_such_body() {
        let code = |bytes: &[u8]| object(bytes).expect_err("unreadable").code();
        assert_eq!(code(b""), 400);
        assert_eq!(code(b"{}"), 400);
        assert_eq!(code(b"k8s\0"), 415, "an object of no kind");
        assert_eq!(code(&body("gaia.dev/v1alpha1", "Workload", b"")), 415);
        let whole = body("v1", "Namespace", &field(1, &field(1, b"n")));
        assert_eq!(object(&whole).expect("readable")["metadata"]["name"], "n");
        for end in MAGIC.len() + 1..whole.len() - 4 {
            // Between two fields it reads as an object without a name.
            let read = object(&whole[..end]).ok();
            assert!(read.is_none_or(|read| read["metadata"].is_null()), "cut at {end}");
        }
        assert_eq!(code(&body("v1", "Namespace", &[1 << 3, 1])), 400, "a number for a message");
        assert_eq!(code(&body("v1", "Namespace", &[0xff; 12])), 400, "a number without end");
        assert_eq!(code(&body("v1", "Namespace", &field(1, &field(1, &[0xff])))), 400, "no UTF-8");
    }
}
