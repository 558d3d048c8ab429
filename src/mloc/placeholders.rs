//! `${node.path}`: results of earlier steps in the documents of later ones (contract section 3.6).
//!
//! Grammar: `root ("." token)*`, `token := attribute? ("[" number "]")*`. The root is the name of a direct dependency. Only
//! values are looked at, not keys.

use serde_json::{Map, Value};

use super::python;

/// Stored result documents of direct dependencies, by the name under which they are referred to.
pub type Context = Map<String, Value>;

/// What a placeholder becomes that is the whole value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whole {
    /// Text, like any other.
    #[default]
    Text,
    /// What it stands for, a number or a list for instance.
    Typed,
}

/// The value with every placeholder replaced. What cannot be found becomes the empty text. Without any result at all the texts
/// stay as they are.
pub fn resolve(value: &Value, context: &Context, whole: Whole) -> Value {
    if context.is_empty() {
        return value.clone();
    }
    match value {
        Value::String(text) => match sole_expression(text).filter(|_| whole == Whole::Typed) {
            Some(expression) => look_up(expression, context).cloned().unwrap_or_default(),
            None => Value::String(replaced(text, context)),
        },
        Value::Array(items) => items.iter().map(|item| resolve(item, context, whole)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), resolve(value, context, whole))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The expression of a text that is nothing but one placeholder.
fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${")?.strip_suffix('}')?;
    (!inner.is_empty() && !inner.contains('}')).then_some(inner)
}

fn replaced(text: &str, context: &Context) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, opened) = rest.split_at(start);
        out.push_str(before);
        match opened[2..].find('}') {
            // `${}` is no placeholder.
            Some(0) | None => {
                out.push_str("${");
                rest = &opened[2..];
            }
            Some(end) => {
                out.push_str(&look_up(&opened[2..2 + end], context).map(python::text).unwrap_or_default());
                rest = &opened[2 + end + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What an expression stands for; None: nothing.
pub fn look_up<'c>(expression: &str, context: &'c Context) -> Option<&'c Value> {
    let mut parts = expression.trim().split('.').map(str::trim);
    let mut value = context.get(parts.next()?)?;
    for token in parts.filter(|token| !token.is_empty()) {
        let (attribute, mut indices) = match token.find('[') {
            Some(at) => token.split_at(at),
            None => (token, ""),
        };
        if !attribute.is_empty() {
            value = value.get(attribute)?;
        }
        while !indices.is_empty() {
            let (index, rest) = indices.strip_prefix('[')?.split_once(']')?;
            value = item(value.as_array()?, index.trim())?;
            indices = rest;
        }
    }
    Some(value)
}

/// A negative number counts from the end.
fn item<'v>(items: &'v [Value], index: &str) -> Option<&'v Value> {
    match index.parse::<i64>().ok()? {
        index @ 0.. => items.get(usize::try_from(index).ok()?),
        index => items.get(items.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?),
    }
}

/// How dependents call a step: its node name, else what follows the first `:` of its name, else all of it.
pub fn name_of<'n>(graph_node_name: Option<&'n str>, metadata_name: &'n str) -> &'n str {
    let after = metadata_name.split_once(':').map(|(_, after)| after).filter(|after| !after.is_empty());
    graph_node_name.filter(|name| !name.is_empty()).or(after).unwrap_or(metadata_name)
}

/// A stored file as placeholders see it: what has no `result` of its own (a worker's own output on a shared disk) is one.
pub fn wrapped(stored: Value) -> Value {
    match stored {
        Value::Object(fields) if fields.contains_key("result") => Value::Object(fields),
        other => Value::Object(Map::from_iter([("result".to_owned(), other)])),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn context() -> Context {
        let stored = json!({
            "task_id": "t1", "worker_id": "w1",
            "result": {
                "final_model_archive_url": "http://host/a.zip", "ok": true, "none": null, "loss": 0.5,
                "items": [{"output": "first"}, {"output": "second"}], "grid": [[1, 2], [3, 4]], "map": {"k": 1},
            },
        });
        Map::from_iter([("s-1".to_owned(), stored)])
    }

    #[rstest]
    #[case("${s-1.result.final_model_archive_url}", "http://host/a.zip")]
    #[case("id=${s-1.task_id} by ${ s-1.worker_id }", "id=t1 by w1")]
    #[case("${s-1.result.items[0].output}", "first")]
    #[case("${s-1.result.items[-1].output}", "second")]
    #[case("${s-1.result.grid[1][0]}", "3")]
    #[case("${s-1..result..ok}", "True")]
    #[case("${s-1.result.none}", "")]
    #[case("${s-1.result.loss}", "0.5")]
    #[case("${s-1.result.map}", "{'k': 1}")]
    #[case("${s-1.result.missing}", "")]
    #[case("${s-1.result.items[7].output}", "")]
    #[case("${s-1.result.items[x]}", "")]
    #[case("${other.result}", "")]
    #[case("${QDRANT_API_KEY}!", "!")]
    #[case("$s ${} ${open", "$s ${} ${open")]
    fn placeholders_become_text(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(resolve(&json!({"a": [text]}), &context(), Whole::Text), json!({"a": [expected]}));
    }

    #[test]
    fn without_any_result_texts_stay() {
        let value = json!({"key": "${s-1.result}"});
        assert_eq!(resolve(&value, &Context::new(), Whole::Text), value);
    }

    #[test]
    fn keys_stay() {
        let value = json!({"${s-1.task_id}": 1});
        assert_eq!(resolve(&value, &context(), Whole::Text), value);
    }

    #[rstest]
    #[case("${s-1.result.grid}", json!([[1, 2], [3, 4]]))]
    #[case("${s-1.result.none}", json!(null))]
    #[case("n=${s-1.result.loss}", json!("n=0.5"))]
    #[case("${s-1.task_id}${s-1.task_id}", json!("t1t1"))]
    fn a_type_is_kept_when_that_is_asked_for(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(resolve(&json!(text), &context(), Whole::Typed), expected);
    }

    #[rstest]
    #[case(Some("node"), "base:stage", "node")]
    #[case(None, "base:stage:x", "stage:x")]
    #[case(None, "base", "base")]
    fn steps_have_names(#[case] node: Option<&str>, #[case] name: &str, #[case] expected: &str) {
        assert_eq!(name_of(node, name), expected);
    }

    #[test]
    fn bare_output_of_a_worker_is_a_result() {
        assert_eq!(wrapped(json!({"items": []})), json!({"result": {"items": []}}));
        assert_eq!(wrapped(json!({"result": 1, "task_id": "t"})), json!({"result": 1, "task_id": "t"}));
    }
}
