//! People: they edit files well and badly, PATCH, meddle with containers, restart the engine, kill gaia. In the end they
//! leave everything in order, and what they then want is what must be.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use gaia::{
    adapters::containers::ContainerState,
    api::{GROUP, VERSION, label},
    registry::{DeleteOptions, ObjectName, Patch, WriteOptions},
    store::Fault,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cards, holders,
    world::{ByName, World},
};

pub const DIRECTORY: &str = "/desired";
/// The workload that adopts a container which somebody made by hand.
const ADOPTS: &str = "d";
pub const HANDMADE: &str = "handmade";
const IMAGES: [&str; 7] = ["app:1", "app:2", "slow:1", "checked:1", "stubborn:1", "crash:1", "broken:1"];
/// Those that come up in the end.
const SOUND_IMAGES: usize = 5;

/// What people want and have.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Spec by workload, as its file states it; what is in no file is not wanted.
    pub stated: ByName<Value>,
    /// Workloads whose file does not parse at the moment.
    pub broken: BTreeSet<String>,
    /// Workloads that people deleted over the API since their last file.
    pub deleted: BTreeSet<String>,
    /// Containers of other people, which nobody may touch: name and id.
    pub foreign: ByName<String>,
}

pub fn set_the_scene(world: &World) {
    world.files.make_directory(DIRECTORY);
    run_foreign(world, "database");
    run_foreign(world, HANDMADE);
    if world.has_cards {
        cards::set_the_scene(world);
    }
    for name in world.size.workloads {
        if world.rng().u8(..100) < 70 {
            state(world, name, false);
        }
    }
}

pub fn run_foreign(world: &World, name: &str) {
    if world.engine.run_foreign(name, "app:1", Default::default(), &[]).is_some() {
        let made = world.engine.observed().into_iter().find(|container| container.name == name);
        let id = made.expect("it was made a moment ago").id.0;
        world.story.tell(format_args!("somebody runs a container {name}"));
        world.wishes.lock().expect("never poisoned").foreign.insert(name.to_owned(), id);
    }
}

/// Acts until dropped.
pub async fn live(world: &World) -> Infallible {
    loop {
        let pause = world.rng().u64(world.size.pause_ms.clone());
        sleep(Duration::from_millis(pause)).await;
        act(world).await;
    }
}

async fn act(world: &World) {
    world.cause();
    if world.has_cards && world.rng().bool() {
        return cards::act(world).await;
    }
    let name = *pick(world, world.size.workloads);
    let dice = world.rng().u8(..100);
    match dice {
        0..25 => state(world, name, false),
        25..32 => break_file(world, name),
        32..38 => remove_file(world, name),
        38..50 => patch(world, name).await,
        50..54 => delete(world, name).await,
        54..78 => meddle(world),
        78..84 => {
            world.story.tell("the engine stops answering");
            world.engine.engine_down();
            let down = world.rng().u64(500..30_000);
            sleep(Duration::from_millis(down)).await;
            world.story.tell("the engine answers again");
            world.engine.engine_up();
        }
        84..87 => {
            world.story.tell("the engine crashes with its containers");
            world.engine.engine_crash();
            let down = world.rng().u64(500..10_000);
            sleep(Duration::from_millis(down)).await;
            world.story.tell("the engine answers again");
            world.engine.engine_up();
        }
        87..93 => {
            world.story.tell("kill -9 gaia");
            world.kill.notify_one();
        }
        93..96 => {
            let times = world.rng().usize(1..4);
            let done = world.rng().bool();
            world.story.tell(format_args!("the disk refuses {times} times, written all the same: {done}"));
            world.disk.fail_next(if done { Fault::AfterEffect } else { Fault::BeforeEffect }, times);
        }
        _ => squat(world, name),
    }
}

pub fn pick<'a, T>(world: &World, from: &'a [T]) -> &'a T {
    &from[world.rng().usize(..from.len())]
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/stack/{name}.yaml")
}

/// Writes the workload's file. `sound`: with nothing in it that cannot come up.
fn state(world: &World, name: &str, sound: bool) {
    let spec = spec(world, name, sound);
    write(world, name, spec);
}

pub fn write(world: &World, name: &str, spec: Value) {
    let document = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Workload", "metadata": {"name": name}, "spec": spec,
    });
    world.story.tell(format_args!("file of {name}: {spec}"));
    let mut wishes = world.wishes.lock().expect("never poisoned");
    wishes.stated.insert(name.to_owned(), spec);
    wishes.broken.remove(name);
    wishes.deleted.remove(name);
    drop(wishes);
    world.files.write(path(name), format!("# {name}\n{document}\n"));
}

pub fn break_file(world: &World, name: &str) {
    let mut wishes = world.wishes.lock().expect("never poisoned");
    if !wishes.stated.contains_key(name) {
        return;
    }
    world.story.tell(format_args!("file of {name} is half written"));
    wishes.broken.insert(name.to_owned());
    drop(wishes);
    world.files.write(path(name), "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: ");
}

pub fn remove_file(world: &World, name: &str) {
    let mut wishes = world.wishes.lock().expect("never poisoned");
    if wishes.stated.remove(name).is_some() {
        world.story.tell(format_args!("file of {name} is removed"));
        wishes.broken.remove(name);
        drop(wishes);
        world.files.remove(path(name));
    }
}

fn spec(world: &World, name: &str, sound: bool) -> Value {
    if name == ADOPTS {
        return json!({"live": {"container": {"adopt": {"name": HANDMADE}}}});
    }
    let images = if sound { &IMAGES[..SOUND_IMAGES] } else { &IMAGES[..] };
    let mut rng = world.rng();
    let mut container = |images: &[&str]| json!({"image": images[rng.usize(..images.len())], "env": {"LEVEL": rng.u8(..3).to_string()}});
    let mut spec = json!({"live": {"container": container(images)}});
    let candidate = container(images);
    if rng.bool() {
        spec["candidate"] = json!({"container": candidate});
        if rng.u8(..3) == 0 {
            spec["candidate"]["running"] = json!(true);
        }
    }
    if rng.bool() {
        spec["stopGraceSeconds"] = json!(rng.u8(..10));
    }
    for probe in ["readiness", "liveness", "startup"] {
        if rng.u8(..4) == 0 {
            // Slower than the slowest image that comes up.
            let (period, threshold) = (rng.u8(1..8), if probe == "readiness" { 3 } else { 40 });
            spec["probes"][probe] =
                json!({"http": {"port": 80}, "periodSeconds": period, "failureThreshold": threshold});
        }
    }
    if !sound && rng.u8(..4) == 0 {
        spec["restartPolicy"] = json!("OnFailure");
    }
    // Only on earlier ones, so that there is no circle.
    for earlier in world.size.workloads.iter().take_while(|earlier| **earlier != name) {
        if rng.u8(..4) == 0 {
            let condition = if rng.bool() { "Healthy" } else { "Started" };
            spec["dependsOn"] = json!([{"workload": earlier, "condition": condition}]);
        }
    }
    let on_card = world.has_cards && cards::USERS.contains(&name) && rng.u8(..100) < 75;
    drop(rng);
    if on_card {
        cards::put_on_card(world, &mut spec, sound);
    }
    if let Some(spec) = spec.as_object_mut().filter(|_| sound && world.has_cards) {
        // Who waits for the card may do so for ever, and so would who depends on it.
        spec.remove("dependsOn");
    }
    spec
}

/// A PATCH by somebody at a keyboard. Gaia may be down or die in the middle.
async fn patch(world: &World, name: &str) {
    let change = match world.rng().u8(..6) {
        0 => json!({"live": {"running": false}}),
        1 | 2 => json!({"live": {"running": true}}),
        3 => json!({"active": "Candidate"}),
        4 => json!({"active": "Live"}),
        _ => json!({"live": {"container": {"image": "meddled:1"}}}),
    };
    let _acknowledged = send(world, name, &change).await;
}

/// Whether it was acknowledged.
pub async fn send(world: &World, name: &str, spec: &Value) -> bool {
    let Some(registry) = world.registry.borrow().clone() else { return false };
    let Some(kind) = registry.kinds().by_kind(GROUP, VERSION, "Workload") else { return false };
    let options = WriteOptions { field_manager: "somebody".to_owned(), ..WriteOptions::default() };
    match registry.patch(&kind, &object(name), Patch::Merge(json!({"spec": spec})), &options).await {
        Ok(written) => {
            world.story.tell(format_args!("PATCH {name} {spec}"));
            world.acknowledge(written.version.revision);
            true
        }
        Err(error) => {
            world.story.tell(format_args!("PATCH {name} {spec} is refused: {error}"));
            false
        }
    }
}

async fn delete(world: &World, name: &str) {
    let Some(registry) = world.registry.borrow().clone() else { return };
    let Some(kind) = registry.kinds().by_kind(GROUP, VERSION, "Workload") else { return };
    world.wishes.lock().expect("never poisoned").deleted.insert(name.to_owned());
    let deleted = registry.delete(&kind, &object(name), &DeleteOptions::default()).await;
    world.story.tell(format_args!("DELETE {name}: {}", if deleted.is_ok() { "done" } else { "refused" }));
}

fn object(name: &str) -> ObjectName {
    ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() }
}

/// Does something to a container of gaia's, or to the one that is adopted.
fn meddle(world: &World) {
    let ours: Vec<String> = world
        .engine
        .observed()
        .into_iter()
        .filter(|container| container.labels.contains_key(label::OWNER_UID) || container.name == HANDMADE)
        .map(|container| container.name)
        .collect();
    if ours.is_empty() {
        return;
    }
    let name = pick(world, &ours).clone();
    let adopted = name == HANDMADE;
    let dice = world.rng().u8(..13);
    let (what, _done) = match dice {
        0..3 => ("stops", world.engine.stop_by_hand(&name)),
        3..5 => ("kills", world.engine.kill_by_hand(&name)),
        5..7 if !adopted => ("removes", world.engine.remove_by_hand(&name)),
        7 if !adopted => {
            let to = format!("{name}-old");
            ("renames", world.engine.rename_by_hand(&name, &to).is_some_and(|result| result.is_ok()))
        }
        8 => {
            let made = world.engine.observed().into_iter().find(|container| container.name == name);
            if let Some(container) = made.filter(|c| world.has_cards && c.state != ContainerState::Running) {
                holders::started_by_hand(world, &container.id);
            }
            ("starts", world.engine.start_by_hand(&name).is_some_and(|result| result.is_ok()))
        }
        9 => ("starves", world.engine.run_out_of_memory(&name)),
        10 => ("hangs the process in", world.engine.set_answering(&name, Some(false))),
        _ => {
            let code = world.rng().i64(0..3);
            ("sees the end of", world.engine.end_process(&name, code))
        }
    };
    world.story.tell(format_args!("somebody {what} {name}"));
}

/// Takes a name that gaia wants.
fn squat(world: &World, name: &str) {
    let variant = if world.rng().bool() { "live" } else { "candidate" };
    run_foreign(world, &format!("{name}-{variant}"));
}

/// The last acts: everything in order, and only things wished that can be.
pub async fn make_peace(world: &World) {
    world.engine.engine_up();
    world.disk.mend();
    for container in world.engine.observed() {
        world.engine.set_answering(&container.name, None);
    }
    let foreign: Vec<String> = world.wishes.lock().expect("never poisoned").foreign.keys().cloned().collect();
    for name in foreign.iter().filter(|name| name.as_str() != "database" && name.as_str() != HANDMADE) {
        world.engine.remove_by_hand(name);
        world.wishes.lock().expect("never poisoned").foreign.remove(name);
        world.story.tell(format_args!("somebody removes their container {name}"));
    }
    let stated: Vec<String> = world.wishes.lock().expect("never poisoned").stated.keys().cloned().collect();
    for name in &stated {
        let mut spec = spec(world, name, true);
        // A dependency on what no file states would wait for ever.
        if let Some(on) = spec["dependsOn"][0]["workload"].as_str()
            && !stated.iter().any(|name| name == on)
        {
            spec.as_object_mut().expect("a map").remove("dependsOn");
        }
        write(world, name, spec);
    }
    if world.has_cards {
        cards::make_peace(world).await;
    }
    world.registry().await;
    // What files leave out is the API's: left as it should be, once every object is there again.
    let until = Instant::now() + Duration::from_mins(10);
    while Instant::now() < until {
        sleep(world.size.patience).await;
        let mut all_there = true;
        for name in &stated {
            all_there &= put_in_order(world, name).await;
        }
        if all_there {
            break;
        }
    }
    if world.has_cards && world.size.changes_mind {
        cards::change_a_mind(world).await;
    }
}

async fn put_in_order(world: &World, name: &str) -> bool {
    let registry = world.registry().await;
    let kind = registry.kinds().by_kind(GROUP, VERSION, "Workload").expect("our kind is served");
    match registry.get(&kind, &object(name)).await {
        Ok(version) if version.object["metadata"]["deletionTimestamp"].is_null() => {
            let live = &version.object["spec"]["live"]["running"];
            if live != &json!(true) || version.object["spec"]["active"] != "Live" {
                let _acknowledged = send(world, name, &json!({"live": {"running": true}, "active": "Live"})).await;
            }
            true
        }
        Ok(_) | Err(_) => false,
    }
}
