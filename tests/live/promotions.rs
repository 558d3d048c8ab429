//! Promotions by the real controllers: one that passes, one that comes back by itself, one that is cancelled.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gaia::{
    adapters::simulated::containers::{Behaviour, Image, Images},
    api::{promotion::*, workload::*},
    runtime::objects::Objects as _,
};
use kube::ResourceExt;
use serde_json::json;

use crate::world::{World, from_image, object, workload};

/// `web` with a live that answers and a candidate made from `image`; its probe looks at port 80.
async fn web(images: Images, image: &str) -> World {
    let world = World::with(images).await;
    let mut web = workload("web", from_image("web:1"));
    web.spec.candidate = Some(CandidateSpec { running: false, container: from_image(image) });
    web.spec.probes = Some(Probes { readiness: Some(crate::tcp()), ..Probes::default() });
    world.create(web).await;
    world.until_running("web").await;
    world
}

async fn promote(world: &World, name: &str, gates: Gates) {
    let spec = PromotionSpec { workload: "web".to_owned(), gates, ..PromotionSpec::default() };
    let mut promotion = Promotion::new(name, spec);
    promotion.metadata.namespace = Some("default".to_owned());
    world.objects.create(promotion).await.expect("a valid promotion");
}

async fn until(world: &World, name: &str, phase: PromotionPhase) -> Arc<Promotion> {
    let name = object(name);
    let get = || world.objects.get::<Promotion>(&name);
    let waiting = async {
        let mut changes = world.objects.watch::<Promotion>();
        loop {
            let promotion = get().await.expect("the registry answers").expect("it exists");
            let now = promotion.status.as_ref().map(|status| status.phase).unwrap_or_default();
            if now == phase {
                return promotion;
            }
            assert!(!now.is_terminal(), "ended {now:?} instead of {phase:?}: {promotion:#?}");
            changes.next().await.expect("a watch goes on for ever");
        }
    };
    match tokio::time::timeout(Duration::from_secs(3600), waiting).await {
        Ok(promotion) => promotion,
        Err(_) => panic!("never {phase:?}: {:#?}", get().await),
    }
}

async fn wishes(world: &World) -> (Variant, bool, bool) {
    let spec = world.get("web").await.expect("it exists").spec.clone();
    (spec.active, spec.live.is_some_and(|v| v.running), spec.candidate.is_some_and(|v| v.running))
}

fn never_ready() -> Images {
    let never = Behaviour { ready_after: None, ..Behaviour::default() };
    Images::any().with("web:2", Image::present(never))
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_proves_itself_answers_and_live_can_be_had_back() {
    let world = web(Images::any(), "web:2").await;
    let model_loaded = Some(ModelLoaded { port: 80, path: "/v1/models".to_owned(), model: Some("web:2".to_owned()) });
    let command = Some(GateCommand { command: vec!["check".to_owned()], timeout_seconds: 10 });
    promote(&world, "up", Gates { model_loaded, command, ..Gates::default() }).await;
    let ended = until(&world, "up", PromotionPhase::Completed).await;
    assert_eq!(wishes(&world).await, (Variant::Candidate, false, true));
    assert!(!world.runs("web-live") && world.runs("web-candidate"));
    let steps: Vec<&str> = ended.status.as_ref().unwrap().steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["StartingCandidate", "Gating", "Switching"]);
    // The fields that were set are ours, and no others.
    let stored = world.get("web").await.unwrap();
    let fields = stored.managed_fields().iter().filter_map(|m| m.fields_v1.as_ref()).map(|f| &f.0);
    assert!(fields.clone().any(|f| f.pointer("/f:spec/f:candidate/f:running").is_some()), "{fields:?}");
    world.until_told("up", "Completed").await;

    promote(&world, "down", Gates::default()).await;
    until(&world, "down", PromotionPhase::Completed).await;
    assert_eq!(wishes(&world).await, (Variant::Live, true, false));
    assert!(world.runs("web-live") && !world.runs("web-candidate"));
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_never_gets_healthy_goes_by_itself_and_live_answers_throughout() {
    let world = web(never_ready(), "web:2").await;
    promote(&world, "up", Gates { timeout_seconds: 60, ..Gates::default() }).await;
    let ended = until(&world, "up", PromotionPhase::RolledBack).await;
    assert!(ended.status.as_ref().unwrap().error.as_ref().unwrap().contains("healthy"), "{ended:#?}");
    assert_eq!(wishes(&world).await, (Variant::Live, true, false));
    world.until_running("web").await;
    assert!(world.runs("web-live") && !world.runs("web-candidate"));
    assert!(world.done().iter().all(|effect| !effect.contains("stop container web-live")), "{:?}", world.done());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_promotion_leaves_everything_as_it_was() {
    let world = web(never_ready(), "web:2").await;
    promote(&world, "up", Gates::default()).await;
    until(&world, "up", PromotionPhase::Gating).await;
    // Nobody else gets in between.
    promote(&world, "second", Gates::default()).await;
    let refused = until(&world, "second", PromotionPhase::Failed).await;
    assert!(refused.status.as_ref().unwrap().error.as_ref().unwrap().contains("up"), "{refused:#?}");
    world.objects.merge::<Promotion>(&object("up"), json!({"spec": {"cancel": true}})).await.expect("a cancel");
    until(&world, "up", PromotionPhase::Cancelled).await;
    assert_eq!(wishes(&world).await, (Variant::Live, true, false));
    world.until_running("web").await;
    assert!(!world.runs("web-candidate"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_gaia_half_way_carries_the_promotion_to_its_end() {
    let slow = Behaviour { ready_after: Some(Duration::from_secs(40)), ..Behaviour::default() };
    let mut world = web(Images::any().with("web:2", Image::present(slow)), "web:2").await;
    promote(&world, "up", Gates::default()).await;
    until(&world, "up", PromotionPhase::Gating).await;
    world.stop().await;
    world.start();
    until(&world, "up", PromotionPhase::Completed).await;
    assert_eq!(wishes(&world).await, (Variant::Candidate, false, true));
}
