//! How the data of a step is divided among shards: contract section 4.6. A part is stated by a rewritten split or by the items
//! themselves and never by `spec.shard` as well, for newer workers would divide once more.
//!
//! MLOC cut percentages into fractions, which dataset libraries refuse, read absolute slices as everything, and gave every shard
//! all items of a list. Here parts are whole percents, whole rows and some of the items each; together they are all of the data,
//! and no two overlap. What cannot be divided so is not.

use serde_json::{Value, json};

/// The documents of `most` shards, or of fewer where the data has fewer parts. None: the data cannot be divided.
pub fn divide(document: &Value, most: u32) -> Option<Vec<Value>> {
    let data = document.pointer("/spec/data")?;
    let (place, parts): (&str, Vec<Value>) = match (data.get("split").and_then(Value::as_str), data.get("items")) {
        (Some(split), _) if !split.trim().is_empty() => {
            ("split", splits(split, most)?.into_iter().map(Value::String).collect())
        }
        (_, Some(Value::Array(items))) => ("items", lists(items, most)),
        _ => return None,
    };
    if parts.len() < 2 {
        return None;
    }
    let with = |part: Value| {
        let mut shard = document.clone();
        shard["spec"]["data"][place] = part;
        // The data is divided already.
        shard["spec"].as_object_mut()?.remove("parallel");
        Some(shard)
    };
    parts.into_iter().map(with).collect()
}

/// Whether a step asks to be divided: `parallel.enabled` of an inference.
pub fn wanted(document: &Value) -> bool {
    let inference = document.pointer("/spec/taskType").and_then(Value::as_str);
    let enabled = document.pointer("/spec/parallel/enabled").and_then(Value::as_bool);
    inference.is_some_and(|kind| kind.eq_ignore_ascii_case("inference")) && enabled == Some(true)
}

/// How many shards at most, of so many idle workers that fit.
pub fn count(workers: u32, replicas: u32, most: u32) -> u32 {
    workers.min(replicas.max(workers.min(most)))
}

fn lists(items: &[Value], most: u32) -> Vec<Value> {
    let bounds = bounds(0, items.len() as u64, most);
    bounds.windows(2).map(|part| json!(items[part[0] as usize..part[1] as usize])).collect()
}

/// `train[:10%]` in parts.
fn splits(split: &str, most: u32) -> Option<Vec<String>> {
    let (name, range) = match split.trim().split_once('[') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(']')?)),
        None => (split.trim(), None),
    };
    // `a[..]+b[..]` is several splits.
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) {
        return None;
    }
    let (start, end, unit) = read(range.unwrap_or(":").trim())?;
    let bounds = bounds(start, end, most);
    Some(bounds.windows(2).map(|part| format!("{name}[{}{unit}:{}{unit}]", part[0], part[1])).collect())
}

/// Where a range begins and ends, and in what: `%` or rows.
fn read(range: &str) -> Option<(u64, u64, &'static str)> {
    let (start, end) = range.split_once(':').map_or(("", range), |(start, end)| (start.trim(), end.trim()));
    let percent = [start, end].iter().all(|bound| bound.is_empty() || bound.ends_with('%'));
    let number = |bound: &str| bound.trim_end_matches('%').trim().parse::<u64>().ok();
    if percent {
        let start = if start.is_empty() { 0 } else { number(start)? };
        let end = if end.is_empty() { 100 } else { number(end)? };
        let (start, end) = (start.min(100), end.min(100));
        return Some((start.min(end), start.max(end), "%"));
    }
    // How many rows there are behind an open end is not known here.
    let (start, end) = (if start.is_empty() { 0 } else { start.parse().ok()? }, end.parse().ok()?);
    (start < end).then_some((start, end, ""))
}

/// The ends of parts as equal as whole numbers can be.
fn bounds(start: u64, end: u64, most: u32) -> Vec<u64> {
    let length = end - start;
    let parts = u64::from(most).min(length).max(1);
    (0..=parts).map(|n| start + length * n / parts).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("train[:10%]", 4, &["train[0%:2%]", "train[2%:5%]", "train[5%:7%]", "train[7%:10%]"])]
    #[case("train", 2, &["train[0%:50%]", "train[50%:100%]"])]
    #[case("train[20%:40%]", 2, &["train[20%:30%]", "train[30%:40%]"])]
    #[case("train[40%:20%]", 2, &["train[20%:30%]", "train[30%:40%]"])]
    #[case("train[80%:]", 2, &["train[80%:90%]", "train[90%:100%]"])]
    #[case("train[10%]", 2, &["train[0%:5%]", "train[5%:10%]"])]
    #[case("train[:300%]", 2, &["train[0%:50%]", "train[50%:100%]"])]
    #[case("train[:200]", 3, &["train[0:66]", "train[66:133]", "train[133:200]"])]
    #[case("train[100:104]", 8, &["train[100:101]", "train[101:102]", "train[102:103]", "train[103:104]"])]
    #[case("train[:1%]", 4, &[])]
    #[case("train[100:]", 4, &[])]
    #[case("train[:2.5%]", 4, &[])]
    #[case("a[:10%]+b[:10%]", 4, &[])]
    fn splits_are_divided_whole(#[case] split: &str, #[case] most: u32, #[case] expected: &[&str]) {
        let document = json!({"spec": {"data": {"type": "dataset", "split": split}, "parallel": {"enabled": true}}});
        let shards = divide(&document, most).unwrap_or_default();
        let splits: Vec<&str> = shards.iter().filter_map(|shard| shard["spec"]["data"]["split"].as_str()).collect();
        assert_eq!(splits, expected);
        assert!(shards.iter().all(|shard| shard["spec"].get("parallel").is_none()));
    }

    #[test]
    fn a_list_is_divided_among_the_shards() {
        let document = json!({"spec": {"data": {"type": "list", "items": [1, 2, 3, 4, 5]}}});
        let items: Vec<Value> =
            divide(&document, 2).expect("divided").iter().map(|shard| shard["spec"]["data"]["items"].clone()).collect();
        assert_eq!(items, [json!([1, 2]), json!([3, 4, 5])]);
        assert_eq!(divide(&document, 9).expect("divided").len(), 5);
        assert_eq!(divide(&json!({"spec": {"data": {"items": [1]}}}), 2), None);
        assert_eq!(divide(&json!({"spec": {}}), 2), None);
    }

    #[rstest]
    #[case(4, 1, 8, 4)]
    #[case(10, 1, 8, 8)]
    #[case(10, 9, 8, 9)]
    #[case(2, 9, 8, 2)]
    fn there_are_as_many_as_workers_and_limits_allow(
        #[case] workers: u32,
        #[case] replicas: u32,
        #[case] most: u32,
        #[case] expected: u32,
    ) {
        assert_eq!(count(workers, replicas, most), expected);
    }
}
