//! What the client commands have in common when they print.

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::{CliError, Outcome};

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}

pub fn yaml(value: &Value) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(|e| CliError::Failed(format!("cannot write YAML: {e}")))
}

/// Success unless something failed: all but the last failure are told here, the last by whoever called the command.
pub fn failures(mut failures: Vec<CliError>) -> Outcome {
    let Some(last) = failures.pop() else { return Ok(0) };
    for failure in failures {
        eprintln!("error: {}", failure.report());
    }
    Err(last)
}

/// Where the result of a command is an object or some: for people, or whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

/// The text for people, or the object whole.
pub fn result(
    out: &mut dyn Write,
    format: Format,
    object: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), CliError> {
    let whole = || serde_json::to_value(object).map_err(|e| CliError::Failed(format!("cannot write JSON: {e}")));
    match format {
        Format::Text => out.write_all(text().as_bytes())?,
        Format::Json => writeln!(out, "{:#}", whole()?)?,
        Format::Yaml => out.write_all(yaml(&whole()?)?.as_bytes())?,
    }
    Ok(out.flush()?)
}

/// Objects as `kubectl` lists them.
pub fn list(items: &[impl Serialize]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// `4s`, `3m12s`, `5h4m`, `2d`, as kubectl writes ages.
pub fn age(since: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let two = |big: i64, b: &str, small: i64, s: &str| match small {
        0 => format!("{big}{b}"),
        small => format!("{big}{b}{small}{s}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, "m", seconds % 60, "s"),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        28_800..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(192, "3m12s")]
    #[case(180, "3m")]
    #[case(3700, "61m")]
    #[case(11_100, "3h5m")]
    #[case(90_000, "25h")]
    #[case(200_000, "2d")]
    #[case(-5, "0s")]
    fn ages_are_short(#[case] seconds: i64, #[case] expected: &str) {
        let at = |seconds| jiff::Timestamp::from_second(1_700_000_000 + seconds).expect("in range");
        assert_eq!(age(at(0), at(seconds)), expected);
    }
}
