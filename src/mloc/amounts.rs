//! Amounts of memory and cores as users of MLOC write them.
//!
//! MLOC read `16Gi` as nothing, `500m` as 500 cores and `1.5` as 15. Here `Gi` counts, `500m` is half a core and decimals are
//! decimals. What stays MLOC's: units of memory are powers of 1024 in any case, with or without `i` and `B`.

use serde_json::Value;

/// How amounts of memory with a binary suffix are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemoryReading {
    /// `16Gi` asks for 16 GiB.
    #[default]
    Exact,
    /// As MLOC did: `Ki`, `Mi`, `Gi` and `Ti` without a `B` ask for nothing. Its templates ask for `64Gi` where 16 would do.
    Lenient,
}

/// Bytes of `16Gi`, `64 gb`, `1.5 GiB`, `1024`, 1024. None: not an amount.
pub fn bytes(value: &Value) -> Option<u64> {
    let text = text_of(value)?;
    let (number, unit) = parted(&text)?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        "k" | "ki" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        "p" | "pi" => 5,
        _ => return None,
    };
    whole(number * 1024f64.powi(power))
}

/// Whether MLOC would have passed over the amount: `16Gi`, and everything that it could not read.
pub fn is_ignored_by_mloc(value: &Value) -> bool {
    let Some(text) = text_of(value) else { return true };
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c.is_whitespace());
    unit.contains('.') || unit.ends_with(['i', 'I'])
}

/// Thousandths of a core of `8`, `"1.5"`, `500m`. None: not an amount.
pub fn millicores(value: &Value) -> Option<u64> {
    let text = text_of(value)?;
    let (number, unit) = parted(&text)?;
    match unit {
        "" => whole(number * 1000.0),
        "m" => whole(number),
        _ => None,
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A decimal number, and the letters behind it.
fn parted(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number = digits.parse().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))?;
    Some((number, unit.trim_start()))
}

/// Rounded up: who asks for a little more must not be given a little less.
fn whole(amount: f64) -> Option<u64> {
    // 2^63 bytes are more than any host has; above 2^53 the last digits do not matter.
    (amount.is_finite() && amount < 9.2e18).then(|| amount.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!("16Gi"), Some(16 << 30))]
    #[case(json!("16GiB"), Some(16 << 30))]
    #[case(json!("64 gb"), Some(64 << 30))]
    #[case(json!("32G"), Some(32 << 30))]
    #[case(json!("512m"), Some(512 << 20))]
    #[case(json!("1.5Gi"), Some(3 << 29))]
    #[case(json!("2T"), Some(2 << 40))]
    #[case(json!("100b"), Some(100))]
    #[case(json!(1024), Some(1024))]
    #[case(json!("1024"), Some(1024))]
    #[case(json!("lots"), None)]
    #[case(json!("16Gx"), None)]
    #[case(json!("16Bi"), None)]
    #[case(json!("16i"), None)]
    #[case(json!("GiB"), None)]
    #[case(json!("1.2.3G"), None)]
    #[case(json!("-1"), None)]
    #[case(json!(true), None)]
    fn memory_is_read_in_powers_of_1024(#[case] written: Value, #[case] expected: Option<u64>) {
        assert_eq!(bytes(&written), expected);
    }

    #[rstest]
    #[case(json!("500m"), Some(500))]
    #[case(json!("1.5"), Some(1500))]
    #[case(json!(1.5), Some(1500))]
    #[case(json!(8), Some(8000))]
    #[case(json!("8"), Some(8000))]
    #[case(json!("abc"), None)]
    #[case(json!("8 cores"), None)]
    fn half_a_core_is_half_a_core(#[case] written: Value, #[case] expected: Option<u64>) {
        assert_eq!(millicores(&written), expected);
    }

    #[rstest]
    #[case(json!("16Gi"), true)]
    #[case(json!("16 mi"), true)]
    #[case(json!("1.5GB"), true)]
    #[case(json!("16GiB"), false)]
    #[case(json!("16G"), false)]
    #[case(json!(16), false)]
    fn what_mloc_passed_over_is_known(#[case] written: Value, #[case] expected: bool) {
        assert_eq!(is_ignored_by_mloc(&written), expected);
    }
}
