//! What the results of shards come to: contract section 4.6.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The stored document of a divided step, from the documents of its shards in their order.
pub fn aggregate(task: &str, shards: &[Value], received_at: &str) -> Value {
    json!({
        "task_id": task, "worker_id": "MULTI", "metadata": {"aggregated": true, "shards": shards.len()},
        "received_at": received_at, "result": {"shards": shards, "merged": merged(shards)},
    })
}

fn merged(shards: &[Value]) -> Value {
    let results: Vec<&Value> = shards.iter().filter_map(|shard| shard.get("result")).collect();
    let items: Vec<&Value> = results.iter().filter_map(|result| result.get("items")?.as_array()).flatten().collect();
    let mut merged = Map::from_iter([("items".to_owned(), json!(items))]);
    if let Some(usage) = usage(&results) {
        merged.insert("usage".to_owned(), usage);
    }
    let mut models: Vec<&Value> = Vec::new();
    for model in results.iter().filter_map(|result| result.get("model")).filter(|model| !model.is_null()) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    match models.as_slice() {
        [] => {}
        [one] => drop(merged.insert("model".to_owned(), (*one).clone())),
        several => drop(merged.insert("model".to_owned(), json!(several))),
    }
    Value::Object(merged)
}

/// Sums by key; whole sums are whole numbers.
fn usage(results: &[&Value]) -> Option<Value> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (key, value) in results.iter().filter_map(|result| result.get("usage")?.as_object()).flatten() {
        if let Some(number) = value.as_f64() {
            *sums.entry(key).or_default() += number;
        }
    }
    let number = |sum: f64| match sum.fract() == 0.0 && sum.abs() < 9e15 {
        true => json!(sum as i64),
        false => json!(sum),
    };
    (!sums.is_empty()).then(|| sums.into_iter().map(|(key, sum)| (key.to_owned(), number(sum))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_joined_numbers_added_and_models_named() {
        let usage = json!({"prompt_tokens": 3, "latency_sec": 0.25, "device": "cpu"});
        let shard = |item: i32, model: &str| json!({"result": {"items": [item], "usage": usage, "model": model}});
        let whole = aggregate("p", &[shard(1, "m"), shard(2, "m")], "now");
        assert_eq!(whole["metadata"], json!({"aggregated": true, "shards": 2}));
        assert_eq!(whole["result"]["shards"][1]["result"]["items"], json!([2]));
        let merged = json!({"items": [1, 2], "usage": {"prompt_tokens": 6, "latency_sec": 0.5}, "model": "m"});
        assert_eq!(whole["result"]["merged"], merged);
        let two = aggregate("p", &[shard(1, "m"), shard(2, "n")], "now");
        assert_eq!(two["result"]["merged"]["model"], json!(["m", "n"]));
        let bare = aggregate("p", &[json!({"result": {}}), json!({"result": {"usage": {"latency_sec": 1.0}}})], "now");
        assert_eq!(bare["result"]["merged"], json!({"items": [], "usage": {"latency_sec": 1}}));
    }
}
