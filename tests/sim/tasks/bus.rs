//! The bus as the server has it, over the simulated Redis: the transactions of `adapters/bus/redis.rs`, which get lost, fail, are slow
//! and are the last thing that a process does. At every dispatch the oracle looks.

use std::time::Duration;

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use gaia::adapters::bus::{
    Bus, BusError, BusEvent, BusResult, Dispatch, Mark, Release, WorkerRecord, name, stamp, wire,
};
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};

use super::{
    bugs::Bug,
    oracle,
    redis::{Away, Message, Redis},
    world::TaskWorld,
};

const CHANNELS: &[&str] = &[name::TASK_EVENTS, name::WORKER_EVENTS];
const PAUSE: Duration = Duration::from_millis(200);

/// Of one process.
#[derive(Clone)]
pub struct SimulatedBus {
    pub world: TaskWorld,
}

impl SimulatedBus {
    fn redis(&self) -> &Redis {
        &self.world.redis
    }

    /// A call, and what may go wrong with it.
    async fn call<T: Send>(&self, call: impl FnOnce() -> Result<T, Away> + Send) -> BusResult<T> {
        let world = &self.world.world;
        if world.strikes(6.0) {
            let late = world.rng().u64(1..900);
            sleep(Duration::from_millis(late)).await;
        }
        if world.strikes(1.5) {
            return Err(BusError("as planned".to_owned()));
        }
        self.world.may_die("before a call of the bus").await;
        let answer = call().map_err(|Away| BusError("Redis is away".to_owned()));
        self.world.may_die("after a call of the bus").await;
        if world.strikes(1.5) { Err(BusError("the answer is lost, as planned".to_owned())) } else { answer }
    }
}

impl Bus for SimulatedBus {
    fn events(&self) -> BoxStream<'static, BusEvent> {
        struct Listening {
            bus: SimulatedBus,
            messages: Option<UnboundedReceiver<Message>>,
            told: bool,
        }
        let step = |mut listening: Listening| async move {
            loop {
                let Some(messages) = &mut listening.messages else {
                    match listening.bus.redis().subscribe(CHANNELS) {
                        Ok(messages) => {
                            listening.messages = Some(messages);
                            listening.told = false;
                            return Some((BusEvent::Connected, listening));
                        }
                        Err(Away) if !listening.told => {
                            listening.told = true;
                            return Some((BusEvent::Lost("Redis is away".to_owned()), listening));
                        }
                        Err(Away) => sleep(PAUSE).await,
                    }
                    continue;
                };
                match messages.recv().await {
                    None => {
                        listening.messages = None;
                        listening.told = true;
                        return Some((BusEvent::Lost("the connection is gone".to_owned()), listening));
                    }
                    Some((channel, text)) => {
                        if let Some(event) = wire::event(channel, text.as_bytes()) {
                            return Some((event, listening));
                        }
                    }
                }
            }
        };
        stream::unfold(Listening { bus: self.clone(), messages: None, told: false }, step).boxed()
    }

    fn roll<'a>(&'a self, known: &'a [String]) -> BoxFuture<'a, BusResult<Vec<WorkerRecord>>> {
        async move {
            let mut roll = self
                .call(|| {
                    let mut all = self.redis().ids()?;
                    all.extend(known.iter().filter(|id| !all.contains(id)).cloned().collect::<Vec<_>>());
                    let mut roll = Vec::new();
                    for id in all {
                        let left = self.redis().left(&id)?;
                        if !left.hash.is_empty() {
                            roll.push(wire::record(&id, &left.hash, left.heartbeat, left.registered));
                        }
                    }
                    Ok(roll)
                })
                .await?;
            for record in &mut roll {
                match self.world.bug {
                    Bug::SilenceIsDeath => record.parted = true,
                    Bug::SeesNoEnd => record.ended = None,
                    _ => {}
                }
            }
            Ok(roll)
        }
        .boxed()
    }

    fn remembers(&self) -> BoxFuture<'_, BusResult<bool>> {
        self.call(|| self.redis().has_epoch()).boxed()
    }

    fn remember(&self) -> BoxFuture<'_, BusResult<()>> {
        self.call(|| self.redis().set_epoch()).boxed()
    }

    fn dispatch<'a>(&'a self, dispatch: &'a Dispatch) -> BoxFuture<'a, BusResult<u64>> {
        async move {
            if self.world.bug == Bug::TellsOnce && !self.world.ledger().is_first_word(dispatch) {
                return Ok(1);
            }
            oracle::before_dispatch(&self.world, dispatch);
            let worker = &dispatch.worker;
            self.call(|| {
                self.redis().erase(worker, &["extra_task_id", "extra_last_task"])?;
                let fields = [("status", "RUNNING".to_owned()), ("last_seen", stamp(dispatch.dispatched_at))];
                self.redis().write(worker, &fields)?;
                let listeners = self.redis().publish(name::TASKS, &wire::dispatch(dispatch))?;
                let told = wire::status(worker, Mark::Running, dispatch.dispatched_at);
                self.redis().publish(name::WORKER_EVENTS, &told)?;
                Ok(listeners)
            })
            .await
        }
        .boxed()
    }

    fn release<'a>(&'a self, _: &'a Release) -> BoxFuture<'a, BusResult<()>> {
        std::future::ready(Ok(())).boxed()
    }

    fn mark<'a>(&'a self, worker: &'a str, mark: Mark, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        async move {
            let status: &'static str = mark.into();
            self.call(|| {
                self.redis().write(worker, &[("status", status.to_owned()), ("last_seen", stamp(at))])?;
                self.redis().publish(name::WORKER_EVENTS, &wire::status(worker, mark, at)).map(drop)
            })
            .await
        }
        .boxed()
    }

    fn restore<'a>(&'a self, record: &'a WorkerRecord) -> BoxFuture<'a, BusResult<()>> {
        self.call(|| {
            self.redis().write_missing(&record.id, &wire::hash(record))?;
            self.redis().enlist(&record.id)
        })
        .boxed()
    }

    fn remove<'a>(&'a self, worker: &'a str, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        async move {
            self.call(|| {
                self.redis().strike_off(worker)?;
                self.redis().publish(name::WORKER_EVENTS, &wire::unregister(worker, at)).map(drop)
            })
            .await
        }
        .boxed()
    }
}
