//! The candidate answers while live does not do well.

use std::time::Duration;

use gaia::{adapters::simulated::containers::Images, api::workload::*};

use crate::{
    answers,
    world::{World, from_image, workload},
};

#[tokio::test(start_paused = true)]
async fn the_candidate_answers_while_live_is_unhealthy() {
    let world = World::with(Images::any()).await;
    let mut web = workload("web", from_image("web:1"));
    web.spec.candidate = Some(CandidateSpec { running: true, container: from_image("web:2") });
    web.spec.probes = Some(Probes { readiness: Some(crate::tcp()), ..Probes::default() });
    web.spec.failover = Some(true);
    world.create(web).await;
    world.until_running("web").await;
    assert_eq!((answers(&world, "web-live"), answers(&world, "web-candidate")), (true, false));

    assert!(world.engine.set_answering("web-live", Some(false)));
    until_active(&world, Variant::Candidate).await;
    world.until_told("web", "FailedOver").await;
    assert!(world.runs("web-live"), "nothing is stopped for it");

    assert!(world.engine.set_answering("web-live", None));
    let well_again = tokio::time::Instant::now();
    until_active(&world, Variant::Live).await;
    assert!(well_again.elapsed() >= Duration::from_secs(9), "{:?}", well_again.elapsed());
    world.until_told("web", "FailedBack").await;
    world.until_running("web").await;
    assert_eq!((answers(&world, "web-live"), answers(&world, "web-candidate")), (true, false));
}

async fn until_active(world: &World, variant: Variant) {
    let is = |w: Option<&Workload>| w.and_then(|w| w.status.as_ref()).is_some_and(|s| s.active == Some(variant));
    world.until("web", &format!("answered for by {variant:?}"), is).await;
}
