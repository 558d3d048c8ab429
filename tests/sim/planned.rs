//! One fault at one place: what can go wrong where, and the faults of a world that make it happen.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gaia::{
    adapters::{
        containers::EngineEvent,
        simulated::containers::{CardFault, Delivery, Effect, Fault, Faults, PeerFault},
    },
    store::Key,
};

use crate::{holders, oracle, world::World, writes::WriteFault};

const LATE: Duration = Duration::from_secs(3);

/// One fault, at one place.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    Nothing,
    Before(usize, Fault),
    After(usize, Fault),
    Look(usize, Fault),
    Told(usize, Delivery),
    Ask(usize, PeerFault),
    Card(usize, CardFault),
    /// The notification is lost and the process dies: it starts from what it had stored before.
    DiesUntold(usize),
    Write(usize, WriteFault),
}

/// Everything that can go wrong: crash before, crash after, done but the answer lost, refused, hung, slow; a look
/// that is refused or crashes; a notification hidden, duplicated, delayed, a restart with the stale view; a write for which
/// there is no room, that fails, is overtaken, is done and not acknowledged, is late or the last thing that is done; a process
/// that refuses what it is asked, lies, is silent, late or not heard; a card that is not told of, gone or late.
pub fn all(seen: Seen) -> Vec<Plan> {
    use WriteFault::{CrashAfter, CrashBefore, Fails, Full, LosesAnswer, Overtaken};
    let before = [Fault::Crash, Fault::Refuse, Fault::Hang, Fault::Slow(LATE)];
    let after = [Fault::Crash, Fault::LoseAnswer, Fault::Hang, Fault::Slow(LATE)];
    let writes = [Full, Fails, LosesAnswer, WriteFault::Slow(LATE), Overtaken, CrashBefore, CrashAfter];
    let deliveries = [Delivery::Hide, Delivery::Duplicate, Delivery::Delay(LATE)];
    let asks = [
        PeerFault::Crash,
        PeerFault::LoseAnswer,
        PeerFault::Slow(LATE),
        PeerFault::Refuse,
        PeerFault::Lie,
        PeerFault::Hang,
    ];
    let cards = [
        CardFault::Crash,
        CardFault::Refuse,
        CardFault::Untold,
        CardFault::Lost,
        CardFault::Hang,
        CardFault::Slow(LATE),
    ];
    [
        at_each(seen.effects, &before, Plan::Before),
        at_each(seen.effects, &after, Plan::After),
        at_each(seen.looks, &[Fault::Crash, Fault::Refuse], Plan::Look),
        at_each(seen.notifications, &deliveries, Plan::Told),
        (0..seen.notifications).map(Plan::DiesUntold).collect(),
        at_each(seen.writes, &writes, Plan::Write),
        at_each(seen.asks, &asks, Plan::Ask),
        at_each(seen.cards, &cards, Plan::Card),
    ]
    .concat()
}

fn at_each<F: Copy>(places: usize, faults: &[F], plan: fn(usize, F) -> Plan) -> Vec<Plan> {
    (0..places).flat_map(|at| faults.iter().map(move |fault| plan(at, *fault))).collect()
}

/// How far a scenario has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    effects: usize,
    looks: usize,
    notifications: usize,
    writes: usize,
    /// Requests to processes.
    asks: usize,
    /// Looks at cards.
    cards: usize,
}

/// Faults of one plan. Counts from when the scenario begins.
#[derive(Clone)]
pub struct Planned {
    world: World,
    plan: Plan,
    begun: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    struck: Arc<AtomicBool>,
}

impl Planned {
    pub fn new(world: &World, plan: Plan) -> Self {
        let planned =
            Self { world: world.clone(), plan, begun: Arc::default(), seen: Arc::default(), struck: Arc::default() };
        let mut of_writes = planned.clone();
        world.writes.set(move |key| of_writes.write(key));
        planned
    }

    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub fn has_struck(&self) -> bool {
        self.struck.load(Ordering::Relaxed)
    }

    pub fn seen(&self) -> Seen {
        *self.count()
    }

    fn count(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("never poisoned")
    }

    /// Counts one more, and answers which it is; None before the scenario has begun.
    fn next(&self, of: impl FnOnce(&mut Seen) -> &mut usize) -> Option<usize> {
        if !self.begun.load(Ordering::Relaxed) {
            return None;
        }
        let mut seen = self.count();
        let count = of(&mut seen);
        *count += 1;
        Some(*count - 1)
    }

    fn strikes<F: fmt::Debug>(&self, fault: F, at: impl fmt::Display) -> F {
        self.struck.store(true, Ordering::Relaxed);
        self.world.story.tell(format_args!("    PLAN {fault:?}: {at}"));
        fault
    }

    fn write(&mut self, key: &Key) -> WriteFault {
        let at = self.next(|seen| &mut seen.writes);
        match self.plan {
            Plan::Write(planned, fault) if at == Some(planned) => self.strikes(fault, key.as_str()),
            _ => WriteFault::None,
        }
    }
}

impl Faults for Planned {
    fn before(&mut self, effect: &Effect) -> Fault {
        self.world.story.tell(format_args!("  {effect}"));
        oracle::before_effect(&self.world, effect);
        match self.plan {
            Plan::Before(at, fault) if self.begun.load(Ordering::Relaxed) && self.seen().effects == at => {
                // Never again: the next attempt is another effect.
                self.count().effects += 1;
                self.strikes(fault, effect)
            }
            _ => Fault::None,
        }
    }

    fn after(&mut self, effect: &Effect) -> Fault {
        oracle::after_effect(&self.world, effect);
        let at = self.next(|seen| &mut seen.effects);
        match self.plan {
            Plan::After(planned, fault) if at == Some(planned) => self.strikes(fault, effect),
            _ => Fault::None,
        }
    }

    fn read(&mut self) -> Fault {
        let at = self.next(|seen| &mut seen.looks);
        match self.plan {
            Plan::Look(planned, fault) if at == Some(planned) => self.strikes(fault, "while looking"),
            _ => Fault::None,
        }
    }

    fn ask(&mut self, name: &str, path: &str) -> PeerFault {
        self.world.story.tell(format_args!("  ask {name} for {path}"));
        let at = self.next(|seen| &mut seen.asks);
        match self.plan {
            Plan::Ask(planned, fault) if at == Some(planned) => {
                if fault == PeerFault::Lie {
                    holders::lied(&self.world, name);
                }
                self.strikes(fault, format_args!("{name} {path}"))
            }
            _ => PeerFault::None,
        }
    }

    fn cards(&mut self) -> CardFault {
        let at = self.next(|seen| &mut seen.cards);
        match self.plan {
            Plan::Card(planned, fault) if at == Some(planned) => self.strikes(fault, "while looking at the card"),
            _ => CardFault::None,
        }
    }

    fn notification(&mut self, event: &EngineEvent) -> Delivery {
        let at = self.next(|seen| &mut seen.notifications);
        match self.plan {
            Plan::Told(planned, delivery) if at == Some(planned) => self.strikes(delivery, format_args!("{event:?}")),
            Plan::DiesUntold(planned) if at == Some(planned) => {
                self.strikes("dies untold", format_args!("{event:?}"));
                self.world.kill.notify_one();
                Delivery::Hide
            }
            _ => Delivery::Deliver,
        }
    }
}
