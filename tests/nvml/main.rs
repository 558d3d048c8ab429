//! NVML without a card: the real `nvml-wrapper` on a library of ours (`tests/fixtures/nvml`), whose cards are what a file
//! says: memory, processes, errors, hangs and lost cards.

#[path = "../support/mod.rs"]
mod support;

#[path = "../cli/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod program;

mod fake;
mod orphan;
mod served;

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use fake::{Driver, card, cards, computing};
use futures::FutureExt;
use gaia::adapters::{
    containers::ContainerId,
    gpus::{
        GpuDevice, GpuError, Gpus,
        nvml::{NvmlGpus, Settings},
    },
};
use nvidia_ml_fake::{Device, Process, State};
use support::{eventually, fixture};

const DEADLINE: Duration = Duration::from_secs(60);
/// `NVML_ERROR_…`
const UNINITIALIZED: u32 = 1;
const NOT_SUPPORTED: u32 = 3;
const UNKNOWN: u32 = 999;

async fn inventory(gpus: &NvmlGpus) -> Vec<GpuDevice> {
    gpus.inventory().await.expect("the driver answers")
}

#[tokio::test]
async fn an_inventory_tells_what_the_driver_tells() {
    let mut first = card(0);
    first.processes = vec![
        Process { draws: true, ..computing(41, 6_000) },
        Process { pid: 9, used_mib: Some(90), computes: false, draws: true },
        Process { used_mib: None, ..computing(77, 0) },
    ];
    let driver = Driver::showing(&cards(vec![first, card(1)]));
    let process = driver.proc_root().join("41");
    fs::create_dir_all(&process).expect("a temporary directory");
    let id = "0123456789abcdef".repeat(4);
    fs::write(process.join("cgroup"), format!("0::/system.slice/docker-{id}.scope\n")).expect("written");
    fs::write(process.join("comm"), "python3\n").expect("written");

    let gpus = driver.gpus();
    assert_eq!(gpus.age(), None);
    let devices = inventory(&gpus).await;
    let [first, second] = devices.as_slice() else { panic!("two cards: {devices:?}") };
    assert_eq!((first.index, first.uuid.as_str(), first.name.as_str()), (0, "GPU-0", "Fake RTX"));
    assert_eq!((first.memory_total_mib, first.memory_used_mib), (24_564, Some(6_100)));
    assert_eq!(
        (first.utilization_percent, first.temperature_celsius, first.power_watts),
        (Some(37), Some(61), Some(212.5))
    );
    let told: Vec<_> = first.processes.iter().flatten().map(|p| (p.pid, p.used_mib)).collect();
    assert_eq!(told, [(9, Some(90)), (41, Some(6_000)), (77, None)], "each pid once, and N/A is not zero");
    let python = &first.processes.as_deref().expect("told")[1];
    assert_eq!((python.name.as_deref(), &python.container), (Some("python3"), &Some(ContainerId(id))));
    assert_eq!((second.index, second.processes.as_deref()), (1, Some([].as_slice())));
    assert!(gpus.age().is_some());

    let sample = gpus.sample("GPU-0").await.expect("the card is there");
    assert_eq!((sample.memory_total_mib, sample.memory_used_mib), (24_564, Some(6_100)));
    assert_eq!(sample.processes, first.processes);
    let none = gpus.sample("GPU-none").await;
    assert_eq!(none, Err(GpuError::NotFound("GPU-none".to_owned())));
}

#[tokio::test]
async fn what_the_driver_does_not_tell_is_none_and_not_zero() {
    let mut silent = card(0);
    silent.processes = vec![computing(41, 6_000)];
    for function in ["MemoryInfo_v2", "UtilizationRates", "Temperature", "PowerUsage", "ComputeRunningProcesses_v3"] {
        silent.errors.insert(format!("nvmlDeviceGet{function}"), NOT_SUPPORTED);
    }
    let mut no_drawing = card(1);
    no_drawing.processes = vec![computing(41, 6_000)];
    no_drawing.errors.insert("nvmlDeviceGetGraphicsRunningProcesses_v3".to_owned(), NOT_SUPPORTED);
    let mut unsure = card(2);
    unsure.processes = vec![computing(41, 6_000)];
    unsure.errors.insert("nvmlDeviceGetGraphicsRunningProcesses_v3".to_owned(), UNKNOWN);

    let driver = Driver::showing(&cards(vec![silent, no_drawing, unsure]));
    let devices = inventory(&driver.gpus()).await;
    let [silent, no_drawing, unsure] = devices.as_slice() else { panic!("three cards: {devices:?}") };
    assert_eq!((silent.memory_used_mib, silent.utilization_percent), (None, None));
    assert_eq!((silent.temperature_celsius, silent.power_watts, &silent.processes), (None, None, &None));
    assert_eq!(no_drawing.processes.as_ref().map(Vec::len), Some(1), "a card that cannot draw still computes");
    assert_eq!(unsure.processes, None, "half a list is no list");
}

#[tokio::test]
async fn while_the_driver_hangs_everybody_is_told_at_once_and_afterwards_all_is_well() {
    let state = cards(vec![card(0)]);
    let driver = Driver::showing(&state);
    let gpus = NvmlGpus::new(Settings { deadline: Duration::from_millis(400), ..driver.settings() }).expect("a thread");
    // The first call loads the library; on a busy machine that may be overdue.
    eventually("a first reading", DEADLINE, async || gpus.inventory().await.ok()).await;

    let hung = State { hangs: BTreeSet::from(["nvmlDeviceGetMemoryInfo_v2".to_owned()]), ..state.clone() };
    driver.show(&hung);
    let late = gpus.inventory().await;
    assert!(matches!(late, Err(GpuError::Unreachable(_))), "{late:?}");
    for _ in 0..100 {
        // Ready at the first poll: nobody waits for a driver that is known to hang.
        let answers = (gpus.inventory().now_or_never(), gpus.sample("GPU-0").now_or_never());
        let (Some(Err(GpuError::Unreachable(why))), Some(Err(GpuError::Unreachable(_)))) = answers else {
            panic!("{answers:?}");
        };
        assert!(why.contains("hangs since") && why.contains("the last reading is"), "{why}");
    }

    driver.show(&state);
    let devices = eventually("the driver is back", DEADLINE, async || gpus.inventory().await.ok()).await;
    assert_eq!(devices[0].memory_used_mib, Some(6_100));
}

#[tokio::test]
async fn a_lost_card_goes_alone_and_comes_back() {
    let mut state = cards(vec![card(0), card(1)]);
    let driver = Driver::showing(&state);
    let gpus = driver.gpus();
    assert_eq!(inventory(&gpus).await.len(), 2);
    state.devices[0].lost = true;
    driver.show(&state);
    let left: Vec<_> = inventory(&gpus).await.into_iter().map(|device| (device.index, device.uuid)).collect();
    assert_eq!(left, [(1, "GPU-1".to_owned())]);
    let lost = gpus.sample("GPU-0").await;
    assert!(matches!(&lost, Err(GpuError::NotFound(why)) if why.contains("GPU-0 is lost")), "{lost:?}");
    assert!(gpus.sample("GPU-1").await.is_ok());
    state.devices[0].lost = false;
    driver.show(&state);
    assert_eq!(inventory(&gpus).await.len(), 2);
    assert!(gpus.sample("GPU-0").await.is_ok());
}

#[tokio::test]
async fn instances_are_devices_of_their_own() {
    let mut whole = card(0);
    whole.mig = vec![card(1), card(2)];
    whole.mig[0].uuid = "MIG-a".to_owned();
    whole.mig[1].uuid = "MIG-b".to_owned();
    whole.mig[1].used_mib = 77;
    let driver = Driver::showing(&cards(vec![whole]));
    let gpus = driver.gpus();
    let told: Vec<_> = inventory(&gpus).await.into_iter().map(|d| (d.index, d.mig, d.uuid)).collect();
    let expected = [(0, None, "GPU-0"), (0, Some(0), "MIG-a"), (0, Some(1), "MIG-b")];
    assert_eq!(told, expected.map(|(index, mig, uuid)| (index, mig, uuid.to_owned())));
    assert_eq!(gpus.sample("MIG-b").await.expect("it is there").memory_used_mib, Some(77));
}

#[tokio::test]
async fn who_locks_its_share_of_a_card_is_on_it_until_it_ends() {
    let driver = Driver::without_library();
    let held = driver.dir.path().join("card");
    for part in ["holders", "manners"] {
        fs::create_dir_all(held.join(part)).expect("a temporary directory");
    }
    driver.show(&cards(vec![Device { held_in: Some(held.clone()), ..card(0) }]));
    driver.install();
    let gpus = driver.gpus();
    let on_card = async || {
        let sample = gpus.sample("GPU-0").await.expect("it is there");
        let pids: Vec<_> = sample.processes.iter().flatten().map(|p| (p.pid, p.used_mib)).collect();
        (sample.memory_used_mib, pids)
    };
    inventory(&gpus).await;
    assert_eq!(on_card().await, (Some(6_100), vec![]));

    let mut peer = Command::new(fixture::binary());
    peer.args(["sleep", "--name", "model", "--mib", "900", "--eager", "--card"]).arg(&held);
    let mut peer = peer.spawn().expect("the fixture runs");
    let held = (Some(7_000), vec![(peer.id(), Some(900))]);
    eventually("it holds its share", DEADLINE, async || (on_card().await == held).then_some(())).await;
    peer.kill().expect("our child");
    peer.wait().expect("our child");
    assert_eq!(on_card().await, (Some(6_100), vec![]));
}

#[tokio::test]
async fn an_xid_is_remembered() {
    let mut state = cards(vec![card(0), card(1)]);
    // Before we listened: not ours to tell.
    state.devices[1].xid = 13;
    let driver = Driver::showing(&state);
    let gpus = driver.gpus();
    let xids = async || inventory(&gpus).await.into_iter().map(|device| device.last_xid).collect::<Vec<_>>();
    assert_eq!(xids().await, [None, None]);
    state.devices[0].xid = 79;
    driver.show(&state);
    assert_eq!(xids().await, [Some(79), None]);
    assert_eq!(xids().await, [Some(79), None]);
}

#[tokio::test]
async fn a_driver_that_was_reloaded_is_opened_again() {
    let state = cards(vec![card(0)]);
    let driver = Driver::showing(&state);
    let gpus = driver.gpus();
    assert_eq!(inventory(&gpus).await.len(), 1);
    let mut gone = state.clone();
    gone.errors.insert("nvmlDeviceGetCount_v2".to_owned(), UNINITIALIZED);
    gone.errors.insert("nvmlInit_v2".to_owned(), UNINITIALIZED);
    driver.show(&gone);
    assert!(matches!(gpus.inventory().await, Err(GpuError::Unreachable(_))), "the handle is no good");
    assert!(matches!(gpus.inventory().await, Err(GpuError::NoDriver(_))), "and no other is to be had");
    driver.show(&state);
    assert_eq!(inventory(&gpus).await.len(), 1);
}

#[tokio::test]
async fn without_nvml_it_is_nvidia_smi_until_nvml_is_there() {
    let driver = Driver::without_library();
    let gpus = driver.gpus();
    let nothing = gpus.inventory().await;
    let Err(GpuError::NoDriver(why)) = &nothing else { panic!("{nothing:?}") };
    assert!(why.contains("NVML cannot be loaded") && why.contains("nvidia-smi is not installed"), "{why}");

    let script = "#!/bin/sh\ncase $1 in *compute-apps*) echo 'GPU-smi, 41, 6000, llm';;\n\
                  *) echo '0, GPU-smi, 24564, 6100, [N/A], 50, 99.0, RTX';; esac\n";
    let half = driver.dir.path().join("half-smi");
    fs::write(&half, script).expect("written");
    let made = std::process::Command::new("chmod").arg("755").arg(&half).status().expect("chmod runs");
    assert!(made.success());
    fs::rename(half, driver.dir.path().join("nvidia-smi")).expect("same directory");
    let by_smi = inventory(&gpus).await;
    assert_eq!((by_smi[0].uuid.as_str(), by_smi[0].utilization_percent), ("GPU-smi", None));
    assert_eq!(gpus.sample("GPU-smi").await.expect("it is there").memory_used_mib, Some(6_100));
    assert_eq!(gpus.sample("GPU-0").await, Err(GpuError::NotFound("GPU-0".to_owned())));

    driver.show(&cards(vec![card(0)]));
    driver.install();
    assert_eq!(inventory(&gpus).await[0].uuid, "GPU-0");
}
