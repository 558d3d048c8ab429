//! The world of the model at one instant: what is stored, what really runs and uses the cards, what the process has in its
//! memory, and what may still go wrong.

use jiff::{SignedDuration, Timestamp};

use gaia::controllers::handoff::runner::StepKey;

use super::shelf::Id;

pub const CARDS: usize = 2;
pub const WORKLOADS: usize = 2;
pub const CLAIMS: usize = 4;
pub const HANDOFFS: usize = 4;
/// Passes that have read and not yet finished, at the same time.
pub const PASSES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub scene: u8,
    pub clock: Clock,
    pub gpus: [Id; CARDS],
    pub claims: [Id; CLAIMS],
    pub handoffs: [Id; HANDOFFS],
    pub workloads: [Id; WORKLOADS],
    pub bodies: [Body; WORKLOADS],
    /// By claim: its holder, where that is not a workload.
    pub outsiders: [Outsider; CLAIMS],
    /// In the order of [`Who`]; a crash loses them.
    pub passes: [Option<Pass>; PASSES],
    /// The step that the process carries out for each handoff, and what it came to; a crash loses them.
    pub runs: [Run; HANDOFFS],
    /// What the samples of the card have shown each handoff; a crash loses it.
    pub proofs: [Proof; HANDOFFS],
    pub left: Left,
    pub wrong: Wrong,
}

/// Two kinds of waiting: for the next second, and for every deadline there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clock {
    pub long: u8,
    pub short: u8,
}

impl Clock {
    pub fn now(self) -> Timestamp {
        let seconds = 1_800_000_000 + 1000 * i64::from(self.long) + 2 * i64::from(self.short);
        Timestamp::from_second(seconds).expect("a time of this century")
    }

    /// Within the same instant, after what was written down at it.
    pub fn just_after(self) -> Timestamp {
        self.now() + SignedDuration::from_millis(500)
    }
}

/// Whose pass it is: a controller's name and the place of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// With a second worker on the same card, as when an old process has not quite ended.
    Gpu(u8, u8),
    Claim(u8),
    Handoff(u8),
    Workload(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pass {
    pub who: Who,
    pub stage: Stage,
    /// What it decided, from what it read then.
    pub plan: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Decided,
    /// Its status is stored, its actions are still to come.
    Written,
    /// For the engine.
    Waiting(Order),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    Start,
    Stop,
}

/// A workload's container, and what of it is on its cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Body {
    pub running: bool,
    pub healthy: bool,
    pub uses: Uses,
    pub started: Option<Clock>,
    pub finished: Option<Clock>,
    /// What the engine was told and has not yet done, the first first: it locks a container while it is at it. Outlives a
    /// crash of ours.
    pub told: [Option<Order>; 2],
    /// It has been on the card since a sample last showed it gone.
    pub unproven: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Uses {
    Nothing,
    /// A process of the container holds memory.
    Process,
    /// The process is gone, its memory not yet.
    Memory,
    /// The container has ended, a process of it has not.
    Orphan,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Outsider {
    pub uses: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    Idle,
    UnderWay(StepKey, Work),
    Done(StepKey, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Of the workload's container.
    Stop(u8),
    /// It is asked to let go of the memory.
    Ask(u8),
    /// It is told to take the card.
    Take(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Not free, or not looked.
    None,
    /// It was free, before the last step was answered or ended.
    Old,
    Fresh,
}

/// What people and misfortune may still do, and how many passes may have read and not yet finished at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Left {
    pub shorts: u8,
    pub longs: u8,
    pub crashes: u8,
    pub faults: u8,
    pub cancels: u8,
    /// Bits: which of the scene's claims and handoffs nobody has made yet.
    pub claims: u8,
    pub handoffs: u8,
    pub passes: u8,
}

/// What must never have happened on the way here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Wrong {
    /// The token fell, or somebody was granted the card without it rising.
    pub token: bool,
    /// A lease was taken from a workload that was on the card since it was last seen to be gone.
    pub moved_without_proof: bool,
    /// A container was started whose workload does not hold its cards.
    pub started_without_lease: bool,
    /// An outsider was let onto the card with a lease that is not the present one.
    pub stale_accepted: bool,
    /// A wish of a person (cancel, release) was undone, or a handoff is gone before it ended.
    pub wish_lost: bool,
}
