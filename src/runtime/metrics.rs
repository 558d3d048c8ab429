//! What scheduling counts. The composition root registers it; everybody else only increments.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counters of the runtime. Clones count into the same numbers.
#[derive(Debug, Clone, Default)]
pub struct RuntimeMetrics {
    pub passes: Family<PassLabels, Counter>,
    pub actions: Family<ActionLabels, Counter>,
    pub events_written: Counter,
    pub events_dropped: Counter,
    /// Changes of containers that a list found and no event had told.
    pub untold_changes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PassLabels {
    pub controller: &'static str,
    pub end: PassEnd,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PassEnd {
    Settled,
    Acted,
    Gone,
    Conflict,
    Failed,
    Terminal,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ActionLabels {
    pub controller: &'static str,
    pub action: &'static str,
    pub failed: FailedLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum FailedLabel {
    No,
    Yes,
}

impl RuntimeMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("gaia_reconcile_passes", "Passes by how they ended", self.passes.clone());
        registry.register("gaia_reconcile_actions", "Actions by result", self.actions.clone());
        registry.register("gaia_events_written", "Event objects created or counted up", self.events_written.clone());
        registry.register(
            "gaia_events_dropped",
            "Events over a bound, or that could not be written",
            self.events_dropped.clone(),
        );
        registry.register(
            "gaia_container_changes_untold",
            "Changes of containers found by the list that no engine event told",
            self.untold_changes.clone(),
        );
    }
}
