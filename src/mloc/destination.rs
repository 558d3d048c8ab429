//! Where a result goes over HTTP: `spec.output.destination`, as workers read it, and whether that is us.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::python;

/// The path under which an orchestrator takes results.
const RESULTS: &str = "/api/v1/results";
const TIMEOUT_SECONDS: f64 = 15.0;
const LONGEST_TIMEOUT_SECONDS: f64 = 600.0;
const RETRIES: u64 = 2;
const MOST_RETRIES: u64 = 10;
/// Before retry `n` it is waited `n` times as long.
const RETRY_BACKOFF_SECONDS: f64 = 0.8;

/// How one result is delivered. Headers and URL may hold secrets.
#[derive(Clone, PartialEq)]
pub struct Destination {
    pub url: String,
    pub method: String,
    pub headers: Vec<(String, String)>,
    pub timeout: Duration,
    /// Further tries after a failure.
    pub retries: u32,
    pub backoff: Duration,
}

/// Of a document. None: its result goes nowhere over HTTP.
pub fn of(document: &Value) -> Option<Destination> {
    let destination = document.pointer("/spec/output/destination")?;
    let text = |key: &str| destination.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    if !text("type")?.eq_ignore_ascii_case("http") {
        return None;
    }
    let number = |key: &str, or: f64| destination.get(key).and_then(Value::as_f64).filter(|n| *n >= 0.0).unwrap_or(or);
    let headers = destination.get("headers").and_then(Value::as_object).into_iter().flatten();
    let retries = destination.get("retries").and_then(Value::as_u64).unwrap_or(RETRIES).min(MOST_RETRIES);
    let seconds = |key: &str, or: f64| Duration::from_secs_f64(number(key, or).min(LONGEST_TIMEOUT_SECONDS));
    Some(Destination {
        url: text("url")?.to_owned(),
        method: text("method").unwrap_or("POST").to_uppercase(),
        headers: headers.map(|(name, value)| (name.clone(), python::text(value))).collect(),
        timeout: seconds("timeoutSec", TIMEOUT_SECONDS),
        retries: retries as u32,
        backoff: seconds("retryBackoffSec", RETRY_BACKOFF_SECONDS),
    })
}

/// Whether a URL is that of our results. `base`: where workers reach us; where that is not known, whoever takes results as we do is
/// taken for us.
pub fn is_ours(url: &str, base: Option<&str>) -> bool {
    let url = url.trim_end_matches('/');
    match base {
        Some(base) => url.strip_prefix(base.trim_end_matches('/')) == Some(RESULTS),
        None => url
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .is_some_and(|(_, path)| format!("/{path}") == RESULTS),
    }
}

/// The document of a part: its result comes to us, for the whole's is made of it.
pub fn to_us(document: &mut Value, base: &str) {
    let Some(spec) = document.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let output = spec.entry("output").or_insert_with(|| Value::Object(Map::new()));
    if !output.is_object() {
        *output = Value::Object(Map::new());
    }
    output["destination"] = json!({"type": "http", "url": format!("{}{RESULTS}", base.trim_end_matches('/'))});
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn document(destination: Value) -> Value {
        json!({"spec": {"output": {"destination": destination, "artifacts": ["a"]}}})
    }

    #[test]
    fn a_destination_is_read_with_its_defaults() {
        let read = of(&document(json!({"type": "http", "url": "http://h/x"}))).expect("one");
        assert_eq!((read.url.as_str(), read.method.as_str(), read.retries), ("http://h/x", "POST", 2));
        assert_eq!((read.timeout, read.backoff), (Duration::from_secs(15), Duration::from_millis(800)));
        let all = json!({"type": "HTTP", "url": "http://h", "method": "put", "headers": {"A": "b", "N": 1},
            "timeoutSec": 1e9, "retries": 100, "retryBackoffSec": -1});
        let read = of(&document(all)).expect("one");
        assert_eq!((read.method.as_str(), read.retries, read.timeout.as_secs()), ("PUT", 10, 600));
        assert_eq!(read.backoff, Duration::from_millis(800));
        assert_eq!(read.headers, [("A".to_owned(), "b".to_owned()), ("N".to_owned(), "1".to_owned())]);
        for none in
            [json!({"type": "local"}), json!({"type": "http"}), json!(null), json!({"type": "http", "url": " "})]
        {
            assert!(of(&document(none)).is_none());
        }
    }

    #[rstest]
    #[case("http://gaia:8000/api/v1/results", Some("http://gaia:8000/"), true)]
    #[case("http://gaia:8000/api/v1/results/", Some("http://gaia:8000"), true)]
    #[case("http://other:8000/api/v1/results", Some("http://gaia:8000"), false)]
    #[case("http://other:8000/api/v1/results", None, true)]
    #[case("http://other/hook", None, false)]
    #[case("http://other/x/api/v1/results", None, false)]
    #[case("/api/v1/results", None, false)]
    fn ours_is_known(#[case] url: &str, #[case] base: Option<&str>, #[case] ours: bool) {
        assert_eq!(is_ours(url, base), ours);
    }

    #[test]
    fn a_part_delivers_to_us_and_keeps_the_rest() {
        let mut part = document(json!({"type": "http", "url": "http://other", "headers": {"A": "secret"}}));
        to_us(&mut part, "http://gaia:8000/");
        let destination = json!({"type": "http", "url": "http://gaia:8000/api/v1/results"});
        assert_eq!(part, document(destination.clone()));
        let mut bare = json!({"spec": {"output": null}});
        to_us(&mut bare, "http://gaia:8000");
        assert_eq!(bare["spec"]["output"]["destination"], destination);
    }
}
