//! What is decided: a folder per kind. [`CONTROLLERS`] says who reads what and who writes which status; no status has
//! two writers.

pub mod droplet;
pub mod gpu;
pub mod gpuclaim;
pub mod handoff;
pub mod history;
pub mod promotion;
pub mod task;
pub mod worker;
pub mod workload;

use std::sync::Arc;

use crate::{
    adapters::{containers::Containers, gpus::Gpus, peers::Peers, probes::Probes},
    runtime::{
        clock::Clock, controller::Basis, events::Recorder, metrics::RuntimeMetrics, objects::Objects,
        supervisor::Supervisor,
    },
};

/// What controllers are built from.
#[derive(Clone)]
pub struct Context<O: Objects> {
    pub objects: O,
    pub containers: Arc<dyn Containers>,
    pub probes: Arc<dyn Probes>,
    pub peers: Arc<dyn Peers>,
    /// None where no driver can be asked: then no card is known, which is not the same as no card.
    pub gpus: Option<Arc<dyn Gpus>>,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub metrics: RuntimeMetrics,
    /// The node this process runs on.
    pub node: String,
    /// Of every jitter.
    pub seed: u64,
}

impl<O: Objects> Context<O> {
    pub fn basis(&self) -> Basis<O> {
        Basis {
            objects: self.objects.clone(),
            recorder: self.recorder.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            seed: self.seed,
        }
    }
}

/// One row a controller: for people, for `/debug/controllers`, and for the test that no status has two writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controller {
    pub name: &'static str,
    /// Kinds of objects and parts of reality that its decisions come from.
    pub reads: &'static [&'static str],
    /// The kind whose status it alone writes, if any.
    pub writes_status_of: Option<&'static str>,
    /// What of reality, and which objects, it changes.
    pub acts_on: &'static [&'static str],
}

pub const CONTROLLERS: &[Controller] = &[
    Controller {
        name: "workload",
        reads: &["Workload", "Gpu", "Handoff", "containers", "probes"],
        writes_status_of: Some("Workload"),
        acts_on: &["containers"],
    },
    Controller {
        name: "promotion",
        reads: &["Promotion", "Workload", "Handoff", "Gpu", "containers", "probes"],
        writes_status_of: Some("Promotion"),
        acts_on: &["Workload", "Handoff", "containers"],
    },
    Controller {
        name: "gpu",
        reads: &["Gpu", "GpuClaim", "Handoff", "Workload", "gpus", "containers"],
        writes_status_of: Some("Gpu"),
        acts_on: &[],
    },
    Controller { name: "gpuclaim", reads: &["GpuClaim", "Gpu"], writes_status_of: Some("GpuClaim"), acts_on: &[] },
    Controller {
        name: "handoff",
        reads: &["Handoff", "Gpu", "GpuClaim", "Workload", "gpus", "containers"],
        writes_status_of: Some("Handoff"),
        acts_on: &["containers", "peers"],
    },
    Controller {
        name: "history",
        reads: &["Workload", "WorkloadHistory"],
        writes_status_of: None,
        acts_on: &["WorkloadHistory"],
    },
    // These run where there is a bus, or a network: the composition root starts them.
    Controller {
        name: "task",
        reads: &["Task", "Worker", "bus", "results"],
        writes_status_of: Some("Task"),
        acts_on: &["bus"],
    },
    Controller {
        name: "worker",
        reads: &["Worker", "bus"],
        writes_status_of: Some("Worker"),
        acts_on: &["Worker", "bus"],
    },
    Controller {
        name: "droplet",
        reads: &["Droplet", "Handoff", "registry of droplets", "peers"],
        writes_status_of: Some("Droplet"),
        acts_on: &["Droplet", "peers"],
    },
];

/// Starts every controller.
pub fn spawn_all<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    workload::spawn(context, supervisor);
    promotion::spawn(context, supervisor);
    gpu::spawn(context, supervisor);
    gpuclaim::spawn(context, supervisor);
    handoff::spawn(context, supervisor);
    history::spawn(context, supervisor);
}

#[cfg(test)]
mod controllers_table {
    use super::*;

    #[test]
    fn no_status_has_two_writers() {
        let mut written: Vec<&str> = CONTROLLERS.iter().filter_map(|c| c.writes_status_of).collect();
        written.sort_unstable();
        let count = written.len();
        written.dedup();
        assert_eq!(written.len(), count);
    }
}
