//! Who can be routed to: the registry's list and the droplets that files or people declare, as one view.
//!
//! The registry is asked by one at a time; who comes meanwhile waits for that answer. A declared droplet takes the place of a listed
//! one with its name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use axum::body::Bytes;
use jiff::Timestamp;
use reqwest::{Method, Url};
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::Settings;
use crate::{
    adapters::peers::{
        listing_file::ListingFile,
        targets::{Fault, Request, Response, Targets, addressed},
    },
    api::droplet::{Droplet, DropletHold, DropletLimits},
    droplets::{
        address::{Destination, Endpoint, Misled},
        cache::{Cache, CacheStatus},
        listing::{self, Entry},
        names::key,
    },
    registry::ObjectName,
    runtime::{clock::Clock, reconciler::name_of},
};

/// Of the registry's list.
const MOST_LISTED_BYTES: usize = 16 * 1024 * 1024;
/// Unknown names have the registry asked, so often at most.
const UNKNOWN_EVERY: Duration = Duration::from_secs(1);
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);

/// A droplet as requests find it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub entry: Entry,
    /// Of its name ([`key`]).
    pub key: Arc<str>,
    endpoint: Result<Endpoint, Misled>,
    /// Its object, where there is one.
    pub object: Option<ObjectName>,
    /// Files or people say where it is, whatever the registry lists.
    pub declared: bool,
    pub limits: DropletLimits,
    pub hold: Option<DropletHold>,
}

impl Known {
    fn new(entry: Entry) -> Self {
        Self {
            key: entry.key().into(),
            endpoint: Endpoint::parse(&entry.endpoint),
            entry,
            object: None,
            declared: false,
            limits: DropletLimits::default(),
            hold: None,
        }
    }

    /// Where a path leads.
    pub fn join(&self, path: &str) -> Result<Destination, Misled> {
        self.endpoint.as_ref().map_err(Clone::clone)?.join(path)
    }
}

/// All droplets at one moment, in the registry's order; declared ones behind.
#[derive(Debug, Default)]
pub struct View {
    pub droplets: Vec<Arc<Known>>,
    by_name: HashMap<String, usize>,
}

impl View {
    /// In any case; of several the first.
    pub fn find(&self, name: &str) -> Option<&Arc<Known>> {
        self.droplets.get(*self.by_name.get(&key(name))?)
    }

    pub fn names(&self) -> Vec<&str> {
        self.droplets.iter().map(|known| known.entry.name.as_str()).collect()
    }
}

/// Where a view came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServedFrom {
    Registry,
    Cache,
}

/// What is told of the list.
#[derive(Debug, Clone)]
pub struct Served {
    pub view: Arc<View>,
    pub status: CacheStatus,
    pub from: ServedFrom,
}

/// Figures of the syncs since the process began.
#[derive(Debug, Clone, Default)]
pub struct Syncs {
    pub success: u64,
    pub error: u64,
    /// The last attempt, whatever it came to.
    pub last: Option<Timestamp>,
    pub last_took: Duration,
    pub last_error: Option<String>,
}

struct State {
    cache: Cache,
    declared: Vec<Arc<Droplet>>,
    syncs: Syncs,
    registered: bool,
    asked_for_unknown: Option<Instant>,
}

pub struct Directory {
    pub settings: Settings,
    targets: Targets,
    file: Option<ListingFile>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    view: RwLock<Arc<View>>,
    /// Whoever holds it asks the registry.
    flight: tokio::sync::Mutex<()>,
    /// Counts changes of the view.
    changes: watch::Sender<u64>,
}

impl Directory {
    /// With the list that a process before has left in `file`.
    pub fn new(settings: Settings, targets: Targets, file: Option<ListingFile>, clock: Arc<dyn Clock>) -> Self {
        let cache = match file.as_ref().map(ListingFile::read) {
            Some(Ok(Some(cache))) => {
                info!(droplets = cache.droplets.len(), "the list of droplets was read from disk");
                cache
            }
            Some(Err(error)) => {
                warn!(%error, "the list of droplets on disk cannot be read, and is passed over");
                Cache::default()
            }
            Some(Ok(None)) | None => Cache::default(),
        };
        let state =
            State { cache, declared: Vec::new(), syncs: Syncs::default(), registered: false, asked_for_unknown: None };
        let directory = Self {
            settings,
            targets,
            file,
            clock,
            state: Mutex::new(state),
            view: RwLock::default(),
            flight: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
        };
        directory.show();
        directory
    }

    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn registered(&self) -> bool {
        self.state().registered
    }

    pub fn syncs(&self) -> Syncs {
        self.state().syncs.clone()
    }

    /// The registry's list alone, once there is one: from this process or from the disk.
    pub fn listed(&self) -> Option<Vec<Entry>> {
        let state = self.state();
        let known = state.cache.synced_at.is_some() || !state.cache.droplets.is_empty();
        known.then(|| state.cache.droplets.clone())
    }

    pub fn cache(&self) -> (CacheStatus, i64, Option<Timestamp>) {
        let (now, state) = (self.clock.now(), self.state());
        let status = state.cache.status(self.settings.cache_expiry, now);
        (status, state.cache.age_seconds(now), state.cache.synced_at)
    }

    /// The droplets; the registry is asked first where the list is not fresh.
    pub async fn serve(&self) -> Served {
        if self.cache().0 == CacheStatus::Active {
            return Served { view: self.view(), status: CacheStatus::Active, from: ServedFrom::Cache };
        }
        let synced = self.sync().await;
        let (status, _, synced_at) = self.cache();
        let view = self.view();
        let (status, from) = match (synced, status) {
            // Also an empty list is one.
            (Ok(()), CacheStatus::Active | CacheStatus::Unavailable) => (CacheStatus::Active, ServedFrom::Registry),
            (_, CacheStatus::Active) => (CacheStatus::Active, ServedFrom::Cache),
            _ if view.droplets.is_empty() && synced_at.is_none() => (CacheStatus::Unavailable, ServedFrom::Cache),
            _ => (CacheStatus::Stale, ServedFrom::Cache),
        };
        Served { view, status, from }
    }

    /// A droplet by its name; an unknown one has the registry asked once. The error holds the names there are.
    pub async fn find(&self, name: &str) -> Result<Arc<Known>, Vec<String>> {
        // Whatever the registry would say: not even an old list, or none, is a reason to ask it.
        if let Some(known) = self.view().find(name).filter(|known| known.declared) {
            return Ok(known.clone());
        }
        // What is known is not waited for, unless it is old.
        let served = self.serve().await;
        if let Some(known) = served.view.find(name) {
            return Ok(known.clone());
        }
        let mut view = served.view;
        if served.from == ServedFrom::Cache && self.may_ask_for_unknown() && self.sync().await.is_ok() {
            view = self.view();
        }
        match view.find(name) {
            Some(known) => Ok(known.clone()),
            None => Err(view.names().into_iter().map(str::to_owned).collect()),
        }
    }

    fn may_ask_for_unknown(&self) -> bool {
        let mut state = self.state();
        let may = state.asked_for_unknown.is_none_or(|last| last.elapsed() >= UNKNOWN_EVERY);
        if may {
            state.asked_for_unknown = Some(Instant::now());
        }
        may
    }

    /// Asks the registry, or waits for who is asking it. The error says why the list is as it was.
    pub async fn sync(&self) -> Result<(), String> {
        let attempts = |syncs: &Syncs| syncs.success + syncs.error;
        let before = attempts(&self.state().syncs);
        let _flight = self.flight.lock().await;
        {
            let syncs = &self.state().syncs;
            if attempts(syncs) != before {
                return syncs.last_error.clone().map_or(Ok(()), Err);
            }
        }
        let begun = Instant::now();
        let answer = self.listing().await;
        self.settle(answer, begun.elapsed())
    }

    async fn listing(&self) -> Result<listing::Listing, String> {
        let answer = self.ask(Method::GET, "/droplets", None, self.settings.registry_timeout).await;
        let answer = answer.map_err(|fault| fault.to_string())?;
        match answer.status {
            200 => listing::parse(&answer.body),
            status => Err(format!("the registry answers {status}")),
        }
    }

    fn settle(&self, answer: Result<listing::Listing, String>, took: Duration) -> Result<(), String> {
        let now = self.clock.now();
        let mut written = None;
        let result = {
            let mut state = self.state();
            state.syncs.last = Some(now);
            state.syncs.last_took = took;
            match answer {
                Ok(listing) => {
                    for why in &listing.skipped {
                        warn!(why, "the registry lists something that is no droplet");
                    }
                    state.syncs.success += 1;
                    let recovered = state.syncs.last_error.take().is_some() || state.syncs.success == 1;
                    if recovered {
                        info!(droplets = listing.entries.len(), "the registry answers");
                    }
                    let cache = std::mem::take(&mut state.cache);
                    state.cache = cache.synced(listing.entries, self.settings.cache_expiry, now);
                    written = Some(state.cache.clone());
                    Ok(())
                }
                Err(why) => {
                    state.syncs.error += 1;
                    if state.syncs.last_error.as_ref() != Some(&why) {
                        warn!(error = why, "the list of droplets could not be renewed");
                    }
                    state.syncs.last_error = Some(why.clone());
                    Err(why)
                }
            }
        };
        if let Some(cache) = written {
            self.show();
            // Beside whoever waits.
            if let Some(file) = &self.file {
                file.keep(cache);
            }
        }
        result
    }

    /// What files and people say.
    pub fn declare(&self, droplets: Vec<Arc<Droplet>>) {
        self.state().declared = droplets;
        self.show();
    }

    fn show(&self) {
        let view = {
            let state = self.state();
            view(&state.cache.droplets, &state.declared)
        };
        let mut shown = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if shown.droplets != view.droplets {
            *shown = Arc::new(view);
            drop(shown);
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Announces us. `Ok(true)`: the registry knows us now.
    pub async fn register(&self) -> Result<(), String> {
        let settings = &self.settings;
        let body = json!({"name": super::NAME, "id": super::ID, "url": settings.own_url, "version": super::VERSION});
        let body = Some(Bytes::from(body.to_string()));
        let answer = self.ask(Method::POST, "/register", body, REGISTRATION_TIMEOUT).await;
        match answer.map_err(|fault| fault.to_string())?.status {
            // 409: it knew us already.
            200 | 201 | 409 => {
                self.state().registered = true;
                Ok(())
            }
            status => Err(format!("the registry answers {status}")),
        }
    }

    /// One request to the registry.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Response, Fault> {
        let url = format!("{}{path}", self.settings.registry_url.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| Fault::Hopeless(format!("{url}: {error}")))?;
        let (uri, headers) = addressed(&url)?;
        let request = Request { method, uri, headers, body, timeout, most_bytes: MOST_LISTED_BYTES };
        self.targets.ask_registry(request).await
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects that mirror the registry say how a listed droplet is treated; declared ones, what it is.
fn view(listed: &[Entry], objects: &[Arc<Droplet>]) -> View {
    let mut by_name: HashMap<String, &Arc<Droplet>> = HashMap::new();
    for object in objects {
        let known = by_name.entry(key(super::objects::display_name(object))).or_insert(object);
        // What somebody declares counts before what mirrors the registry.
        if super::objects::is_mirror(known) && !super::objects::is_mirror(object) {
            *known = object;
        }
    }
    let mut view = View::default();
    let mut push = |known: Known| {
        let place = view.droplets.len();
        if let std::collections::hash_map::Entry::Vacant(vacant) = view.by_name.entry(known.key.to_string()) {
            vacant.insert(place);
        }
        view.droplets.push(Arc::new(known));
    };
    for entry in listed {
        match by_name.remove(&entry.key()) {
            Some(object) => {
                let mut entry = entry.clone();
                if !super::objects::is_mirror(object) {
                    entry.endpoint.clone_from(&object.spec.endpoint);
                }
                push(known(entry, object));
            }
            None => push(Known::new(entry.clone())),
        }
    }
    let mut declared: Vec<_> = by_name.into_values().filter(|object| !super::objects::is_mirror(object)).collect();
    declared.sort_by_key(|object| (object.metadata.namespace.clone(), object.metadata.name.clone()));
    for object in declared {
        push(known(super::objects::entry(object), object));
    }
    view
}

fn known(entry: Entry, object: &Droplet) -> Known {
    Known {
        object: Some(name_of(object)),
        declared: !super::objects::is_mirror(object),
        limits: object.spec.limits.clone(),
        hold: object.spec.hold.clone(),
        ..Known::new(entry)
    }
}
