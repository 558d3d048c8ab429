//! The images a simulated engine knows, and how a process made from one behaves.

use std::{collections::BTreeMap, time::Duration};

use sha2::{Digest, Sha256};

use crate::adapters::containers::ExecResult;

/// Whether the engine has the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    Present,
    /// A registry has it.
    Pullable {
        layers: usize,
        bytes: u64,
        takes: Duration,
    },
}

/// How a process made from the image behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Behaviour {
    /// Ends by itself so long after each start, with that exit code.
    pub exits: Option<(Duration, i64)>,
    /// The engine cannot start it, with these words.
    pub start_fails: Option<String>,
    /// Answers probes (and its own health check) so long after a start; `None`: never.
    pub ready_after: Option<Duration>,
    /// The image brings a health check of its own.
    pub healthcheck: bool,
    /// The stop signal does nothing, so that a stop lasts its whole grace and ends in a kill.
    pub ignores_stop: bool,
    /// From the stop signal to its end, and the exit code of such an end.
    pub stops: (Duration, i64),
    /// Answers to commands run in it. Any other exits 0 when the process is ready, else 1.
    pub exec: BTreeMap<Vec<String>, ExecResult>,
    /// What it takes of each GPU it is given.
    pub gpu_memory_mib: u64,
    /// It takes that when it starts; else when it is told to.
    pub gpu_at_start: bool,
    /// What it keeps of each GPU when it was told to let go, for its process stays there.
    pub asleep_mib: u64,
    /// From letting go of memory, or its end, until that is free.
    pub drains: Duration,
    /// A child of its process outlives it by so long, and keeps the memory.
    pub orphan: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            exits: None,
            start_fails: None,
            ready_after: Some(Duration::ZERO),
            healthcheck: false,
            ignores_stop: false,
            stops: (Duration::ZERO, 0),
            exec: BTreeMap::new(),
            gpu_memory_mib: 4096,
            gpu_at_start: true,
            asleep_mib: 0,
            drains: Duration::ZERO,
            orphan: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub presence: Presence,
    pub behaviour: Behaviour,
}

impl Image {
    /// There already.
    pub fn present(behaviour: Behaviour) -> Self {
        Self { presence: Presence::Present, behaviour }
    }

    /// To be pulled first: a few layers that take `takes`.
    pub fn pullable(takes: Duration, behaviour: Behaviour) -> Self {
        Self { presence: Presence::Pullable { layers: 4, bytes: 400 << 20, takes }, behaviour }
    }
}

/// The images by reference. One that is not listed is like `others`; without `others` it does not exist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    pub known: BTreeMap<String, Image>,
    pub others: Option<Image>,
}

impl Images {
    /// Every image is there and behaves.
    pub fn any() -> Self {
        Self { known: BTreeMap::new(), others: Some(Image::present(Behaviour::default())) }
    }

    pub fn with(mut self, reference: &str, image: Image) -> Self {
        self.known.insert(reference.to_owned(), image);
        self
    }

    pub fn get(&self, reference: &str) -> Option<&Image> {
        self.known.get(reference).or(self.others.as_ref())
    }

    pub(super) fn is_present(&self, reference: &str) -> bool {
        self.get(reference).is_some_and(|image| image.presence == Presence::Present)
    }

    pub(super) fn set_present(&mut self, reference: &str) {
        if let Some(mut image) = self.get(reference).cloned() {
            image.presence = Presence::Present;
            self.known.insert(reference.to_owned(), image);
        }
    }
}

/// The same reference has the same id, always.
pub(super) fn image_id(reference: &str) -> String {
    format!("sha256:{}", hex(reference))
}

/// 64 hexadecimal digits made from `text`: what the engine's ids look like.
pub(super) fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
