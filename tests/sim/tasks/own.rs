//! A worker of ours, as `gaia worker` is: connected to the server, with the token of its attempt in everything it says, repeating
//! itself until it is heard. Its words and what it understands are the product's; when it says them is written again here, for the
//! real one has a network, processes and the clock on the wall.

use std::{collections::BTreeSet, time::Duration};

use axum::http::StatusCode;
use gaia::{
    adapters::bus::{
        session::{Session, Unwanted},
        stamp,
    },
    worker::message::{self, Command, Ended, Order, Speaker},
};
use serde_json::{Map, json};
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{
    oracle::{self, End, Run},
    workers::BEAT,
    world::TaskWorld,
};

const REPEAT: Duration = Duration::from_secs(2);
/// A connection of its own lasts so long at most, while things go wrong.
const LONGEST_CONNECTION_MS: u64 = 60_000;

/// Runs until dropped.
pub async fn work(world: TaskWorld, id: &'static str) {
    let (finished, mut ends) = mpsc::unbounded_channel();
    let mut own = Own {
        started_at: stamp(world.world.clock.now()),
        speaker: Speaker { worker: id.to_owned() },
        world,
        id,
        seen: BTreeSet::new(),
        current: None,
        waiting: Vec::new(),
        unsettled: Vec::new(),
        finished,
    };
    own.world.tell(format_args!("worker {id} begins"));
    loop {
        // What has ended meanwhile is told over the next connection.
        let sockets = tokio::select! {
            biased;
            Some(end) = ends.recv() => { own.ended(end); continue }
            sockets = own.world.sockets() => sockets,
        };
        let mut process = own.world.served.subscribe();
        process.mark_unchanged();
        let mut session = match Session::open(&sockets, &own.registration()) {
            Ok(session) => session,
            Err(Unwanted::Later(_)) => {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(Unwanted::Wrong(why)) => return own.world.world.violated(format!("{id} is not wanted: {why}")),
        };
        let breaks = own.world.below(LONGEST_CONNECTION_MS);
        let breaks_at = Instant::now() + Duration::from_millis(breaks);
        let mut beat = tokio::time::interval(BEAT);
        let mut repeat = tokio::time::interval(REPEAT);
        loop {
            let said = tokio::select! {
                biased;
                _ = process.changed() => break,
                () = sleep_until(breaks_at), if own.world.world.strikes(100.0) => break,
                end = ends.recv() => end.map(|end| own.ended(end)).unwrap_or_default(),
                told = session.next() => match told {
                    Some(text) => own.take(&text),
                    None => break,
                },
                _ = beat.tick() => own.beat(),
                _ = repeat.tick() => own.tell_ends(),
            };
            let begun = own.begin();
            if !said.iter().chain(&begun).all(|text| session.hear(text).is_ok()) {
                break;
            }
        }
        drop(session);
        own.world.ledger().doubt(id);
        let away = own.world.below(if own.world.world.strikes(10.0) { 9_000 } else { 400 });
        sleep(Duration::from_millis(away)).await;
    }
}

struct Own {
    world: TaskWorld,
    id: &'static str,
    started_at: String,
    speaker: Speaker,
    seen: BTreeSet<(String, String)>,
    current: Option<Current>,
    waiting: Vec<Order>,
    /// With the message that says how it ended.
    unsettled: Vec<(Order, String)>,
    finished: UnboundedSender<Finished>,
}

struct Current {
    order: Order,
    working: AbortHandle,
}

impl Drop for Current {
    fn drop(&mut self) {
        self.working.abort();
    }
}

/// What an attempt came to. None: nobody wants to know.
struct Finished {
    order: Order,
    outcome: Option<Ended>,
}

impl Own {
    fn now(&self) -> String {
        stamp(self.world.world.clock.now())
    }

    fn registration(&self) -> String {
        let payload = Map::from_iter([
            ("env".to_owned(), json!({"executors": ["echo"]})),
            ("hardware".to_owned(), json!({"cpu": {"logical_cores": 8}, "memory": {"total_bytes": 64_u64 << 30}})),
            ("started_at".to_owned(), json!(self.started_at)),
            ("pid".to_owned(), json!(7)),
        ]);
        self.speaker.register(&self.now(), &[], payload)
    }

    fn beat(&self) -> Vec<String> {
        match self.world.is_mute(self.id) {
            true => Vec::new(),
            false => vec![self.speaker.heartbeat(&self.now(), json!({})), self.state()],
        }
    }

    fn state(&self) -> String {
        match &self.current {
            Some(current) => self.speaker.running(&self.now(), &current.order),
            None => self.speaker.idle(&self.now(), None),
        }
    }

    fn tell_ends(&self) -> Vec<String> {
        self.unsettled.iter().map(|(_, message)| message.clone()).collect()
    }

    fn take(&mut self, text: &str) -> Vec<String> {
        match message::command(text, self.id) {
            None => Vec::new(),
            Some(Command::Release { task, attempt }) => {
                let meant = |order: &Order| order.task == task && attempt.as_ref().is_none_or(|a| *a == order.attempt);
                self.unsettled.retain(|(order, _)| !meant(order));
                self.waiting.retain(|order| !meant(order));
                if self.current.as_ref().is_some_and(|current| meant(&current.order)) {
                    self.current = None;
                    return vec![self.state()];
                }
                Vec::new()
            }
            Some(Command::Run(order)) => {
                if !self.seen.insert((order.task.clone(), order.attempt.clone())) {
                    let mut said = self.tell_ends();
                    said.push(self.state());
                    return said;
                }
                if self.current.as_ref().is_some_and(|current| current.order.task == order.task) {
                    self.current = None;
                }
                self.waiting.retain(|waiting| waiting.task != order.task);
                self.unsettled.retain(|(ended, _)| ended.task != order.task);
                self.waiting.push(order);
                Vec::new()
            }
        }
    }

    /// Begins what waits, if nothing runs.
    fn begin(&mut self) -> Vec<String> {
        if self.current.is_some() || self.waiting.is_empty() {
            return Vec::new();
        }
        let order = self.waiting.remove(0);
        let attempt = attempt(self.world.clone(), self.id, order.clone());
        let (finished, told) = (self.finished.clone(), order.clone());
        let working = tokio::spawn(async move {
            let outcome = attempt.await;
            finished.send(Finished { order: told, outcome }).ok();
        });
        let said = vec![self.speaker.running(&self.now(), &order), self.speaker.started(&self.now(), &order)];
        self.current = Some(Current { order, working: working.abort_handle() });
        said
    }

    fn ended(&mut self, finished: Finished) -> Vec<String> {
        let Finished { order, outcome } = finished;
        // It was stopped at this moment, and another one runs.
        if self.current.as_ref().is_none_or(|current| current.order != order) {
            return Vec::new();
        }
        self.current = None;
        let mut said = Vec::new();
        if let Some(outcome) = outcome {
            let message = self.speaker.ended(&self.now(), &order, &outcome, &self.now(), 0.1);
            said.push(message.clone());
            self.unsettled.push((order, message));
        }
        said.push(self.state());
        said
    }
}

struct Going(TaskWorld, usize);

impl Drop for Going {
    fn drop(&mut self) {
        oracle::ended(&self.0, self.1, End::Stopped);
    }
}

async fn attempt(world: TaskWorld, id: &'static str, order: Order) -> Option<Ended> {
    let run = Run {
        task: order.task.clone(),
        worker: id.to_owned(),
        dispatched_at: order.dispatched_at.clone().unwrap_or_default(),
        attempt: Some(order.attempt.clone()),
        end: End::Going,
        doubtful: world.was_mute(id, 2 * BEAT),
    };
    let number = oracle::begun(&world, run);
    let going = Going(world.clone(), number);
    world.tell(format_args!("    {id} begins {} ({})", order.task, order.attempt));
    let step = &order.document["spec"]["step"];
    sleep(Duration::from_millis(step["ms"].as_u64().unwrap_or(0))).await;
    let times = world.ledger().times(&order.task) as u64;
    let outcome = match times <= step["fails"].as_u64().unwrap_or(0) {
        true => Some(Ended::Failed("boom".to_owned())),
        false => deliver(&world, id, &order, number).await,
    };
    let end = match &outcome {
        Some(Ended::Succeeded) => End::Succeeded,
        Some(Ended::Failed(_)) => End::Failed,
        None => End::Stopped,
    };
    oracle::ended(&world, number, end);
    drop(going);
    world.tell(format_args!("    {id}: {} ({}) {end:?}", order.task, order.attempt));
    outcome
}

/// Until the server has answered for good.
async fn deliver(world: &TaskWorld, id: &str, order: &Order, run: usize) -> Option<Ended> {
    let result = json!({"run": run, "items": order.document["spec"]["data"]["items"]});
    let body = json!({"task_id": order.task, "result": result, "worker_id": id, "attempt": order.attempt});
    loop {
        match world.ask("POST", "/api/v1/results", body.clone()).await {
            Some((status, _)) if status.is_success() => return Some(Ended::Succeeded),
            Some((StatusCode::CONFLICT, _)) => return None,
            Some((status, body)) if status.is_client_error() => {
                return Some(Ended::Failed(format!("{status}: {body}")));
            }
            Some(_) | None => sleep(Duration::from_millis(700)).await,
        }
    }
}
