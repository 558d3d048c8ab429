//! Kubernetes quantities as far as our kinds need them: amounts of memory and of cores. Reading only; what was written
//! stays as it was written.

/// What the schema asks of an amount of memory or of cores: decimal, with a binary or decimal suffix.
pub const PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";

/// Bytes of `8Gi`, `500M`, `1.5G`, `1024`; a fraction of a byte is rounded up, as upstream does. None when the text is
/// not a quantity or too large for 64 bits.
pub fn bytes(text: &str) -> Option<u64> {
    let milli = milli(text)?;
    u64::try_from(milli.div_ceil(1000)).ok()
}

/// Thousandths of a core of `1.5`, `500m`, `2`.
pub fn millicores(text: &str) -> Option<u64> {
    u64::try_from(milli(text)?).ok()
}

/// Whole MiB of an amount of memory, rounded up: who asks for a little more must not be given a little less.
pub fn mib(text: &str) -> Option<u64> {
    Some(bytes(text)?.div_ceil(1 << 20))
}

/// The amount in thousandths, rounded up.
fn milli(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (number, ""),
    };
    if whole.is_empty() || whole.len() > 15 || fraction.len() > 9 {
        return None;
    }
    // At most 24 digits: fits 128 bits, and so does the product with the largest factor.
    let unscaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(unscaled.checked_mul(thousandths_in(suffix)?)?.div_ceil(scale))
}

fn thousandths_in(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000u128.pow(2),
        "G" => 1000 * 1000u128.pow(3),
        "T" => 1000 * 1000u128.pow(4),
        "P" => 1000 * 1000u128.pow(5),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{bytes, mib, millicores};

    #[rstest]
    #[case("1024", Some(1024))]
    #[case("1k", Some(1000))]
    #[case("1Ki", Some(1024))]
    #[case("1.5Gi", Some(1_610_612_736))]
    #[case("500M", Some(500_000_000))]
    #[case("1m", Some(1))]
    #[case("0.1", Some(1))]
    #[case("999999999999999Pi", None)]
    #[case("64 Gi", None)]
    #[case("64gb", None)]
    #[case("-1", None)]
    #[case("1.", None)]
    #[case(".5", None)]
    #[case("1.2.3", None)]
    #[case("", None)]
    fn reads_bytes(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(bytes(text), expected);
    }

    #[test]
    fn rounds_up_to_the_next_unit() {
        assert_eq!(mib("1Mi"), Some(1));
        assert_eq!(mib("1.0000001Mi"), Some(2));
        assert_eq!(millicores("1.5"), Some(1500));
        assert_eq!(millicores("250m"), Some(250));
        assert_eq!(millicores("0.0001"), Some(1));
    }
}
