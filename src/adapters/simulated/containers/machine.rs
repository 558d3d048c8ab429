//! The state of the simulated engine, and how time moves it. Synchronous, and told what time it is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    events::EventLog,
    faults::{Effect, EffectRecord},
    images::{Behaviour, Images},
    vram::Lingering,
};
use crate::{
    adapters::containers::{
        Container, ContainerId, ContainerState, EngineError, EngineEvent, EngineHealth, EngineResult,
    },
    api::container::{ContainerSpec, Gpus},
};

/// Records of effects that are kept; the oldest go first.
const RECORDS: usize = 10_000;

/// One point in time on both clocks: timers follow the monotonic one, so that a jump of the other moves no process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub instant: Instant,
    pub timestamp: Timestamp,
}

impl Moment {
    /// The same moment seen from `instant` (not later).
    fn back_to(self, instant: Instant) -> Self {
        Self { instant, timestamp: self.timestamp - self.instant.saturating_duration_since(instant) }
    }
}

/// A container and what only the engine (or the process in it) knows.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub seen: Container,
    /// `None` when it was found, not made here.
    pub spec: Option<ContainerSpec>,
    /// Counts starts; what was scheduled for an earlier run is void.
    pub run: u64,
    /// The process has got so far as to answer.
    pub ready: bool,
    /// Set by hand: whether it answers, whatever its image says.
    pub forced: Option<bool>,
    /// Of its process, on the host.
    pub pid: u32,
    /// What the process holds now of each card that it was given.
    pub gpu_mib: u64,
}

impl Held {
    /// Just made, or found.
    pub fn new(seen: Container, spec: Option<ContainerSpec>) -> Self {
        Self { seen, spec, run: 0, ready: false, forced: None, pid: 0, gpu_mib: 0 }
    }

    pub fn answers(&self) -> bool {
        self.seen.state == ContainerState::Running && self.forced.unwrap_or(self.ready)
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Network {
    pub number: u8,
    pub last_address: u16,
}

/// What will happen by itself.
#[derive(Debug)]
pub(super) enum Due {
    Exit {
        id: ContainerId,
        run: u64,
        exit_code: i64,
    },
    Ready {
        id: ContainerId,
        run: u64,
    },
    /// The health check has failed often enough.
    GiveUp {
        id: ContainerId,
        run: u64,
    },
    Deliver(EngineEvent),
    /// Memory of a card is free at last.
    Drained {
        serial: u64,
    },
}

#[derive(Debug)]
pub(super) struct Machine {
    pub images: Images,
    pub containers: BTreeMap<ContainerId, Held>,
    pub networks: BTreeMap<String, Network>,
    /// Host ports that somebody else has.
    pub occupied: BTreeSet<u16>,
    pub up: bool,
    /// Counts the engine's lives; an event stream lasts one.
    pub epoch: u64,
    pub events: EventLog,
    /// Told, not yet delivered: the handle asks the faults about each.
    pub outbox: Vec<EngineEvent>,
    pub records: VecDeque<EffectRecord>,
    /// Memory of cards that drains, the elder first.
    pub lingering: Vec<Lingering>,
    /// Processes on cards outside of any container, by name.
    pub strangers: BTreeMap<String, (u32, Gpus, u64)>,
    due: BTreeMap<(Instant, u64), Due>,
    serial: u64,
    pids: u32,
}

impl Machine {
    pub fn new(images: Images) -> Self {
        Self {
            images,
            containers: BTreeMap::new(),
            networks: BTreeMap::from([("bridge".to_owned(), Network::default())]),
            occupied: BTreeSet::new(),
            up: true,
            epoch: 0,
            events: EventLog::default(),
            outbox: Vec::new(),
            records: VecDeque::new(),
            lingering: Vec::new(),
            strangers: BTreeMap::new(),
            due: BTreeMap::new(),
            serial: 0,
            pids: 1000,
        }
    }

    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn next_pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    /// An id that no container has: those of an observed simulated engine were made from the same numbers.
    pub fn new_id(&mut self) -> ContainerId {
        loop {
            let id = ContainerId(super::images::hex(&format!("container {}", self.next_serial())));
            if !self.containers.contains_key(&id) {
                return id;
            }
        }
    }

    pub fn schedule(&mut self, now: Moment, after: Duration, due: Due) {
        let serial = self.next_serial();
        self.due.insert((now.instant + after, serial), due);
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.due.keys().next().map(|(instant, _)| *instant)
    }

    /// Lets everything happen that is due, in order, each at its own time.
    pub fn advance(&mut self, now: Moment) {
        while let Some(entry) = self.due.first_entry() {
            let at = entry.key().0;
            if at > now.instant {
                return;
            }
            let due = entry.remove();
            self.happen(due, now.back_to(at));
        }
    }

    fn happen(&mut self, due: Due, now: Moment) {
        match due {
            Due::Exit { id, run, exit_code } if self.is_running(&id, run) => self.die(&id, exit_code, now),
            Due::Ready { id, run } if self.is_running(&id, run) => self.become_ready(&id),
            Due::GiveUp { id, run } if self.is_running(&id, run) => self.judge_health(&id, EngineHealth::Unhealthy),
            Due::Exit { .. } | Due::Ready { .. } | Due::GiveUp { .. } => {}
            Due::Deliver(event) => self.events.push(event),
            Due::Drained { serial } => self.drained(serial),
        }
    }

    fn is_running(&self, id: &ContainerId, run: u64) -> bool {
        self.containers.get(id).is_some_and(|held| held.run == run && is_alive(held.seen.state))
    }

    pub fn emit(&mut self, id: &ContainerId, action: &str) {
        if let Some(held) = self.containers.get(id) {
            self.outbox.push(EngineEvent::Container {
                id: id.clone(),
                name: held.seen.name.clone(),
                labels: held.seen.labels.clone(),
                action: action.to_owned(),
            });
        }
    }

    pub fn record(&mut self, effect: &Effect, now: Moment) {
        if self.records.len() == RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(EffectRecord { at: now.timestamp, effect: effect.clone() });
    }

    pub fn find(&self, id_or_name: &str) -> Option<&Held> {
        let by_id = self.containers.get(&ContainerId(id_or_name.to_owned()));
        by_id.or_else(|| self.containers.values().find(|held| held.seen.name == id_or_name))
    }

    pub fn get(&self, id: &ContainerId) -> EngineResult<&Held> {
        self.containers.get(id).ok_or_else(|| EngineError::NotFound(format!("container {id}")))
    }

    pub fn get_mut(&mut self, id: &ContainerId) -> EngineResult<&mut Held> {
        self.containers.get_mut(id).ok_or_else(|| EngineError::NotFound(format!("container {id}")))
    }

    pub fn behaviour(&self, image: &str) -> Behaviour {
        self.images.get(image).map(|image| image.behaviour.clone()).unwrap_or_default()
    }
}

/// Has a process.
pub(super) fn is_alive(state: ContainerState) -> bool {
    match state {
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting => true,
        ContainerState::Created | ContainerState::Removing | ContainerState::Exited | ContainerState::Dead => false,
    }
}
