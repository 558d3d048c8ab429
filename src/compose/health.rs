//! `healthcheck`.

use super::field::Field;
use crate::api::container::Healthcheck;

pub(super) fn read(healthcheck: &Field<'_>) -> Option<Healthcheck> {
    let mut out = Healthcheck::default();
    for (key, field) in healthcheck.given() {
        match key {
            "test" => test(&field, &mut out),
            "disable" => out.disabled = field.boolean().filter(|disabled| *disabled).or(out.disabled),
            "interval" => out.interval_seconds = at_least_one(&field),
            "timeout" => out.timeout_seconds = at_least_one(&field),
            "start_period" => out.start_period_seconds = field.seconds(),
            "start_interval" => out.start_interval_seconds = at_least_one(&field),
            "retries" => {
                out.retries = field.integer().and_then(|retries| u32::try_from(retries).ok()).filter(|n| *n > 0)
            }
            _ => field.unknown(),
        }
    }
    if out.disabled == Some(true) {
        return Some(Healthcheck { disabled: Some(true), ..Healthcheck::default() });
    }
    Some(out)
}

/// Docker takes 0 for its own default.
fn at_least_one(field: &Field<'_>) -> Option<u32> {
    field.seconds().filter(|seconds| *seconds > 0)
}

fn test(field: &Field<'_>, out: &mut Healthcheck) {
    if !field.value.is_array() {
        out.shell = field.text();
        return;
    }
    let words = field.texts();
    match words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("NONE", [])) => out.disabled = Some(true),
        Some(("CMD", command @ [_, ..])) => out.command = command.to_vec(),
        Some(("CMD-SHELL", [line])) => out.shell = Some(line.clone()),
        _ => field.complain("must be a text, [NONE], [CMD, …] or [CMD-SHELL, line]"),
    }
}
