//! Selectors: as text into lists and watches, and beside those of the `kube` crate.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use kube::core::{Expression, Selector, SelectorExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{http, world};

const KEYS: [&str; 6] = ["app", "tier", "gaia.dev/x", "a.b/c_d", "absent", "9"];
const VALUES: [&str; 7] = ["web", "3", "", "y", "a-b_c.d", "Z", "default"];
const PLACES: [&str; 5] = [
    "/apis/gaia.dev/v1alpha1/namespaces/default/workloads",
    "/api/v1/configmaps",
    "/api/v1/events",
    "/apis/events.k8s.io/v1/events",
    "/apis/example.com/v1/widgets",
];

/// The first byte says what follows: two selectors as text, or a label selector said in bytes, which `kube` writes down and
/// judges beside us.
pub fn selectors(data: &[u8]) {
    match data.split_first() {
        None => {}
        Some((kind, rest)) if kind % 2 == 0 => as_text(kind / 2, rest),
        Some((_, rest)) => beside_kube(rest),
    }
}

/// Labels and fields with a newline between. A list and a watch take it or refuse it alike.
fn as_text(place: u8, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (labels, fields) = text.split_once('\n').unwrap_or((&text, ""));
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let place = PLACES[usize::from(place) % PLACES.len()];
    let path = format!("{place}?labelSelector={}&fieldSelector={}", encoded(labels), encoded(fields));
    // A longer URI is hyper's to refuse.
    if path.len() > usize::from(u16::MAX) - 64 {
        return;
    }
    world::with(|world| {
        let list = http::judged(world, http::request(Method::GET, &path, &Value::Null)).status;
        let watch = format!("{path}&watch=true&timeoutSeconds=1");
        let watch = http::judged(world, http::request(Method::GET, &watch, &Value::Null)).status;
        assert_eq!(list, watch, "{path}");
    });
}

fn beside_kube(data: &[u8]) {
    let (selector, labels) = said(data);
    world::with(|world| {
        let object = serde_json::json!({"metadata": {"name": "probe", "labels": labels}, "data": {}});
        let all = "/api/v1/namespaces/default/configmaps";
        let made = world.send(http::request(Method::POST, all, &object));
        assert_eq!(made.status.as_u16(), 201, "{}", String::from_utf8_lossy(&made.body));
        let text = selector.to_string();
        let query = utf8_percent_encode(&text, NON_ALPHANUMERIC);
        let path = format!("{all}?fieldSelector=metadata.name%3Dprobe&labelSelector={query}");
        let found = http::judged(world, http::request(Method::GET, &path, &Value::Null));
        let found = found.json().and_then(|list| Some(list["items"].as_array()?.len())).expect("a list");
        let gone = world.send(http::request(Method::DELETE, &format!("{all}/probe"), &Value::Null));
        assert_eq!(gone.status.as_u16(), 200);
        assert_eq!(found == 1, selector.matches(&labels), "{text:?} on {labels:?}");
    });
}

/// Three bytes a label, then four a requirement.
fn said(data: &[u8]) -> (Selector, BTreeMap<String, String>) {
    let pick = |from: &[&str], byte: u8| from[usize::from(byte) % from.len()].to_owned();
    let (count, rest) = data.split_first().map_or((0, data), |(count, rest)| (usize::from(count % 4), rest));
    let (labels, rest) = rest.split_at((count * 2).min(rest.len()));
    let labels = labels.chunks_exact(2).map(|two| (pick(&KEYS, two[0]), pick(&VALUES, two[1]))).collect();
    let requirement = |four: &[u8]| {
        let key = pick(&KEYS, four[1]);
        let values = BTreeSet::from([pick(&VALUES, four[2]), pick(&VALUES, four[3])]);
        match four[0] % 6 {
            0 => Expression::In(key, values),
            1 => Expression::NotIn(key, values),
            2 => Expression::Equal(key, pick(&VALUES, four[2])),
            3 => Expression::NotEqual(key, pick(&VALUES, four[2])),
            4 => Expression::Exists(key),
            _ => Expression::DoesNotExist(key),
        }
    };
    (rest.chunks_exact(4).take(5).map(requirement).collect(), labels)
}
