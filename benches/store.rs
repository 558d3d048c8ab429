//! What a durable write costs beside the disk's own price for it, what a watcher costs, and what the rules of a status cost beside the
//! store they are written to. Each figure of a disk stands beside a
//! raw append + fdatasync of the same bytes on the same disk, measured just before, because virtual disks differ from
//! minute to minute.
//!
//! `cargo bench --bench store`, or with `-- DIRECTORY` to measure another disk than the temporary directory's.

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use gaia::{
    api::{
        condition::{self, ConditionStatus},
        task::{Task, TaskPhase, TaskSpec, TaskStatus},
    },
    registry::{Kinds, RandomIds, Registry},
    runtime::{clock::SystemClock, objects::Objects, registry_objects::RegistryObjects},
    store::{EmbeddedStore, Key, MemoryEngine, Options, Prefix, Store, Version},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

const WRITERS: u64 = 64;
const SPAN: Duration = Duration::from_secs(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let directory = match &parent {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let directory = directory.expect("a directory to write in");
    let bytes = serde_json::to_vec(&object(0)).expect("an object is JSON").len();
    println!("objects of {bytes} bytes, {SPAN:?} each, in {}", directory.path().display());

    for writers in [1, WRITERS] {
        let raw = raw(&directory.path().join(format!("raw-{writers}")), bytes, writers);
        let store = EmbeddedStore::open_dir(&directory.path().join(format!("store-{writers}")), Options::default());
        let store = store.expect("a fresh store opens");
        let puts = runtime.block_on(puts(&store, writers));
        println!("{writers:>4} writers: raw append+fdatasync {raw}");
        println!("{:>13} store put            {puts}", "");
        println!("{:>13} put / raw            {:.2}", "", puts.rate() / raw.rate());
    }
    for watchers in [0, 1, 100, 1000] {
        println!("{watchers:>4} watchers: {}", runtime.block_on(fan_out(watchers)));
    }
    let [bare, status, same] = runtime.block_on(statuses());
    println!("processor for a write of a task's status: {bare:.1} us in the store alone");
    println!("{:>13} with all rules       {status:>6.1} us, {:.2} times", "", status / bare);
    println!("{:>13} nothing changes      {same:>6.1} us, {:.2} times", "", same / bare);
}

/// About the size of a workload with its status.
fn object(number: u64) -> Value {
    let pad = |seed: u64| (0..30).map(|at| format!("{:016x}", seed.wrapping_mul(31 + at))).collect::<Vec<_>>();
    json!({"metadata": {"name": "x", "generation": number}, "spec": {"env": pad(number)}, "status": {"seen": pad(number + 1), "more": pad(number + 2)}})
}

struct Latencies {
    sorted: Vec<Duration>,
    wall: Duration,
}

impl Latencies {
    fn new(mut all: Vec<Duration>, wall: Duration) -> Self {
        all.sort_unstable();
        Self { sorted: all, wall }
    }

    fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.wall.as_secs_f64()
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.sorted[(self.sorted.len() - 1) * percent / 100]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        write!(f, "{:>8.0}/s  p50 {:>6} us  p99 {:>6} us", self.rate(), p50.as_micros(), p99.as_micros())
    }
}

/// The price of the disk: `group` records appended with one write, then one fdatasync, as a perfect group commit would.
fn raw(path: &std::path::Path, bytes: usize, group: u64) -> Latencies {
    let mut file = File::create(path).expect("a file can be made");
    let records = vec![b'x'; bytes * group as usize];
    let mut all = Vec::new();
    let start = Instant::now();
    while start.elapsed() < SPAN {
        let begun = Instant::now();
        file.write_all(&records).and_then(|()| file.sync_data()).expect("the disk takes it");
        all.extend(std::iter::repeat_n(begun.elapsed(), group as usize));
    }
    Latencies::new(all, start.elapsed())
}

/// Each writer updates its own object as fast as it is acknowledged.
async fn puts(store: &Arc<EmbeddedStore>, writers: u64) -> Latencies {
    let start = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = Key::new("gaia.dev", "workloads", Some("default"), &writer.to_string());
            let mut all = Vec::new();
            let mut present: Option<Arc<Version>> = None;
            for number in 0.. {
                if start.elapsed() >= SPAN {
                    break;
                }
                let object = object(number);
                let begun = Instant::now();
                let written = match &present {
                    None => store.create(key.clone(), object).await,
                    Some(version) => store.update(key.clone(), object, version.revision).await,
                };
                all.push(begun.elapsed());
                present = Some(written.expect("the write is acknowledged"));
            }
            all
        })
    });
    let all = join_all(tasks).await.into_iter().flat_map(|all| all.expect("no writer panics")).collect();
    Latencies::new(all, start.elapsed())
}

/// From the begin of a write until the last watcher has the change, without a disk.
async fn fan_out(watchers: usize) -> Latencies {
    const WRITES: u64 = 300;
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("a fresh store opens");
    let (seen, mut told) = tokio::sync::mpsc::channel(watchers.max(1));
    for _ in 0..watchers {
        let mut watch = store.watch(Prefix::all(), Default::default()).await.expect("the present is watchable");
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Ok(changes) = watch.next().await {
                for _ in changes {
                    if seen.send(()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    let mut all = Vec::new();
    let start = Instant::now();
    for number in 0..WRITES {
        let begun = Instant::now();
        let key = Key::new("gaia.dev", "workloads", Some("default"), &number.to_string());
        store.create(key, object(number)).await.expect("the write is acknowledged");
        for _ in 0..watchers {
            told.recv().await.expect("every watcher lives");
        }
        all.push(begun.elapsed());
    }
    Latencies::new(all, start.elapsed())
}

/// Microseconds of processor for a version of a task in the store alone, with all rules of a write of its status, and for a write that
/// changes nothing. Without a disk.
async fn statuses() -> [f64; 3] {
    const WRITES: u32 = 20_000;
    const WRITES_OF_ONE: u32 = 4;
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("a fresh store opens");
    let kinds = Kinds::from_crds(&gaia::api::crds()).expect("our kinds are in order");
    let registry = Registry::open(store.clone(), kinds, Arc::new(SystemClock), Arc::new(RandomIds)).await;
    let objects = RegistryObjects { registry: registry.expect("a registry"), field_manager: "bench" };
    let document = json!({"apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "bench"}, "spec": {
        "taskType": "echo", "resources": {"replicas": 1, "hardware": {"cpu": "1", "memory": "1Gi"}},
        "data": {"type": "list", "items": ["hello", "again", "x".repeat(200)]},
        "output": {"destination": {"type": "http", "url": "http://127.0.0.1/api/v1/results"}}}});
    let raw_yaml = Some(document.to_string());
    let spec =
        TaskSpec { document: serde_json::from_value(document).expect("a document"), raw_yaml, ..Default::default() };
    let mut tasks = Vec::new();
    for n in 0..WRITES / WRITES_OF_ONE {
        let mut task = Task::new(&format!("t{n}"), spec.clone());
        task.metadata.namespace = Some("default".to_owned());
        tasks.push(objects.create(task).await.expect("made"));
    }

    let write = async |task: &Task, attempts: u32| {
        let phase = if attempts.is_multiple_of(2) { TaskPhase::Waiting } else { TaskPhase::Dispatched };
        let mut status = TaskStatus { phase, attempts, assigned_worker: Some("w".to_owned()), ..TaskStatus::default() };
        let (reason, at) =
            (if attempts.is_multiple_of(2) { "Waits" } else { "Runs" }, Time(jiff::Timestamp::UNIX_EPOCH));
        condition::set(&mut status.conditions, "Complete", ConditionStatus::False, reason, "so it is", Some(1), &at);
        objects.update_status(Task { status: Some(status), ..task.clone() }).await.expect("written")
    };
    let before = processor();
    for n in 0..WRITES_OF_ONE {
        for task in &mut tasks {
            *task = write(task, n).await;
        }
    }
    let with_rules = processor() - before;
    let before = processor();
    for n in 0..WRITES {
        write(&tasks[n as usize % tasks.len()], WRITES_OF_ONE - 1).await;
    }
    let unchanged = processor() - before;
    let key = Key::new("gaia.dev", "tasks", Some("default"), "t0");
    let mut version = store.get(&key).await.expect("readable").expect("there");
    let before = processor();
    for n in 0..WRITES {
        let mut object = (*version.object).clone();
        object["status"]["attempts"] = n.into();
        version = store.update(key.clone(), object, version.revision).await.expect("written");
        version.decode::<Task>().expect("a task");
    }
    let bare = processor() - before;
    [bare, with_rules, unchanged].map(|spent| spent.as_secs_f64() * 1e6 / f64::from(WRITES))
}

/// Of this process so far, in ticks of 10 ms.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
