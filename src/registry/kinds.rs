//! Which kinds there are, read from CustomResourceDefinitions: ours at start-up, others at run time.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// One served version of one kind.
#[derive(Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// `Workload`
    pub kind: String,
    /// `workloads`
    pub plural: String,
    pub singular: String,
    /// `WorkloadList`
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// `status` is a subresource: the main endpoint ignores it and the other way round.
    pub has_status: bool,
    /// Structural schema, upstream dialect (`openAPIV3Schema`).
    pub schema: Value,
    /// For Table output.
    pub columns: Vec<Column>,
    /// JSONPaths usable in field selectors beside metadata.name and metadata.namespace, `.spec.active`.
    pub selectable_fields: Vec<String>,
    /// Served by us without a CustomResourceDefinition (Namespace, Event, …).
    pub builtin: bool,
}

/// `additionalPrinterColumns`.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`
    pub type_: String,
    pub format: String,
    pub description: String,
    /// Above 0: only with `-o wide`.
    pub priority: i32,
    pub json_path: String,
}

impl Kind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// All served kinds. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    all: Arc<Vec<Arc<Kind>>>,
}

#[expect(unused_variables)]
impl Kinds {
    /// Our kinds and the built-ins every cluster has. Fails on a schema that is not structural or a CEL rule that does
    /// not compile.
    pub fn from_crds(crds: &[CustomResourceDefinition]) -> Result<Self, super::ApiError> {
        unimplemented!()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.all.iter()
    }

    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.all.iter().find(|k| k.group == group && k.version == version && k.plural == plural).cloned()
    }

    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.all.iter().find(|k| k.group == group && k.version == version && k.kind == kind).cloned()
    }
}
