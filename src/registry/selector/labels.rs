//! `app=web,tier in (a,b),!old`: upstream's grammar.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRequirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    /// Holds for objects without the label too, as upstream.
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelRequirement {
    pub fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(allowed) => value.is_some_and(|v| allowed.iter().any(|a| a == v)),
            Test::NotIn(forbidden) => value.is_none_or(|v| forbidden.iter().all(|f| f != v)),
            Test::Above(bound) => number().is_some_and(|n| n > *bound),
            Test::Below(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

pub fn parse(text: &str) -> Result<Vec<LabelRequirement>, String> {
    let parts = split(text).into_iter().map(str::trim).filter(|p| !p.is_empty());
    parts.map(|part| requirement(part).map_err(|why| format!("unable to parse requirement: {why}"))).collect()
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Result<LabelRequirement, String> {
    let (key, test) = if let Some(key) = part.strip_prefix('!') {
        (key.trim(), Test::Absent)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key.trim(), Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key.trim(), Test::In(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = part.split_once('>') {
        (key.trim(), Test::Above(bound(value)?))
    } else if let Some((key, value)) = part.split_once('<') {
        (key.trim(), Test::Below(bound(value)?))
    } else {
        set_or_exists(part)?
    };
    let errors = super::super::names::qualified_name_errors(key);
    if let Some(error) = errors.first() {
        return Err(format!("<nil>: Invalid value: {key:?}: {error}"));
    }
    Ok(LabelRequirement { key: key.to_owned(), test })
}

fn bound(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| {
        format!("values[0][]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer", text.trim())
    })
}

fn set_or_exists(part: &str) -> Result<(&str, Test), String> {
    let Some((key, rest)) = part.split_once(char::is_whitespace) else { return Ok((part, Test::Exists)) };
    let rest = rest.trim();
    let (make, values): (fn(Vec<String>) -> Test, &str) = match rest.strip_prefix("notin") {
        Some(values) => (Test::NotIn, values),
        None => match rest.strip_prefix("in") {
            Some(values) => (Test::In, values),
            None => return Err(format!("found '{rest}', expected: in, notin, =, ==, !=, gt, lt")),
        },
    };
    let inside = values.trim().strip_prefix('(').and_then(|v| v.strip_suffix(')'));
    let inside = inside.ok_or_else(|| format!("found '{}', expected: '('", values.trim()))?;
    Ok((key, make(inside.split(',').map(|v| v.trim().to_owned()).collect())))
}
