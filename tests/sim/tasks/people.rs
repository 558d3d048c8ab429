//! People and bad luck: documents are handed in, cancelled and tried again; workers die, are restarted and fall silent; Redis goes away,
//! forgets, and breaks connections; the server is killed. In the end everybody is well and there.

use std::{convert::Infallible, time::Duration};

use gaia::api::worker::Worker;
use kube::ResourceExt;
use serde_json::Value;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    documents,
    oracle::Wish,
    own,
    workers::{self, Generation, Manners},
    world::TaskWorld,
};
use crate::oracle::stored;

/// Workers that are told apart by how they are; the last is one of ours.
const PLACES: [&str; 5] = ["first", "later", "large", "slow", "own"];

/// A place for a worker, and the process that is in it.
struct Place {
    id: &'static str,
    process: Option<AbortHandle>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Place {
    fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.abort();
        }
    }

    fn is_empty(&self) -> bool {
        self.process.as_ref().is_none_or(AbortHandle::is_finished)
    }

    fn start(&mut self, world: &TaskWorld) {
        self.kill();
        let id = self.id;
        self.process = Some(match id {
            "own" => tokio::spawn(own::work(world.clone(), id)).abort_handle(),
            _ => tokio::spawn(workers::work(world.clone(), manners(world, id))).abort_handle(),
        });
    }
}

fn manners(world: &TaskWorld, id: &'static str) -> Manners {
    let generation = if id == "first" || id == "slow" { Generation::First } else { Generation::Later };
    Manners {
        id,
        generation,
        cores: if id == "large" { 64 } else { 2 },
        card: (id == "large" && world.world.has_cards).then(|| world.card()),
        slowness: if id == "slow" { 6 } else { 1 },
        late_idle: world.below(2) == 0,
    }
}

pub struct People {
    places: Vec<Place>,
    /// Ids that were told to somebody.
    known: Vec<String>,
    /// Milliseconds between two acts, at most.
    pause: u64,
}

impl People {
    pub fn new(world: &TaskWorld, pause: u64) -> Self {
        let there = 2 + world.below(PLACES.len() as u64 - 1);
        let mut places: Vec<Place> = PLACES.map(|id| Place { id, process: None }).into();
        places.iter_mut().take(there as usize).for_each(|place| place.start(world));
        Self { places, known: Vec::new(), pause }
    }

    /// Acts until dropped.
    pub async fn live(&mut self, world: &TaskWorld) -> Infallible {
        loop {
            let pause = world.below(self.pause);
            sleep(Duration::from_millis(pause)).await;
            self.act(world).await;
        }
    }

    async fn act(&mut self, world: &TaskWorld) {
        let at = world.below(self.places.len() as u64) as usize;
        match world.below(100) {
            0..48 => self.submit(world).await,
            48..56 => self.cancel(world).await,
            56..62 => self.retry(world).await,
            62..69 => {
                world.tell(format_args!("worker {} is killed", self.places[at].id));
                self.places[at].kill();
            }
            69..80 => {
                if let Some(place) = self.places.iter_mut().find(|place| place.is_empty()) {
                    place.start(world);
                }
            }
            80..83 => self.places[at].start(world),
            83..86 => {
                let forgets = world.below(2) == 0;
                world.tell(format_args!("Redis is away{}", if forgets { " and forgets" } else { "" }));
                world.redis.leave();
                let away = world.below(15_000);
                sleep(Duration::from_millis(away)).await;
                if forgets {
                    world.redis.flush();
                }
                world.redis.come_back();
                world.tell("Redis is back");
            }
            86..88 => {
                world.tell("Redis is flushed");
                world.redis.flush();
            }
            88..92 => {
                let number = world.below(8) as usize;
                world.redis.cut(number);
            }
            92..95 => {
                let lasts = 100 + world.below(200);
                world.tell(format_args!("worker {} is silent for {lasts} s", self.places[at].id));
                world.mute(self.places[at].id, Instant::now() + Duration::from_secs(lasts));
            }
            _ => {
                world.tell("kill -9");
                world.world.kill.notify_one();
            }
        }
    }

    async fn submit(&mut self, world: &TaskWorld) {
        let document = documents::any(world);
        let told = world.ask("POST", "/api/v1/tasks", Value::String(document.to_string())).await;
        let Some((status, answer)) = told.filter(|(status, _)| status.is_success()) else {
            return world.tell("a document is not taken");
        };
        let ids = answer["tasks"].as_array().into_iter().flatten().filter_map(|task| task["task_id"].as_str());
        let ids: Vec<String> = ids.map(str::to_owned).collect();
        world.tell(format_args!("{status}: {ids:?} of {}", document["spec"]));
        world.ledger().submitted.extend(ids.iter().cloned());
        self.known.extend(ids);
    }

    fn some(&self, world: &TaskWorld) -> Option<String> {
        let most = self.known.len() as u64;
        (most > 0).then(|| self.known[world.below(most) as usize].clone())
    }

    async fn cancel(&mut self, world: &TaskWorld) {
        let Some(id) = self.some(world) else { return };
        let scope = if world.below(4) == 0 { "?scope=submission" } else { "" };
        // Nobody knows which were, before the answer comes. It may never: peace comes in the middle of a question too.
        let doubted: Vec<String> = {
            let mut ledger = world.ledger();
            let open: Vec<String> =
                self.known.iter().filter(|known| !ledger.cancelled.contains_key(*known)).cloned().collect();
            ledger.cancelled.extend(open.iter().map(|known| (known.clone(), Wish::Perhaps)));
            open
        };
        let answer = world.ask("POST", &format!("/api/v1/tasks/{id}/cancel{scope}"), Value::Null).await;
        world.tell(format_args!("cancel {id}{scope}: {answer:?}"));
        let told = answer.filter(|(status, _)| status.is_success()).map(|(_, body)| body["cancelled"].clone());
        let Some(ids) = told.as_ref().and_then(Value::as_array) else { return };
        let mut ledger = world.ledger();
        ledger.cancelled.retain(|known, _| !doubted.contains(known));
        for id in ids.iter().filter_map(Value::as_str) {
            ledger.cancelled.entry(id.to_owned()).or_insert(Wish::Told(world.world.clock.now()));
        }
    }

    async fn retry(&self, world: &TaskWorld) {
        let Some(id) = self.some(world) else { return };
        let answer = world.ask("POST", &format!("/api/v1/tasks/{id}/retry"), Value::Null).await;
        world.tell(format_args!("try {id} again: {}", answer.map_or("-".to_owned(), |(status, _)| status.to_string())));
    }

    /// Redis is there, and so is every worker.
    pub fn make_peace(&mut self, world: &TaskWorld) {
        world.redis.come_back();
        world.nobody_is_mute();
        for place in self.places.iter_mut().filter(|place| place.is_empty()) {
            place.start(world);
        }
    }

    /// Those that ended by themselves are started again, as their hosts do; and by hand those of MLOC's that nobody knows: they say
    /// what they have once, when they begin, and Redis may have forgotten it before anybody had read it.
    pub fn look_after(&mut self, world: &TaskWorld) {
        let workers = stored::<Worker>(&world.world, "workers");
        let is_unknown =
            |id: &str| workers.as_ref().is_some_and(|all| all.iter().all(|worker| worker.name_any() != id));
        for place in self.places.iter_mut().filter(|place| place.is_empty() || is_unknown(place.id)) {
            place.start(world);
        }
    }
}
