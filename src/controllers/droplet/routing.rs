//! One call to a droplet, from the name to the record.
//!
//! 1. A place at the [`Gate`].
//! 2. Held there while the droplet's workload changes hands (`hold`): who is held counts, so that not everybody can be.
//! 3. The circuit.
//! 4. Attempts as [`Plan`] says.
//! 5. The record into the history and the figures; what came of a call under a key ([`idempotency`]) beside it.
//!
//! Guarantee: what ended is recorded before its caller is answered, whatever the caller does meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue},
};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::value::RawValue;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    directory::{Directory, Known},
    figures::Figures,
    gate::{Gate, Refused},
    idempotency::{Claim, Claims},
};
use crate::{
    adapters::{
        calls::Calls,
        peers::targets::{Fault, Request, Response, Room, Targets},
    },
    api::droplet::DropletHold,
    droplets::{
        address::{Destination, Misled},
        body,
        idempotency::Made,
        record::{self, Record, UdcError},
        retry::{Ended, Next, Plan, Verdict, message},
        tally::Tally,
    },
    registry::ObjectName,
    runtime::clock::Clock,
};

/// Droplets whose gates are remembered.
const MOST_GATES: usize = 10_000;

#[derive(Debug, Clone)]
pub struct Call {
    pub id: String,
    /// As the caller wrote it.
    pub droplet: Arc<str>,
    pub method: Method,
    pub path: String,
    /// JSON.
    pub payload: Option<Bytes>,
    /// `X-Request-ID` of the caller.
    pub request_id: Option<HeaderValue>,
    pub idempotency_key: Option<HeaderValue>,
}

/// What a caller is told.
#[derive(Debug)]
pub struct Reply {
    pub record: Arc<Record>,
    /// All of it, where the record keeps a part.
    pub body: Option<Box<RawValue>>,
    /// For as long as the body is there.
    pub room: Room,
}

/// Why nothing was sent. None of these is recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unrouted {
    #[error("{0}")]
    Misled(#[from] Misled),
    #[error("{}", .0.why)]
    Refused(Refused),
}

/// Whoever routes. One for the process.
pub struct Routing {
    pub directory: Arc<Directory>,
    pub targets: Targets,
    pub calls: Calls,
    pub clock: Arc<dyn Clock>,
    pub figures: Figures,
    pub started_at: Timestamp,
    pub tally: Mutex<Tally>,
    /// Workloads that give a card away, or get one.
    pub held: watch::Sender<Vec<ObjectName>>,
    /// Reachable, by the names' keys; absent: nobody looked.
    pub reachable: Mutex<HashMap<String, bool>>,
    /// Calls that nobody waits for.
    pub queue: super::later::Queue,
    /// Calls under a key that are under way.
    pub claims: Claims,
    /// Calls that go on when their callers leave.
    pub under_way: TaskTracker,
    /// The process ends, and has no more time for them.
    pub stopping: CancellationToken,
    gates: Mutex<HashMap<Arc<str>, Arc<Gate>>>,
}

impl Routing {
    pub fn new(
        directory: Directory,
        targets: Targets,
        calls: Calls,
        clock: Arc<dyn Clock>,
        queued: Vec<String>,
    ) -> Self {
        let claims = Claims::default();
        let queue = super::later::Queue::new(queued, &claims, &calls, seconds(clock.now()));
        Self {
            directory: Arc::new(directory),
            targets,
            calls,
            started_at: clock.now(),
            clock,
            claims,
            queue,
            under_way: TaskTracker::new(),
            stopping: CancellationToken::new(),
            figures: Figures::default(),
            tally: Mutex::default(),
            held: watch::Sender::new(Vec::new()),
            reachable: Mutex::default(),
            gates: Mutex::default(),
        }
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reachable(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.reachable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Known droplets that answered the last probe.
    pub fn count_reachable(&self) -> usize {
        let (view, reachable) = (self.directory.view(), self.reachable());
        view.droplets.iter().filter(|known| reachable.get(&known.entry.key()) == Some(&true)).count()
    }

    pub fn gate(&self, known: &Known) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= MOST_GATES {
            // Of droplets that are gone, or that nobody calls now.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        let Some(gate) = gates.get_mut(&known.key) else {
            let figures = Arc::new(self.figures.of(&known.key));
            let gate = Arc::new(Gate::new(&known.limits, figures));
            gates.insert(known.key.clone(), gate.clone());
            return gate;
        };
        if let Some(resized) = gate.resized(&known.limits) {
            *gate = Arc::new(resized);
        }
        gate.clone()
    }

    /// Runs a call to its end. `claim` is the one on its key, where it is to be made once.
    pub async fn route(&self, known: &Known, call: &Call, claim: Option<&Claim>) -> Result<Reply, Unrouted> {
        let destination = known.join(&call.path)?;
        let gate = self.gate(known);
        let timeout = self.timeout(known);
        let held = known.hold.as_ref().map_or(0, |hold| hold.max_seconds);
        let patience = timeout + Duration::from_secs(held.into());
        let _place = gate.enter(&known.limits, patience).await.map_err(Unrouted::Refused)?;
        self.wait_for_card(known).await.map_err(Unrouted::Refused)?;
        gate.pass(&known.limits, self.clock.now()).map_err(Unrouted::Refused)?;
        let (begun, created_at) = (Instant::now(), self.clock.now());
        let tried = self.attempts(known, call, &destination).await;
        gate.ended(tried.well(), &known.limits, self.clock.now());
        let took = begun.elapsed();
        let reply = self.recorded(call, destination, tried, took, created_at, timeout);
        gate.figures.count(&reply.record, took);
        self.keep(&reply, claim, self.directory.settings.durable_history).await;
        Ok(reply)
    }

    /// As [`route`](Self::route), but ends with the process: then it is recorded that nobody knows what came of it. That is no result
    /// for its key.
    pub async fn route_while_running(
        &self,
        known: &Known,
        call: &Call,
        claim: Option<&Claim>,
    ) -> Result<Reply, Unrouted> {
        let (begun, created_at) = (Instant::now(), self.clock.now());
        // Cancel-safe: a call that is cut off is recorded below.
        tokio::select! {
            biased;
            ended = self.route(known, call, claim) => ended,
            () = self.stopping.cancelled() => {
                let destination = known.join(&call.path)?;
                let last = Ended::Hopeless("the orchestrator stopped before the call had ended".to_owned());
                let tried = Tried { verdict: Verdict::Error, failed: 0, answer: None, last };
                let took = begun.elapsed();
                let reply = self.recorded(call, destination, tried, took, created_at, self.timeout(known));
                self.gate(known).figures.count(&reply.record, took);
                self.keep(&reply, None, false).await;
                Ok(reply)
            }
        }
    }

    fn timeout(&self, known: &Known) -> Duration {
        let own = known.limits.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        own.unwrap_or(self.directory.settings.task_timeout)
    }

    async fn attempts(&self, known: &Known, call: &Call, destination: &Destination) -> Tried {
        let settings = &self.directory.settings;
        let attempts = known.limits.max_attempts.unwrap_or(settings.attempts);
        if attempts == 0 {
            let last = Ended::Hopeless("TASK_MAX_RETRIES is 0: nothing is tried".to_owned());
            return Tried { verdict: Verdict::Error, failed: 0, answer: None, last };
        }
        let plan = Plan { attempts, first_wait: settings.first_wait };
        let mut attempt = 1;
        loop {
            let answer = self.targets.send(self.request(known, call, destination)).await;
            let last = ended(&answer);
            match plan.next(attempt, &last) {
                Next::Final(verdict) => return Tried { verdict, failed: attempt - 1, answer: answer.ok(), last },
                Next::Exhausted(verdict) => return Tried { verdict, failed: attempt, answer: None, last },
                Next::Again { after } => tokio::time::sleep(after).await,
            }
            attempt += 1;
        }
    }

    fn request(&self, known: &Known, call: &Call, destination: &Destination) -> Request {
        let mut headers = HeaderMap::new();
        let given = [("x-request-id", &call.request_id), ("idempotency-key", &call.idempotency_key)];
        for (name, value) in given {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        Request {
            method: call.method.clone(),
            uri: destination.uri.clone(),
            headers,
            body: call.payload.clone(),
            timeout: self.timeout(known),
            most_bytes: self.directory.settings.most_bytes,
        }
    }

    fn recorded(
        &self,
        call: &Call,
        destination: Destination,
        tried: Tried,
        took: Duration,
        created_at: Timestamp,
        timeout: Duration,
    ) -> Reply {
        let without_answer = tried.answer.is_none();
        let response_status = tried.answer.as_ref().map(|answer| answer.status);
        let taken = tried.answer.map(|answer| (body::read(answer.body), answer.room));
        let (body, room) = taken.unwrap_or_default();
        let mut record = Record {
            id: call.id.clone(),
            droplet_name: call.droplet.to_string(),
            target_url: destination.shown,
            method: call.method.to_string(),
            status: tried.verdict,
            response_status,
            response_body: body.as_deref().map(body::kept),
            retry_count: tried.failed,
            created_at: seconds(created_at),
            completed_at: Some(seconds(created_at) + took.as_secs_f64()),
            duration_ms: Some(took.as_millis().try_into().unwrap_or(u64::MAX)),
            error_message: without_answer.then(|| message(&tried.last)),
            error: None,
        };
        if without_answer {
            record.error = Some(record::error(&record, &tried.last, timeout.as_secs()));
            tracing::warn!(
                droplet = record.droplet_name,
                task = record.id,
                attempts = record.retry_count,
                error = record.error_message,
                "a call to a droplet came to nothing"
            );
        }
        self.tally().count(&record);
        Reply { record: Arc::new(record), body, room }
    }

    async fn keep(&self, reply: &Reply, claim: Option<&Claim>, durable: bool) {
        let made = claim.map(|claim| (claim.once, Made::new(reply.record.clone(), reply.body.as_deref())));
        self.calls.put(reply.record.clone(), made, durable).await;
    }

    /// Keeps what came of a call that was taken and could not be sent.
    pub async fn give_up(&self, queued: &Record, why: &str, claim: Option<&Claim>) {
        let record = Record {
            status: Verdict::Error,
            completed_at: Some(seconds(self.clock.now())),
            error_message: Some(format!("UnexpectedError: {why}")),
            error: Some(UdcError::new("INVALID_REQUEST", "Failed to execute task", serde_json::json!({"error": why}))),
            ..queued.clone()
        };
        self.keep(&Reply { record: Arc::new(record), body: None, room: Room::default() }, claim, true).await;
    }

    /// Ready at once unless the droplet's workload is changing hands.
    async fn wait_for_card(&self, known: &Known) -> Result<(), Refused> {
        let (Some(hold), Some(object)) = (&known.hold, &known.object) else { return Ok(()) };
        let workload = ObjectName { namespace: object.namespace.clone(), name: hold.workload.clone() };
        let mut held = self.held.subscribe();
        let free = held.wait_for(|held| !held.contains(&workload));
        match tokio::time::timeout(Duration::from_secs(hold.max_seconds.into()), free).await {
            // The sender is ours.
            Ok(_) => Ok(()),
            Err(_) => Err(still_held(hold)),
        }
    }
}

fn still_held(hold: &DropletHold) -> Refused {
    let why = format!("its workload {} has been changing its card for {} s", hold.workload, hold.max_seconds);
    Refused { why, retry_after: Duration::from_secs(5) }
}

struct Tried {
    verdict: Verdict,
    /// Attempts that failed.
    failed: u32,
    answer: Option<Response>,
    last: Ended,
}

impl Tried {
    /// The droplet is there, whatever it thinks of the request.
    fn well(&self) -> bool {
        self.answer.is_some()
    }
}

fn ended(answer: &Result<Response, Fault>) -> Ended {
    match answer {
        Ok(response) => Ended::Answered(response.status),
        Err(Fault::Timeout(what)) => Ended::TimedOut(what.clone()),
        Err(Fault::Broken(what)) => Ended::Broken(what.clone()),
        Err(Fault::Hopeless(what)) => Ended::Hopeless(what.clone()),
    }
}

/// Unix seconds.
pub fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}
