//! The figures of `GET /orchestrator/metrics`: contract section 4.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::{names::key, record::Record, retry::Verdict};

/// Calls that averages and percentiles speak of.
const WINDOW: usize = 10_000;
/// Of one droplet.
const DROPLET_WINDOW: usize = 1_000;
/// Names of callers are theirs to choose, but only those of known droplets are counted; this many at a time.
const MOST_DROPLETS: usize = 1_000;

/// Calls since the process began.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    all: Counts,
    droplets: BTreeMap<String, Counts>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    success: u64,
    error: u64,
    timeout: u64,
    retries: u64,
    retried_success: u64,
    retried_fail: u64,
    /// The latest last.
    durations_ms: VecDeque<u64>,
}

impl Tally {
    pub fn count(&mut self, record: &Record) {
        self.all.count(record, WINDOW);
        let name = key(&record.droplet_name);
        if self.droplets.len() < MOST_DROPLETS || self.droplets.contains_key(&name) {
            self.droplets.entry(name).or_default().count(record, DROPLET_WINDOW);
        }
    }

    pub fn total(&self) -> u64 {
        self.all.total()
    }

    pub fn errors(&self) -> u64 {
        self.all.error
    }

    pub fn tasks(&self) -> Value {
        self.all.tasks()
    }

    pub fn retries(&self) -> Value {
        json!({"total_retries": self.all.retries, "retry_success_count": self.all.retried_success,
            "retry_final_fail_count": self.all.retried_fail})
    }

    /// By the names of droplets.
    pub fn split(&self) -> Value {
        self.droplets.iter().map(|(name, counts)| (name.clone(), counts.tasks())).collect()
    }
}

impl Counts {
    fn count(&mut self, record: &Record, window: usize) {
        let retried = record.retry_count > 0;
        match record.status {
            Verdict::Success => {
                self.success += 1;
                self.retried_success += u64::from(retried);
            }
            Verdict::Error => self.error += 1,
            Verdict::Timeout => self.timeout += 1,
            Verdict::Queued => return,
        }
        self.retried_fail += u64::from(retried && record.status != Verdict::Success);
        self.retries += u64::from(record.retry_count);
        if self.durations_ms.len() == window {
            self.durations_ms.pop_front();
        }
        self.durations_ms.push_back(record.duration_ms.unwrap_or_default());
    }

    fn total(&self) -> u64 {
        self.success + self.error + self.timeout
    }

    fn tasks(&self) -> Value {
        let total = self.total();
        let rate = if total == 0 { 0.0 } else { rounded(self.success as f64 / total as f64 * 100.0) };
        let mut sorted: Vec<u64> = self.durations_ms.iter().copied().collect();
        sorted.sort_unstable();
        let mean = match sorted.len() {
            0 => 0.0,
            count => rounded(sorted.iter().sum::<u64>() as f64 / count as f64),
        };
        json!({
            "total": total, "success": self.success, "error": self.error, "timeout": self.timeout,
            "success_rate_percent": rate, "avg_response_time_ms": mean,
            "p95_response_time_ms": percentile(&sorted, 95), "p99_response_time_ms": percentile(&sorted, 99),
        })
    }
}

/// Of sorted values, without interpolation.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |value| *value as f64)
}

pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Verdict, retry_count: u32, duration_ms: u64) -> Record {
        Record {
            id: String::new(),
            droplet_name: "A".to_owned(),
            target_url: String::new(),
            method: "GET".to_owned(),
            status,
            response_status: None,
            response_body: None,
            retry_count,
            created_at: 0.0,
            completed_at: None,
            duration_ms: Some(duration_ms),
            error_message: None,
            error: None,
        }
    }

    #[test]
    fn figures_are_the_contracts() {
        assert_eq!(percentile(&[100, 200, 300, 400, 500], 50), 300.0);
        assert_eq!(percentile(&[100, 200, 300, 400, 500], 95), 500.0);
        assert_eq!(percentile(&[], 95), 0.0);
        let mut tally = Tally::default();
        assert_eq!(tally.tasks()["success_rate_percent"], 0.0);
        tally.count(&record(Verdict::Success, 0, 10));
        tally.count(&record(Verdict::Success, 2, 20));
        tally.count(&record(Verdict::Timeout, 3, 31));
        let tasks = tally.tasks();
        assert_eq!((&tasks["total"], &tasks["success_rate_percent"]), (&json!(3), &json!(66.67)));
        assert_eq!(tasks["avg_response_time_ms"], json!(20.33));
        assert_eq!(tally.retries(), json!({"total_retries": 5, "retry_success_count": 1, "retry_final_fail_count": 1}));
        assert_eq!(tally.split()["a"]["total"], 3);
    }

    #[test]
    fn only_the_latest_calls_are_averaged() {
        let mut tally = Tally::default();
        tally.count(&record(Verdict::Success, 0, 1_000_000));
        for _ in 0..WINDOW {
            tally.count(&record(Verdict::Success, 0, 5));
        }
        assert_eq!(tally.tasks()["avg_response_time_ms"], 5.0);
        assert_eq!(tally.total(), WINDOW as u64 + 1);
    }
}
