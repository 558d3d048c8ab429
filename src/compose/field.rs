//! One value of a Compose file with its path: read as what it should be, or complained about.

use std::cell::RefCell;

use serde_json::Value;

use super::units;

/// Complaints by path, in the order in which they came up.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<(String, String)>>);

impl Problems {
    pub fn add(&self, path: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push((path.into(), message.into()));
    }

    pub fn take(self) -> Vec<(String, String)> {
        self.0.into_inner()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub value: &'a Value,
    pub path: String,
    pub problems: &'a Problems,
}

impl<'a> Field<'a> {
    pub fn complain(&self, message: impl Into<String>) {
        self.problems.add(self.path.clone(), message);
    }

    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn below(&self, key: &str, value: &'a Value) -> Field<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Field { value, path, problems: self.problems }
    }

    /// A text, also of a number or a truth value: YAML takes `1` and `true` for such, and Compose means the text.
    pub fn text(&self) -> Option<String> {
        let text = scalar(self.value);
        if text.is_none() {
            self.complain("must be a text");
        }
        text
    }

    pub fn boolean(&self) -> Option<bool> {
        let found = match self.value {
            Value::Bool(found) => Some(*found),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" | "1" => Some(true),
                "false" | "no" | "off" | "n" | "0" => Some(false),
                _ => None,
            },
            Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        };
        if found.is_none() {
            self.complain("must be true or false");
        }
        found
    }

    pub fn integer(&self) -> Option<i64> {
        let found = scalar(self.value).and_then(|text| text.trim().parse().ok());
        if found.is_none() {
            self.complain("must be a whole number");
        }
        found
    }

    /// Bytes, as a Kubernetes quantity.
    pub fn memory(&self) -> Option<String> {
        let found = self.text()?;
        let bytes = units::bytes(&found);
        if bytes.is_none() {
            self.complain(format!("{found:?} is no amount of memory like 512m or 8g"));
        }
        bytes.map(units::quantity)
    }

    /// Whole seconds.
    pub fn seconds(&self) -> Option<u32> {
        units::seconds(&self.text()?).map_err(|message| self.complain(message)).ok()
    }

    pub fn items(&self) -> Vec<Field<'a>> {
        let Value::Array(items) = self.value else {
            self.complain("must be a list");
            return Vec::new();
        };
        let field = |(i, value)| Field { value, path: format!("{}[{i}]", self.path), problems: self.problems };
        items.iter().enumerate().map(field).collect()
    }

    /// The fields of a mapping; extensions (`x-…`) are nobody's business.
    pub fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        let Value::Object(fields) = self.value else {
            self.complain("must be a mapping");
            return Vec::new();
        };
        let ours = fields.iter().filter(|(key, _)| !key.starts_with("x-"));
        ours.map(|(key, value)| (key.as_str(), self.below(key, value))).collect()
    }

    /// Entries that say something: `key:` alone is as if it were not there.
    pub fn given(&self) -> Vec<(&'a str, Field<'a>)> {
        self.entries().into_iter().filter(|(_, field)| !field.is_null()).collect()
    }

    pub fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Field::text).collect()
    }

    /// A list of texts, or one text alone.
    pub fn one_or_more(&self) -> Vec<String> {
        if self.value.is_array() { self.texts() } else { self.text().into_iter().collect() }
    }

    /// A mapping, or a list of `key=value`. No value: `key` alone, or null.
    pub fn pairs(&self) -> Vec<(String, Option<String>)> {
        if self.value.is_array() {
            return self
                .texts()
                .into_iter()
                .map(|text| match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                })
                .collect();
        }
        let Value::Object(fields) = self.value else {
            self.complain("must be a mapping, or a list of key=value");
            return Vec::new();
        };
        // Every key counts here: these are names of the user's.
        let pair = |(key, value): (&String, &'a Value)| match value {
            Value::Null => Some((key.clone(), None)),
            value => self.below(key, value).text().map(|text| (key.clone(), Some(text))),
        };
        fields.iter().filter_map(pair).collect()
    }

    /// Complains about an entry that nobody asked for.
    pub fn unknown(&self) {
        self.complain("is not supported");
    }
}

pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(found) => Some(found.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
