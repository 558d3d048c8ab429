//! How Python writes a value: what `str()` makes of results in placeholders (contract section 3.6).

use serde_json::Value;

/// `str(value)`, but nothing for None.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => representation(other),
    }
}

/// `repr(value)`
fn representation(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => of_float(float),
            None => number.to_string(),
        },
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(representation).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("{}: {}", quoted(key), representation(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// The shortest digits that mean the number; with an exponent below 1e-4 and from 1e16 on.
fn of_float(float: f64) -> String {
    if float == 0.0 || (1e-4..1e16).contains(&float.abs()) {
        return format!("{float:?}");
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// In single quotes, unless the text has some and no double ones.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() && u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// Each as CPython 3 answers `str(value)`.
    #[rstest]
    #[case(json!(null), "")]
    #[case(json!("as it is"), "as it is")]
    #[case(json!(true), "True")]
    #[case(json!(3), "3")]
    #[case(json!(3.0), "3.0")]
    #[case(json!(0.0001), "0.0001")]
    #[case(json!(0.00001), "1e-05")]
    #[case(json!(1e16), "1e+16")]
    #[case(json!(1234567890123456.0), "1234567890123456.0")]
    #[case(json!({"k": 1, "n": null, "t": [true, 0.5]}), "{'k': 1, 'n': None, 't': [True, 0.5]}")]
    #[case(json!(["it's", "a \"b\"", "both ' and \"", "line\nend\u{1}"]), r#"["it's", 'a "b"', 'both \' and "', 'line\nend\x01']"#)]
    #[case(json!({"ü": "ß"}), "{'ü': 'ß'}")]
    fn values_are_written_as_python_writes_them(#[case] value: Value, #[case] expected: &str) {
        assert_eq!(text(&value), expected);
    }
}
