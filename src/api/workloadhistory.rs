//! `WorkloadHistory`: what the containers of a Workload were made from before, so that it can be had back.
//!
//! One object a Workload, of its name, and not a list in the Workload's status: templates may hold secrets, which a status never
//! does, and whoever watches Workloads is spared ten templates with every flip of a probe. One object and not one a revision, as
//! ControllerRevision is: numbering, bound and sameness are then one compare-and-swap.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::workload::Variant;

/// Former templates of a Workload's containers. Written by gaia, and deleted with the Workload.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "WorkloadHistory",
    plural = "workloadhistories",
    shortname = "wlh",
    category = "gaia",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadHistorySpec {
    /// Of the live variant, the present one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 101))]
    pub live: Vec<WorkloadRevision>,
    /// Of the candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 101))]
    pub candidate: Vec<WorkloadRevision>,
}

impl WorkloadHistorySpec {
    pub fn of(&self, variant: Variant) -> &Vec<WorkloadRevision> {
        match variant {
            Variant::Live => &self.live,
            Variant::Candidate => &self.candidate,
        }
    }

    pub fn of_mut(&mut self, variant: Variant) -> &mut Vec<WorkloadRevision> {
        match variant {
            Variant::Live => &mut self.live,
            Variant::Candidate => &mut self.candidate,
        }
    }
}

/// One template that a variant's containers were to be made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRevision {
    /// Counts up. A template that comes back gets the next number, and its old entry goes.
    #[schemars(range(min = 1))]
    pub revision: i64,
    /// When it became the template.
    pub since: Time,
    /// The field manager that made it so, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// As in `status.live.specHash` of the Workload.
    #[schemars(length(min = 1, max = 64))]
    pub spec_hash: String,
    /// `spec.live.container` as it was. Not checked: a later version may have other rules.
    #[schemars(schema_with = "super::schema::free_form")]
    pub container: Map<String, Value>,
}
