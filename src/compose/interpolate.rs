//! `$A`, `${A}`, `${A:-b}`, `${A-b}`, `${A:?why}`, `${A?why}`, `${A:+b}`, `${A+b}`, nested, and `$$` for a dollar.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field::Problems;

/// What variables stand for.
pub(super) type Variables = BTreeMap<String, String>;

/// So deep may defaults stand in defaults.
const MAX_DEPTH: usize = 16;

/// Linux gives no process an argument or a variable that is longer. Variables of variables of variables come to gigabytes else.
const MOST_OF_A_TEXT: usize = 128 * 1024;
/// All texts of a file together, with what variables put into them.
pub(super) const MOST_OF_A_FILE: usize = 16 * 1024 * 1024;

/// Every text of a value, keys not: as Compose does, before anything is read from it.
pub(super) fn value(value: Value, variables: &Variables, problems: &Problems) -> Value {
    each(value, &mut String::new(), variables, problems, &mut { MOST_OF_A_FILE })
}

/// `left`: so many bytes may still come.
fn each(value: Value, path: &mut String, variables: &Variables, problems: &Problems, left: &mut usize) -> Value {
    match value {
        Value::String(text) if !text.contains('$') => Value::String(text),
        Value::String(text) => match substitute(&text, variables) {
            Ok(long) if long.len() > *left => {
                // Told once.
                if std::mem::take(left) > 0 {
                    problems.add(
                        path.clone(),
                        format!("with its variables, the file comes to more than {MOST_OF_A_FILE} bytes here"),
                    );
                }
                Value::String(text)
            }
            Ok(text) => {
                *left -= text.len();
                Value::String(text)
            }
            Err(message) => {
                problems.add(path.clone(), message);
                Value::String(text)
            }
        },
        Value::Array(items) => {
            let mut below = |(i, item): (usize, Value)| {
                within(path, &format!("[{i}]"), |path| each(item, path, variables, problems, left))
            };
            items.into_iter().enumerate().map(&mut below).collect()
        }
        Value::Object(fields) => {
            let mut below = |(key, field): (String, Value)| {
                let dot = if path.is_empty() { "" } else { "." };
                let field = within(path, &format!("{dot}{key}"), |path| each(field, path, variables, problems, left));
                (key, field)
            };
            Value::Object(fields.into_iter().map(&mut below).collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// One step further down, and back.
fn within<T>(path: &mut String, step: &str, act: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push_str(step);
    let out = act(path);
    path.truncate(length);
    out
}

/// An error says what is wrong, without the value of any variable.
pub(super) fn substitute(text: &str, variables: &Variables) -> Result<String, String> {
    nested(text, variables, 0)
}

fn nested(text: &str, variables: &Variables, depth: usize) -> Result<String, String> {
    if depth > MAX_DEPTH {
        return Err("variables are nested too deep".to_owned());
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        if out.len() > MOST_OF_A_TEXT {
            return Err(too_long());
        }
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('$') {
            out.push('$');
            rest = more;
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing(inside).ok_or_else(|| format!("${{{inside} is not closed; $$ stands for a dollar"))?;
            out.push_str(&expression(&inside[..end], variables, depth)?);
            rest = &inside[end + 1..];
        } else {
            let end = name_end(after);
            if end == 0 {
                // No name: a dollar like any other.
                out.push('$');
            } else {
                out.push_str(required(&after[..end], variables)?);
            }
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    // What has no variable in it is as long as somebody wrote it.
    if out.len() > MOST_OF_A_TEXT && out.len() > text.len() { Err(too_long()) } else { Ok(out) }
}

fn too_long() -> String {
    format!("comes to more than {MOST_OF_A_TEXT} bytes with its variables")
}

/// Where the brace closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn name_end(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if starts { end } else { 0 }
}

/// What is between the braces.
fn expression(text: &str, variables: &Variables, depth: usize) -> Result<String, String> {
    let (name, operation) = text.split_at(name_end(text));
    if name.is_empty() {
        return Err(format!("${{{text}}} names no variable; $$ stands for a dollar"));
    }
    let value = variables.get(name);
    let (filled, operation) = match operation.strip_prefix(':') {
        Some(operation) => (value.filter(|value| !value.is_empty()), operation),
        None => (value, operation),
    };
    let mut operation = operation.chars();
    let kind = operation.next();
    let word = operation.as_str();
    match kind {
        None if text == name => required(name, variables).map(str::to_owned),
        Some('-') => filled.map_or_else(|| nested(word, variables, depth + 1), |value| Ok(value.clone())),
        Some('+') if filled.is_some() => nested(word, variables, depth + 1),
        Some('+') => Ok(String::new()),
        Some('?') => match filled {
            Some(value) => Ok(value.clone()),
            None => Err(match nested(word, variables, depth + 1)?.as_str() {
                "" => format!("{name} must be set, in .env beside the file"),
                why => format!("{name} must be set, in .env beside the file: {why}"),
            }),
        },
        _ => Err(format!("${{{text}}}: after the name may come -, :-, ?, :?, + or :+")),
    }
}

fn required<'a>(name: &str, variables: &'a Variables) -> Result<&'a str, String> {
    variables
        .get(name)
        .map(String::as_str)
        .ok_or_else(|| format!("{name} is not set: set it in .env beside the file, or say ${{{name}-}} for nothing"))
}
