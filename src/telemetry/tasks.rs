//! What is counted of tasks and workers: for Prometheus beside everything else, and for MLOC's own `/metrics`, which is JSON.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use serde_json::{Value, json};

/// Clones count into the same numbers.
#[derive(Debug, Clone)]
pub struct TaskMetrics {
    pub submitted: Counter,
    pub succeeded: Counter,
    /// For good.
    pub failed: Counter,
    pub cancelled: Counter,
    /// Attempts that failed or were lost, and are followed by another.
    pub requeued: Counter,
    pub dispatched: Counter,
    pub registered: Counter,
    pub unregistered: Counter,
    pub heartbeats: Counter,
    tasks: Family<PhaseLabels, Gauge>,
    workers: Family<StateLabels, Gauge>,
    seconds: Family<CategoryLabels, Histogram, fn() -> Histogram>,
    timings: [Timing; 3],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CategoryLabels {
    category: &'static str,
}

/// How long tasks of a category took.
#[derive(Debug, Clone, Default)]
struct Timing {
    count: Counter,
    seconds: Counter<f64, AtomicU64>,
}

/// As MLOC sorts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Category {
    Inference,
    Training,
    Other,
}

impl Category {
    const ALL: [Self; 3] = [Self::Inference, Self::Training, Self::Other];

    /// By the `spec.taskType` of a document.
    pub fn of(task_type: &str) -> Self {
        let type_ = task_type.to_ascii_lowercase();
        match type_.as_str() {
            "inference" | "rag" | "agent" => Self::Inference,
            _ if ["sft", "ppo", "dpo", "train"].iter().any(|word| type_.contains(word)) => Self::Training,
            _ => Self::Other,
        }
    }
}

/// From a tenth of a second to a day.
fn buckets() -> Histogram {
    Histogram::new([0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0])
}

impl Default for TaskMetrics {
    fn default() -> Self {
        Self {
            submitted: Counter::default(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            cancelled: Counter::default(),
            requeued: Counter::default(),
            dispatched: Counter::default(),
            registered: Counter::default(),
            unregistered: Counter::default(),
            heartbeats: Counter::default(),
            tasks: Family::default(),
            workers: Family::default(),
            seconds: Family::new_with_constructor(buckets as fn() -> Histogram),
            timings: std::array::from_fn(|_| Timing::default()),
        }
    }
}

impl TaskMetrics {
    /// Adds them to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("gaia_tasks_submitted", "Tasks made from submitted documents", &self.submitted),
            ("gaia_tasks_succeeded", "Tasks that are done", &self.succeeded),
            ("gaia_tasks_failed", "Tasks that have failed for good", &self.failed),
            ("gaia_tasks_cancelled", "Tasks that were cancelled", &self.cancelled),
            ("gaia_tasks_requeued", "Attempts that failed or were lost and are followed by another", &self.requeued),
            ("gaia_tasks_dispatched", "Attempts handed to workers", &self.dispatched),
            ("gaia_workers_registered", "Workers that came or came back", &self.registered),
            ("gaia_workers_unregistered", "Workers that left or died", &self.unregistered),
            ("gaia_worker_heartbeats", "Heartbeats heard", &self.heartbeats),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("gaia_tasks", "Tasks there are, by phase", self.tasks.clone());
        registry.register("gaia_workers", "Workers there are, by what they do", self.workers.clone());
        let help = "From submission to the end of tasks that are done";
        registry.register("gaia_task_duration_seconds", help, self.seconds.clone());
    }

    /// So many tasks are in a phase.
    pub fn phase(&self, phase: &'static str, count: usize) {
        self.tasks.get_or_create(&PhaseLabels { phase }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many workers are free, at work, or lost.
    pub fn workers(&self, idle: usize, running: usize, lost: usize) {
        for (state, count) in [("idle", idle), ("running", running), ("lost", lost)] {
            self.workers.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A task is done; `seconds` from its submission.
    pub fn done(&self, task_type: &str, seconds: f64) {
        let category = Category::of(task_type);
        self.succeeded.inc();
        self.seconds.get_or_create(&CategoryLabels { category: category.into() }).observe(seconds);
        let timing = &self.timings[category as usize];
        timing.count.inc();
        timing.seconds.inc_by(seconds.max(0.0));
    }

    /// MLOC's document, without its list of workers.
    pub fn as_mloc_has_it(&self) -> Value {
        let times = |timings: &[&Timing]| {
            let count: u64 = timings.iter().map(|timing| timing.count.get()).sum();
            let total: f64 = timings.iter().map(|timing| timing.seconds.get()).sum();
            json!({"count": count, "total_sec": total, "avg_sec": if count == 0 { 0.0 } else { total / count as f64 }})
        };
        let mut timings =
            serde_json::Map::from_iter([("overall".to_owned(), times(&self.timings.iter().collect::<Vec<_>>()))]);
        for category in Category::ALL {
            let name: &str = category.into();
            timings.insert(name.to_owned(), times(&[&self.timings[category as usize]]));
        }
        json!({
            "counters": {
                "tasks_submitted": self.submitted.get(), "tasks_succeeded": self.succeeded.get(),
                "tasks_failed": self.failed.get(), "tasks_requeued": self.requeued.get(),
                "workers_registered": self.registered.get(), "workers_unregistered": self.unregistered.get(),
                "worker_heartbeats": self.heartbeats.get(),
            },
            "task_timings": timings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_tell_the_same() {
        let metrics = TaskMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.done("inference", 2.0);
        metrics.done("lora_sft", 4.0);
        metrics.phase("DONE", 2);
        let told = metrics.as_mloc_has_it();
        assert_eq!(told["counters"]["tasks_succeeded"], 2);
        assert_eq!(told["task_timings"]["overall"], json!({"count": 2, "total_sec": 6.0, "avg_sec": 3.0}));
        assert_eq!(told["task_timings"]["training"]["total_sec"], 4.0);
        assert_eq!(told["task_timings"]["other"]["avg_sec"], 0.0);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes everything");
        for line in ["gaia_tasks_succeeded_total 2", "gaia_tasks{phase=\"DONE\"} 2"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(text.contains("gaia_task_duration_seconds_sum{category=\"training\"} 4.0"), "{text}");
    }
}
