//! Durations as `kubectl` shows them: two units while the first is small, one when it is large.

/// `5m`, `2d3h`, `4y12d` of so many seconds; a negative one of more than a clock's wobble is `<invalid>`.
pub fn short(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds, (MINUTE, 'm'), (1, 's')),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds, (HOUR, 'h'), (MINUTE, 'm')),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds, (DAY, 'd'), (HOUR, 'h')),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds, (YEAR, 'y'), (DAY, 'd')),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// The larger unit, and the rest in the smaller one unless that is nothing.
fn two(seconds: i64, (large, large_sign): (i64, char), (small, small_sign): (i64, char)) -> String {
    let rest = seconds % large / small;
    if rest == 0 {
        format!("{}{large_sign}", seconds / large)
    } else {
        format!("{}{large_sign}{rest}{small_sign}", seconds / large)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(-5, "<invalid>")]
    #[case(-1, "0s")]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(150, "2m30s")]
    #[case(599, "9m59s")]
    #[case(600, "10m")]
    #[case(179 * 60 + 59, "179m")]
    #[case(3 * 3600, "3h")]
    #[case(3 * 3600 + 90, "3h1m")]
    #[case(8 * 3600 + 1800, "8h")]
    #[case(47 * 3600 + 3599, "47h")]
    #[case(48 * 3600, "2d")]
    #[case(51 * 3600, "2d3h")]
    #[case(8 * 86400, "8d")]
    #[case(729 * 86400, "729d")]
    #[case(730 * 86400, "2y")]
    #[case(742 * 86400, "2y12d")]
    #[case(3000 * 86400, "8y")]
    fn shows(#[case] seconds: i64, #[case] expected: &str) {
        assert_eq!(short(seconds), expected);
    }
}
