//! Tasks are handed to workers: chosen, recorded, published, in this order.

use std::collections::HashMap;

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
        if self.view.seeking.is_empty() {
            return;
        }
        let now = self.clock.now();
        let (mut changes, mut claims, mut useless) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut idle = self.view.idle();
            let mut seekers = Vec::new();
            for (key, seeker) in self.view.seekers() {
                let right = seeker.needs.gpu.as_ref().map_or(Right::Free, |_| self.view.cards.right(key));
                let Some(task) = self.view.task(key) else { continue };
                match right {
                    Right::Free => seekers.push((key, seeker)),
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
            }
            let all: Vec<_> = seekers.iter().map(|(_, seeker)| *seeker).collect();
            let pairs = assign(&all, &idle, &self.view.running(), all.len(), &self.reality.settings.weights);
            let chosen: HashMap<usize, usize> = pairs.into_iter().collect();
            let mut fits = HashMap::new();
            for (n, (key, seeker)) in seekers.iter().enumerate() {
                let Some(task) = self.view.task(key) else { continue };
                if let Some(worker) = chosen.get(&n).map(|place| &idle[*place]) {
                    if let Some(claim) = self.view.cards.needed(task, seeker.needs.gpu.as_ref(), worker.offer.hardware)
                    {
                        claims.push(((*key).clone(), claim));
                        continue;
                    }
                    changes.push(((*key).clone(), self.handed(task, worker.id, now)));
                    continue;
                }
                let fitting = fits.entry(seeker.needs).or_insert_with(|| self.view.fits(seeker.needs));
                if !transition::is_told(task, fitting) {
                    changes.push(((*key).clone(), transition::unserved(task, fitting, now)));
                }
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
            self.view.seeking.remove(key);
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
        Some(Dispatch {
            task: wire_id(&key),
            worker: status.assigned_worker.clone()?,
            document,
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
