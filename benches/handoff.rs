//! What a handoff costs beside what Docker alone takes for the same, on a real engine and the fake driver: peers that hold memory
//! of a simulated card, the binary between them. Every figure stands beside its raw limit, measured in turns with it, because a
//! machine differs from minute to minute.
//!
//! `cargo bench --bench handoff`, as root (it starts a dockerd of its own).

#[path = "../tests/handoff/card.rs"]
#[allow(dead_code, reason = "shared with the tests of handoffs")]
mod card;
#[path = "../tests/nvml/fake.rs"]
#[allow(dead_code, reason = "shared with the tests of NVML")]
mod fake;
#[path = "../tests/docker/host.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod host;
#[path = "../tests/cli/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod program;
#[path = "../tests/handoff/stack.rs"]
#[allow(dead_code, reason = "shared with the tests of handoffs")]
mod stack;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/docker/watcher.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod watcher;
#[path = "../tests/handoff/world.rs"]
#[allow(dead_code, reason = "shared with the tests of handoffs")]
mod world;

use std::{
    fs::File,
    io::Write,
    time::{Duration, Instant},
};

use gaia::adapters::containers::{ContainerId, Containers, docker::DockerEngine};
use serde_json::{Value, json};
use stack::Stack;
use watcher::Watcher;
use world::{PRIME, STUDY, World, phase, ready};

const TURNS: usize = 20;
const GRACE: Duration = Duration::from_secs(10);
const LEASES: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Nothing to drain and nothing to ask: prime is stopped, study is started, and the other way round.
    let mut world = World::begun(|stack| {
        plain(stack, PRIME);
        plain(stack, STUDY);
    })
    .await;
    world.settled(PRIME).await;
    handoffs(&mut world).await;
    detection(&mut world).await;
    drop(world);
    leases().await;
}

/// Its memory comes with its process and goes with it.
fn plain(stack: &mut Stack, name: &str) {
    let spec = stack.spec(name);
    spec["gpu"] = json!({"members": ["gpu0"], "releaseSteps": [{"stop": {}}], "acquireSteps": [{"start": {}}]});
    spec["live"]["container"]["args"].as_array_mut().expect("arguments").push(json!("--eager"));
    spec["stopGraceSeconds"] = json!(GRACE.as_secs());
    spec.as_object_mut().expect("a spec").remove("probes");
}

type IsOver = fn(&Value) -> bool;

/// What a handoff's time goes into, and the first frame of its watch that ends each.
const PARTS: [(&str, IsOver); 6] = [
    ("let in, the stop begun", |handoff| !step(handoff, 0).is_null()),
    ("release: the stop", |handoff| step(handoff, 0)["outcome"] == "Succeeded"),
    ("proof", |handoff| phase(handoff) == "TransferringOwnership"),
    ("lease moved", |handoff| phase(handoff) == "SignalingRecipient"),
    ("start", |handoff| step(handoff, 1)["outcome"] == "Succeeded"),
    ("claim and completion", |handoff| phase(handoff) == "Completed"),
];

fn step(handoff: &Value, index: usize) -> &Value {
    &handoff["status"]["steps"][index]
}

/// From the wish to `Completed`; and one container stopped, another started, by the engine's API.
async fn handoffs(world: &mut World) {
    let engine = DockerEngine::at(&world.engine.host);
    let raw_pair = RawPair::made(world);
    let (mut ours, mut raw, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut raw_parts: [Vec<Duration>; 2] = Default::default();
    let mut parts: [Vec<Duration>; PARTS.len()] = Default::default();
    for turn in 0..TURNS {
        let (from, to) = if turn % 2 == 0 { (PRIME, STUDY) } else { (STUDY, PRIME) };
        let name = format!("turn-{turn}");
        let mut watcher = Watcher::connect(&world.host.server, "kind=Handoff").await;
        let begun = Instant::now();
        let mut ends = Vec::new();
        let completed = watcher.until("completed", |frame| {
            if frame.name == name {
                let ended = PARTS.iter().skip(ends.len()).take_while(|(_, is_over)| is_over(&frame.object)).count();
                ends.extend(std::iter::repeat_n(begun.elapsed(), ended));
            }
            ends.len() == PARTS.len()
        });
        tokio::join!(world.wish(&name, from, to), completed);
        let mut before = Duration::ZERO;
        for (part, end) in parts.iter_mut().zip(&ends) {
            part.push(*end - before);
            before = *end;
        }
        world.settled(to).await;
        let (stop, start) = raw_pair.change_over(&engine, turn).await;
        let alone = stop + start;
        ratios.push(before.as_secs_f64() / alone.as_secs_f64());
        ours.push(before);
        raw.push(alone);
        raw_parts[0].push(stop);
        raw_parts[1].push(start);
    }
    println!("handoff: stop one container, prove its memory free, move the lease, start the other");
    tell("  gaia", &mut ours);
    for ((what, _), part) in PARTS.iter().zip(&mut parts) {
        tell(&format!("    {what}"), part);
    }
    tell("  docker stop + start alone", &mut raw);
    for (what, part) in ["    stop", "    start"].iter().zip(&mut raw_parts) {
        tell(what, part);
    }
    println!("  ratio of the medians         {:>7.2}", median(&ours).as_secs_f64() / median(&raw).as_secs_f64());
    ratios.sort_by(f64::total_cmp);
    println!("  median of the turns' ratios  {:>7.2}", ratios[ratios.len() / 2]);
}

/// Two containers that gaia does not know, with all that the stack's have: its image, network, mount, GPU and arguments. They
/// hold memory of a card of their own, which nobody looks at.
struct RawPair {
    ids: [ContainerId; 2],
}

impl RawPair {
    fn made(world: &World) -> Self {
        let card = world.card.dir.with_file_name("raw-card");
        for part in ["holders", "manners"] {
            std::fs::create_dir_all(card.join(part)).expect("a temporary directory");
        }
        let mount = format!("{}:/card", card.display());
        let ids = ["raw-a", "raw-b"].map(|name| {
            let flags = ["create", "--name", name, "--gpus", "device=0", "--network", "gaia-default", "-v", &mount];
            let alias = ["--network-alias", name, &world.host.image];
            let args = ["serve", "--port", "7777", "--card", "/card", "--name", name, "--eager", "--mib", "10400"];
            world.host.docker(&[&flags[..], &alias[..], &args[..]].concat());
            ContainerId(world.host.inspect(name).expect("it was made").id)
        });
        world.host.docker(&["start", "raw-b"]);
        Self { ids }
    }

    /// With the grace that gaia gives. How long the stop takes, and the start.
    async fn change_over(&self, engine: &DockerEngine, turn: usize) -> (Duration, Duration) {
        let begun = Instant::now();
        engine.stop(&self.ids[(turn + 1) % 2], GRACE).await.expect("it stops");
        let stop = begun.elapsed();
        engine.start(&self.ids[turn % 2]).await.expect("it starts");
        (stop, begun.elapsed() - stop)
    }
}

/// From the moment the driver shows free memory until gaia has seen it often enough, and has written so.
async fn detection(world: &mut World) {
    let mut delays = Vec::new();
    for turn in 0..TURNS {
        let (from, to) = if turn % 2 == 0 { (PRIME, STUDY) } else { (STUDY, PRIME) };
        let name = format!("late-{turn}");
        world.card.show(|state| state.devices[0].used_mib = 9_000);
        let mut watcher = Watcher::connect(&world.host.server, "kind=Handoff").await;
        world.wish(&name, from, to).await;
        let stopped = |f: &watcher::Frame| f.object["status"]["steps"][0]["outcome"] == "Succeeded";
        watcher.until("stopped", |f| f.name == name && stopped(f)).await;
        world.card.show(|_| ());
        let shown = Instant::now();
        watcher.until("proven", |f| f.name == name && phase(&f.object) == "TransferringOwnership").await;
        delays.push(shown.elapsed());
        world.settled(to).await;
    }
    println!("detection: from memory that shows free to a handoff that says so (three samples, 10 ms apart)");
    tell("  gaia", &mut delays);
    println!("  three samples alone          {:>7.1} ms", 2.0 * 10.0);
}

/// A lease by GAIA's API and back, one client. Whatever it is told is on the disk before: what the disk takes for one such
/// write stands beside it.
async fn leases() {
    let world = World::begun(Stack::only_the_card).await;
    world.until("gpus/gpu0", "is free", |gpu| ready(gpu) == "True Free").await;
    let begun = Instant::now();
    let mut done = 0_u32;
    while begun.elapsed() < LEASES {
        let ask = json!({"requester": "gaia-audio", "reason": "bench"});
        let got = answered(&world, "/gpu/acquire", &ask).await;
        assert_eq!(got["success"], true, "{got}");
        answered(&world, "/gpu/release", &json!({"lease_id": got["lease_id"]})).await;
        done += 1;
    }
    let ours = f64::from(done) / begun.elapsed().as_secs_f64();
    let mut file = File::create(world.card.dir.join("raw")).expect("a file can be made");
    let (begun, mut writes) = (Instant::now(), 0_u32);
    while begun.elapsed() < LEASES {
        file.write_all(&[b'x'; 1024]).and_then(|()| file.sync_data()).expect("the disk takes it");
        writes += 1;
    }
    let raw = f64::from(writes) / begun.elapsed().as_secs_f64();
    println!("leases: acquired and released, one after the other");
    println!("  gaia                         {ours:>7.1} pairs/s");
    println!("  append + fdatasync alone     {raw:>7.1} writes/s");
    println!("  writes in the time of a pair {:>7.1}", raw / ours);
}

async fn answered(world: &World, path: &str, body: &Value) -> Value {
    let answer = world.request(path, &body.to_string()).send().await.expect("an answer");
    answer.json().await.expect("JSON")
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

fn tell(what: &str, all: &mut [Duration]) {
    all.sort_unstable();
    let (ms, last) = (|at: Duration| at.as_secs_f64() * 1000.0, all[all.len() - 1]);
    println!("{what:<30} {:>7.1} ms median, {:>7.1} ms at most, of {}", ms(median(all)), ms(last), all.len());
}
