//! The real driver, where there is one: the same questions as `tests/nvml`, whose answers must fit together; and a process that takes
//! memory of a card, frees it and ends, as NVML shows it.
//!
//! Without `/dev/nvidiactl` the tests pass and say that nothing was tested.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::{Instant, sleep},
};

use gaia::adapters::gpus::{
    GpuError, GpuSample, Gpus,
    nvml::{NvmlGpus, Settings},
};

const DRIVER: &str = "/dev/nvidiactl";
const SAMPLES: u32 = 100;
const HELD_MIB: u64 = 1024;
/// The driver's context comes and goes with the process, beside the memory that was asked for.
const PATIENCE: Duration = Duration::from_secs(20);

fn driver() -> Option<NvmlGpus> {
    if !Path::new(DRIVER).exists() {
        println!("skipped: this host has no NVIDIA driver ({DRIVER} does not exist)");
        return None;
    }
    Some(NvmlGpus::new(Settings::default()).expect("a thread"))
}

#[tokio::test]
async fn an_inventory_and_samples_agree() {
    let Some(gpus) = driver() else { return };
    let devices = gpus.inventory().await.expect("the driver answers");
    assert!(!devices.is_empty(), "a driver and no card");
    for device in &devices {
        println!("{device:?}");
        assert!(device.uuid.starts_with("GPU-") || device.uuid.starts_with("MIG-"), "{}", device.uuid);
        assert!(device.memory_used_mib.is_none_or(|used| used <= device.memory_total_mib), "{device:?}");
        let sample = gpus.sample(&device.uuid).await.expect("the card is there");
        assert_eq!(sample.memory_total_mib, device.memory_total_mib);
    }
    let none = gpus.sample("GPU-00000000-0000-0000-0000-000000000000").await;
    assert!(matches!(none, Err(GpuError::NotFound(_))), "{none:?}");
}

#[tokio::test]
async fn what_a_call_costs_is_told() {
    let Some(gpus) = driver() else { return };
    let devices = gpus.inventory().await.expect("the driver answers");
    let begun = Instant::now();
    for _ in 0..SAMPLES {
        gpus.sample(&devices[0].uuid).await.expect("the card is there");
    }
    println!("a sample: {:?}", begun.elapsed() / SAMPLES);
    let begun = Instant::now();
    gpus.inventory().await.expect("the driver answers");
    println!("an inventory of {} devices: {:?}", devices.len(), begun.elapsed());
}

/// Samples until the card is so; answers how long it took.
async fn until(gpus: &NvmlGpus, uuid: &str, what: &str, is: impl Fn(&GpuSample) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let sample = gpus.sample(uuid).await.expect("the card is there");
        if is(&sample) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {sample:?}");
        sleep(Duration::from_millis(10)).await; // tidy: between two samples of a real card, as a handoff takes them
    }
}

#[tokio::test]
async fn memory_is_seen_as_it_is_taken_and_freed() {
    let Some(gpus) = driver() else { return };
    let card = gpus.inventory().await.expect("the driver answers").remove(0);
    let used = |sample: &GpuSample| sample.memory_used_mib.expect("the driver tells it");
    let before = used(&gpus.sample(&card.uuid).await.expect("the card is there"));
    let mut holder = Command::new("python3");
    holder.args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gpu/hold.py"), &HELD_MIB.to_string()]);
    holder.env("CUDA_VISIBLE_DEVICES", &card.uuid).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut holder = holder.spawn().expect("python3 runs");
    let mut says = BufReader::new(holder.stdout.take().expect("it is a pipe")).lines();
    let mut told = holder.stdin.take().expect("it is a pipe");
    assert_eq!(says.next_line().await.expect("it says"), Some("held".to_owned()));
    let seen = until(&gpus, &card.uuid, "held", |sample| used(sample) >= before + HELD_MIB).await;
    let pid = holder.id().expect("it runs");
    let sample = gpus.sample(&card.uuid).await.expect("the card is there");
    // In a namespace of its own the driver may show it under another pid, or not at all.
    let shown = sample.processes.iter().flatten().find(|process| process.pid == pid);
    println!("held: seen after {seen:?}; the process: {shown:?}");
    told.write_all(b"\n").await.expect("it listens");
    assert_eq!(says.next_line().await.expect("it says"), Some("freed".to_owned()));
    let seen = until(&gpus, &card.uuid, "freed", |sample| used(sample) < before + HELD_MIB).await;
    println!("freed: seen after {seen:?}");
    told.write_all(b"\n").await.expect("it listens");
    assert!(holder.wait().await.expect("it ends").success());
    let gone = |sample: &GpuSample| !sample.processes.iter().flatten().any(|process| process.pid == pid);
    let seen = until(&gpus, &card.uuid, "ended", gone).await;
    println!("ended: gone after {seen:?}");
}
