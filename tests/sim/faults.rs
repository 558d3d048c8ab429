//! What goes wrong between the process and the engine, drawn from the seed; and the oracle at every effect.

use std::time::Duration;

use gaia::adapters::{
    containers::EngineEvent,
    simulated::containers::{CardFault, Delivery, Effect, Fault, Faults, PeerFault},
};

use crate::{oracle, world::World};

pub struct Trouble {
    pub world: World,
}

impl Trouble {
    fn some_time(&self, most_ms: u64) -> Duration {
        Duration::from_millis(self.world.rng().u64(1..most_ms))
    }

    fn draw(&self, when: &str, effect: &Effect, refusal: f64) -> Fault {
        let world = &self.world;
        let fault = if world.strikes(2.0) {
            Fault::Crash
        } else if world.strikes(refusal) {
            Fault::Refuse
        } else if world.strikes(3.0) {
            Fault::LoseAnswer
        } else if world.strikes(1.0) {
            Fault::Hang
        } else if world.strikes(20.0) {
            Fault::Slow(self.some_time(4_000))
        } else {
            Fault::None
        };
        if fault != Fault::None {
            world.story.tell(format_args!("    {fault:?} {when}: {effect}"));
        }
        fault
    }
}

impl Faults for Trouble {
    fn before(&mut self, effect: &Effect) -> Fault {
        self.world.story.tell(format_args!("  {effect}"));
        oracle::before_effect(&self.world, effect);
        self.draw("before", effect, 3.0)
    }

    fn after(&mut self, effect: &Effect) -> Fault {
        oracle::after_effect(&self.world, effect);
        self.draw("after", effect, 0.0)
    }

    fn read(&mut self) -> Fault {
        if self.world.strikes(0.2) {
            self.world.story.tell("    Crash while looking");
            Fault::Crash
        } else if self.world.strikes(1.0) {
            Fault::Refuse
        } else if self.world.strikes(4.0) {
            Fault::Slow(self.some_time(500))
        } else {
            Fault::None
        }
    }

    fn ask(&mut self, name: &str, path: &str) -> PeerFault {
        let fault = if self.world.strikes(1.0) {
            PeerFault::Crash
        } else if self.world.strikes(5.0) {
            PeerFault::Refuse
        } else if self.world.strikes(5.0) {
            PeerFault::Lie
        } else if self.world.strikes(4.0) {
            PeerFault::LoseAnswer
        } else if self.world.strikes(3.0) {
            PeerFault::Hang
        } else if self.world.strikes(20.0) {
            PeerFault::Slow(self.some_time(6_000))
        } else {
            PeerFault::None
        };
        self.world.story.tell(format_args!("  ask {name} for {path}: {fault:?}"));
        fault
    }

    fn cards(&mut self) -> CardFault {
        let driver = self.world.driver();
        if driver != CardFault::None {
            driver
        } else if self.world.strikes(0.1) {
            self.world.story.tell("    Crash while looking at the card");
            CardFault::Crash
        } else if self.world.strikes(1.0) {
            CardFault::Refuse
        } else if self.world.strikes(2.0) {
            CardFault::Slow(self.some_time(1_500))
        } else {
            CardFault::None
        }
    }

    fn notification(&mut self, _event: &EngineEvent) -> Delivery {
        if self.world.strikes(5.0) {
            Delivery::Hide
        } else if self.world.strikes(5.0) {
            Delivery::Duplicate
        } else if self.world.strikes(10.0) {
            Delivery::Delay(self.some_time(5_000))
        } else {
            Delivery::Deliver
        }
    }
}
