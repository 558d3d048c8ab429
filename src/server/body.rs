//! Request bodies: JSON, YAML and protobuf into values, bounded, duplicate keys noticed.

use std::fmt;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::protobuf;
use crate::registry::{ApiError, ApiResult, FieldValidation, MOST_COMPLAINTS, Place, Reason};

/// As much as an API server takes.
pub const LIMIT_BYTES: usize = 3 * 1024 * 1024;

/// Reads the whole body; 413 above the limit.
pub async fn read(body: Body) -> ApiResult<Bytes> {
    axum::body::to_bytes(body, LIMIT_BYTES).await.map_err(|error| {
        if std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            let message = format!("Request entity too large: limit is {LIMIT_BYTES}");
            ApiError::new(Reason::RequestEntityTooLarge, message)
        } else {
            ApiError::new(Reason::BadRequest, format!("the request body cannot be read: {error}"))
        }
    })
}

/// The media type of the body without its parameters, lower case; empty when the client does not say.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body and what is to be said about it.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// Under [`FieldValidation::Warn`]: the duplicate keys.
    pub warnings: Vec<String>,
}

/// Decodes an object by its media type; none means JSON. Anything else is 415.
pub fn object(media_type: &str, bytes: &[u8], validation: FieldValidation) -> ApiResult<Decoded> {
    let decoded = match media_type {
        "" | "application/json" => json(bytes, validation)?,
        "application/yaml" | "application/x-yaml" => yaml(bytes, validation)?,
        "application/vnd.kubernetes.protobuf" => Decoded { value: protobuf::object(bytes)?, warnings: Vec::new() },
        _ => return Err(unsupported("application/json, application/yaml")),
    };
    if decoded.value.is_object() {
        Ok(decoded)
    } else {
        Err(ApiError::new(Reason::BadRequest, "the request body must be an object"))
    }
}

/// 415 that names what would be read.
pub fn unsupported(supported: &str) -> ApiError {
    let message =
        format!("the body of the request was in an unknown format - accepted media types include: {supported}");
    ApiError::new(Reason::UnsupportedMediaType, message)
}

/// JSON of any type.
pub fn json(bytes: &[u8], validation: FieldValidation) -> ApiResult<Decoded> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Node { place: &Place::Root, duplicates: &mut duplicates };
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| unreadable(&error))?;
    let warnings: Vec<String> = duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => {
            Err(ApiError::new(Reason::BadRequest, format!("strict decoding error: {}", warnings.join(", "))))
        }
        FieldValidation::Strict | FieldValidation::Warn => Ok(Decoded { value, warnings }),
        FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
    }
}

/// YAML of any type, of which JSON is a part: what looks like JSON is read as JSON, which is the stricter and faster way.
pub fn yaml(bytes: &[u8], validation: FieldValidation) -> ApiResult<Decoded> {
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok(decoded) = json(bytes, FieldValidation::Ignore)
    {
        return if validation == FieldValidation::Ignore { Ok(decoded) } else { json(bytes, validation) };
    }
    let options = |policy| serde_saphyr::options! { duplicate_keys: policy };
    let strict =
        serde_saphyr::from_slice_with_options(bytes, options(serde_saphyr::options::DuplicateKeyPolicy::Error));
    let error = match strict {
        Ok(value) => return Ok(Decoded { value, warnings: Vec::new() }),
        Err(error) => error,
    };
    // Perhaps it is only the duplicates that are wrong with it.
    let lenient = options(serde_saphyr::options::DuplicateKeyPolicy::LastWins);
    match serde_saphyr::from_slice_with_options(bytes, lenient) {
        Err(_) => Err(unreadable(&error)),
        Ok(value) => match validation {
            FieldValidation::Strict => {
                Err(ApiError::new(Reason::BadRequest, format!("strict decoding error: {error}")))
            }
            FieldValidation::Warn => Ok(Decoded { value, warnings: vec![first_line(&error.to_string())] }),
            FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
        },
    }
}

fn unreadable(error: &dyn fmt::Display) -> ApiError {
    ApiError::new(Reason::BadRequest, format!("the request body cannot be decoded: {error}"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Builds a `Value`, keeping the last of duplicate keys and remembering where the first of them were.
struct Node<'a> {
    place: &'a Place<'a>,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = {
            let place = self.place.item(out.len());
            items.next_element_seed(Node { place: &place, duplicates: self.duplicates })?
        } {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = serde_json::Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = self.place.field(&key);
            if self.duplicates.len() < MOST_COMPLAINTS && out.contains_key(&key) {
                self.duplicates.push(place.to_string());
            }
            let value = entries.next_value_seed(Node { place: &place, duplicates: self.duplicates })?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_refused_told_or_passed_over() {
        let bytes = br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#;
        let error = object("application/json", bytes, FieldValidation::Strict).expect_err("strict");
        assert_eq!(error.code(), 400);
        assert_eq!(error.message, r#"strict decoding error: duplicate field "b[0].c", duplicate field "a""#);
        let told = object("", bytes, FieldValidation::Warn).expect("warned");
        assert_eq!(told.value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(told.warnings, [r#"duplicate field "b[0].c""#, r#"duplicate field "a""#]);
        assert!(object("", bytes, FieldValidation::Ignore).expect("ignored").warnings.is_empty());
    }

    #[test]
    fn yaml_is_read_and_its_duplicates_too() {
        let plain = object("application/yaml", b"a: 1\nb: [x, true, 1.5]\n", FieldValidation::Strict).expect("yaml");
        assert_eq!(plain.value, json!({"a": 1, "b": ["x", true, 1.5]}));
        let twice = b"a: 1\na: 2\n";
        assert_eq!(object("application/yaml", twice, FieldValidation::Strict).expect_err("strict").code(), 400);
        let told = object("application/yaml", twice, FieldValidation::Warn).expect("warned");
        assert_eq!((told.value, told.warnings.len()), (json!({"a": 2}), 1));
        let as_json = object("application/yaml", br#" {"a": 1, "a": 2}"#, FieldValidation::Warn).expect("json in yaml");
        assert_eq!(as_json.warnings, [r#"duplicate field "a""#]);
    }

    #[test]
    fn says_what_it_cannot_read() {
        let fails = |media, bytes: &[u8]| object(media, bytes, FieldValidation::Ignore).expect_err("unreadable").code();
        assert_eq!(fails("application/vnd.kubernetes.protobuf", b"k8s\0"), 415, "of no kind that is known");
        assert_eq!(fails("text/plain", b"{}"), 415);
        assert_eq!(fails("application/json", b"{"), 400);
        assert_eq!(fails("application/json", b"{} x"), 400);
        assert_eq!(fails("application/json", b"[]"), 400);
        let deep = "[".repeat(100_000);
        assert_eq!(fails("application/json", deep.as_bytes()), 400);
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_413() {
        let error = read(Body::from(vec![b' '; LIMIT_BYTES + 1])).await.expect_err("too large");
        assert_eq!(error.code(), 413);
        assert_eq!(read(Body::from(vec![b' '; LIMIT_BYTES])).await.expect("just fits").len(), LIMIT_BYTES);
    }
}
