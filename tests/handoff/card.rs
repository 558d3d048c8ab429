//! The simulated card: a directory in which peers hold memory (`tests/fixtures/peer/src/card.rs`), and the fake NVML that shows it.

use std::{fs, path::PathBuf};

use nvidia_ml_fake::{Device, Process, State, holders};

use crate::fake::Driver;

/// A desktop's share of a card of 16 GiB, as GAIA's has it.
const DESKTOP_MIB: u64 = 2_200;
const TOTAL_MIB: u64 = 16_303;

pub struct Card {
    driver: Driver,
    pub dir: PathBuf,
}

impl Card {
    pub fn new() -> Self {
        let driver = Driver::without_library();
        let dir = driver.dir.path().join("card");
        for part in ["holders", "manners"] {
            fs::create_dir_all(dir.join(part)).expect("a temporary directory");
        }
        let card = Self { driver, dir };
        card.show(|_| ());
        card.driver.install();
        card
    }

    pub fn library(&self) -> PathBuf {
        self.driver.library()
    }

    /// What the driver shows from now on: an idle card with its holders, and what is changed about that.
    pub fn show(&self, change: impl FnOnce(&mut State)) {
        let device = Device {
            uuid: "GPU-0".to_owned(),
            name: "Fake RTX".to_owned(),
            total_mib: TOTAL_MIB,
            used_mib: DESKTOP_MIB,
            held_in: Some(self.dir.clone()),
            ..Device::default()
        };
        let mut state = State { devices: vec![device], ..State::default() };
        change(&mut state);
        self.driver.show(&state);
    }

    pub fn holders(&self) -> Vec<Process> {
        holders(&self.dir).expect("the card can be read")
    }

    /// `NAME take MIB over MIB`, `NAME free`, `NAME asked PATH BODY`, in the order in which it happened.
    pub fn journal(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("journal")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How the container `name` answers at `path` from now on.
    pub fn manner(&self, name: &str, path: &str, word: &str) {
        let half = self.dir.join("half-manner");
        fs::write(&half, format!("{path} {word}\n")).expect("a temporary directory");
        fs::rename(half, self.dir.join("manners").join(name)).expect("same directory");
    }

    pub fn polite(&self, name: &str) {
        fs::remove_file(self.dir.join("manners").join(name)).expect("it had manners");
    }

    #[track_caller]
    pub fn assert_never_shared(&self) {
        let journal = self.journal();
        let takes = |line: &&String| line.split(' ').nth(1) == Some("take");
        let shared: Vec<_> = journal.iter().filter(takes).filter(|line| !line.ends_with(" over 0")).collect();
        assert!(shared.is_empty(), "two were on the card: {shared:?} in {journal:#?}");
    }
}
