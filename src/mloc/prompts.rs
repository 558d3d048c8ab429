//! What an `inference` document asks: the items of its list, or one text that is made of the results before it
//! (`data.type: graph_template`): contract sections 3.6 and 8. Pure.

use serde_json::Value;

use super::{
    Refused,
    placeholders::{Context, look_up},
};

/// The template that there is by name; all others have a text of their own.
const BRIEFING: &str = "two_column_briefing";
const ROLE: &str = "analyst";

/// What is asked, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// Not empty.
    pub items: Vec<Value>,
    /// The document's system prompt goes before each.
    pub with_system_prompt: bool,
}

/// Of `spec`, as a worker gets it. Err: the path of what is wrong.
pub fn prompts(spec: &Value) -> Result<Prompts, Refused> {
    let data = &spec["data"];
    match data["type"].as_str() {
        Some("list") => match data["items"].as_array() {
            Some(items) if !items.is_empty() => Ok(Prompts { items: items.clone(), with_system_prompt: true }),
            _ => Err(Refused::new("spec.data.items: must be a list that is not empty")),
        },
        Some("graph_template") => {
            let with_system_prompt = data["template"]["append_system_prompt"].as_bool().unwrap_or(false);
            Ok(Prompts { items: vec![Value::from(rendered(data, spec)?)], with_system_prompt })
        }
        Some("dataset") => Err(Refused::new(
            "spec.data.type: this worker loads no datasets; give a list, or a worker of MLOC's the task",
        )),
        Some(other) => Err(Refused::new(format!("spec.data.type: {other:?} is neither list nor graph_template"))),
        None => Err(Refused::new("spec.data.type: must be list or graph_template")),
    }
}

struct Column {
    label: String,
    value: String,
}

fn rendered(data: &Value, spec: &Value) -> Result<String, Refused> {
    let template = &data["template"];
    let listed = template.get("columns").or_else(|| data.get("columns")).and_then(Value::as_array);
    let listed = listed.filter(|listed| !listed.is_empty());
    let listed = listed.ok_or_else(|| Refused::new("spec.data.template.columns: must be a list that is not empty"))?;
    let context = spec["_upstreamResults"].as_object().cloned().unwrap_or_default();
    let columns = listed.iter().enumerate().map(|(n, given)| column(n, given, &context));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let text = template.as_str().or_else(|| template["text"].as_str()).filter(|text| !text.trim().is_empty());
    match (template["name"].as_str(), text) {
        (Some(BRIEFING), _) | (None, None) => briefing(&columns, &template["options"]),
        (_, Some(text)) => Ok(filled(text, &columns)),
        (Some(name), None) => Err(Refused::new(format!("spec.data.template.text: there is no template {name:?}"))),
    }
}

fn column(n: usize, given: &Value, context: &Context) -> Result<Column, Refused> {
    let text = |key: &str| given[key].as_str().map(str::trim).filter(|text| !text.is_empty());
    let label = text("label").or_else(|| text("name")).map_or_else(|| format!("Column {}", n + 1), str::to_owned);
    let expression = match (text("expr"), text("node"), text("path")) {
        (Some(expression), _, _) => expression.to_owned(),
        (None, Some(node), Some(path)) => format!("{node}.{path}"),
        _ => {
            return Err(Refused::new(format!("spec.data.template.columns[{n}]: must have expr, or node and path")));
        }
    };
    let found = look_up(&expression, context).filter(|found| !found.is_null()).or_else(|| given.get("default"));
    match found {
        Some(Value::String(text)) => Ok(Column { label, value: text.clone() }),
        Some(other) => Ok(Column { label, value: other.to_string() }),
        None => Err(Refused::new(format!(
            "spec.data.template.columns[{n}]: {expression:?} is nothing in the results before it"
        ))),
    }
}

/// `{col0_label}`, `{col0_value}`, … and the value of a column by its label; everything else in braces stays.
fn filled(text: &str, columns: &[Column]) -> String {
    let value = |name: &str| {
        let numbered = |(n, column): (usize, &Column)| match name.strip_prefix(&format!("col{n}_"))? {
            "label" => Some(column.label.clone()),
            "value" => Some(column.value.clone()),
            _ => None,
        };
        let named = || columns.iter().find(|column| column.label == name).map(|column| column.value.clone());
        columns.iter().enumerate().find_map(numbered).or_else(named)
    };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('{') {
        out += &rest[..at];
        rest = &rest[at..];
        let named = rest.find('}').and_then(|end| Some((value(&rest[1..end])?, end + 1)));
        let (piece, taken) = named.unwrap_or_else(|| ("{".to_owned(), 1));
        out += &piece;
        rest = &rest[taken..];
    }
    out + rest
}

fn briefing(columns: &[Column], options: &Value) -> Result<String, Refused> {
    if columns.len() < 2 {
        return Err(Refused::new(format!("spec.data.template.columns: {BRIEFING} takes two at least")));
    }
    let lines = |key: &str| match &options[key] {
        Value::String(line) => Some(vec![line.clone()]),
        Value::Array(lines) => Some(lines.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect()),
        _ => None,
    };
    let role = options["role"].as_str().filter(|role| !role.is_empty()).unwrap_or(ROLE);
    let article = if role.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    let intro = || vec![format!("You are {article} {role}. Compare these findings in a short briefing:")];
    let closing = || {
        let (left, right) = (columns[0].label.to_lowercase(), columns[1].label.to_lowercase());
        vec![format!(
            "Set them side by side in two columns, weigh {left} against {right}, and say what should be done."
        )]
    };
    let mut all = lines("intro").unwrap_or_else(intro);
    let of_columns = columns.iter().map(|column| {
        format!("- {}: {}", column.label, column.value.trim().replace("\r\n", "\n").replace('\n', "\n  "))
    });
    all.extend(of_columns);
    all.extend(lines("closing").unwrap_or_else(closing));
    Ok(all.join("\n"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn of_template(data: Value) -> Result<String, Refused> {
        let mut data = data;
        data["type"] = json!("graph_template");
        let results = json!({"a": {"result": {"items": [{"output": "one\ntwo"}]}}, "b": {"result": {"n": 7}}});
        let prompts = prompts(&json!({"data": data, "_upstreamResults": results}))?;
        Ok(prompts.items[0].as_str().expect("a text").to_owned())
    }

    fn columns() -> Value {
        json!([{"label": "Left", "node": "a", "path": "result.items[0].output"}, {"label": "Right", "expr": "b.result.n"}])
    }

    #[test]
    fn a_list_is_asked_item_by_item() {
        let asked = prompts(&json!({"data": {"type": "list", "items": ["x", "y"]}})).expect("prompts");
        assert_eq!(asked, Prompts { items: vec![json!("x"), json!("y")], with_system_prompt: true });
    }

    #[test]
    fn a_briefing_has_every_column() {
        let text = of_template(json!({"template": {"name": BRIEFING, "columns": columns()}})).expect("a text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..4], ["- Left: one", "  two", "- Right: 7"]);
        assert!(lines[0].starts_with("You are an analyst.") && lines[4].contains("weigh left against right"));
        let options = json!({"role": "cook", "closing": ["so", "there"]});
        let text = of_template(json!({"template": {"columns": columns(), "options": options}})).expect("a text");
        assert!(text.starts_with("You are a cook.") && text.ends_with("7\nso\nthere"), "{text}");
    }

    #[rstest]
    #[case(json!({"template": {"text": "{col1_label}: {col1_value} {x} {", "columns": columns()}}), "Right: 7 {x} {")]
    #[case(json!({"template": "{Right}, {Left}", "columns": columns()}), "7, one\ntwo")]
    #[case(json!({"template": {"name": "mine", "text": "{{col0_value}}", "columns": [{"expr": "c.d", "default": 3}]}}), "{3}")]
    fn a_text_is_filled(#[case] data: Value, #[case] expected: &str) {
        assert_eq!(of_template(data), Ok(expected.to_owned()));
    }

    #[rstest]
    #[case(json!({"data": {"type": "dataset", "url": "d"}}), "spec.data.type: this worker loads no datasets")]
    #[case(json!({"data": {"type": "list", "items": []}}), "spec.data.items: ")]
    #[case(json!({"data": {"items": ["a"]}}), "spec.data.type: ")]
    #[case(json!({"data": {"type": "graph_template", "template": {}}}), "spec.data.template.columns: ")]
    #[case(json!({"data": {"type": "graph_template", "template": {"columns": [{"label": "x"}]}}}), "spec.data.template.columns[0]: must have")]
    #[case(json!({"data": {"type": "graph_template", "template": {"columns": [{"expr": "a.b"}]}}}), "spec.data.template.columns[0]: \"a.b\" is nothing")]
    #[case(json!({"data": {"type": "graph_template", "template": {"columns": [{"expr": "a", "default": 1}]}}}), "spec.data.template.columns: two_column_briefing takes two")]
    #[case(json!({"data": {"type": "graph_template", "template": {"name": "x", "columns": [{"expr": "a", "default": 1}]}}}), "spec.data.template.text: there is no template \"x\"")]
    fn what_cannot_be_asked_is_told_with_its_path(#[case] spec: Value, #[case] told: &str) {
        let Refused(why) = prompts(&spec).expect_err("refused");
        assert!(why.starts_with(told), "{why}");
    }
}
