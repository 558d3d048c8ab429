//! The engine's event stream: subscribers are cursors into one bounded log.

use std::collections::VecDeque;

use futures::{StreamExt, stream, stream::BoxStream};

use super::{SimulatedContainers, machine::Machine};
use crate::adapters::containers::EngineEvent;

/// As many as Docker keeps.
const CAPACITY: usize = 256;

/// The last events, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    kept: VecDeque<EngineEvent>,
    first: u64,
}

impl EventLog {
    pub fn push(&mut self, event: EngineEvent) {
        if self.kept.len() == CAPACITY {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(event);
    }

    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// `Err` when it is forgotten already, `None` when it is still to come.
    fn get(&self, number: u64) -> Result<Option<&EngineEvent>, Forgotten> {
        let offset = number.checked_sub(self.first).ok_or(Forgotten)?;
        Ok(self.kept.get(offset as usize))
    }
}

struct Forgotten;

enum Connection {
    /// `told` once the subscriber has heard `Disconnected` about it.
    Down {
        told: bool,
    },
    Up {
        epoch: u64,
        next: u64,
    },
}

pub(super) fn subscribe(engine: SimulatedContainers) -> BoxStream<'static, EngineEvent> {
    let start = (engine, Connection::Down { told: false });
    stream::unfold(start, |(engine, mut connection)| async move {
        let event = engine.wait_for(|machine| step(&mut connection, machine)).await;
        Some((event, (engine, connection)))
    })
    .boxed()
}

/// The next thing to tell, if there is one now.
fn step(connection: &mut Connection, machine: &Machine) -> Option<EngineEvent> {
    match *connection {
        Connection::Down { .. } if machine.up => {
            *connection = Connection::Up { epoch: machine.epoch, next: machine.events.end() };
            Some(EngineEvent::Connected)
        }
        Connection::Down { told: true } => None,
        Connection::Down { told: false } => Some(disconnect(connection, "the engine is down")),
        Connection::Up { epoch, .. } if epoch != machine.epoch || !machine.up => {
            Some(disconnect(connection, "the engine went away"))
        }
        Connection::Up { epoch, next } => match machine.events.get(next) {
            Ok(event) => {
                let event = event?.clone();
                *connection = Connection::Up { epoch, next: next + 1 };
                Some(event)
            }
            Err(Forgotten) => Some(disconnect(connection, "events were missed")),
        },
    }
}

fn disconnect(connection: &mut Connection, why: &str) -> EngineEvent {
    *connection = Connection::Down { told: true };
    EngineEvent::Disconnected(why.to_owned())
}
