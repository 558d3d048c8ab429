//! Steps of a handoff or a promotion, and memory over time, as text.

use jiff::Timestamp;

use super::super::table;
use crate::api::handoff::{HandoffStep, MemorySample, StepOutcome, StepStage};

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A sparkline is no wider.
const WIDTH: usize = 60;

/// What is new about steps, a line each.
#[derive(Default)]
pub struct News {
    /// Told before the phase that this led to.
    pub ended: Vec<String>,
    /// Told after the phase that it belongs to.
    pub begun: Vec<String>,
}

/// Each step that began to run, and each that ended.
pub fn news(before: &[HandoffStep], now: &[HandoffStep]) -> News {
    let mut news = News::default();
    for (index, step) in now.iter().enumerate() {
        if before.get(index).is_some_and(|old| old.outcome == step.outcome) {
            continue;
        }
        match step.outcome {
            StepOutcome::Running => news.begun.push(format!("  {} …", step.name)),
            StepOutcome::Succeeded => {
                news.ended.push(format!("  {}: done{}{}", step.name, in_seconds(step), note(step)));
            }
            StepOutcome::Failed => {
                news.ended.push(format!("  {}: failed{}{}", step.name, in_seconds(step), note(step)));
            }
            StepOutcome::Skipped => news.ended.push(format!("  {}: skipped{}", step.name, note(step))),
        }
    }
    news
}

/// The step that runs.
pub fn running(steps: &[HandoffStep]) -> Option<&str> {
    steps.iter().rev().find(|step| step.outcome == StepOutcome::Running).map(|step| step.name.as_str())
}

fn in_seconds(step: &HandoffStep) -> String {
    took(step).map(|took| format!(" in {took}")).unwrap_or_default()
}

fn note(step: &HandoffStep) -> String {
    step.message.as_ref().filter(|m| !m.is_empty()).map(|m| format!(" ({})", one_line(m))).unwrap_or_default()
}

fn took(step: &HandoffStep) -> Option<String> {
    Some(seconds(step.started_at.as_ref()?.0, step.finished_at.as_ref()?.0))
}

/// `1.204 s`
pub fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{:.3} s", to.duration_since(from).as_secs_f64())
}

/// A table of steps; times count from `start`.
pub fn table(steps: &[HandoffStep], start: Option<Timestamp>) -> String {
    let header = ["AT", "TOOK", "STAGE", "OUTCOME", "STEP", "MESSAGE"].map(str::to_owned).to_vec();
    let rows = steps.iter().map(|step| {
        let at = match (start, &step.started_at) {
            (Some(start), Some(at)) => format!("+{}", seconds(start, at.0)),
            (None, _) | (_, None) => "-".to_owned(),
        };
        let stage = match step.stage {
            StepStage::Release => "release",
            StepStage::Acquire => "acquire",
        };
        vec![
            at,
            took(step).unwrap_or_else(|| "-".to_owned()),
            stage.to_owned(),
            format!("{:?}", step.outcome),
            one_line(&step.name),
            step.message.as_deref().map(one_line).unwrap_or_default(),
        ]
    });
    table::align(std::iter::once(header).chain(rows).collect())
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// `16003 MiB ▇▇▇▃▁ 512 MiB over 2.310 s`; none without samples.
pub fn curve(samples: &[MemorySample]) -> Option<String> {
    let (first, last) = (samples.first()?, samples.last()?);
    let values: Vec<u64> = samples.iter().map(|sample| sample.used_mib).collect();
    let over = seconds(first.at.0, last.at.0);
    Some(format!("{} MiB {} {} MiB over {over}", first.used_mib, sparkline(&values), last.used_mib))
}

/// One block for each value; of many, the highest of those that share a place.
pub fn sparkline(values: &[u64]) -> String {
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let places = values.len().min(WIDTH);
    (0..places)
        .map(|place| {
            let share = &values[place * values.len() / places..(place + 1) * values.len() / places];
            let value = share.iter().copied().max().unwrap_or(0);
            let level = (u128::from(value) * (BLOCKS.len() as u128 - 1)).div_ceil(u128::from(top));
            BLOCKS[(level as usize).min(BLOCKS.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_falls_with_the_memory() {
        assert_eq!(sparkline(&[800, 800, 400, 100, 0]), "██▅▂▁");
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0, 0]), "▁▁");
    }

    #[test]
    fn a_long_curve_keeps_its_peaks() {
        let mut values = vec![0; 240];
        values[7] = 100;
        let line = sparkline(&values);
        assert_eq!(line.chars().count(), WIDTH);
        assert_eq!(line.chars().filter(|c| *c == '█').count(), 1);
    }
}
