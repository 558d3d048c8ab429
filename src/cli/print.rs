//! What the client commands have in common when they print.

use serde_json::Value;

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
