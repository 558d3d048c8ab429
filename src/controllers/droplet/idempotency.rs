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

/// What somebody with a key is to do.
pub enum Turn {
    /// Make the call.
    Mine(Claim),
    /// Nothing: it was made.
    Made(Made),
    /// Nothing: it was promised, and is not made yet.
    Promised { id: String, target_url: String },
    /// Be told that the key was used with another payload.
    OtherPayload,
    /// Come again.
    StillUnderWay,
}

impl Claims {
    /// As [`turn`](Self::turn), and waits for a call under way. Who is told an id at once (`promising`) waits for no promised one.
    pub async fn wait(&self, calls: &Calls, once: Once, now: f64, promising: bool) -> Turn {
        let turns = async {
            loop {
                match self.turn(calls, once, now, Task::Awaited) {
                    Ok(turn) => return turn,
                    Err((Task::Promised { id, target_url }, _)) if promising => {
                        return Turn::Promised { id, target_url };
                    }
                    // Closed or changed: one looks again.
                    Err((_, mut changes)) => changes.changed().await.unwrap_or_default(),
                }
            }
        };
        tokio::time::timeout(PATIENCE, turns).await.unwrap_or(Turn::StillUnderWay)
    }

    /// The error is who has the key now.
    fn turn(&self, calls: &Calls, once: Once, now: f64, task: Task) -> Result<Turn, (Task, watch::Receiver<()>)> {
        let mut under_way = self.under_way();
        if let Some(first) = under_way.get(&once.scope) {
            return match first.payload == once.payload {
                true => {
                    let mut changes = first.changes.clone();
                    changes.mark_unchanged();
                    Err((first.task.clone(), changes))
                }
                false => Ok(Turn::OtherPayload),
            };
        }
        // Results are kept before their claims are dropped, so there is no moment between the two looks.
        match calls.made(&once, now) {
            Before::Made(made) => Ok(Turn::Made(made)),
            Before::OtherPayload => Ok(Turn::OtherPayload),
            Before::Never => {
                let (sender, changes) = watch::channel(());
                under_way.insert(once.scope, UnderWay { payload: once.payload, task, changes });
                Ok(Turn::Mine(Claim { once, claims: self.clone(), changes: sender }))
            }
        }
    }

    /// A claim for a call that the process before has promised. None: somebody has it, or it was made.
    pub fn again(&self, calls: &Calls, once: Once, now: f64, task: Task) -> Option<Claim> {
        match self.turn(calls, once, now, task) {
            Ok(Turn::Mine(claim)) => Some(claim),
            Ok(_) | Err(_) => None,
        }
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
