//! What can be said: one file per kind (spec, status, reasons, printed columns, validation). No I/O, no decisions.

pub mod condition;
pub mod container;
pub mod source;
pub mod workload;

/// The API group of our kinds.
pub const GROUP: &str = "gaia.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// Labels that everything we make in reality carries, so that a fresh process finds its own again.
pub mod label {
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
}

/// Held by a Workload while its containers may exist.
pub const FINALIZER: &str = "gaia.dev/containers";
