//! A driver for one test: the fake library in a directory of its own, beside the state that it shows.

use std::{path::PathBuf, time::Duration};

use gaia::adapters::gpus::nvml::{NvmlGpus, Settings};
use nvidia_ml_fake::{Device, Process, State};
use tempfile::TempDir;

/// Far beyond what a machine that is busy needs.
const DEADLINE: Duration = Duration::from_secs(60);
/// As the dynamic linker knows it.
const NAME: &str = "libnvidia-ml.so.1";

pub struct Driver {
    pub dir: TempDir,
}

impl Driver {
    pub fn showing(state: &State) -> Self {
        let driver = Self::without_library();
        driver.show(state);
        driver.install();
        driver
    }

    pub fn without_library() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// A copy: what is loaded once is one library all through the process, and each test needs its own.
    pub fn install(&self) {
        // Cargo puts what tests depend on beside them.
        let test = std::env::current_exe().expect("a test knows where it is");
        let built = test.with_file_name("libnvidia_ml_fake.so");
        let half = self.dir.path().join("half");
        std::fs::copy(&built, &half).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        std::fs::rename(half, self.library()).expect("same directory");
    }

    pub fn library(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    pub fn show(&self, state: &State) {
        state.save(&self.dir.path().join("state.json")).expect("a temporary directory");
    }

    /// Processes are looked up beneath this.
    pub fn proc_root(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    pub fn settings(&self) -> Settings {
        Settings {
            library: Some(self.library()),
            smi: self.dir.path().join("nvidia-smi").into(),
            proc_root: self.proc_root(),
            deadline: DEADLINE,
            retry_after: Duration::ZERO,
        }
    }

    pub fn gpus(&self) -> NvmlGpus {
        NvmlGpus::new(self.settings()).expect("a thread")
    }
}

pub fn card(index: u32) -> Device {
    Device {
        uuid: format!("GPU-{index}"),
        name: "Fake RTX".to_owned(),
        total_mib: 24_564,
        used_mib: 6_100,
        load_percent: 37,
        celsius: 61,
        milliwatts: 212_500,
        ..Device::default()
    }
}

pub fn computing(pid: u32, used_mib: u64) -> Process {
    Process { pid, used_mib: Some(used_mib), computes: true, draws: false }
}

pub fn cards(devices: Vec<Device>) -> State {
    State { devices, ..State::default() }
}
