//! A Redis made of memory, as far as MLOC's wire needs one: hashes, a set, heartbeats that expire, channels. It loses, doubles and
//! delays what is published, breaks connections, is away, and comes back with its data or without.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use gaia::adapters::bus::name;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep},
};

use crate::world::World;

/// It cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// Channel and text.
pub type Message = (&'static str, String);

/// Clones are the same server.
#[derive(Clone)]
pub struct Redis {
    world: World,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    away: bool,
    hashes: BTreeMap<String, HashMap<String, String>>,
    ids: BTreeSet<String>,
    /// Value and when it expires.
    heartbeats: BTreeMap<String, (String, Instant)>,
    epoch: bool,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    channels: &'static [&'static str],
    connection: UnboundedSender<Message>,
}

/// What a worker left there: hash, and heartbeat with whether it is fresh.
pub struct Left {
    pub hash: HashMap<String, String>,
    pub heartbeat: Option<String>,
    pub registered: bool,
}

impl Redis {
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("never poisoned")
    }

    fn reached(&self) -> Result<MutexGuard<'_, Kept>, Away> {
        let kept = self.kept();
        if kept.away { Err(Away) } else { Ok(kept) }
    }

    /// Every connection is gone, and nothing answers.
    pub fn leave(&self) {
        let mut kept = self.kept();
        kept.away = true;
        kept.subscribers.clear();
    }

    pub fn come_back(&self) {
        self.kept().away = false;
    }

    /// FLUSHALL: connections stay.
    pub fn flush(&self) {
        let mut kept = self.kept();
        *kept = Kept { away: kept.away, subscribers: std::mem::take(&mut kept.subscribers), ..Kept::default() };
    }

    /// One connection of those that listen is gone.
    pub fn cut(&self, number: usize) {
        let mut kept = self.kept();
        if !kept.subscribers.is_empty() {
            let at = number % kept.subscribers.len();
            kept.subscribers.remove(at);
        }
    }

    pub fn write(&self, worker: &str, fields: &[(&str, String)]) -> Result<(), Away> {
        let mut kept = self.reached()?;
        let hash = kept.hashes.entry(worker.to_owned()).or_default();
        hash.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Ok(())
    }

    /// HSETNX of each.
    pub fn write_missing(&self, worker: &str, fields: &[(&str, String)]) -> Result<(), Away> {
        let mut kept = self.reached()?;
        let hash = kept.hashes.entry(worker.to_owned()).or_default();
        for (name, value) in fields {
            hash.entry((*name).to_owned()).or_insert_with(|| value.clone());
        }
        Ok(())
    }

    pub fn erase(&self, worker: &str, fields: &[&str]) -> Result<(), Away> {
        let mut kept = self.reached()?;
        if let Some(hash) = kept.hashes.get_mut(worker) {
            fields.iter().for_each(|field| drop(hash.remove(*field)));
        }
        Ok(())
    }

    pub fn enlist(&self, worker: &str) -> Result<(), Away> {
        self.reached()?.ids.insert(worker.to_owned());
        Ok(())
    }

    /// Removes everything of a worker.
    pub fn strike_off(&self, worker: &str) -> Result<(), Away> {
        let mut kept = self.reached()?;
        kept.ids.remove(worker);
        kept.hashes.remove(worker);
        kept.heartbeats.remove(worker);
        Ok(())
    }

    pub fn beat(&self, worker: &str, value: String, ttl: Duration) -> Result<(), Away> {
        let until = Instant::now() + ttl;
        self.reached()?.heartbeats.insert(worker.to_owned(), (value, until));
        Ok(())
    }

    pub fn ids(&self) -> Result<Vec<String>, Away> {
        Ok(self.reached()?.ids.iter().cloned().collect())
    }

    pub fn left(&self, worker: &str) -> Result<Left, Away> {
        let kept = self.reached()?;
        let fresh = kept.heartbeats.get(worker).filter(|(_, until)| *until > Instant::now());
        Ok(Left {
            hash: kept.hashes.get(worker).cloned().unwrap_or_default(),
            heartbeat: fresh.map(|(value, _)| value.clone()),
            registered: kept.ids.contains(worker),
        })
    }

    pub fn has_epoch(&self) -> Result<bool, Away> {
        Ok(self.reached()?.epoch)
    }

    pub fn set_epoch(&self) -> Result<(), Away> {
        self.reached()?.epoch = true;
        Ok(())
    }

    pub fn subscribe(&self, channels: &'static [&'static str]) -> Result<UnboundedReceiver<Message>, Away> {
        let (connection, messages) = mpsc::unbounded_channel();
        self.reached()?.subscribers.push(Subscriber { channels, connection });
        Ok(messages)
    }

    /// Answers how many listen. What the orchestrator hands out is lost at most: a worker that gets it twice runs it twice, and
    /// that would be nobody's fault.
    pub fn publish(&self, channel: &'static str, text: &str) -> Result<u64, Away> {
        let mut kept = self.reached()?;
        kept.subscribers.retain(|subscriber| !subscriber.connection.is_closed());
        let of_channel = kept.subscribers.iter().filter(|subscriber| subscriber.channels.contains(&channel));
        let connections: Vec<_> = of_channel.map(|subscriber| subscriber.connection.clone()).collect();
        drop(kept);
        for connection in &connections {
            if self.world.strikes(8.0) {
                continue;
            }
            let copies = if channel != name::TASKS && self.world.strikes(8.0) { 2 } else { 1 };
            for _ in 0..copies {
                let (connection, text) = (connection.clone(), text.to_owned());
                if channel != name::TASKS && self.world.strikes(12.0) {
                    let late = Duration::from_millis(self.world.rng().u64(1..3_000));
                    // Overtaken by what is published meanwhile.
                    tokio::spawn(async move {
                        sleep(late).await;
                        connection.send((channel, text)).ok();
                    });
                } else {
                    connection.send((channel, text)).ok();
                }
            }
        }
        Ok(connections.len() as u64)
    }
}
