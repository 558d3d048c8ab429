//! A container that somebody else made: started, stopped and watched; never made, removed, renamed or attached.

use super::{Scene, VariantPlan, clear_away, run};
use crate::controllers::workload::{
    conclusion::{Conclusion, Kind},
    names,
    reason::Reason,
    status,
};

pub(super) fn decide(scene: &Scene<'_>, plan: &mut VariantPlan, name: &str, running: bool) {
    plan.adopted = true;
    // What we made for this variant before it came to adopt another container.
    clear_away(scene, plan, "gives way to an adopted container");
    let Some(container) = &scene.seen.named else {
        plan.status = Some(status::absent());
        if running {
            let message = format!("there is no container {name} to adopt");
            plan.conclude(Conclusion::new(Kind::Stalled, Reason::AdoptedContainerNotFound, message));
        } else {
            let message = format!("{name} does not exist, and is not to run");
            plan.conclude(Conclusion::new(Kind::AsWished, Reason::Stopped, message));
        }
        return;
    };
    if names::owner(&container.labels).is_some() {
        plan.status = Some(status::absent());
        let message = format!("{name} is a container that gaia made, it cannot be adopted");
        plan.conclude(Conclusion::new(Kind::Stalled, Reason::AdoptedContainerManaged, message));
        return;
    }
    plan.kept = Some(container.clone());
    plan.status = Some(status::of(container, scene.seen.health, scene.before, scene.may_run(running), scene.now));
    run::decide(scene, plan, container, running, None);
}
