//! Whether the image that a new container needs is there, and what is done when it is not.

use jiff::SignedDuration;

use super::{Scene, Step, VariantPlan};
use crate::{
    api::container::{ContainerSpec, ImagePullPolicy},
    controllers::workload::{
        conclusion::{Conclusion, Kind},
        observed::{Action, PullSeen},
        reason::Reason,
    },
};

/// With `Always`, a pull this fresh counts as the pull before the creation.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// True when the container can be made now. Otherwise the plan says what is awaited.
pub(super) fn ready(scene: &Scene<'_>, plan: &mut VariantPlan, spec: &ContainerSpec) -> bool {
    let image = &scene.seen.image;
    let present = image.present == Some(true);
    let fresh = matches!(image.pull, PullSeen::Done { at } if scene.now.duration_since(at) < FRESH);
    match spec.image_pull_policy.unwrap_or_default() {
        ImagePullPolicy::IfNotPresent if present => true,
        ImagePullPolicy::Always if present && fresh => true,
        ImagePullPolicy::Never if present => true,
        ImagePullPolicy::Never => {
            let message = format!("the engine does not have {}, and imagePullPolicy is Never", spec.image);
            plan.conclude(Conclusion::new(Kind::Stalled, Reason::ImageNeverPull, message));
            false
        }
        ImagePullPolicy::IfNotPresent | ImagePullPolicy::Always => {
            pull(scene, plan, spec);
            false
        }
    }
}

fn pull(scene: &Scene<'_>, plan: &mut VariantPlan, spec: &ContainerSpec) {
    let pulling = || Conclusion::new(Kind::UnderWay, Reason::PullingImage, format!("pulls {}", spec.image));
    let action = Action::Pull { variant: scene.variant, image: spec.image.clone() };
    match &scene.seen.image.pull {
        PullSeen::UnderWay => plan.conclude(pulling()),
        PullSeen::NotAsked | PullSeen::Done { .. } => {
            plan.act(scene, Step::Clear, action, pulling());
        }
        PullSeen::Failed { message, retry_at } => {
            let message = format!("cannot pull {}: {message}", spec.image);
            let stalled = Conclusion::new(Kind::Stalled, Reason::ImagePullBackOff, message);
            if *retry_at > scene.now {
                plan.wake(*retry_at);
                plan.conclude(stalled);
            } else {
                plan.act(scene, Step::Clear, action, stalled);
            }
        }
    }
}
