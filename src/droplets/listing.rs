//! What the registry lists: contract section 2.2.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::key;

/// A droplet as the registry has it. Written to the cache file as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub id: i64,
    pub name: String,
    pub endpoint: String,
    #[serde(default)]
    pub metadata: Map<String, Value>,
    #[serde(default)]
    pub steward: Option<String>,
    #[serde(default = "active")]
    pub status: String,
    #[serde(default)]
    pub proof: Option<String>,
    #[serde(default)]
    pub cost_usd: f64,
    #[serde(default)]
    pub yield_usd: f64,
    #[serde(default)]
    pub registered_at: Option<String>,
    #[serde(default)]
    pub updated_at: Option<String>,
}

fn active() -> String {
    "active".to_owned()
}

/// Droplets that are told; and of those that are none, why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    pub entries: Vec<Entry>,
    pub skipped: Vec<String>,
}

/// An object with an array `droplets`, or the bare array. Of one name the last counts, at the place of the first.
pub fn parse(body: &[u8]) -> Result<Listing, String> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the registry's answer is not JSON: {error}"))?;
    let items = match &body {
        Value::Array(items) => items,
        Value::Object(fields) => match fields.get("droplets") {
            Some(Value::Array(items)) => items,
            _ => return Err("the registry's answer has no array `droplets`".to_owned()),
        },
        _ => return Err("the registry's answer is neither an object nor an array".to_owned()),
    };
    let mut listing = Listing::default();
    for (n, item) in items.iter().enumerate() {
        match entry(item) {
            Err(why) => listing.skipped.push(format!("droplets[{n}]: {why}")),
            Ok(entry) => match listing.entries.iter_mut().find(|known| known.name == entry.name) {
                Some(known) => *known = entry,
                None => listing.entries.push(entry),
            },
        }
    }
    Ok(listing)
}

fn entry(item: &Value) -> Result<Entry, String> {
    let fields = item.as_object().ok_or("not an object")?;
    let text = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} is not a string")),
    };
    let required = |key: &str| text(key)?.ok_or_else(|| format!("{key} is missing"));
    let number = |key: &str| match fields.get(key) {
        None => Ok(0.0),
        Some(value) => value.as_f64().ok_or_else(|| format!("{key} is not a number")),
    };
    let id = match fields.get("id") {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_i64(),
        None => None,
    };
    Ok(Entry {
        id: id.ok_or("id is not a whole number")?,
        name: required("name")?,
        endpoint: required("endpoint")?,
        metadata: match fields.get("metadata") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata.clone(),
            Some(_) => return Err("metadata is not an object".to_owned()),
        },
        steward: text("steward")?,
        status: match fields.get("status") {
            None => active(),
            Some(Value::String(status)) => status.clone(),
            Some(_) => return Err("status is not a string".to_owned()),
        },
        proof: text("proof")?,
        cost_usd: number("cost_usd")?,
        yield_usd: number("yield_usd")?,
        registered_at: text("registered_at")?,
        updated_at: text("updated_at")?,
    })
}

/// As `GET /orchestrator/droplets` shows it: the keys of the code and those of the seed's text.
#[derive(Serialize)]
pub struct Shown<'a> {
    id: i64,
    name: &'a str,
    endpoint: &'a str,
    metadata: &'a Map<String, Value>,
    steward: Option<&'a str>,
    status: &'a str,
    proof: Option<&'a str>,
    cost_usd: f64,
    yield_usd: f64,
    registered_at: Option<&'a str>,
    updated_at: Option<&'a str>,
    url: &'a str,
    version: Option<&'a Value>,
}

impl<'a> From<&'a Entry> for Shown<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            id: entry.id,
            name: &entry.name,
            endpoint: &entry.endpoint,
            metadata: &entry.metadata,
            steward: entry.steward.as_deref(),
            status: &entry.status,
            proof: entry.proof.as_deref(),
            cost_usd: entry.cost_usd,
            yield_usd: entry.yield_usd,
            registered_at: entry.registered_at.as_deref(),
            updated_at: entry.updated_at.as_deref(),
            url: &entry.endpoint,
            version: entry.metadata.get("version"),
        }
    }
}

impl Entry {
    pub fn key(&self) -> String {
        key(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(body: Value) -> Listing {
        parse(body.to_string().as_bytes()).expect("a list")
    }

    #[test]
    fn takes_what_is_right_and_says_what_is_not() {
        let listing = listed(json!({"total": 9, "droplets": [
            {"id": 1, "name": "a", "endpoint": "http://a", "unknown": 1, "cost_usd": 2},
            {"id": "7", "name": "b", "endpoint": "http://b", "metadata": {"version": "1"}, "steward": null},
            {"id": 3, "name": "c", "url": "http://c"}, {"id": 4, "name": 5, "endpoint": "x"},
            {"id": 1, "name": "d", "endpoint": "http://d", "metadata": null}, 17,
            {"id": 9, "name": "a", "endpoint": "http://a2"},
        ]}));
        let names: Vec<_> = listing.entries.iter().map(|e| (e.id, e.name.as_str(), e.endpoint.as_str())).collect();
        assert_eq!(names, [(9, "a", "http://a2"), (7, "b", "http://b")]);
        assert_eq!(
            listing.skipped,
            [
                "droplets[2]: endpoint is missing",
                "droplets[3]: name is not a string",
                "droplets[4]: metadata is not an object",
                "droplets[5]: not an object",
            ]
        );
    }

    #[test]
    fn a_bare_array_is_a_list_and_anything_else_is_none() {
        assert_eq!(listed(json!([{"id": 1, "name": "a", "endpoint": "http://a"}])).entries.len(), 1);
        for junk in ["", "null", "7", "{}", r#"{"droplets": null}"#, "<html>", r#"{"droplets": {}}"#] {
            assert!(parse(junk.as_bytes()).is_err(), "{junk}");
        }
    }
}
