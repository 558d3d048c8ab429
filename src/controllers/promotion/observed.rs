//! What a pass of the promotion controller sees, and what it may do. Plain values.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    adapters::containers::ContainerId,
    api::{
        annotation,
        gpu::Gpu,
        handoff::Handoff,
        promotion::GateCommand,
        workload::{Variant, Workload},
    },
    registry::ObjectName,
};

/// Everything a decision is made from beside the object and the time.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// None: there is no such workload.
    pub workload: Option<Arc<Workload>>,
    /// Another promotion of the same workload that is before this one.
    pub other: Option<String>,
    /// The cards the workload names; None: there is no such Gpu.
    pub gpus: BTreeMap<String, Option<Arc<Gpu>>>,
    /// Handoffs of this promotion, by name.
    pub handoffs: BTreeMap<String, Arc<Handoff>>,
    pub model: ModelSeen,
    pub command: CommandSeen,
}

/// What the new variant says about the models it serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModelSeen {
    /// No such gate, or not its turn yet.
    #[default]
    NotAsked,
    Loaded,
    NotLoaded(String),
}

/// What became of the gate's command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CommandSeen {
    #[default]
    NotRun,
    UnderWay,
    Passed,
    Failed(String),
}

/// One step of a promotion.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// One write of the Workload's spec, compared on the version that was looked at.
    SetWorkload {
        version: Option<String>,
        change: Change,
    },
    MakeHandoff {
        handoff: Box<Handoff>,
    },
    CancelHandoff {
        name: ObjectName,
    },
    RunCommand {
        container: ContainerId,
        command: GateCommand,
    },
}

/// Fields of a Workload that a promotion sets. The templates are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Name of the promotion that the workload is from now on changed by.
    pub promotion: Option<String>,
    pub active: Option<Variant>,
    pub live_running: Option<bool>,
    pub candidate_running: Option<bool>,
}

impl Change {
    pub fn running(variant: Variant, running: bool) -> Self {
        match variant {
            Variant::Live => Self { live_running: Some(running), ..Self::default() },
            Variant::Candidate => Self { candidate_running: Some(running), ..Self::default() },
        }
    }

    /// The fields and no others, as a merge patch.
    pub fn patch(&self, version: Option<&str>) -> Value {
        let mut patch = json!({"metadata": {"resourceVersion": version}});
        if let Some(promotion) = &self.promotion {
            patch["metadata"]["annotations"] = json!({annotation::PROMOTION: promotion});
        }
        if let Some(active) = self.active {
            patch["spec"]["active"] = json!(active);
        }
        if let Some(running) = self.live_running {
            patch["spec"]["live"] = json!({"running": running});
        }
        if let Some(running) = self.candidate_running {
            patch["spec"]["candidate"] = json!({"running": running});
        }
        patch
    }
}
