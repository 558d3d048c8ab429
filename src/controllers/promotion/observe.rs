//! What there is: the workload, other promotions of it, cards and handoffs, and what the new variant says. Reads only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::ResourceExt;

use super::{
    PromotionReconciler,
    decide::seen,
    handoffs::{self, Way},
    observed::{ModelSeen, Observed},
};
use crate::{
    adapters::containers::ContainerId,
    api::{
        annotation,
        gpu::Gpu,
        handoff::Handoff,
        promotion::{ModelLoaded, Promotion, PromotionPhase},
        workload::{VariantHealth, VariantState, VariantStatus, Workload},
    },
    registry::{ApiError, ObjectName},
    runtime::{
        objects::Objects,
        reconciler::{PassError, name_of},
    },
};

/// Of one look at the models.
const MODEL_TIMEOUT: Duration = Duration::from_secs(2);

impl<O: Objects> PromotionReconciler<O> {
    pub(super) async fn look(&self, promotion: &Promotion) -> Result<Observed, PassError> {
        if promotion.status.as_ref().is_some_and(|status| status.phase.is_terminal()) {
            self.commands.forget(&name_of(promotion));
            return Ok(Observed::default());
        }
        let name =
            ObjectName { namespace: promotion.metadata.namespace.clone(), name: promotion.spec.workload.clone() };
        let Some(workload) = self.objects.get::<Workload>(&name).await.map_err(reading)? else {
            return Ok(Observed::default());
        };
        let mut observed =
            Observed { other: self.look_for_another(promotion, &workload).await?, ..Observed::default() };
        self.look_at_cards(promotion, &workload, &mut observed).await?;
        if let Some(judged) = judged(promotion, &workload) {
            let id = ContainerId(judged.container_id.clone().unwrap_or_default());
            observed.command = self.commands.seen(&name_of(promotion), &id);
            if let Some(gate) = &promotion.spec.gates.model_loaded {
                observed.model = self.look_at_models(&id, gate).await;
            }
        }
        observed.workload = Some(workload);
        Ok(observed)
    }

    /// One that the workload is marked with, or that was made before this one. Those that have ended do not count.
    async fn look_for_another(&self, promotion: &Promotion, workload: &Workload) -> Result<Option<String>, PassError> {
        let all = self.objects.list::<Promotion>(promotion.metadata.namespace.as_deref()).await.map_err(reading)?;
        let under_way = |other: &&Arc<Promotion>| {
            other.spec.workload == promotion.spec.workload
                && other.metadata.uid != promotion.metadata.uid
                && other.status.as_ref().is_none_or(|status| !status.phase.is_terminal())
        };
        let others: Vec<&Arc<Promotion>> = all.iter().filter(under_way).collect();
        let mark = workload.annotations().get(annotation::PROMOTION);
        let age = |p: &Promotion| (p.metadata.creation_timestamp.as_ref().map(|at| at.0), p.name_any());
        let marked = others.iter().find(|other| Some(&other.name_any()) == mark);
        let eldest = others.iter().filter(|other| age(other) < age(promotion)).min_by_key(|other| age(other));
        Ok(marked.or(eldest).map(|other| other.name_any()))
    }

    /// Handoffs before cards: a handoff that is seen to have ended has then been seen with its outcome.
    async fn look_at_cards(
        &self,
        promotion: &Promotion,
        workload: &Workload,
        observed: &mut Observed,
    ) -> Result<(), PassError> {
        let members: Vec<&String> = workload.spec.gpu.iter().flat_map(|gpu| &gpu.members).collect();
        let mut handoffs = BTreeMap::new();
        for gpu in &members {
            for way in [Way::Forth, Way::Back] {
                let name = handoffs::name(&promotion.name_any(), gpu, way);
                let at = ObjectName { namespace: promotion.metadata.namespace.clone(), name: name.clone() };
                if let Some(handoff) = self.objects.get::<Handoff>(&at).await.map_err(reading)? {
                    handoffs.insert(name, handoff);
                }
            }
        }
        observed.handoffs = handoffs;
        for gpu in members {
            let at = ObjectName { namespace: None, name: gpu.clone() };
            observed.gpus.insert(gpu.clone(), self.objects.get::<Gpu>(&at).await.map_err(reading)?);
        }
        Ok(())
    }

    async fn look_at_models(&self, id: &ContainerId, gate: &ModelLoaded) -> ModelSeen {
        let container = match self.containers.inspect(&id.0).await {
            Ok(Some(container)) => container,
            Ok(None) => return ModelSeen::NotLoaded("its container is gone".to_owned()),
            Err(error) => return ModelSeen::NotLoaded(error.to_string()),
        };
        match self.probes.models(&container, gate.port, &gate.path, MODEL_TIMEOUT).await {
            Ok(models) => judge_models(&models, gate.model.as_deref()),
            Err(why) => ModelSeen::NotLoaded(why),
        }
    }
}

fn judge_models(models: &[String], wanted: Option<&str>) -> ModelSeen {
    match wanted {
        None if models.is_empty() => ModelSeen::NotLoaded("it serves no model".to_owned()),
        Some(wanted) if !models.iter().any(|model| model == wanted) => {
            ModelSeen::NotLoaded(format!("it serves {models:?}, not {wanted}"))
        }
        None | Some(_) => ModelSeen::Loaded,
    }
}

/// The new variant, while its gates are what is waited for and the first of them is passed.
fn judged<'a>(promotion: &Promotion, workload: &'a Workload) -> Option<&'a VariantStatus> {
    let status = promotion.status.as_ref()?;
    let to = status.to.filter(|to| status.before.is_some() && workload.spec.active != *to)?;
    let judging = status.phase != PromotionPhase::RollingBack;
    let healthy = |seen: &&VariantStatus| !promotion.spec.gates.probes || seen.health == VariantHealth::Healthy;
    seen(workload, to).filter(|seen| judging && seen.state == VariantState::Running).filter(healthy)
}

fn reading(source: ApiError) -> PassError {
    PassError::Objects { doing: "read what the promotion is about", source }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::any(&["qwen3"], None, true)]
    #[case::none_at_all(&[], None, false)]
    #[case::the_one(&["a", "qwen3"], Some("qwen3"), true)]
    #[case::another(&["a"], Some("qwen3"), false)]
    fn a_model_is_loaded_when_it_is_listed(
        #[case] models: &[&str],
        #[case] wanted: Option<&str>,
        #[case] loaded: bool,
    ) {
        let models: Vec<String> = models.iter().map(|&model| model.to_owned()).collect();
        assert_eq!(judge_models(&models, wanted) == ModelSeen::Loaded, loaded);
    }
}
