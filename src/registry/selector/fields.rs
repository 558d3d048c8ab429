//! `metadata.name=x,status.phase!=y`. Only declared fields can be selected on; which, depends on the kind.

use serde_json::Value;

use crate::registry::Kind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Where the value is; the first one present counts (an Event's source has two homes).
    paths: Vec<String>,
    value: String,
    equal: bool,
}

impl FieldRequirement {
    pub fn matches(&self, object: &Value) -> bool {
        let found = self.paths.iter().find_map(|p| text_at(object, p)).unwrap_or_default();
        (found == self.value) == self.equal
    }

    pub fn exact_name(&self) -> Option<&str> {
        (self.equal && self.paths == ["metadata.name"]).then_some(&*self.value)
    }
}

pub fn parse(kind: &Kind, text: &str) -> Result<Vec<FieldRequirement>, String> {
    let terms = split_unescaped(text).into_iter().filter(|t| !t.is_empty());
    terms.map(|term| requirement(kind, &term)).collect()
}

fn requirement(kind: &Kind, term: &str) -> Result<FieldRequirement, String> {
    let invalid = || format!("invalid selector: '{term}'; can't understand '{term}'");
    let (key, value, equal) = operator(term).ok_or_else(invalid)?;
    let paths = paths_of(kind, key).ok_or_else(|| format!("field label not supported: {key}"))?;
    Ok(FieldRequirement { paths, value: unescape(value)?, equal })
}

/// The first operator ends the key: values hold `=` too.
fn operator(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (key, rest) = term.split_at(at);
    let (value, equal) = match rest.strip_prefix("!=") {
        Some(value) => (value, false),
        None => (rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?, true),
    };
    Some((key, value, equal))
}

fn paths_of(kind: &Kind, key: &str) -> Option<Vec<String>> {
    let own = |path: &str| Some(vec![path.to_owned()]);
    if key == "metadata.name" || (key == "metadata.namespace" && kind.namespaced) {
        return own(key);
    }
    if kind.selectable_fields.iter().any(|f| f.strip_prefix('.') == Some(key)) {
        return own(key);
    }
    if kind.is("", "Event") {
        return event_paths(key, "involvedObject", &["source.component", "reportingComponent"]);
    }
    if kind.is("events.k8s.io", "Event") {
        return event_paths(key, "regarding", &["reportingController", "deprecatedSource.component"]);
    }
    None
}

fn event_paths(key: &str, object: &str, source: &[&str]) -> Option<Vec<String>> {
    const REFERENCE: [&str; 7] = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    match key {
        "type" | "reason" => Some(vec![key.to_owned()]),
        "source" | "reportingComponent" | "reportingController" => {
            Some(source.iter().map(|s| (*s).to_owned()).collect())
        }
        _ => {
            let (parent, field) = key.split_once('.')?;
            (parent == object && REFERENCE.contains(&field)).then(|| vec![key.to_owned()])
        }
    }
}

fn text_at(object: &Value, path: &str) -> Option<String> {
    match path.split('.').try_fold(object, |at, name| at.get(name))? {
        Value::String(text) => Some(text.clone()),
        scalar @ (Value::Bool(_) | Value::Number(_)) => Some(scalar.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Splits at commas that no backslash escapes; the escapes stay.
fn split_unescaped(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = terms.len() - 1;
        match c {
            ',' => terms.push(String::new()),
            '\\' => {
                terms[last].push(c);
                terms[last].extend(chars.next());
            }
            _ => terms[last].push(c),
        }
    }
    terms
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                _ => return Err(format!("invalid field selector: invalid escape sequence in value: {value}")),
            },
            ('=', _) => return Err(format!("invalid field selector: unescaped character in value: {value}")),
            (plain, _) => out.push(plain),
        }
    }
    Ok(out)
}
