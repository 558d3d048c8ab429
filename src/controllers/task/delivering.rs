//! Results of divided tasks go to whom their documents name, when that is somebody else.
//!
//! A worker delivers the result of a whole task itself. Of a divided one it has a part, which must come to us: so the parts' documents
//! name us, by the URL where workers reach us, with a token that is good for this one thing. What the parts come to is then delivered
//! from here, before the task is done. A process that ends in between begins again, so it may arrive twice, and not never; whoever
//! does not take it at all costs an event and not the task.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{LOOK, Tasks, transition, view::Key};
use crate::{
    adapters::outbox::Letter,
    api::task::Task,
    mloc::{
        destination::{self, Destination},
        shards,
    },
    runtime::{events::Note, objects::Objects, reconciler::reference},
};

/// On their way at once.
const MOST: usize = 16;
const NOT_DELIVERED: &str = "NotDelivered";

/// What became of one that went out.
pub(super) struct Sent {
    key: Key,
    whole: Value,
    outcome: Result<(), String>,
}

/// Results on their way.
#[derive(Default)]
pub(super) struct Outgoing {
    keys: BTreeSet<Key>,
    /// They end with the loop.
    sending: JoinSet<Sent>,
}

impl Outgoing {
    pub fn has(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// The next that has arrived, or will not. Never ready while there is none. Cancel-safe.
    pub async fn next(&mut self) -> Sent {
        match self.sending.join_next().await {
            Some(Ok(sent)) => sent,
            // Nobody aborts them: it is a mistake in the program, and ends it as any other.
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => std::future::pending().await,
        }
    }
}

impl<O: Objects> Tasks<O> {
    /// The documents of parts. Their results come to us, whoever gets the whole's.
    pub(super) fn parts(&self, document: &Value, total: u32) -> Option<Vec<Value>> {
        let mut parts = shards::divide(document, total)?;
        let base = self.reality.base_url.as_deref();
        let ours = destination::of(document).is_some_and(|to| destination::is_ours(&to.url, base));
        if let Some(base) = base.filter(|_| !ours) {
            parts.iter_mut().for_each(|part| destination::to_us(part, base));
        }
        Some(parts)
    }

    /// Parts that deliver to others would leave nothing to make a whole of.
    pub(super) fn may_be_gathered(&self, document: &Value) -> bool {
        let base = self.reality.base_url.as_deref();
        base.is_some() || destination::of(document).is_none_or(|to| destination::is_ours(&to.url, base))
    }

    /// A part's document as a worker gets it that delivers it to us: with a token for that, where one is asked for.
    pub(super) fn with_pass(&self, document: &mut Value, task: &str) {
        let Some((signer, base)) = self.reality.signer.as_ref().zip(self.reality.base_url.as_deref()) else { return };
        let to = destination::of(document).filter(|to| destination::is_ours(&to.url, Some(base)));
        if to.is_some_and(|to| !to.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))) {
            let pass = format!("Bearer {}", signer.pass(task, self.clock.now()));
            let headers = &mut document["spec"]["output"]["destination"]["headers"];
            if !headers.is_object() {
                *headers = json!({});
            }
            headers["Authorization"] = json!(pass);
        }
    }

    /// Who else is to have the result of a divided task. None: that cannot be told now.
    pub(super) async fn others(&self, task: &Task, key: &Key) -> Option<Option<Destination>> {
        let document = self.document(task, key).await?;
        let base = self.reality.base_url.as_deref();
        Some(destination::of(&document).filter(|to| !destination::is_ours(&to.url, base)))
    }

    pub(super) fn send(&mut self, key: &Key, whole: Value, to: Destination) {
        if self.outgoing.keys.len() >= MOST {
            self.retries.insert(key.clone(), self.clock.now() + LOOK);
            return;
        }
        self.outgoing.keys.insert(key.clone());
        let (outbox, key) = (self.reality.outbox.clone(), key.clone());
        self.outgoing.sending.spawn(async move {
            let Destination { url, method, headers, timeout, retries, backoff } = &to;
            let letter = Letter { url, method, headers, timeout: *timeout, retries: *retries, backoff: *backoff };
            let outcome = outbox.send(&letter, &whole).await;
            Sent { key, whole, outcome }
        });
    }

    /// It has arrived, or nobody takes it: either way the task is done.
    pub(super) async fn sent(&mut self, sent: Sent) {
        let Sent { key, whole, outcome } = sent;
        self.outgoing.keys.remove(&key);
        // Cancelled meanwhile, or deleted.
        let Some(task) = self.view.task(&key).cloned().filter(|task| transition::parts_of(task).is_some()) else {
            return;
        };
        match &outcome {
            Ok(()) => info!(task = key.1, "the result of a divided task is delivered"),
            Err(why) => {
                warn!(task = key.1, why, "the result of a divided task is not delivered");
                let message = format!("its result was not delivered: {why}");
                self.recorder.record(&reference(&*task), Note::warning(NOT_DELIVERED, NOT_DELIVERED, message));
            }
        }
        self.keep_whole(&task, &key, &whole, outcome.err().as_deref()).await;
    }
}
