//! Are two objects the same but for something? Told without copying either: every write asks.

use serde_json::{Map, Value};

/// The same fields, each pair of values as `same` says.
fn same_fields(a: &Map<String, Value>, b: &Map<String, Value>, same: impl Fn(&str, &Value, &Value) -> bool) -> bool {
    a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(name, value, other)))
}

/// The same fields with the same values, whatever is in those that `left_out` names.
pub fn same_without(a: &Map<String, Value>, b: &Map<String, Value>, left_out: impl Fn(&str) -> bool) -> bool {
    let counts = |map: &Map<String, Value>| map.keys().filter(|name| !left_out(name)).count();
    let mut compared = a.iter().filter(|(name, _)| !left_out(name));
    counts(a) == counts(b) && compared.all(|(name, value)| b.get(name) == Some(value))
}

/// Do the two differ in nothing but the times of their managers? Then nothing was written.
pub fn same_but_times(a: &Value, b: &Value) -> bool {
    same_objects(a, b, |field, a, b| match field {
        "metadata" => same_objects(a, b, |field, a, b| match (field, a, b) {
            ("managedFields", Value::Array(a), Value::Array(b)) => same_managers(a, b),
            _ => a == b,
        }),
        _ => a == b,
    })
}

fn same_objects(a: &Value, b: &Value, same: impl Fn(&str, &Value, &Value) -> bool) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_fields(a, b, same),
        _ => a == b,
    }
}

/// Entries are in the order of their times, which do not count.
fn same_managers(a: &[Value], b: &[Value]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut unmatched: Vec<&Value> = b.iter().collect();
    // Most often each is where it was, and found at the first look.
    a.iter().all(|entry| {
        let found = unmatched.iter().position(|other| same_entry(entry, other));
        found.map(|at| unmatched.remove(at)).is_some()
    })
}

fn same_entry(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_without(a, b, |name| name == "time"),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn object(spec: Value, managers: &[(&str, &str)]) -> Value {
        let entry = |(name, time): &(&str, &str)| json!({"manager": name, "time": time, "fieldsV1": {"f:spec": {}}});
        let managers: Vec<Value> = managers.iter().map(entry).collect();
        json!({"kind": "Workload", "metadata": {"name": "a", "managedFields": managers}, "spec": spec})
    }

    #[rstest]
    #[case::nothing(json!({"x": 1}), &[("a", "1"), ("b", "2")], true)]
    #[case::times(json!({"x": 1}), &[("a", "7"), ("b", "8")], true)]
    #[case::times_and_with_them_the_order(json!({"x": 1}), &[("b", "7"), ("a", "8")], true)]
    #[case::a_value(json!({"x": 2}), &[("a", "1"), ("b", "2")], false)]
    #[case::one_value_more(json!({"x": 1, "y": 1}), &[("a", "1"), ("b", "2")], false)]
    #[case::one_value_less(json!({}), &[("a", "1"), ("b", "2")], false)]
    #[case::a_manager(json!({"x": 1}), &[("a", "1"), ("c", "2")], false)]
    #[case::one_manager_less(json!({"x": 1}), &[("a", "1")], false)]
    #[case::one_manager_twice(json!({"x": 1}), &[("a", "1"), ("a", "2")], false)]
    fn they_differ_in(#[case] spec: Value, #[case] managers: &[(&str, &str)], #[case] same: bool) {
        let before = object(json!({"x": 1}), &[("a", "1"), ("b", "2")]);
        let after = object(spec, managers);
        assert_eq!((same_but_times(&before, &after), same_but_times(&after, &before)), (same, same));
    }

    #[rstest]
    #[case::what_is_left_out(json!({"a": 1, "b": 3}), true)]
    #[case::what_is_left_out_and_missing(json!({"a": 1}), true)]
    #[case::what_counts(json!({"a": 2, "b": 2}), false)]
    #[case::what_counts_and_is_missing(json!({"b": 2}), false)]
    #[case::what_counts_and_is_new(json!({"a": 1, "b": 2, "c": 3}), false)]
    fn but_for(#[case] other: Value, #[case] same: bool) {
        let (map, other) = (json!({"a": 1, "b": 2}), other);
        let (map, other) = (map.as_object().expect("a map"), other.as_object().expect("a map"));
        let same_but_b = |a, b| same_without(a, b, |name| name == "b");
        assert_eq!((same_but_b(map, other), same_but_b(other, map)), (same, same));
    }
}
