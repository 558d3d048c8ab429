//! Calls under a key are made once: whoever comes with the same one meanwhile waits for the first, and is told the same.
//!
//! 1. A [`Claim`] on the key, while nobody else has one and no result is kept.
//! 2. The call. Its result is kept by `Calls::put` before the claim is given up.
//! 3. The claim is dropped, and who waited looks again: there is the result; or there is none, because nothing was sent or the
//!    first one took its call with it, and the next one makes the call.
//!
//! Not promised: a call that a crash cuts off is made again when its caller comes again. The droplet hears the same key both times.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    adapters::calls::Calls,
    droplets::idempotency::{Before, Fingerprint, Made, Once},
};

/// Longer than any call of sane settings takes; then whoever waits is told to come again.
const PATIENCE: Duration = Duration::from_secs(600);

/// Keys whose calls are under way. Clones share them.
#[derive(Clone, Default)]
pub struct Claims {
    under_way: Arc<Mutex<HashMap<Fingerprint, UnderWay>>>,
}

struct UnderWay {
    payload: Fingerprint,
    task: Task,
    /// Changes with `task`, and is closed when the key is free.
    changes: watch::Receiver<()>,
}

/// Whose call it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Its caller waits.
    Awaited,
    /// Its caller has been told this id, and where it goes.
    Promised { id: String, target_url: String },
}

/// The right to make the call of a key, until it is dropped.
pub struct Claim {
    pub once: Once,
    claims: Claims,
    /// Dropped when the key is free.
    changes: watch::Sender<()>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.under_way().remove(&self.once.scope);
    }
}

/// Why somebody with a key does not make the call.
pub enum Known {
    Made(Made),
    /// It is not made yet.
    Promised {
        id: String,
        target_url: String,
    },
    /// The key was used with another payload.
    OtherPayload,
    /// It takes longer than anybody waits.
    StillUnderWay,
}

enum Taken {
    Known(Known),
    /// By whom, and what tells when that changes.
    By(Task, watch::Receiver<()>),
}

impl Claims {
    /// The right to make the call; a call under way is waited for. Who is told an id at once (`promising`) waits for no promised one.
    pub async fn wait(&self, calls: &Calls, once: Once, now: f64, promising: bool) -> Result<Claim, Known> {
        let turns = async {
            loop {
                match self.claim(calls, once, now, Task::Awaited) {
                    Ok(claim) => return Ok(claim),
                    Err(Taken::Known(known)) => return Err(known),
                    Err(Taken::By(Task::Promised { id, target_url }, _)) if promising => {
                        return Err(Known::Promised { id, target_url });
                    }
                    // Closed or changed: one looks again.
                    Err(Taken::By(_, mut changes)) => changes.changed().await.unwrap_or_default(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, turns).await.unwrap_or(Err(Known::StillUnderWay))
    }

    fn claim(&self, calls: &Calls, once: Once, now: f64, task: Task) -> Result<Claim, Taken> {
        let mut under_way = self.under_way();
        if let Some(first) = under_way.get(&once.scope) {
            if first.payload != once.payload {
                return Err(Taken::Known(Known::OtherPayload));
            }
            let mut changes = first.changes.clone();
            changes.mark_unchanged();
            return Err(Taken::By(first.task.clone(), changes));
        }
        // Results are kept before their claims are dropped, so there is no moment between the two looks.
        match calls.made(&once, now) {
            Before::Made(made) => Err(Taken::Known(Known::Made(made))),
            Before::OtherPayload => Err(Taken::Known(Known::OtherPayload)),
            Before::Never => {
                let (sender, changes) = watch::channel(());
                under_way.insert(once.scope, UnderWay { payload: once.payload, task, changes });
                Ok(Claim { once, claims: self.clone(), changes: sender })
            }
        }
    }

    /// A claim for a call that the process before has promised. None: somebody has it, or it was made.
    pub fn again(&self, calls: &Calls, once: Once, now: f64, task: Task) -> Option<Claim> {
        self.claim(calls, once, now, task).ok()
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Fingerprint, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// From now on others who promise are told this id.
    pub fn promised(&self, id: &str, target_url: &str) {
        if let Some(under_way) = self.claims.under_way().get_mut(&self.once.scope) {
            under_way.task = Task::Promised { id: id.to_owned(), target_url: target_url.to_owned() };
            self.changes.send_replace(());
        }
    }
}
