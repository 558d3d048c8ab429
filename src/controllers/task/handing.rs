//! Tasks are handed to workers: chosen, recorded, published, in this order.

use std::collections::BTreeSet;

use futures::future;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{
    Tasks,
    assign::assign,
    cards::Right,
    silence::Reminder,
    transition,
    view::{Hand, Key, key_of, wire_id},
};
use crate::{
    adapters::bus::{Dispatch, ShardOf},
    api::task::{Task, TaskPhase, TaskStatus},
    mloc::{
        destination,
        needs::Offer,
        placeholders::{self, Context, Whole},
    },
    runtime::objects::Objects,
};

/// On a document's metadata: `typed` keeps the type of a value that is nothing but a placeholder.
const PLACEHOLDERS: &str = "gaia.dev/placeholders";

impl<O: Objects> Tasks<O> {
    /// Gives what seeks to who is free; tells the others why they wait.
    pub(super) async fn hand_out(&mut self) {
        if self.view.queue().is_empty() {
            return;
        }
        let now = self.clock.now();
        let (mut changes, mut claims, mut useless) = (Vec::new(), Vec::new(), Vec::new());
        // They go where their cards are, or nowhere.
        let mut barred = BTreeSet::new();
        // And who gets a worker, or a claim on a card there.
        let mut chosen = BTreeSet::new();
        {
            let mut idle = self.view.idle();
            let queue = self.view.queue();
            for key in self.view.cards.claimants() {
                let Some(seeker) = queue.get(key).filter(|seeker| seeker.needs.gpu.is_some()) else { continue };
                let Some(task) = self.view.task(key) else { continue };
                match self.view.cards.right(key) {
                    Right::Free => continue,
                    Right::Waits(why) => {
                        let status = transition::awaits_gpu(task, &why, now);
                        changes.extend((task.status.as_ref() != Some(&status)).then(|| (key.clone(), status)));
                    }
                    // Who holds cards goes before all others: the cards do nothing meanwhile.
                    Right::Holds(cards) => {
                        let fits = |offer: Offer<'_>| {
                            self.view.cards.has(offer.hardware, &cards) && seeker.needs.missing(offer).is_none()
                        };
                        if let Some(place) = idle.iter().position(|idle| fits(idle.offer)) {
                            let worker = idle.remove(place).id;
                            changes.push((key.clone(), self.handed(task, worker, now)));
                        } else if !self.view.live().any(|hand| fits(hand.offer())) {
                            useless.push(key.clone());
                        }
                    }
                }
                barred.insert(key.clone());
            }
            let demand = queue.len() - barred.len();
            let pairs = assign(queue, &barred, &idle, &self.view.running(), demand, &self.reality.settings.weights);
            for (key, place) in pairs {
                let Some((seeker, task)) = queue.get(key).zip(self.view.task(key)) else { continue };
                chosen.insert(key.clone());
                let worker = &idle[place];
                match self.view.cards.needed(task, seeker.needs.gpu.as_ref(), worker.offer.hardware) {
                    Some(claim) => claims.push((key.clone(), claim)),
                    None => changes.push((key.clone(), self.handed(task, worker.id, now))),
                }
            }
        }
        for (fits, keys) in self.view.take_untold() {
            for key in keys.into_iter().filter(|key| !barred.contains(key) && !chosen.contains(key)) {
                let Some(task) = self.view.task(&key).filter(|task| !transition::is_told(task, &fits)) else {
                    continue;
                };
                let status = transition::unserved(task, &fits, now);
                changes.push((key, status));
            }
        }
        for key in useless {
            self.view.cards.give_up(&key);
            self.retries.insert(key, now);
        }
        self.claim(claims).await;
        let written = self.write(changes).await;
        let dispatched: Vec<Key> = written
            .into_iter()
            .filter(|key| self.view.task(key).is_some_and(|task| transition::holder(task).is_some()))
            .collect();
        for key in &dispatched {
            self.view.seek_no_more(key);
            self.reminders.insert(key.clone(), Reminder::first(now));
        }
        self.publish(&dispatched).await;
        // Their own writes are no news.
        for key in &dispatched {
            self.dirty.remove(key);
        }
    }

    fn handed(&self, task: &Task, worker: &str, now: Timestamp) -> TaskStatus {
        let hand = self.view.worker(worker);
        let incarnation = hand.and_then(|hand| hand.incarnation.as_deref());
        match hand.is_some_and(Hand::is_ours) {
            true => transition::dispatched_with_token(task, worker, incarnation, now),
            false => transition::dispatched(task, worker, incarnation, now),
        }
    }

    /// Publishes tasks whose dispatch is recorded. What cannot be published now is when its worker's silence is noticed.
    pub(super) async fn publish(&mut self, keys: &[Key]) {
        let this = &*self;
        let publishing = keys.iter().filter_map(|key| {
            let task = this.view.task(key)?.clone();
            Some(async move {
                let Some(order) = this.order(&task).await else { return };
                match this.reality.bus.dispatch(&order).await {
                    Ok(listeners) => debug!(task = order.task, worker = order.worker, listeners, "dispatched"),
                    Err(error) => {
                        warn!(task = order.task, worker = order.worker, %error, "a dispatch was not published");
                    }
                }
            })
        });
        future::join_all(publishing).await;
        if !keys.is_empty() {
            self.look_soon();
        }
    }

    async fn order(&self, task: &Task) -> Option<Dispatch> {
        let status = task.status.as_ref().filter(|status| status.phase == TaskPhase::Dispatched)?;
        let key = key_of(task);
        let shard = task.spec.shard.as_ref().map(|shard| ShardOf {
            parent: wire_id(&(key.0.clone(), shard.parent.clone())),
            index: shard.index,
            total: shard.total,
        });
        let mut document = self.document(task, &key).await?;
        if shard.is_some() {
            self.with_pass(&mut document, &wire_id(&key));
        }
        let ours = status.attempt_token.is_some();
        let base = self.reality.base_url.as_deref();
        let delivers_elsewhere =
            ours && destination::of(&document).is_some_and(|to| !destination::is_ours(&to.url, base));
        Some(Dispatch {
            task: wire_id(&key),
            worker: status.assigned_worker.clone()?,
            document,
            delivers_elsewhere,
            gpus: self.view.cards.held(&key),
            dispatched_at: status.dispatched_at.as_ref()?.0,
            shard,
            attempt: status.attempt_token.clone(),
            incarnation: status.attempt_token.as_ref().and(status.assigned_incarnation.clone()),
        })
    }

    /// A result whose URLs of artifacts need no token for a while.
    fn opened(&self, mut result: Value, task: &str) -> Value {
        if let Some(signer) = &self.reality.signer {
            sign(&mut result, &|url| signer.sign(url, task, self.clock.now()));
        }
        result
    }

    /// What the worker gets: of a task that depends on others with their results in it. None: not now, for one of them cannot
    /// be read.
    pub(super) async fn document(&self, task: &Task, key: &Key) -> Option<Value> {
        let document = serde_json::to_value(&task.spec.document).ok()?;
        if task.spec.depends_on.is_empty() {
            return Some(document);
        }
        let mut context = Context::new();
        for name in &task.spec.depends_on {
            let on = (key.0.clone(), name.clone());
            let stored = self.reality.results.load(&wire_id(&on)).await;
            let stored = stored.inspect_err(|error| warn!(task = on.1, %error, "a result cannot be read")).ok()?;
            let read = stored.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            let read = read.map(|read| self.opened(read, &wire_id(&on)));
            if let Some((read, upstream)) = read.zip(self.view.task(&on)) {
                let name = &upstream.spec.document.metadata.name;
                let name = placeholders::name_of(upstream.spec.graph_node_name.as_deref(), name);
                context.insert(name.to_owned(), placeholders::wrapped(read));
            }
        }
        let typed =
            document.pointer("/metadata/annotations").and_then(|all| all.get(PLACEHOLDERS)?.as_str()) == Some("typed");
        let mut document = placeholders::resolve(&document, &context, if typed { Whole::Typed } else { Whole::Text });
        document["spec"]["_upstreamResults"] = json!(context);
        Some(document)
    }
}

/// In the place of every text that `signed` knows.
fn sign(value: &mut Value, signed: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(url) = signed(text) {
                *text = url;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| sign(item, signed)),
        Value::Object(fields) => fields.values_mut().for_each(|field| sign(field, signed)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
