//! The real driver, where there is one: the same questions as `tests/nvml`, whose answers must fit together. Reads only.
//!
//! Without `/dev/nvidiactl` the tests pass and say that nothing was tested.

use std::{path::Path, time::Instant};

use gaia::adapters::gpus::{
    GpuError, Gpus,
    nvml::{NvmlGpus, Settings},
};

const DRIVER: &str = "/dev/nvidiactl";
const SAMPLES: u32 = 100;

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
