//! What happens on a host with a card on ordinary days, for [`crate::plans`]: it changes hands and comes back.

use std::time::Duration;

use futures::{FutureExt, future::LocalBoxFuture};
use gaia::{
    api::{GROUP, VERSION},
    registry::{ApiResult, ObjectName, Patch, Reason, Registry, WriteOptions},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cards::{self, CARD},
    people,
    scenarios::{Scenario, does, nothing, settle},
    world::World,
};

pub const WITH_A_CARD: [Scenario; 8] = [
    with_card("a claim takes the card and gives it back", owned_by_a, |world| there_and_back(world).boxed_local()),
    with_card("who is asked lets go, and takes the card again", asked, |world| there_and_back(world).boxed_local()),
    with_card("a sleeper is put to sleep and woken", sleeper, |world| there_and_back(world).boxed_local()),
    with_card("who runs on without the card has it back", runs_without, |world| there_and_back(world).boxed_local()),
    with_card("a wish hands the card over", used_by_a, |world| {
        let holder = |name: &str| json!({"name": name});
        make(world, "Handoff", "wish", json!({"gpu": CARD, "from": holder("a"), "to": holder("b")})).boxed_local()
    }),
    with_card("the card gets another owner", owned_by_a, |world| {
        world.cause();
        card(world, Some("b"));
        nothing().boxed_local()
    }),
    with_card("the holder is to run no more", used_by_a, |world| {
        async {
            world.cause();
            let live = json!({"running": false, "container": container("card:1")});
            people::write(world, "a", json!({"live": live, "gpu": {"members": [CARD]}}));
        }
        .boxed_local()
    }),
    with_card("a candidate on the card is promoted", with_candidate, |world| {
        let gates = json!({"probes": false, "minReadySeconds": 5});
        make(world, "Promotion", "promotion", json!({"workload": "a", "gates": gates})).boxed_local()
    }),
];

const fn with_card(
    name: &'static str,
    before: fn(&World),
    act: for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>,
) -> Scenario {
    Scenario { has_card: true, ..does(name, before, act) }
}

fn card(world: &World, owner: Option<&str>) {
    let mut spec = json!({
        "device": {"index": 0},
        // Few samples, for each is the place of a fault.
        "cleanup": {"policy": "Both", "timeoutSeconds": 40, "intervalMs": 500, "samples": 3},
        "onStuck": ["Stop"],
    });
    if let Some(owner) = owner {
        spec["owner"] = json!({"name": owner});
    }
    cards::write_card(world, &spec);
}

fn container(image: &str) -> Value {
    json!({"image": image, "gpus": {"deviceIds": ["0"]}})
}

/// A workload on the card.
fn user(world: &World, name: &str, image: &str, mut gpu: Value) {
    gpu["members"] = json!([CARD]);
    people::write(world, name, json!({"live": {"container": container(image)}, "gpu": gpu}));
}

fn owned_by_a(world: &World) {
    a_and_b(world, Some("a"), "card:1", json!({}));
}

fn used_by_a(world: &World) {
    a_and_b(world, None, "card:1", json!({}));
}

/// `a` is as told, and has the card, as its owner or by coming first; `b` waits for it.
fn a_and_b(world: &World, owner: Option<&str>, image: &str, gpu: Value) {
    card(world, owner);
    user(world, "a", image, gpu);
    user(world, "b", "card:1", json!({}));
}

fn ask(path: &str) -> Value {
    json!({"http": {"port": 80, "path": path}, "timeoutSeconds": 5})
}

fn start() -> Value {
    json!({"start": {}, "timeoutSeconds": 60})
}

fn asked(world: &World) {
    let steps = json!({
        "releaseSteps": [ask("/gpu/release"), {"stop": {}}],
        "acquireSteps": [start(), ask("/gpu/reclaim")],
    });
    a_and_b(world, Some("a"), "card:1", steps);
}

fn sleeper(world: &World) {
    let sleep = json!({"vllmSleep": {"port": 80}, "timeoutSeconds": 8});
    let wake = json!({"vllmWake": {"port": 80}, "timeoutSeconds": 8});
    a_and_b(world, Some("a"), "sleeps:1", json!({"releaseSteps": [sleep], "acquireSteps": [start(), wake]}));
}

fn runs_without(world: &World) {
    let steps = json!({
        "runsWithout": true,
        "releaseSteps": [ask("/study/gpu-release"), {"stop": {}}],
        "acquireSteps": [start(), ask("/study/gpu-ready")],
    });
    a_and_b(world, Some("a"), "waits:1", steps);
}

fn with_candidate(world: &World) {
    card(world, None);
    let mut candidate = container("card:1");
    candidate["env"] = json!({"LEVEL": "1"});
    let (live, candidate) = (json!({"container": container("card:1")}), json!({"container": candidate}));
    people::write(world, "a", json!({"live": live, "candidate": candidate, "gpu": {"members": [CARD]}}));
}

/// `b` claims the card, has it, and gives it back.
async fn there_and_back(world: &World) {
    make(world, "GpuClaim", "claim", json!({"gpu": CARD, "holder": {"name": "b"}, "priority": 1})).await;
    settle(world).await;
    world.cause();
    until_acknowledged(world, async |registry| {
        let kind = registry.kinds().by_kind(GROUP, VERSION, "GpuClaim").expect("our kind is served");
        let patch = Patch::Merge(json!({"spec": {"release": true}}));
        registry.patch(&kind, &named("claim"), patch, &options()).await.map(|_| ())
    })
    .await;
}

async fn make(world: &World, kind: &str, name: &str, spec: Value) {
    world.cause();
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    until_acknowledged(world, async |registry| {
        let kind = registry.kinds().by_kind(GROUP, VERSION, kind).expect("our kind is served");
        match registry.create(&kind, Some("default"), object.clone(), &options()).await {
            Err(error) if error.reason != Reason::AlreadyExists => Err(error),
            // Or it was done, and the answer was lost.
            _ => Ok(()),
        }
    })
    .await;
}

/// Whoever is refused asks again.
async fn until_acknowledged(world: &World, ask: impl AsyncFn(&Registry) -> ApiResult<()>) {
    loop {
        let registry = world.registry().await;
        match ask(&registry).await {
            Ok(()) => return,
            Err(error) => world.story.tell(format_args!("refused: {error}")),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "somebody".to_owned(), ..WriteOptions::default() }
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() }
}
