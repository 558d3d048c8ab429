//! What can be said: one file per kind (spec, status, reasons, printed columns, validation). No I/O, no decisions.

#![allow(clippy::duplicated_attributes, reason = "the arguments of kube's attributes repeat by design")]

pub mod condition;
pub mod container;
pub mod droplet;
pub mod gpu;
pub mod gpuclaim;
pub mod gpustep;
pub mod handoff;
pub mod node;
pub mod promotion;
pub mod quantity;
mod schema;
pub mod source;
pub mod sourcerevision;
pub mod task;
pub mod worker;
pub mod workload;
pub mod workloadhistory;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The one list of our kinds, handed to another macro as `module::Kind, …`: whatever is done for every kind (definitions,
/// tests) follows from it.
#[macro_export]
macro_rules! kinds {
    ($then:ident) => {
        $then! {
            droplet::Droplet,
            gpu::Gpu,
            gpuclaim::GpuClaim,
            handoff::Handoff,
            node::Node,
            promotion::Promotion,
            source::Source,
            sourcerevision::SourceRevision,
            task::Task,
            worker::Worker,
            workload::Workload,
            workloadhistory::WorkloadHistory,
        }
    };
}

macro_rules! definitions {
    ($($module:ident::$kind:ident,)+) => {
        /// The definitions of our kinds, as served and as in `crds-like-specs/`.
        pub fn crds() -> Vec<CustomResourceDefinition> {
            vec![$(schema::finish($module::$kind::crd())),+]
        }
    };
}

crate::kinds!(definitions);

/// The API group of our kinds.
pub const GROUP: &str = "gaia.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// Labels that everything we make in reality carries, so that a fresh process finds its own again.
pub mod label {
    /// Compose's own, on what it made.
    pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
    pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";
    pub const COMPOSE_ONEOFF: &str = "com.docker.compose.oneoff";
    /// uid of the owning object.
    pub const OWNER_UID: &str = "gaia.dev/owner-uid";
    /// `namespace/name` of the owning Workload.
    pub const WORKLOAD: &str = "gaia.dev/workload";
    /// `live` or `candidate`.
    pub const VARIANT: &str = "gaia.dev/variant";
    /// [`crate::api::container::ContainerSpec::hash`] of what the container was made from.
    pub const SPEC_HASH: &str = "gaia.dev/spec-hash";
    /// On networks we made.
    pub const MANAGED: &str = "gaia.dev/managed";
    /// `true` on objects that nobody declared: Gpus of cards that were found.
    pub const DISCOVERED: &str = "gaia.dev/discovered";
    /// On Handoffs that follow from who should hold a card, not from a person: `claim`, `owner`, `workload` or `nobody`,
    /// whichever is to have it. Who is put there by a person's handoff gets a claim; these have their cause already.
    pub const CAUSE: &str = "gaia.dev/cause";
}

pub mod annotation {
    /// On a Source: any new value has it read at once (a git repository: fetched). `status.handledRequest` repeats it then.
    pub const RECONCILE_AT: &str = "gaia.dev/reconcile-at";
    /// On a Task that has failed: any new value has it tried again, as often as it may be. `status.handledRetry` repeats it then.
    pub const RETRY_AT: &str = "gaia.dev/retry-at";
    /// On a Task that was made with others: the one of its namespace that is made last, and says that all are there. Before that is
    /// there it does not begin, and it goes after a while when that never comes.
    pub const BEGINS_WITH: &str = "gaia.dev/begins-with";
    /// On a Workload: the Promotion of its namespace that changes it, or changed it last.
    pub const PROMOTION: &str = "gaia.dev/promotion";
}

/// Held by a Workload while its containers may exist.
pub const FINALIZER: &str = "gaia.dev/containers";

/// Held by a Task: its results are removed before it is gone.
pub const RESULTS_FINALIZER: &str = "gaia.dev/results";

/// Held by a Promotion from its first effect on: one that is deleted half way is undone first.
pub const PROMOTION_FINALIZER: &str = "gaia.dev/promotion";
