//! What there is: the containers of a workload, its images, its health, its dependencies. Reads only.

use super::{
    WorkloadReconciler, decide, names,
    observed::{Composed, EngineView, Health, ImageSeen, Observed, VariantSeen, choose},
    right::{Right, right},
    variant::Wish,
};
use crate::{
    adapters::containers::{Container, ContainerId, ContainerState, EngineError, EngineResult},
    api::{
        container::{ComposeSource, ContainerSpec},
        gpu::Gpu,
        handoff::Handoff,
        label,
        workload::{Variant, Workload},
    },
    registry::{ApiError, ObjectName},
    runtime::{
        objects::Objects,
        reconciler::{PassError, name_of},
    },
};

impl<O: Objects> WorkloadReconciler<O> {
    pub(super) async fn look(&self, workload: &Workload) -> Result<Observed, PassError> {
        let mut observed = Observed {
            node: self.node.clone(),
            engine: Ok(EngineView::default()),
            dependencies: Vec::new(),
            cycle: None,
        };
        if workload.spec.node_name.as_ref().is_some_and(|node| *node != self.node) {
            return Ok(observed);
        }
        observed.engine = self.look_at_engine(workload).await.map_err(|error| error.to_string());
        if let Ok(view) = &mut observed.engine {
            (view.live.right, view.candidate.right) = self.rights(workload).await.map_err(cards)?;
        }
        let leaving = workload.metadata.deletion_timestamp.is_some();
        if !leaving && observed.engine.is_ok() && !workload.spec.depends_on.is_empty() {
            observed.cycle = self.look_for_cycle(workload).await.map_err(reading)?;
            observed.dependencies = self.look_at_dependencies(workload).await.map_err(reading)?;
        }
        Ok(observed)
    }

    /// Live's, and the candidate's.
    pub(super) async fn rights(&self, workload: &Workload) -> Result<(Right, Right), ApiError> {
        let names = workload.spec.gpu.as_ref().map(|gpu| gpu.members.as_slice()).unwrap_or_default();
        let mut seen = Vec::with_capacity(names.len());
        for name in names {
            let gpu = self.objects.get::<Gpu>(&ObjectName { namespace: None, name: name.clone() }).await?;
            let under_way = gpu.as_ref().and_then(|gpu| gpu.status.as_ref()?.handoff.clone());
            let handoff = match under_way.as_deref().and_then(|full| full.split_once('/')) {
                Some((namespace, name)) => {
                    let name = ObjectName { namespace: Some(namespace.to_owned()), name: name.to_owned() };
                    self.objects.get::<Handoff>(&name).await?
                }
                None => None,
            };
            seen.push((
                name.clone(),
                gpu,
                handoff.filter(|h| !h.status.as_ref().is_some_and(|s| s.phase.is_terminal())),
            ));
        }
        let seen: Vec<_> = seen.iter().map(|(name, gpu, ho)| (name.clone(), gpu.as_deref(), ho.as_deref())).collect();
        Ok((right(workload, Variant::Live, &seen), right(workload, Variant::Candidate, &seen)))
    }

    /// Whole or not at all: half a view would make a container that did not answer look absent.
    async fn look_at_engine(&self, workload: &Workload) -> EngineResult<EngineView> {
        let uid = workload.metadata.uid.as_deref().unwrap_or_default();
        let mut ours = self.containers.list(Some((label::OWNER_UID, Some(uid)))).await?;
        // A total order: the engine's may differ from one list to the next.
        ours.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let owner = name_of(workload);
        let (live, candidate) = futures::try_join!(
            self.look_at_variant(workload, &owner, Variant::Live, &ours),
            self.look_at_variant(workload, &owner, Variant::Candidate, &ours),
        )?;
        let probed: Vec<ContainerId> =
            [&live, &candidate].into_iter().filter_map(|(_, probed)| probed.clone()).collect();
        self.prober.keep_only(&owner, &probed);
        Ok(EngineView { live: live.0, candidate: candidate.0 })
    }

    /// With the id of the container whose health was asked for.
    async fn look_at_variant(
        &self,
        workload: &Workload,
        owner: &ObjectName,
        variant: Variant,
        all: &[Container],
    ) -> EngineResult<(VariantSeen, Option<ContainerId>)> {
        let ours: Vec<Container> = all.iter().filter(|c| names::variant(&c.labels) == Some(variant)).cloned().collect();
        let mut seen = VariantSeen { failures: self.failures.of(workload, variant), ..VariantSeen::default() };
        let subject = match decide::wish(workload, variant) {
            Wish::Absent => None,
            Wish::Adopt { name, .. } => {
                seen.named = self.named(name, all).await?;
                seen.named.clone()
            }
            Wish::Inline { spec, running } => {
                let namespace = owner.namespace.as_deref().unwrap_or("default");
                seen.named = self.named(&names::container(namespace, &owner.name, variant), all).await?;
                let hash = spec.hash();
                let keep = choose(&ours, Some(&hash));
                if keep.is_none() && !shared_with_live(workload, variant) {
                    seen.composed = self.composed(spec).await?;
                }
                let keep = keep.or(seen.composed.as_ref().map(|composed| &composed.container));
                if running && keep.is_none_or(|c| names::spec_hash(c) != Some(&hash)) {
                    seen.image = self.look_at_image(spec, owner).await?;
                }
                keep.cloned()
            }
        };
        seen.ours = ours;
        let probes = workload.spec.probes.as_ref();
        seen.health = subject.as_ref().map_or_else(Health::default, |c| self.prober.health(owner, c, probes));
        let probed = subject.filter(|c| c.state == ContainerState::Running).map(|c| c.id);
        Ok((seen, probed))
    }

    /// What Compose runs for the service that the spec was taken from.
    async fn composed(&self, spec: &ContainerSpec) -> EngineResult<Option<Composed>> {
        let Some(ComposeSource { project: Some(project), service, .. }) = &spec.compose else { return Ok(None) };
        let label = |container: &Container, key| container.labels.get(key).cloned().unwrap_or_default();
        let mut found = self.containers.list(Some((label::COMPOSE_SERVICE, Some(service)))).await?;
        found.retain(|c| {
            label(c, label::COMPOSE_PROJECT) == *project
                && !label(c, label::COMPOSE_ONEOFF).eq_ignore_ascii_case("true")
                && names::owner(&c.labels).is_none()
        });
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let Some(container) = found.into_iter().next() else { return Ok(None) };
        match self.containers.differences(&container.id, spec).await {
            Ok(differences) => Ok(Some(Composed { container, differences })),
            // It went just now; or the engine would not take the spec, and making one says why.
            Err(EngineError::NotFound(_) | EngineError::Terminal { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// No two containers have one name: if one of ours in this pass's list has it, that is the one. Engines answer to prefixes of
    /// ids too: only the name counts.
    async fn named(&self, name: &str, ours: &[Container]) -> EngineResult<Option<Container>> {
        if let Some(found) = ours.iter().find(|container| container.name == name) {
            return Ok(Some(found.clone()));
        }
        Ok(self.containers.inspect(name).await?.filter(|found| found.name == name))
    }

    async fn look_at_image(&self, spec: &ContainerSpec, owner: &ObjectName) -> EngineResult<ImageSeen> {
        let present = match self.containers.image(&spec.image).await {
            Ok(found) => found.is_some(),
            // A reference that the engine will not even look for: the pull says why.
            Err(EngineError::Terminal { .. } | EngineError::NotFound(_)) => false,
            Err(error @ (EngineError::Unreachable(_) | EngineError::MayHaveTakenEffect(_))) => return Err(error),
        };
        Ok(ImageSeen { present: Some(present), pull: self.puller.seen(&spec.image, owner) })
    }
}

/// One container is not taken over twice.
fn shared_with_live(workload: &Workload, variant: Variant) -> bool {
    let live = workload.spec.live.as_ref().and_then(|live| live.container.compose.as_ref());
    let candidate = workload.spec.candidate.as_ref().and_then(|candidate| candidate.container.compose.as_ref());
    let same = |a: &ComposeSource, b: &ComposeSource| a.project == b.project && a.service == b.service;
    variant == Variant::Candidate && live.zip(candidate).is_some_and(|(live, candidate)| same(live, candidate))
}

fn cards(source: ApiError) -> PassError {
    PassError::Objects { doing: "read the cards", source }
}

fn reading(source: ApiError) -> PassError {
    PassError::Objects { doing: "read the dependencies", source }
}
