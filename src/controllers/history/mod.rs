//! History: what a Workload's containers were made from before, kept in a WorkloadHistory of its name.
//!
//! Reads Workloads; writes WorkloadHistories, no status and nothing in reality. It asks neither the engine nor the node, so a
//! template is kept whether or not its containers could be made. One that was replaced before a pass saw it was in force for
//! some milliseconds, and is not in the history.

pub mod decide;

use jiff::Timestamp;

use self::decide::{Action, Observed};
use super::Context;
use crate::{
    api::{
        workload::{Workload, WorkloadStatus},
        workloadhistory::WorkloadHistory,
    },
    registry::Reason,
    runtime::{
        controller,
        objects::Objects,
        reconciler::{PassError, Plan, Reconciler, name_of},
        supervisor::Supervisor,
        wakeups::Wakeups,
    },
};

/// The controller. It remembers nothing.
pub struct HistoryReconciler<O: Objects> {
    objects: O,
}

impl<O: Objects> Reconciler for HistoryReconciler<O> {
    type Object = Workload;
    type Status = WorkloadStatus;
    type Observed = Observed;
    type Action = Action;

    const NAME: &'static str = "history";
    const FINALIZER: Option<&'static str> = None;

    async fn observe(&self, workload: &Workload) -> Result<Observed, PassError> {
        let found = self.objects.get::<WorkloadHistory>(&name_of(workload)).await;
        found.map_err(|source| PassError::Objects { doing: "read the history", source })
    }

    fn decide(workload: &Workload, history: &Observed, now: Timestamp) -> Plan<WorkloadStatus, Action> {
        decide::decide(workload, history.as_deref(), now)
    }

    /// An update is compared on the version that was looked at.
    async fn apply(&self, _: &Workload, action: &Action) -> Result<(), PassError> {
        let written = match action {
            Action::Create(history) => self.objects.create(WorkloadHistory::clone(history)).await,
            Action::Update(history) => self.objects.update(WorkloadHistory::clone(history)).await,
        };
        match written {
            // The answer to the first attempt was lost: the next pass looks at it.
            Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
            Err(source) => Err(PassError::Objects { doing: "write the history", source }),
            Ok(_) => Ok(()),
        }
    }

    fn action_name(action: &Action) -> &'static str {
        match action {
            Action::Create(_) => "CreateHistory",
            Action::Update(_) => "UpdateHistory",
        }
    }
}

/// Starts the controller's task.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let reconciler = HistoryReconciler { objects: context.objects.clone() };
    controller::start("histories", reconciler, Wakeups::default(), context.basis(), supervisor);
}
