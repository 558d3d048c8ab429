//! From where a plan starts: the objects of a server in a store's terms, and the containers of an engine.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde_json::Value;

use super::PlanError;
use crate::{
    adapters::containers::{Attachment, Container, ContainerId, ContainerState, Containers, EngineHealth},
    api::{
        container::{ContainerSource, ContainerSpec},
        source::FileError,
        workload::{Variant, VariantHealth, VariantState, VariantStatus, Workload},
    },
    app::reality::World,
    controllers::workload::names,
    gitops,
    registry::Kinds,
    store::{Key, Revision, Snapshot, Version},
};

/// Objects of one kind, as a server lists them.
#[derive(Debug, Clone)]
pub struct Objects {
    pub group: String,
    pub plural: String,
    /// Each with its `apiVersion` and `kind`.
    pub items: Vec<Value>,
}

/// The containers there are, and the images that need no pull.
#[derive(Debug, Clone, Default)]
pub struct Reality {
    pub containers: Vec<Container>,
    pub images: BTreeSet<String>,
}

/// Looks at the Docker engine of this host, and changes nothing. `images`: those that might be needed.
pub async fn observe(images: impl IntoIterator<Item = String>) -> Result<Reality, PlanError> {
    let world = World::docker(None).map_err(crate::app::StartError::Probes)?;
    look(&*world.containers, images).await
}

async fn look(engine: &dyn Containers, images: impl IntoIterator<Item = String>) -> Result<Reality, PlanError> {
    let containers = engine.list(None).await.map_err(PlanError::Engine)?;
    let mut present = BTreeSet::new();
    for image in images {
        if engine.image(&image).await.map_err(PlanError::Engine)?.is_some() {
            present.insert(image);
        }
    }
    Ok(Reality { containers, images: present })
}

impl Reality {
    /// What the statuses of a server's workloads speak of: for a server whose engine is not ours to see.
    pub fn as_told(objects: &[Objects]) -> Self {
        let mut reality = Self::default();
        for workload in workloads(objects) {
            for variant in Variant::ALL {
                if let Some(container) = told(&workload, variant) {
                    reality.images.insert(container.image.clone());
                    reality.containers.push(container);
                }
            }
        }
        reality
    }
}

/// Every image that a workload of these names.
pub fn images(objects: &[Objects]) -> BTreeSet<String> {
    let specs = workloads(objects).flat_map(|w| Variant::ALL.into_iter().filter_map(move |v| spec(&w, v).cloned()));
    specs.map(|spec| spec.image).filter(|image| !image.is_empty()).collect()
}

/// Every image that the files under a directory name; what is wrong with the files is told elsewhere.
pub fn images_of_files(directory: &Path) -> BTreeSet<String> {
    let Ok(kinds) = Kinds::from_crds(&crate::api::crds()) else { return BTreeSet::new() };
    let documents = gitops::load_directory(directory, &kinds).documents;
    let items = documents.into_iter().filter(|d| d.id.kind == "Workload").map(|d| d.object).collect();
    images(&[Objects { group: crate::api::GROUP.to_owned(), plural: "workloads".to_owned(), items }])
}

fn workloads(objects: &[Objects]) -> impl Iterator<Item = Workload> {
    let lists = objects.iter().filter(|list| list.group == crate::api::GROUP && list.plural == "workloads");
    // One that we cannot read is of a later version of ours; the registry will say so.
    lists.flat_map(|list| &list.items).filter_map(|item| serde_json::from_value(item.clone()).ok())
}

fn spec(workload: &Workload, variant: Variant) -> Option<&ContainerSpec> {
    match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    }
}

/// The container of a variant as its status tells.
fn told(workload: &Workload, variant: Variant) -> Option<Container> {
    let meta = &workload.metadata;
    let (name, uid) = (meta.name.as_deref()?, meta.uid.as_deref()?);
    let namespace = meta.namespace.as_deref()?;
    let status = workload.status.as_ref()?;
    let seen = match variant {
        Variant::Live => status.live.as_ref()?,
        Variant::Candidate => status.candidate.as_ref()?,
    };
    let spec = spec(workload, variant)?;
    let hash = seen.spec_hash.clone().unwrap_or_else(|| spec.hash());
    let networks = names::networks(namespace, name, spec, status.active == Some(variant));
    let labels = match spec.source() {
        ContainerSource::Inline(_) => names::labels(uid, namespace, name, variant, &hash),
        ContainerSource::Adopt { .. } => spec.labels.clone(),
    };
    Some(Container {
        id: ContainerId(seen.container_id.clone()?),
        name: seen.container_name.clone().unwrap_or_else(|| names::container(namespace, name, variant)),
        image: spec.image.clone(),
        image_id: seen.image_id.clone().unwrap_or_default(),
        labels,
        state: state(seen)?,
        health: health(seen.health),
        exit_code: seen.exit_code.unwrap_or_default(),
        oom_killed: false,
        restarts_itself: false,
        error: String::new(),
        created_at: seen.started_at.as_ref().map(|time| time.0),
        started_at: seen.started_at.as_ref().map(|time| time.0),
        finished_at: seen.finished_at.as_ref().map(|time| time.0),
        attachments: networks.into_iter().map(|(network, aliases)| Attachment { network, aliases, ip: None }).collect(),
        ports: Vec::new(),
    })
}

/// None: there is no container, or nobody knows of one.
fn state(seen: &VariantStatus) -> Option<ContainerState> {
    match seen.state {
        VariantState::Unknown | VariantState::Absent => None,
        VariantState::Created => Some(ContainerState::Created),
        VariantState::Running => Some(ContainerState::Running),
        VariantState::Paused => Some(ContainerState::Paused),
        VariantState::Exited => Some(ContainerState::Exited),
    }
}

fn health(seen: VariantHealth) -> Option<EngineHealth> {
    match seen {
        VariantHealth::Unknown => None,
        VariantHealth::Starting => Some(EngineHealth::Starting),
        VariantHealth::Healthy => Some(EngineHealth::Healthy),
        VariantHealth::Unhealthy => Some(EngineHealth::Unhealthy),
    }
}

/// The objects as a store holds them, at the revisions the server gave them.
pub(super) fn snapshot(objects: Vec<Objects>) -> Snapshot {
    let mut items = Vec::new();
    let mut latest = Revision::default();
    for list in objects {
        for object in list.items {
            let text = |field: &str| object["metadata"][field].as_str();
            let revision = Revision(text("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default());
            latest = latest.max(revision);
            let key = Key::new(&list.group, &list.plural, text("namespace"), text("name").unwrap_or_default());
            let json = object.to_string().into();
            items.push(Arc::new(Version::new(key, revision, object, json)));
        }
    }
    items.sort_by(|a, b| a.key.cmp(&b.key));
    Snapshot { revision: latest, items }
}

/// `web.yaml:3: message`
pub(super) fn file_error(error: &FileError) -> String {
    let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
    format!("{}{line}: {}", error.file, error.message)
}
