//! Bodies, field by field: contract section 1.12. All problems are told at once, as the original's framework does.

use std::{collections::BTreeMap, ops::RangeInclusive};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::Refusal;
use crate::facades::reply::is_json;

/// Of what is sent on to droplets; the original has no bound.
const LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// The fields of a body, as they were written, and what is wrong with them so far.
pub struct Fields<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    faults: Vec<Value>,
}

pub async fn whole(body: Body) -> Result<Bytes, Refusal> {
    let too_large = |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large or broke off");
    to_bytes(body, LIMIT_BYTES).await.map_err(too_large)
}

/// A body of a call that is as it should be, read without a look at anything else. None: [`fields`] is to judge.
pub fn plain<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a Bytes) -> Option<T> {
    serde_json::from_slice(body).ok().filter(|_| is_json(headers))
}

pub fn fields<'a>(headers: &HeaderMap, body: &'a Bytes) -> Result<Fields<'a>, Refusal> {
    let fields = object(headers, body).map_err(|fault| Refusal::invalid(vec![fault]))?;
    Ok(Fields { fields, faults: Vec::new() })
}

fn object<'a>(headers: &HeaderMap, bytes: &'a Bytes) -> Result<BTreeMap<String, &'a RawValue>, Value> {
    if bytes.is_empty() {
        return Err(json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}));
    }
    let no_object = |input: Value| {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        json!({"type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": input})
    };
    if !is_json(headers) {
        return Err(no_object(Value::String(String::from_utf8_lossy(bytes).into_owned())));
    }
    let invalid = |offset: usize, why: String| {
        json!({"type": "json_invalid", "loc": ["body", offset], "msg": "JSON decode error", "input": {},
            "ctx": {"error": why}})
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(invalid(error.valid_up_to(), error.to_string())),
    };
    // What is no object is looked at again, to say what it is.
    let read = |error: serde_json::Error| match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) if raw.get().starts_with('{') => invalid(offset(text, &error), error.to_string()),
        Ok(raw) => no_object(shown(raw)),
        Err(error) => invalid(offset(text, &error), error.to_string()),
    };
    serde_json::from_str(text).map_err(read)
}

/// Characters before the fault.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let before = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    before.map(|line| line.chars().count()).sum::<usize>() + error.column().saturating_sub(1)
}

/// What is too deep to be repeated is not.
fn shown(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

impl<'a> Fields<'a> {
    /// What was read, unless anything is wrong.
    pub fn judged<T>(self, read: T) -> Result<T, Refusal> {
        if self.faults.is_empty() { Ok(read) } else { Err(Refusal::invalid(self.faults)) }
    }

    pub fn fault(&mut self, kind: &str, loc: &[&str], msg: impl Into<String>, input: Value) {
        let mut place = vec!["body"];
        place.extend(loc);
        let url = format!("https://errors.pydantic.dev/2.5/v/{kind}");
        self.faults.push(json!({"type": kind, "loc": place, "msg": msg.into(), "input": input, "url": url}));
    }

    fn missing(&mut self, field: &str) {
        let input = self.fields.iter().map(|(key, value)| (key.clone(), shown(value))).collect();
        self.fault("missing", &[field], "Field required", Value::Object(input));
    }

    fn given(&self, field: &str) -> Option<Value> {
        self.fields.get(field).map(|raw| shown(raw))
    }

    /// A required string. Where it is none, the fault is noted and the text is empty.
    pub fn text(&mut self, field: &str, length: RangeInclusive<usize>) -> String {
        match self.given(field) {
            None => self.missing(field),
            Some(Value::String(text)) => {
                let count = text.chars().count();
                if length.contains(&count) {
                    return text;
                }
                let (kind, msg) = match count < *length.start() {
                    true => ("string_too_short", "String should have at least 1 character".to_owned()),
                    false => ("string_too_long", format!("String should have at most {} characters", length.end())),
                };
                self.fault(kind, &[field], msg, Value::String(text));
            }
            Some(other) => self.fault("string_type", &[field], "Input should be a valid string", other),
        }
        String::new()
    }

    pub fn optional_text(&mut self, field: &str) -> Option<String> {
        match self.given(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.fault("string_type", &[field], "Input should be a valid string", other);
                None
            }
        }
    }

    /// One of a few words. Absent: the default, or a fault where there is none.
    pub fn word(&mut self, field: &str, words: &[&'static str], default: Option<&'static str>) -> &'static str {
        let given = match (self.given(field), default) {
            (None, Some(default)) => return default,
            (None, None) => {
                self.missing(field);
                return words[0];
            }
            (Some(given), _) => given,
        };
        if let Some(word) = words.iter().find(|word| given == **word) {
            return word;
        }
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let all = match quoted.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => quoted.concat(),
        };
        self.fault("literal_error", &[field], format!("Input should be {all}"), given);
        words[0]
    }

    /// An object, as it was written. Null counts as absent where that is allowed.
    pub fn object(&mut self, field: &str, null: bool) -> Option<&'a RawValue> {
        match self.fields.get(field).copied() {
            None => None,
            Some(raw) if raw.get() == "null" && null => None,
            Some(raw) if raw.get().starts_with('{') => Some(raw),
            Some(raw) => {
                let input = shown(raw);
                self.fault("dict_type", &[field], "Input should be a valid dictionary", input);
                None
            }
        }
    }

    pub fn required_object(&mut self, field: &str) {
        match self.fields.contains_key(field) {
            true => _ = self.object(field, false),
            false => self.missing(field),
        }
    }

    /// An object of strings, or null. It is only checked.
    pub fn texts(&mut self, field: &str) {
        let Some(raw) = self.object(field, true) else { return };
        let Value::Object(given) = shown(raw) else { return };
        for (key, value) in given.into_iter().filter(|(_, value)| !value.is_string()) {
            self.fault("string_type", &[field, &key], "Input should be a valid string", value);
        }
    }

    /// Absent: the default.
    pub fn number(&mut self, field: &str, default: i64) -> i64 {
        let given = match self.given(field) {
            None => return default,
            Some(given) => given,
        };
        let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
        let number = match &given {
            Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.unwrap_or_else(|| {
            self.fault("int_type", &[field], "Input should be a valid integer", given);
            default
        })
    }
}
