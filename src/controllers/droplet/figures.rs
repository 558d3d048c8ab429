//! What is counted for Prometheus.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::droplets::{names::key, record::Record};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    pub droplet: Arc<str>,
    pub status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropletLabels {
    pub droplet: Arc<str>,
}

/// Clones count into the same numbers. Only droplets that were found are counted, so their number is bounded.
#[derive(Debug, Clone)]
pub struct Figures {
    calls: Family<CallLabels, Counter>,
    retries: Family<DropletLabels, Counter>,
    duration: Family<DropletLabels, Histogram, fn() -> Histogram>,
    pub known: Gauge,
    pub reachable: Gauge,
    pub cache_age: Gauge,
}

fn buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            retries: Family::default(),
            duration: Family::new_with_constructor(buckets as fn() -> Histogram),
            known: Gauge::default(),
            reachable: Gauge::default(),
            cache_age: Gauge::default(),
        }
    }
}

impl Figures {
    /// Adds them to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("gaia_droplet_calls", "Calls routed to droplets", self.calls.clone());
        registry.register("gaia_droplet_retries", "Attempts that failed", self.retries.clone());
        let what = "From the first attempt to the end, waits between attempts included";
        registry.register("gaia_droplet_call_duration_seconds", what, self.duration.clone());
        registry.register("gaia_droplets_known", "Droplets that can be routed to", self.known.clone());
        registry.register("gaia_droplets_reachable", "Of these, who answered the last probe", self.reachable.clone());
        let what = "Age of the registry's list when droplets were last probed";
        registry.register("gaia_droplet_list_age_seconds", what, self.cache_age.clone());
    }

    pub fn count(&self, record: &Record, took: Duration) {
        let droplet: Arc<str> = key(&record.droplet_name).into();
        let labels = DropletLabels { droplet: droplet.clone() };
        self.calls.get_or_create(&CallLabels { droplet, status: record.status.as_str() }).inc();
        self.retries.get_or_create(&labels).inc_by(record.retry_count.into());
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
