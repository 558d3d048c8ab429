//! Calls whose callers do not wait (`Prefer: respond-async`). They are on the disk before they are promised, and are made by the next
//! process where this one did not get to it: at least once, with an idempotency key that stays the same.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{body::Bytes, http::HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::warn;

use super::{
    idempotency::{Claim, Claims, Task},
    routing::{Call, Routing, seconds},
};
use crate::{
    adapters::{
        calls::Calls,
        peers::targets::{Request, addressed},
    },
    droplets::{idempotency::Once, record::Record, retry::Verdict},
};

/// Calls that are promised and not yet made.
const MOST_QUEUED: usize = 10_000;
/// Of these at the same time; a droplet's own limit holds as well.
const AT_ONCE: usize = 256;
const CALLBACK_ATTEMPTS: u32 = 5;

/// A promised call, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Promised {
    pub id: String,
    pub droplet: String,
    pub method: String,
    pub path: String,
    pub payload: Option<Box<RawValue>>,
    pub idempotency_key: Option<String>,
    pub request_id: Option<String>,
    /// Where it goes, as its caller was told.
    #[serde(default)]
    pub target_url: String,
    /// Who is sent the record.
    pub callback_url: Option<String>,
    pub created_at: f64,
}

impl Promised {
    /// Nothing without a key of the caller's.
    fn once(&self) -> Option<Once> {
        let payload = self.payload.as_deref().map(RawValue::get);
        Some(Once::new(self.idempotency_key.as_deref()?, &self.droplet, &self.method, &self.path, payload))
    }
}

/// A promised call, and the claim on its key.
type Place = (Promised, Option<Claim>);

pub struct Queue {
    sender: mpsc::Sender<Place>,
    inbox: Mutex<Option<mpsc::Receiver<Place>>>,
    /// Of the process before.
    left: Mutex<Vec<Place>>,
}

impl Queue {
    /// What the process before has promised has its keys again before anybody can come with them. `now` in Unix seconds.
    pub fn new(left: Vec<String>, claims: &Claims, calls: &Calls, now: f64) -> Self {
        let read = |text: String| match serde_json::from_str::<Promised>(&text) {
            Ok(promised) => {
                let task = Task::Promised { id: promised.id.clone(), target_url: promised.target_url.clone() };
                let claim = promised.once().and_then(|once| claims.again(calls, once, now, task));
                Some((promised, claim))
            }
            Err(error) => {
                warn!(%error, "a call that was promised cannot be read");
                None
            }
        };
        let left = left.into_iter().filter_map(read).collect();
        let (sender, inbox) = mpsc::channel(MOST_QUEUED);
        Self { sender, inbox: Mutex::new(Some(inbox)), left: Mutex::new(left) }
    }
}

/// The record of a promised call, or nothing where it cannot be promised.
pub async fn promise(routing: &Routing, promised: Promised, claim: Option<Claim>) -> Option<Arc<Record>> {
    let place = routing.queue.sender.try_reserve().ok()?;
    let record = Arc::new(record(&promised));
    let text = serde_json::to_string(&promised).ok()?;
    if !routing.calls.queue(record.clone(), text).await {
        return None;
    }
    if let Some(claim) = &claim {
        claim.promised(&promised.id, &promised.target_url);
    }
    place.send((promised, claim));
    Some(record)
}

fn record(promised: &Promised) -> Record {
    Record {
        id: promised.id.clone(),
        droplet_name: promised.droplet.clone(),
        target_url: promised.target_url.clone(),
        method: promised.method.clone(),
        status: Verdict::Queued,
        response_status: None,
        response_body: None,
        retry_count: 0,
        created_at: promised.created_at,
        completed_at: None,
        duration_ms: None,
        error_message: None,
        error: None,
    }
}

/// Makes what is promised, until it is cancelled. What is cut off is made by the next process.
pub async fn run(routing: Arc<Routing>) {
    let inbox = routing.queue.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut inbox) = inbox else { return std::future::pending().await };
    let left = std::mem::take(&mut *routing.queue.left.lock().unwrap_or_else(PoisonError::into_inner));
    let mut under_way = tokio::task::JoinSet::new();
    for (promised, _) in &left {
        routing.calls.remember(Arc::new(record(promised)));
    }
    for place in left {
        begin(&routing, &mut under_way, place).await;
    }
    while let Some(place) = inbox.recv().await {
        begin(&routing, &mut under_way, place).await;
    }
}

async fn begin(routing: &Arc<Routing>, under_way: &mut tokio::task::JoinSet<()>, (promised, claim): Place) {
    while under_way.len() >= AT_ONCE || under_way.try_join_next().is_some() {
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
    }
    let routing = routing.clone();
    under_way.spawn(async move { make(&routing, promised, claim).await });
}

async fn make(routing: &Routing, promised: Promised, claim: Option<Claim>) {
    // Refused for now (a full queue, an open circuit, a hold) is not the end of a call that nobody waits for.
    for wait in [1u64, 2, 4, 8, 16, 32, 64, 128].map(Some).into_iter().chain([None]) {
        match attempt(routing, &promised, claim.as_ref()).await {
            Ok(()) => break,
            Err(after) => match wait {
                Some(seconds) => {
                    tokio::time::sleep(std::time::Duration::from_secs(seconds).max(after.1)).await;
                }
                None => give_up(routing, &promised, &after.0, claim.as_ref()).await,
            },
        }
    }
    // Who comes with the key is told what came of it, and not kept waiting for the callback.
    drop(claim);
    if let Some(callback) = &promised.callback_url
        && let Some(record) = routing.calls.get(&promised.id)
    {
        call_back(routing, callback, &record).await;
    }
}

type ComeAgain = (String, std::time::Duration);

async fn attempt(routing: &Routing, promised: &Promised, claim: Option<&Claim>) -> Result<(), ComeAgain> {
    let header = |text: &Option<String>| text.as_ref().and_then(|text| HeaderValue::from_str(text).ok());
    let known = match routing.directory.find(&promised.droplet).await {
        Ok(known) => known,
        Err(_) => {
            let why = format!("Droplet '{}' not found in registry", promised.droplet);
            return Err((why, std::time::Duration::ZERO));
        }
    };
    let key = promised.idempotency_key.clone().or_else(|| Some(promised.id.clone()));
    let call = Call {
        id: promised.id.clone(),
        droplet: promised.droplet.as_str().into(),
        method: promised.method.parse().unwrap_or(Method::GET),
        path: promised.path.clone(),
        payload: promised.payload.as_ref().map(|payload| Bytes::copy_from_slice(payload.get().as_bytes())),
        request_id: header(&promised.request_id),
        idempotency_key: header(&key),
    };
    match routing.route(&known, &call, claim).await {
        Ok(_) => Ok(()),
        Err(super::routing::Unrouted::Refused(refused)) => Err((refused.why, refused.retry_after)),
        Err(why @ super::routing::Unrouted::Misled(_)) => {
            give_up(routing, promised, &why.to_string(), claim).await;
            Ok(())
        }
    }
}

async fn give_up(routing: &Routing, promised: &Promised, why: &str, claim: Option<&Claim>) {
    let queued = routing.calls.get(&promised.id).map(|record| (*record).clone());
    let queued = queued.unwrap_or_else(|| record(promised));
    routing.give_up(&queued, why, claim).await;
}

/// Brings the record, five times at most; whoever missed it can ask for it.
async fn call_back(routing: &Routing, callback: &str, record: &Record) {
    let (Ok(url), Ok(body)) = (Url::parse(callback), serde_json::to_vec(record)) else { return };
    let Ok((uri, headers)) = addressed(&url) else { return };
    let body = Bytes::from(body);
    for attempt in 0..CALLBACK_ATTEMPTS {
        let request = Request {
            method: Method::POST,
            uri: uri.clone(),
            headers: headers.clone(),
            body: Some(body.clone()),
            timeout: std::time::Duration::from_secs(10),
            most_bytes: 64 * 1024,
        };
        match routing.targets.send(request).await {
            Ok(response) if response.status < 500 => return,
            Ok(_) | Err(_) => tokio::time::sleep(routing.directory.settings.first_wait * 2u32.pow(attempt)).await,
        }
    }
    warn!(task = record.id, at = seconds(routing.clock.now()), "nobody takes the result of a call");
}
