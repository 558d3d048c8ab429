//! What this host has, as a worker announces it: contract section 2.1. What cannot be found out is left out, never zero.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::adapters::gpus::{
    GpuDevice, Gpus,
    nvml::{self, NvmlGpus},
};

/// A driver that hangs must not keep the worker from starting.
const DRIVER_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// `hardware_json`.
pub async fn announced() -> Value {
    let gpus = gpus().await;
    let cards: Vec<Value> = gpus
        .iter()
        .filter(|card| card.mig.is_none())
        .map(|card| {
            json!({"index": card.index, "name": card.name, "uuid": card.uuid,
                "memory_total_bytes": card.memory_total_mib << 20})
        })
        .collect();
    json!({
        "cpu": {"logical_cores": std::thread::available_parallelism().ok().map(usize::from), "model": cpu_model()},
        "memory": {"total_bytes": memory_bytes()},
        "gpu": {"driver_version": null, "cuda_version": null, "gpus": cards},
    })
}

async fn gpus() -> Vec<GpuDevice> {
    let Ok(driver) = NvmlGpus::new(nvml::Settings::default()) else { return Vec::new() };
    match tokio::time::timeout(DRIVER_ANSWERS_WITHIN, driver.inventory()).await {
        Ok(Ok(cards)) => cards,
        Ok(Err(error)) => {
            tracing::info!(%error, "no cards are announced");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("the GPU driver does not answer; no cards are announced");
            Vec::new()
        }
    }
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Of the host, or of the control group that this process is in, whichever is less.
fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let host = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    Some(limit.map_or(host, |limit| limit.min(host)))
}

/// `loadavg` of a heartbeat.
pub fn load() -> Value {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().ok());
    json!({"loadavg": {"1m": numbers.next().flatten(), "5m": numbers.next().flatten(), "15m": numbers.next().flatten()}})
}
