//! Which kinds there are, read from CustomResourceDefinitions: ours at start-up, others at run time.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_cel::RootContext;
use serde_json::Value;

use super::{ApiError, Reason, builtin, cel::Rules, schema::Node};
use crate::store::Revision;

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
    /// Where the `scale` subresource finds its numbers; none: there is no such subresource.
    pub scale: Option<Scale>,
    /// Served by us without a CustomResourceDefinition (Namespace, Event, …).
    pub builtin: bool,
    /// Of a definition that a client brought at run time.
    pub added: bool,
    /// Not the form it is stored in: `events.k8s.io/v1` Events are kept as core `v1` Events.
    pub(super) view: bool,
    /// `schema`, with what every object has: apiVersion, kind, metadata.
    pub(super) root: Node,
    pub(super) rules: Rules,
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

/// `subresources.scale`: paths into an object, `.spec.replicas`.
#[derive(Debug, Clone)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Of a label selector as text.
    pub selector: Option<String>,
}

impl Kind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `workloads.gaia.dev`, `namespaces`.
    pub fn qualified_plural(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// `Workload.gaia.dev`, `Namespace`.
    pub fn qualified_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }

    /// Is this the kind `kind` of `group`?
    pub(super) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// All served kinds. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    all: Arc<Vec<Arc<Kind>>>,
    crds: Arc<Vec<CustomResourceDefinition>>,
    /// By the names of their definitions.
    added: Arc<BTreeMap<String, Added>>,
}

/// A kind of a definition that was brought at run time, and which version of the definition it was read from.
#[derive(Debug, Clone)]
pub(super) struct Added {
    pub kind: Arc<Kind>,
    pub uid: String,
    pub generation: i64,
    pub revision: Revision,
    /// Its objects are being removed: there may come no new ones.
    pub terminating: bool,
}

impl Kinds {
    /// Our kinds and the built-ins every cluster has. Fails on a schema that is not structural or a CEL rule that does
    /// not compile.
    pub fn from_crds(crds: &[CustomResourceDefinition]) -> Result<Self, ApiError> {
        let mut all = builtin::kinds()?;
        for crd in crds {
            all.push(from_crd(crd).map_err(|why| {
                let name = crd.metadata.name.as_deref().unwrap_or_default();
                let what = "CustomResourceDefinition.apiextensions.k8s.io";
                ApiError::new(Reason::Invalid, format!("{what} {name:?} is invalid: {why}"))
            })?);
        }
        let all = Arc::new(all.into_iter().map(Arc::new).collect());
        Ok(Self { all, crds: Arc::new(crds.to_vec()), added: Arc::default() })
    }

    /// The same kinds, served without objects that define them: for a store that lasts a moment and has no clients who would ask
    /// for definitions.
    pub fn without_definitions(self) -> Self {
        Self { crds: Arc::default(), ..self }
    }

    /// These, with what `name` defines as in `added` or, given none, without it.
    pub(super) fn with(&self, name: &str, added: Option<Added>) -> Self {
        let mut brought = (*self.added).clone();
        match added {
            Some(added) => brought.insert(name.to_owned(), added),
            None => brought.remove(name),
        };
        let ours = self.all.iter().filter(|kind| !kind.added).cloned();
        let all = ours.chain(brought.values().map(|added| Arc::clone(&added.kind))).collect();
        Self { all: Arc::new(all), crds: Arc::clone(&self.crds), added: Arc::new(brought) }
    }

    /// What the definition of this name brought, if it is served.
    pub(super) fn added(&self, name: &str) -> Option<&Added> {
        self.added.get(name)
    }

    /// Are both the same set of kinds? Then whatever was made of the one still holds.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.all, &other.all)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.all.iter()
    }

    /// The definitions our own kinds were read from.
    pub fn crds(&self) -> &[CustomResourceDefinition] {
        &self.crds
    }

    /// Is this the name of a definition that is served?
    pub(super) fn defines(&self, name: &str) -> bool {
        self.crds.iter().any(|crd| crd.metadata.name.as_deref() == Some(name))
    }

    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.all.iter().find(|k| k.group == group && k.version == version && k.plural == plural).cloned()
    }

    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.all.iter().find(|k| k.group == group && k.version == version && k.kind == kind).cloned()
    }

    /// The kind of a typed object of ours or of a built-in.
    pub fn of<K: kube::Resource<DynamicType = ()>>(&self) -> Option<Arc<Kind>> {
        self.by_kind(&K::group(&()), &K::version(&()), &K::kind(&()))
    }
}

/// Several served versions of one kind would need conversion, which is not there.
pub(super) fn from_crd(crd: &CustomResourceDefinition) -> Result<Kind, String> {
    let spec = &crd.spec;
    let mut served = spec.versions.iter().filter(|v| v.served);
    let (Some(version), None) = (served.next(), served.next()) else {
        return Err("spec.versions: exactly one served version is supported".to_owned());
    };
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = schema.ok_or("spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required")?;
    let schema = serde_json::to_value(schema).map_err(|e| e.to_string())?;
    let scale = version.subresources.as_ref().and_then(|s| s.scale.as_ref()).map(|scale| Scale {
        spec_replicas: scale.spec_replicas_path.clone(),
        status_replicas: scale.status_replicas_path.clone(),
        selector: scale.label_selector_path.clone(),
    });
    scale.iter().try_for_each(check_scale)?;
    let names = &spec.names;
    let columns = version.additional_printer_columns.iter().flatten().map(|c| Column {
        name: c.name.clone(),
        type_: c.type_.clone(),
        format: c.format.clone().unwrap_or_default(),
        description: c.description.clone().unwrap_or_default(),
        priority: c.priority.unwrap_or(0),
        json_path: c.json_path.clone(),
    });
    Kind {
        group: spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        plural: names.plural.clone(),
        singular: names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase()),
        list_kind: names.list_kind.clone().unwrap_or_else(|| format!("{}List", names.kind)),
        short_names: names.short_names.clone().unwrap_or_default(),
        categories: names.categories.clone().unwrap_or_default(),
        namespaced: spec.scope == "Namespaced",
        has_status: version.subresources.as_ref().is_some_and(|s| s.status.is_some()),
        scale,
        columns: columns.collect(),
        selectable_fields: version.selectable_fields.iter().flatten().map(|f| f.json_path.clone()).collect(),
        ..Kind::with_schema(schema)
    }
    .compiled()
}

/// As upstream: names with a dot before each, below `spec` and `status`. A write of the scale goes where the path says, and
/// must not hit the object itself or its metadata.
fn check_scale(scale: &Scale) -> Result<(), String> {
    let below = |path: &str, roots: &[&str]| {
        let inside = roots.iter().find_map(|root| path.strip_prefix(root));
        inside.is_some_and(|names| names.split('.').all(|name| !name.is_empty() && !name.contains(['[', ']'])))
    };
    let complain = |field: &str, path: &str, where_: &str| {
        Err(format!(
            "spec.versions[0].subresources.scale.{field}: Invalid value: {path:?}: should be a json path under {where_}"
        ))
    };
    if !below(&scale.spec_replicas, &[".spec."]) {
        return complain("specReplicasPath", &scale.spec_replicas, ".spec");
    }
    if !below(&scale.status_replicas, &[".status."]) {
        return complain("statusReplicasPath", &scale.status_replicas, ".status");
    }
    match scale.selector.as_deref().filter(|path| !path.is_empty()) {
        Some(path) if !below(path, &[".spec.", ".status."]) => complain("labelSelectorPath", path, ".spec or .status"),
        _ => Ok(()),
    }
}

impl Kind {
    /// A kind with nothing but a schema: fill in the rest, then [`Kind::compiled`].
    pub(super) fn with_schema(schema: Value) -> Self {
        Self {
            group: String::new(),
            version: String::new(),
            kind: String::new(),
            plural: String::new(),
            singular: String::new(),
            list_kind: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            has_status: false,
            schema,
            columns: Vec::new(),
            selectable_fields: Vec::new(),
            scale: None,
            builtin: false,
            added: false,
            view: false,
            root: Node::default(),
            rules: Rules::default(),
        }
    }

    /// Reads the schema and compiles its rules.
    pub(super) fn compiled(mut self) -> Result<Self, String> {
        let mut root = Node::parse(&self.schema).map_err(|e| e.to_string())?;
        let stated = root.properties.remove("metadata").unwrap_or_default();
        let mut metadata = builtin::metadata_node()?;
        // A schema may narrow the name; everything else about metadata is ours.
        let narrowed = stated.properties.into_iter().filter(|(name, _)| matches!(&**name, "name" | "generateName"));
        metadata.properties.extend(narrowed);
        metadata.rules = stated.rules;
        root.properties.insert("metadata".to_owned(), metadata);
        for name in ["apiVersion", "kind"] {
            root.properties.entry(name.to_owned()).or_insert_with(Node::string);
        }
        let context =
            RootContext { api_version: self.api_version(), api_group: self.group.clone(), kind: self.kind.clone() };
        self.rules = Rules::compile(&self.schema, context)?;
        self.root = root;
        Ok(self)
    }
}
