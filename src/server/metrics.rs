//! What the server counts of itself.

use std::{borrow::Cow, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// One family member per verb, resource and code. Resources are those we serve, so their number is bounded; whatever
/// else is asked for counts as `other`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub verb: &'static str,
    pub resource: Cow<'static, str>,
    pub code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LatencyLabels {
    pub verb: &'static str,
    pub resource: Cow<'static, str>,
}

/// Clones count into the same numbers.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    watches: Gauge,
}

fn buckets() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl ServerMetrics {
    /// Adds them to what `/metrics` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(buckets as fn() -> Histogram),
            watches: Gauge::default(),
        };
        registry.register("gaia_api_requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "gaia_api_request_duration_seconds",
            "From a request's head to its answer's head; watches not counted",
            metrics.latency.clone(),
        );
        registry.register("gaia_api_watches", "Watches open now", metrics.watches.clone());
        metrics
    }

    pub fn answered(&self, verb: &'static str, resource: Cow<'static, str>, code: u16, took: Duration) {
        if verb != "watch" {
            let labels = LatencyLabels { verb, resource: resource.clone() };
            self.latency.get_or_create(&labels).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&RequestLabels { verb, resource, code }).inc();
    }

    /// Counts a watch for as long as the answer lives.
    pub fn watching(&self) -> OpenWatch {
        self.watches.inc();
        OpenWatch(self.watches.clone())
    }
}

/// One open watch.
#[derive(Debug)]
pub struct OpenWatch(Gauge);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}
