//! What outlives the server: Redis, what results are kept, workers with their connections, and what everybody ran.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures::FutureExt;
use gaia::adapters::{bus::embedded::EmbeddedBus, gpus::Gpus};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, Instant},
};

use super::{bugs::Bug, oracle::Ledger, redis::Redis, results::Kept};
use crate::{story::Story, world::World};

/// One of so many worlds has a card that tasks ask for.
const WITH_A_CARD: u64 = 4;

/// A request, and where its answer goes.
pub type Asked = (Request<Body>, oneshot::Sender<(StatusCode, Value)>);

/// Of the running process: where requests go, and the bus of workers that are connected to it.
#[derive(Clone)]
pub struct Served {
    pub requests: mpsc::UnboundedSender<Asked>,
    pub sockets: EmbeddedBus,
}

/// Clones are handles on the same world.
#[derive(Clone)]
pub struct TaskWorld {
    pub world: World,
    pub bug: Bug,
    pub redis: Redis,
    pub served: watch::Sender<Option<Served>>,
    kept: Kept,
    ledger: Arc<Mutex<Ledger>>,
    /// Whose heartbeats do not come out, and until when.
    mute: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl TaskWorld {
    pub fn new(seed: u64, bug: Bug, story: Story) -> Self {
        let mut world = World::new(seed, crate::bugs::Bug::None, story);
        world.has_cards = seed % WITH_A_CARD == 1;
        Self {
            redis: Redis::new(&world),
            world,
            bug,
            served: watch::Sender::new(None),
            kept: Kept::default(),
            ledger: Arc::default(),
            mute: Arc::default(),
        }
    }

    pub fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.kept.lock().expect("never poisoned")
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("never poisoned")
    }

    pub fn tell(&self, line: impl std::fmt::Display) {
        self.world.story.tell(line);
    }

    /// Any number below, from the seed.
    pub fn below(&self, most: u64) -> u64 {
        self.world.rng().u64(..most)
    }

    /// The uuid of the card.
    pub fn card(&self) -> String {
        let listed = self.world.gpus.inventory().now_or_never();
        let devices = listed.and_then(Result::ok).expect("simulated cards answer at once");
        devices[0].uuid.clone()
    }

    /// A worker works and gives no sign of life.
    pub fn mute(&self, worker: &str, until: Instant) {
        self.mute.lock().expect("never poisoned").insert(worker.to_owned(), until);
        self.ledger().doubt(worker);
    }

    pub fn is_mute(&self, worker: &str) -> bool {
        self.was_mute(worker, Duration::ZERO)
    }

    /// So long ago, or still.
    pub fn was_mute(&self, worker: &str, ago: Duration) -> bool {
        self.mute.lock().expect("never poisoned").get(worker).is_some_and(|until| *until + ago > Instant::now())
    }

    pub fn nobody_is_mute(&self) {
        self.mute.lock().expect("never poisoned").clear();
    }

    /// Now and then the server is killed here.
    pub async fn may_die(&self, place: &str) {
        if self.world.strikes(0.4) {
            self.tell(format_args!("    kill -9 {place}"));
            self.world.kill.notify_one();
            pending::<()>().await;
        }
    }

    /// Asks the server. None: it does not answer, or died before it did.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Option<(StatusCode, Value)> {
        let served = self.served.borrow().clone()?;
        let (text, type_) = match body {
            Value::Null => (String::new(), "text/plain"),
            // A document: JSON is YAML.
            Value::String(text) => (text, "text/yaml"),
            body => (body.to_string(), "application/json"),
        };
        let request = Request::builder().method(method).uri(path).header("content-type", type_);
        let request = request.body(Body::from(text)).expect("a request");
        let (answer, answered) = oneshot::channel();
        served.requests.send((request, answer)).ok()?;
        answered.await.ok()
    }

    /// As workers of ours see it: their connections go through it.
    pub async fn sockets(&self) -> EmbeddedBus {
        let mut served = self.served.subscribe();
        let up = served.wait_for(Option::is_some).await.expect("the sender is ours");
        up.as_ref().expect("waited for it").sockets.clone()
    }
}
