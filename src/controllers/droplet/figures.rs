//! What Prometheus is told: the same as `GET /orchestrator/metrics` says (there as shares and percentiles, here as counts and buckets).

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use super::routing::{Routing, seconds};
use crate::droplets::{cache::CacheStatus, record::Record, retry::Verdict};

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
    retried: Family<CallLabels, Counter>,
    duration: Family<DropletLabels, Histogram, fn() -> Histogram>,
}

fn buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            retries: Family::default(),
            retried: Family::default(),
            duration: Family::new_with_constructor(buckets as fn() -> Histogram),
        }
    }
}

impl Figures {
    fn register(&self, registry: &mut Registry) {
        registry.register("gaia_droplet_calls", "Calls routed to droplets", self.calls.clone());
        registry.register("gaia_droplet_retries", "Attempts that failed", self.retries.clone());
        registry.register("gaia_droplet_retried_calls", "Calls of which an attempt failed", self.retried.clone());
        let what = "From the first attempt to the end, waits between attempts included";
        registry.register("gaia_droplet_call_duration_seconds", what, self.duration.clone());
    }

    /// Of the droplet with this key.
    pub fn of(&self, key: &Arc<str>) -> OfDroplet {
        OfDroplet { all: self.clone(), droplet: key.clone(), common: OnceLock::new(), calls: Default::default() }
    }
}

/// The figures of one droplet, found once and not for every call. They appear with its first call.
#[derive(Debug)]
pub struct OfDroplet {
    all: Figures,
    droplet: Arc<str>,
    common: OnceLock<(Counter, Histogram)>,
    calls: [OnceLock<Counter>; Verdict::ALL.len()],
}

impl OfDroplet {
    pub fn count(&self, record: &Record, took: Duration) {
        let labels = || CallLabels { droplet: self.droplet.clone(), status: record.status.as_str() };
        self.calls[record.status as usize].get_or_init(|| self.all.calls.get_or_create(&labels()).clone()).inc();
        if record.retry_count > 0 {
            self.all.retried.get_or_create(&labels()).inc();
        }
        let (retries, duration) = self.common.get_or_init(|| {
            let labels = DropletLabels { droplet: self.droplet.clone() };
            (self.all.retries.get_or_create(&labels).clone(), self.all.duration.get_or_create(&labels).clone())
        });
        retries.inc_by(record.retry_count.into());
        duration.observe(took.as_secs_f64());
    }
}

/// Adds everything to what `/metrics` shows.
pub fn register(routing: &Arc<Routing>, registry: &mut Registry) {
    routing.figures.register(registry);
    registry.register_collector(Box::new(Live(Arc::downgrade(routing))));
}

/// What is looked at when somebody asks: the registry, its list, who answers.
struct Live(Weak<Routing>);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(routing) = self.0.upgrade() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: f64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        let directory = &routing.directory;
        let ((status, age_seconds, _), syncs) = (directory.cache(), directory.syncs());
        let known = directory.view().droplets.len();
        gauge("gaia_droplets_known", "Droplets that can be routed to", known as f64)?;
        let reachable = routing.count_reachable();
        gauge("gaia_droplets_reachable", "Of these, who answered the last probe", reachable as f64)?;
        gauge(
            "gaia_droplet_list_age_seconds",
            "Age of the registry's list; 999999: there is none",
            age_seconds as f64,
        )?;
        if let Some(last) = syncs.last {
            let what = "When the registry was last asked, whatever came of it";
            gauge("gaia_droplet_registry_last_sync_timestamp_seconds", what, seconds(last))?;
            let what = "How long that took";
            gauge("gaia_droplet_registry_last_sync_duration_seconds", what, syncs.last_took.as_secs_f64())?;
        }
        let what = "1 for what the registry's list is now";
        let mut family = encoder.encode_descriptor("gaia_droplet_list_status", what, None, MetricType::Gauge)?;
        let all =
            [("active", CacheStatus::Active), ("stale", CacheStatus::Stale), ("unavailable", CacheStatus::Unavailable)];
        for (name, one) in all {
            ConstGauge::new(i64::from(status == one)).encode(family.encode_family(&[("status", name)])?)?;
        }
        let what = "How often the registry was asked for its list";
        let mut family = encoder.encode_descriptor("gaia_droplet_registry_syncs", what, None, MetricType::Counter)?;
        for (name, count) in [("success", syncs.success), ("error", syncs.error)] {
            ConstCounter::new(count).encode(family.encode_family(&[("result", name)])?)?;
        }
        Ok(())
    }
}
