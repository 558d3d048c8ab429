//! What is wrong with one field, worded as upstream's `field.Error`: clients and their tests compare these texts.

use std::fmt;

use serde_json::Value;

use super::Cause;

/// The kinds of complaint; each has its own wording and its own `reason` in `details.causes`.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    Required {
        detail: String,
    },
    /// `value` is shown; for a container it is the name of its type.
    Invalid {
        value: Value,
        detail: String,
    },
    /// As `Invalid`, under the reason `FieldValueTypeInvalid`.
    WrongType {
        value: Value,
        detail: String,
    },
    NotSupported {
        value: Value,
        supported: Vec<String>,
    },
    Duplicate {
        value: Value,
    },
    Forbidden {
        detail: String,
    },
    TooLong {
        max: u64,
    },
    TooMany {
        actual: usize,
        max: u64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// `spec.live.container.image`, `spec.ports[0]`.
    pub field: String,
    pub problem: Problem,
}

impl FieldError {
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Required { detail: detail.into() } }
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Invalid { value: value.into(), detail: detail.into() } }
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Forbidden { detail: detail.into() } }
    }

    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        Self { field: field.into(), problem: Problem::TooLong { max } }
    }

    pub fn duplicate(field: impl Into<String>, value: Value) -> Self {
        Self { field: field.into(), problem: Problem::Duplicate { value } }
    }

    pub fn into_cause(self) -> Cause {
        Cause { reason: self.reason(), message: self.problem.to_string(), field: self.field }
    }

    fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required { .. } => "FieldValueRequired",
            Problem::Invalid { .. } => "FieldValueInvalid",
            Problem::WrongType { .. } => "FieldValueTypeInvalid",
            Problem::NotSupported { .. } => "FieldValueNotSupported",
            Problem::Duplicate { .. } => "FieldValueDuplicate",
            Problem::Forbidden { .. } => "FieldValueForbidden",
            Problem::TooLong { .. } => "FieldValueTooLong",
            Problem::TooMany { .. } => "FieldValueTooMany",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        write!(f, "{field}: {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Required { detail } if detail.is_empty() => f.write_str("Required value"),
            Problem::Required { detail } => write!(f, "Required value: {detail}"),
            Problem::Invalid { value, detail } | Problem::WrongType { value, detail } => {
                write!(f, "Invalid value: {}: {detail}", shown(value))
            }
            Problem::NotSupported { value, supported } => {
                let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
                write!(f, "Unsupported value: {}: supported values: {}", shown(value), supported.join(", "))
            }
            Problem::Duplicate { value } => write!(f, "Duplicate value: {}", shown(value)),
            Problem::Forbidden { detail } => write!(f, "Forbidden: {detail}"),
            Problem::TooLong { max } => write!(f, "Too long: may not be more than {max} bytes"),
            Problem::TooMany { actual, max } => {
                let items = if *max == 1 { "item" } else { "items" };
                write!(f, "Too many: {actual}: must have at most {max} {items}")
            }
        }
    }
}

/// A rejected value as Go prints it: scalars plainly, null as a string, containers in Go syntax.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => go_syntax(value),
    }
}

fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{k:?}:{}", go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
    }
}

/// So many complaints about one object are told. More help nobody, and a body of many small mistakes would come to an answer
/// of many times its size.
pub const MOST_COMPLAINTS: usize = 100;
/// So many bytes of one name are shown in a path.
const MOST_OF_A_NAME: usize = 256;

/// The way to a value, held by the frames of whoever walks there. Written down only where something is to be said of the value:
/// to make the path of every value costs the square of a body in which a long name stands above many values.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    Root,
    /// `spec` + `live` is `spec.live`.
    Field(&'a Place<'a>, &'a str),
    /// `spec.ports` + 0 is `spec.ports[0]`.
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    pub fn field<'a>(&'a self, name: &'a str) -> Place<'a> {
        Place::Field(self, name)
    }

    pub fn item(&self, index: usize) -> Place<'_> {
        Place::Item(self, index)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Item(above, index) => write!(f, "{above}[{index}]"),
            Place::Field(above, name) => {
                let end = name.floor_char_boundary(MOST_OF_A_NAME);
                let (dot, cut) =
                    (if matches!(above, Place::Root) { "" } else { "." }, if end < name.len() { "…" } else { "" });
                write!(f, "{above}{dot}{}{cut}", &name[..end])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_a_path() {
        let (root, long) = (Place::Root, "é".repeat(200));
        let (spec, ports) = (root.field("spec"), root.field("spec"));
        assert_eq!(root.to_string(), "");
        assert_eq!(ports.field("ports").item(0).field("port").to_string(), "spec.ports[0].port");
        assert_eq!(spec.field(&long).to_string(), format!("spec.{}…", "é".repeat(128)));
    }
}
