//! A bus inside this process, for workers that are connected to us: over WebSocket (`facades/tasks/socket.rs`). The same messages as on
//! Redis. What a worker writes into its keys there is taken here from what it says, and its heartbeat expires in the same way.
//!
//! Guarantees: what is said to a worker goes to its connection and nowhere else; without one it is gone, as it is on Redis. A
//! connection that breaks shows after [`RECONNECT_WITHIN`], and not only when the heartbeat expires. A new process of ours knows nobody:
//! it does not [remember](Bus::remembers), is told of the workers that are known, and they have the time that a lost Redis gives them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::Instant,
};

use super::{Bus, BusEvent, BusResult, Dispatch, Mark, Release, WorkerRecord, stamp, wire};

/// Events that a listener may fall behind by; then it is told that it has missed some.
const MOST_BEHIND: usize = 4096;
/// Messages that wait for one connection. Tasks go to workers that are free, so more than a few means that it does not read.
const MOST_WAITING: usize = 64;
/// A worker whose connection broke is taken for alive so long: it tries again within two seconds.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Clones share one bus.
#[derive(Clone)]
pub struct EmbeddedBus {
    kept: Arc<Mutex<Kept>>,
    events: broadcast::Sender<BusEvent>,
    heartbeat_ttl: Duration,
}

#[derive(Default)]
struct Kept {
    workers: BTreeMap<String, Kin>,
    remembers: bool,
    connections: u64,
}

/// What is kept of one worker.
pub(super) struct Kin {
    pub(super) record: WorkerRecord,
    /// When its heartbeat expires.
    pub(super) until: Option<Instant>,
    /// What it was given last, as far as this process knows.
    pub(super) attempt: Option<String>,
    pub(super) connection: Option<Connection>,
}

/// The one connection of a worker.
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) mailbox: mpsc::Sender<String>,
}

impl Kin {
    /// As it is read from outside: with its heartbeat only while that has not expired.
    fn seen(&self, now: Instant) -> WorkerRecord {
        let alive = self.until.is_some_and(|until| until > now);
        let parted = self.until.is_some() && !alive;
        WorkerRecord { heartbeat: self.record.heartbeat.clone().filter(|_| alive), parted, ..self.record.clone() }
    }
}

impl EmbeddedBus {
    /// Heartbeats expire after `heartbeat_ttl`.
    pub fn new(heartbeat_ttl: Duration) -> Self {
        Self { kept: Arc::default(), events: broadcast::channel(MOST_BEHIND).0, heartbeat_ttl }
    }

    /// It has or had a connection here.
    pub fn has(&self, worker: &str) -> bool {
        self.kept().workers.contains_key(worker)
    }

    /// A worker has come, or has come back. Answers the number of its connection and what is said to it. None: another process
    /// with this id is connected.
    pub(super) fn connect(&self, record: WorkerRecord) -> Option<(u64, mpsc::Receiver<String>)> {
        let (mailbox, mail) = mpsc::channel(MOST_WAITING);
        let number = {
            let mut kept = self.kept();
            let before = kept.workers.get(&record.id);
            let same = before.is_some_and(|before| before.record.started_at == record.started_at);
            if !same && before.is_some_and(|before| before.connection.is_some()) {
                return None;
            }
            kept.connections += 1;
            let number = kept.connections;
            let until = Some(Instant::now() + self.heartbeat_ttl);
            let connection = Some(Connection { number, mailbox });
            let mut kin = Kin { record, until, attempt: None, connection };
            // What it has begun is known still: it is the same process.
            if let Some(before) = kept.workers.get(&kin.record.id).filter(|_| same) {
                kin.record.began = before.record.began.clone();
                kin.attempt = before.attempt.clone();
            }
            // The connection before, if there is one, ends with its mailbox.
            kept.workers.insert(kin.record.id.clone(), kin);
            number
        };
        Some((number, mail))
    }

    /// A connection is gone. Its worker has a while to come back, unless it has done so already.
    pub(super) fn disconnect(&self, worker: &str, number: u64) {
        let mut kept = self.kept();
        let Some(kin) = kept.workers.get_mut(worker) else { return };
        if kin.connection.as_ref().is_some_and(|connection| connection.number == number) {
            kin.connection = None;
            let soon = Instant::now() + RECONNECT_WITHIN;
            kin.until = kin.until.map(|until| until.min(soon));
        }
    }

    /// Changes what is kept of a worker, as it says by its connection of this number. False: that is not its connection any more.
    pub(super) fn change(&self, worker: &str, number: u64, change: impl FnOnce(&mut Kin)) -> bool {
        let mut kept = self.kept();
        let kin = kept.workers.get_mut(worker);
        let kin = kin.filter(|kin| kin.connection.as_ref().is_some_and(|connection| connection.number == number));
        kin.map(change).is_some()
    }

    pub(super) fn forget(&self, worker: &str) {
        self.kept().workers.remove(worker);
    }

    pub(super) fn heartbeat_ttl(&self) -> Duration {
        self.heartbeat_ttl
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self, event: BusEvent) {
        // Nobody may be listening (yet).
        self.events.send(event).ok();
    }

    /// Puts a message into the mailbox of a worker. One that is full is of a worker that does not read: the connection ends.
    fn say(kin: &mut Kin, message: String) -> u64 {
        let Some(connection) = &kin.connection else { return 0 };
        match connection.mailbox.try_send(message) {
            Ok(()) => 1,
            Err(_) => {
                kin.connection = None;
                0
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code panics while it holds this lock")
    }
}

impl Bus for EmbeddedBus {
    fn events(&self) -> BoxStream<'static, BusEvent> {
        let told = stream::unfold(self.events.subscribe(), |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((vec![event], events)),
                Err(RecvError::Lagged(missed)) => {
                    let why = format!("{missed} events were missed");
                    Some((vec![BusEvent::Lost(why), BusEvent::Connected], events))
                }
                Err(RecvError::Closed) => None,
            }
        });
        stream::iter([BusEvent::Connected]).chain(told.flat_map(stream::iter)).boxed()
    }

    fn roll<'a>(&'a self, known: &'a [String]) -> BoxFuture<'a, BusResult<Vec<WorkerRecord>>> {
        let kept = self.kept();
        let now = Instant::now();
        let known: BTreeSet<&String> = known.iter().collect();
        let told = kept.workers.iter().filter(|(id, kin)| kin.record.registered || known.contains(id));
        ready(Ok(told.map(|(_, kin)| kin.seen(now)).collect())).boxed()
    }

    fn remembers(&self) -> BoxFuture<'_, BusResult<bool>> {
        ready(Ok(self.kept().remembers)).boxed()
    }

    fn remember(&self) -> BoxFuture<'_, BusResult<()>> {
        self.kept().remembers = true;
        ready(Ok(())).boxed()
    }

    fn dispatch<'a>(&'a self, dispatch: &'a Dispatch) -> BoxFuture<'a, BusResult<u64>> {
        let mut kept = self.kept();
        let Some(kin) = kept.workers.get_mut(&dispatch.worker) else { return ready(Ok(0)).boxed() };
        // Another process with the same id must not run what this one was given, or it would run twice in one attempt.
        if dispatch.incarnation.is_some() && dispatch.incarnation != kin.record.started_at {
            return ready(Ok(0)).boxed();
        }
        kin.record.began = None;
        kin.attempt = dispatch.attempt.clone();
        kin.record.status = Some("RUNNING".to_owned());
        kin.record.last_seen = Some(stamp(dispatch.dispatched_at));
        ready(Ok(Self::say(kin, wire::dispatch(dispatch)))).boxed()
    }

    fn release<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, BusResult<()>> {
        if let Some(kin) = self.kept().workers.get_mut(&release.worker) {
            // Who is not connected asks again when it comes back.
            Self::say(kin, wire::released(release));
        }
        ready(Ok(())).boxed()
    }

    fn mark<'a>(&'a self, worker: &'a str, mark: Mark, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        if let Some(kin) = self.kept().workers.get_mut(worker) {
            let status: &'static str = mark.into();
            kin.record.status = Some(status.to_owned());
            kin.record.last_seen = Some(stamp(at));
        }
        ready(Ok(())).boxed()
    }

    /// One that is connected has said more than we know.
    fn restore<'a>(&'a self, record: &'a WorkerRecord) -> BoxFuture<'a, BusResult<()>> {
        let record = WorkerRecord { registered: true, heartbeat: None, ..record.clone() };
        let kin = |record| Kin { record, until: None, attempt: None, connection: None };
        self.kept().workers.entry(record.id.clone()).or_insert_with_key(|_| kin(record));
        ready(Ok(())).boxed()
    }

    fn remove<'a>(&'a self, worker: &'a str, _: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        self.forget(worker);
        ready(Ok(())).boxed()
    }
}
