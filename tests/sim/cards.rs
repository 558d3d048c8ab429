//! People and cards: they state a card and change its owner, claim it, renew and give back, wish for handoffs and cancel them;
//! and the driver has its bad times. In the end they leave wishes that can be fulfilled.

use std::{sync::Arc, time::Duration};

use gaia::{
    adapters::simulated::containers::{Behaviour, CardFault, Image, Images},
    api::{GROUP, VERSION, gpu::Gpu, gpuclaim::GpuClaim, handoff::Handoff, workload::Variant},
    registry::{DeleteOptions, ObjectName, Patch, WriteOptions},
};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    oracle::stored,
    people::{DIRECTORY, pick},
    world::World,
};

/// The one card of the host.
pub const CARD: &str = "gpu0";
/// Workloads that may use it; the others never do.
pub const USERS: [&str; 3] = ["a", "b", "c"];
const OUTSIDER: &str = "desk";
/// Of a card, in every wish: the driver alone uses half of it.
pub const FREE_BELOW_MIB: u64 = 1024;

/// What processes do with a card. The last comes up never.
const IMAGES: [&str; 5] = ["card:1", "late:1", "orphan:1", "stubborn-card:1", "crash-card:1"];
const SOUND_IMAGES: usize = 4;
const SLEEPS: &str = "sleeps:1";
const WAITS: &str = "waits:1";

pub fn images(images: Images) -> Images {
    let seconds = Duration::from_secs;
    let card = || Behaviour { ready_after: Some(seconds(1)), drains: seconds(1), ..Behaviour::default() };
    images
        .with("card:1", Image::present(card()))
        .with("late:1", Image::present(Behaviour { drains: seconds(12), ..card() }))
        .with("orphan:1", Image::present(Behaviour { orphan: Some(seconds(15)), ..card() }))
        .with("stubborn-card:1", Image::present(Behaviour { ignores_stop: true, ..card() }))
        .with("crash-card:1", Image::present(Behaviour { exits: Some((seconds(3), 1)), ..card() }))
        .with(SLEEPS, Image::present(Behaviour { asleep_mib: 300, drains: seconds(2), ..card() }))
        .with(WAITS, Image::present(Behaviour { gpu_at_start: false, ..card() }))
}

/// Puts the workload that `spec` describes on the card.
pub fn put_on_card(world: &World, spec: &mut Value, sound: bool) {
    let mut rng = world.rng();
    let images = if sound { &IMAGES[..SOUND_IMAGES] } else { &IMAGES[..] };
    let start = json!({"start": {}, "timeoutSeconds": 60});
    let ask = |path: &str| json!({"http": {"port": 80, "path": path}, "timeoutSeconds": rng_seconds(path)});
    let (image, gpu) = match rng.u8(..6) {
        0 | 1 => (images[rng.usize(..images.len())], json!({})),
        2 => {
            let mut reclaim = ask("/gpu/reclaim");
            reclaim["required"] = json!(rng.bool());
            let steps = json!({"releaseSteps": [ask("/gpu/release"), {"stop": {}}], "acquireSteps": [start, reclaim]});
            (images[rng.usize(..images.len())], steps)
        }
        3 => {
            // Who is told, and does not let go by it.
            let mut told = ask("/notify");
            told["verify"] = json!(false);
            told["required"] = json!(!sound && rng.bool());
            (images[rng.usize(..images.len())], json!({"releaseSteps": [told, {"stop": {}}]}))
        }
        4 => {
            let sleep = json!({"vllmSleep": {"port": 80}, "timeoutSeconds": 8});
            let wake = json!({"vllmWake": {"port": 80}, "timeoutSeconds": 8});
            (SLEEPS, json!({"releaseSteps": [sleep], "acquireSteps": [start, wake]}))
        }
        _ => {
            let steps = json!({
                "runsWithout": true,
                "releaseSteps": [ask("/study/gpu-release"), {"stop": {}}],
                "acquireSteps": [start, ask("/study/gpu-ready")],
            });
            (WAITS, steps)
        }
    };
    for variant in ["live", "candidate"] {
        if let Some(container) = spec.get_mut(variant).map(|variant| &mut variant["container"]) {
            container["image"] = json!(image);
            container["gpus"] = json!({"deviceIds": ["0"]});
        }
    }
    spec["gpu"] = gpu;
    spec["gpu"]["members"] = json!([CARD]);
    if sound && let Some(candidate) = spec.get_mut("candidate") {
        // Two variants to run, and one card: the candidate would wait for ever.
        candidate.as_object_mut().expect("a map").remove("running");
    }
}

fn rng_seconds(path: &str) -> usize {
    // Every step its own time, and each the same in every story.
    5 + path.len() % 4
}

/// Writes the card's file. `owner`: of those, somebody or nobody.
pub fn state_card(world: &World, owners: &[&str]) {
    let spec = {
        let mut rng = world.rng();
        let policy = ["Both", "Both", "Memory", "Processes"][rng.usize(..4)];
        let stuck =
            [json!(["Release", "Stop"]), json!(["Stop"]), json!(["Stop", "Kill"]), json!(["Release", "Stop", "Kill"])];
        let mut spec = json!({
            "device": {"index": 0},
            "lend": rng.u8(..8) > 0,
            "cleanup": {"policy": policy, "timeoutSeconds": 40, "intervalMs": 250, "samples": 3},
            "onStuck": stuck[rng.usize(..4)],
        });
        let chosen = rng.usize(..=owners.len() + 1);
        if let Some(owner) = owners.get(chosen) {
            spec["owner"] = json!({"name": owner});
        } else if chosen == owners.len() && rng.u8(..3) == 0 {
            spec["owner"] = json!({"name": OUTSIDER, "kind": "External"});
        }
        spec
    };
    write_card(world, &spec);
}

pub fn write_card(world: &World, spec: &Value) {
    world.story.tell(format_args!("file of {CARD}: {spec}"));
    let document = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Gpu", "metadata": {"name": CARD}, "spec": spec,
    });
    world.files.write(format!("{DIRECTORY}/{CARD}.yaml"), format!("# {CARD}\n{document}\n"));
}

/// Who may use it in this world.
fn users(world: &World) -> Vec<&'static str> {
    USERS.into_iter().filter(|user| world.size.workloads.contains(user)).collect()
}

pub fn set_the_scene(world: &World) {
    state_card(world, &users(world));
}

/// One act of somebody who has to do with the card.
pub async fn act(world: &World) {
    let dice = world.rng().u8(..100);
    match dice {
        0..28 => claim(world).await,
        28..44 => give_back(world).await,
        44..50 => renew(world).await,
        50..75 => wish_for_a_handoff(world).await,
        75..84 => end_a_handoff(world).await,
        84..92 => state_card(world, &users(world)),
        _ => trouble_the_driver(world).await,
    }
}

fn holder(world: &World) -> Value {
    let users = users(world);
    let mut rng = world.rng();
    match rng.u8(..8) {
        0..5 => json!({"name": users[rng.usize(..users.len())]}),
        5 => json!({"name": users[rng.usize(..users.len())], "variant": "Candidate"}),
        _ => json!({"name": OUTSIDER, "kind": "External"}),
    }
}

async fn claim(world: &World) {
    let holder = holder(world);
    let spec = {
        let mut rng = world.rng();
        let mut spec = json!({"gpu": CARD, "holder": holder, "priority": rng.i32(-1..3)});
        if rng.bool() {
            spec["preemption"] = json!("LowerPriority");
        }
        for (field, most) in [("ttlSeconds", 40), ("maxHoldSeconds", 60), ("timeoutSeconds", 60)] {
            if rng.u8(..3) == 0 {
                spec[field] = json!(rng.u32(5..most));
            }
        }
        if spec.get("maxHoldSeconds").is_none() && rng.u8(..4) == 0 {
            spec["minHoldSeconds"] = json!(rng.u32(5..30));
        }
        if let (Some(ttl), Some(hold)) = (spec["ttlSeconds"].as_u64(), spec["maxHoldSeconds"].as_u64()) {
            spec["ttlSeconds"] = json!(ttl.min(hold));
        }
        if rng.u8(..5) == 0 {
            (spec["shared"], spec["memory"]) = (json!(true), json!("5Gi"));
        }
        spec
    };
    create(world, "GpuClaim", "claim-", spec).await;
}

fn claims(world: &World) -> Vec<Arc<GpuClaim>> {
    let over = |claim: &GpuClaim| claim.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    let mut claims = stored::<GpuClaim>(world, "gpuclaims").unwrap_or_default();
    claims.retain(|claim| !over(claim) && !claim.spec.release);
    claims
}

fn handoffs(world: &World) -> Vec<Arc<Handoff>> {
    let over = |handoff: &Handoff| handoff.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    let mut handoffs = stored::<Handoff>(world, "handoffs").unwrap_or_default();
    handoffs.retain(|handoff| !over(handoff));
    handoffs
}

async fn give_back(world: &World) {
    let claims = claims(world);
    if claims.is_empty() {
        return;
    }
    let name = pick(world, &claims).name_any();
    let dice = world.rng().u8(..4);
    match dice {
        0 => delete(world, "GpuClaim", &name).await,
        _ => patch(world, "GpuClaim", &name, json!({"release": true})).await,
    }
}

async fn renew(world: &World) {
    let claims = claims(world);
    if claims.is_empty() {
        return;
    }
    let name = pick(world, &claims).name_any();
    let now = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    patch(world, "GpuClaim", &name, json!({"renewedAt": now})).await;
}

async fn wish_for_a_handoff(world: &World) {
    let to = holder(world);
    let held = stored::<Gpu>(world, "gpus").and_then(|cards| cards.first()?.status.as_ref()?.holder.clone());
    let knows = world.rng().u8(..10) > 0;
    let mut spec = json!({"gpu": CARD, "to": to, "timeoutSeconds": world.rng().u32(15..90)});
    match held {
        Some(holder) if knows => spec["from"] = json!(holder),
        Some(_) => spec["from"] = json!({"name": USERS[0]}),
        None => {}
    }
    if spec["from"] == spec["to"] {
        return;
    }
    create(world, "Handoff", "wish-", spec).await;
}

async fn end_a_handoff(world: &World) {
    let handoffs = handoffs(world);
    if handoffs.is_empty() {
        return;
    }
    let name = pick(world, &handoffs).name_any();
    let dice = world.rng().u8(..4);
    match dice {
        0 => delete(world, "Handoff", &name).await,
        _ => patch(world, "Handoff", &name, json!({"cancel": true})).await,
    }
}

/// For a while it hangs, answers with errors, has lost the card, or tells nothing of it.
async fn trouble_the_driver(world: &World) {
    let trouble = [CardFault::Refuse, CardFault::Hang, CardFault::Lost, CardFault::Untold];
    let trouble = *pick(world, &trouble);
    world.story.tell(format_args!("the GPU driver: {trouble:?}"));
    world.set_driver(trouble);
    let lasts = world.rng().u64(500..20_000);
    sleep(Duration::from_millis(lasts)).await;
    world.set_driver(CardFault::None);
    world.story.tell("the GPU driver is well again");
}

async fn create(world: &World, kind: &str, prefix: &str, spec: Value) {
    let Some(registry) = world.registry.borrow().clone() else { return };
    let Some(served) = registry.kinds().by_kind(GROUP, VERSION, kind) else { return };
    let name = format!("{prefix}{}", world.cause());
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let options = WriteOptions { field_manager: "somebody".to_owned(), ..WriteOptions::default() };
    match registry.create(&served, Some("default"), object, &options).await {
        Ok(written) => {
            world.story.tell(format_args!("{kind} {name}: {spec}"));
            world.acknowledge(written.version.revision);
        }
        Err(error) => world.story.tell(format_args!("{kind} {name}: {spec} is refused: {error}")),
    }
}

async fn patch(world: &World, kind: &str, name: &str, spec: Value) {
    let Some(registry) = world.registry.borrow().clone() else { return };
    let Some(served) = registry.kinds().by_kind(GROUP, VERSION, kind) else { return };
    world.cause();
    let options = WriteOptions { field_manager: "somebody".to_owned(), ..WriteOptions::default() };
    let patch = Patch::Merge(json!({"spec": spec}));
    match registry.patch(&served, &named(name), patch, &options).await {
        Ok(written) => {
            world.story.tell(format_args!("PATCH {kind} {name} {spec}"));
            world.acknowledge(written.version.revision);
        }
        Err(error) => world.story.tell(format_args!("PATCH {kind} {name} {spec} is refused: {error}")),
    }
}

async fn delete(world: &World, kind: &str, name: &str) {
    let Some(registry) = world.registry.borrow().clone() else { return };
    let Some(served) = registry.kinds().by_kind(GROUP, VERSION, kind) else { return };
    world.cause();
    let deleted = registry.delete(&served, &named(name), &DeleteOptions::default()).await;
    world.story.tell(format_args!("DELETE {kind} {name}: {}", if deleted.is_ok() { "done" } else { "refused" }));
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() }
}

/// The driver is well, the owner is somebody who runs, and of the claims stay those whose holder can use the card.
pub async fn make_peace(world: &World) {
    world.set_driver(CardFault::None);
    let runs = |name: &str| {
        let wishes = world.wishes.lock().expect("never poisoned");
        wishes.stated.get(name).is_some_and(|spec| !spec["gpu"].is_null())
    };
    let users: Vec<&str> = users(world).into_iter().filter(|name| runs(name)).collect();
    state_card(world, &users);
    world.registry().await;
    // A crash that was on its way may come between; what is refused is sent again.
    for _ in 0..20 {
        let may_stay = |claim: &GpuClaim| {
            let holder = &claim.spec.holder;
            holder.variant == Variant::Live && (holder.name == OUTSIDER || users.contains(&&*holder.name))
        };
        let ending: Vec<String> = claims(world).iter().filter(|c| !may_stay(c)).map(|it| it.name_any()).collect();
        if ending.is_empty() {
            return;
        }
        for name in ending {
            patch(world, "GpuClaim", &name, json!({"release": true})).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// In peace, when everybody runs: somebody wishes for a handoff once more, and thinks better of it.
pub async fn change_a_mind(world: &World) {
    let pause = world.rng().u64(1..40);
    sleep(Duration::from_secs(pause)).await;
    wish_for_a_handoff(world).await;
    let pause = world.rng().u64(200..6_000);
    sleep(Duration::from_millis(pause)).await;
    let wished: Vec<String> =
        handoffs(world).iter().map(|it| it.name_any()).filter(|n| n.starts_with("wish-")).collect();
    for name in wished {
        patch(world, "Handoff", &name, json!({"cancel": true})).await;
    }
    // A stop that was under way goes on in the engine, and what it stopped is started again.
    sleep(Duration::from_secs(30)).await;
}
