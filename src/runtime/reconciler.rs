//! One pass. [`Driver::reconcile_once`] and [`Driver::settle`] are all there is to it; the live loop ([`super::queue`])
//! and the simulator both call these two and nothing else.
//!
//! Expected flow:
//! 1. Get the object by name. Gone: nothing to do.
//! 2. Observe, decide.
//! 3. Put the finalizer on the object, if there will be effects and it is not there.
//! 4. Write the status by compare-and-swap on the version that was looked at. A conflict voids the pass: the plan spoke
//!    of another object.
//! 5. Tell the events, apply the stages of actions: one stage after another, the actions of one stage at once.
//! 6. Take the finalizer off when the plan says that nothing is left.
//!
//! Guarantees: no effect before the finalizer and the status are stored; no effect from a plan whose object has moved
//! on before it; a failed stage stops the later ones.
//!
//! Assumption: `apply` is idempotent, for a crash or a lost answer leads to the same action again.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::future;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt, core::object::HasStatus};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    clock::Clock,
    events::{Note, Recorder},
    metrics::{ActionLabels, FailedLabel, RuntimeMetrics},
    objects::{Object, Objects},
    settle::Settler,
};
use crate::registry::{ApiError, ObjectName, Reason};

/// Actions of one stage that run at the same time, at most.
const PARALLEL_ACTIONS: usize = 8;

/// What a controller is.
pub trait Reconciler: Send + Sync + Sized + 'static {
    type Object: Object + HasStatus<Status = Self::Status>;
    type Status: Clone + PartialEq + Serialize + Send + Sync + 'static;
    type Observed: Send + Sync;
    type Action: fmt::Debug + Send + Sync;

    /// Names the controller in metrics, logs and events.
    const NAME: &'static str;

    /// On the object while effects of ours may exist. None: this controller has no effects to undo.
    const FINALIZER: Option<&'static str>;

    /// Looks. Changes nothing in reality; an `Err` means that not even "unknown" can be said.
    fn observe(&self, object: &Self::Object) -> impl Future<Output = Result<Self::Observed, PassError>> + Send;

    /// What follows. Pure: no I/O, clock, randomness or logging.
    fn decide(object: &Self::Object, observed: &Self::Observed, now: Timestamp) -> Plan<Self::Status, Self::Action>;

    /// Brings one action about. Twice is once.
    fn apply(&self, object: &Self::Object, action: &Self::Action)
    -> impl Future<Output = Result<(), PassError>> + Send;

    /// The metric label of an action.
    fn action_name(action: &Self::Action) -> &'static str;

    /// The objects whose passes may come out differently now that `changed` has changed (it needs not be named itself).
    fn related(changed: &Self::Object, all: &[Arc<Self::Object>]) -> Vec<ObjectName> {
        let (_, _) = (changed, all);
        Vec::new()
    }

    /// The object is gone from the store: forget what is kept in memory about it.
    fn forget(&self, name: &ObjectName) {
        let _ = name;
    }
}

/// What a pass is going to do. A value: it can be shown, compared and stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<Status, Action> {
    /// What was seen. None leaves the status as it is, for objects that are not ours to speak of.
    pub status: Option<Status>,
    pub finalizer: Finalizer,
    /// Stages in order; the actions of one stage do not depend on one another.
    pub stages: Vec<Vec<Action>>,
    /// Told once the status is stored.
    pub events: Vec<Note>,
    pub requeue: Requeue,
}

impl<Status, Action> Plan<Status, Action> {
    /// Nothing to say and nothing to do.
    pub fn leave() -> Self {
        Self {
            status: None,
            finalizer: Finalizer::Leave,
            stages: Vec::new(),
            events: Vec::new(),
            requeue: Requeue::OnChange,
        }
    }

    pub fn acts(&self) -> bool {
        self.stages.iter().any(|stage| !stage.is_empty())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    Leave,
    /// Must be there before the first effect.
    Held,
    /// Nothing of ours is left: the object may go.
    Released,
}

/// When to look again if nothing wakes the object before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    OnChange,
    After(Duration),
    /// The world did not answer: after the object's backoff, which grows with every such pass in a row.
    Backoff,
}

/// How a pass ended. [`Driver::settle`] turns it into the next wake-up.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// No such object.
    Gone,
    /// Looked, nothing to do.
    Settled(Requeue),
    /// Effects were brought about: look afresh.
    Acted,
    /// The object moved on during the pass, which is void.
    Conflict,
    Failed(PassError),
}

#[derive(Debug, thiserror::Error)]
pub enum PassError {
    #[error("cannot {doing}")]
    Objects { doing: &'static str, source: ApiError },
    /// Trying again may help.
    #[error("cannot {doing}")]
    Effect { doing: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// Trying again will not help until somebody changes something.
    #[error("{0}")]
    Terminal(String),
}

/// An error and its causes in one line: for log lines and condition messages.
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A reconciler with what it runs on.
pub struct Driver<R: Reconciler, O: Objects> {
    pub reconciler: Arc<R>,
    pub objects: O,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub metrics: RuntimeMetrics,
    pub settler: Settler,
}

impl<R: Reconciler, O: Objects> Driver<R, O> {
    pub fn new(
        reconciler: Arc<R>,
        objects: O,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        metrics: RuntimeMetrics,
        seed: u64,
    ) -> Self {
        let settler = Settler::new(R::NAME, metrics.clone(), seed);
        Self { reconciler, objects, recorder, clock, metrics, settler }
    }

    /// One pass over one object.
    pub async fn reconcile_once(&self, name: &ObjectName) -> Outcome {
        let begun = Instant::now();
        let outcome = match self.pass(name).await {
            Ok(outcome) => outcome,
            Err(PassError::Objects { source, .. }) if source.reason == Reason::Conflict => Outcome::Conflict,
            // Deleted while we looked: the next pass finds it gone.
            Err(PassError::Objects { source, .. }) if source.reason == Reason::NotFound => Outcome::Conflict,
            Err(error) => Outcome::Failed(error),
        };
        debug!(controller = R::NAME, namespace = name.namespace, object = name.name, took = ?begun.elapsed(), "pass ended");
        outcome
    }

    /// Handles and counts the end of a pass; answers when to look again. None: when something wakes it.
    pub fn settle(&self, name: &ObjectName, outcome: Outcome) -> Option<Duration> {
        if let Outcome::Gone = outcome {
            self.reconciler.forget(name);
        }
        self.settler.settle(name, outcome)
    }

    async fn pass(&self, name: &ObjectName) -> Result<Outcome, PassError> {
        let Some(object) = self.objects.get::<R::Object>(name).await.map_err(objects("read the object"))? else {
            return Ok(Outcome::Gone);
        };
        let observed = self.reconciler.observe(&object).await?;
        let plan = R::decide(&object, &observed, self.clock.now());

        let mut object = object;
        if plan.finalizer == Finalizer::Held && plan.acts() {
            object = self.hold_finalizer(object).await?;
        }
        object = self.write_status(object, &plan).await?;
        let regarding = reference(&*object);
        for note in plan.events.iter().cloned() {
            self.recorder.record(&regarding, note);
        }
        for stage in plan.stages.iter().filter(|stage| !stage.is_empty()) {
            self.apply_stage(&object, stage).await?;
        }
        if plan.finalizer == Finalizer::Released {
            self.release_finalizer(&object).await?;
            return Ok(Outcome::Settled(Requeue::OnChange));
        }
        Ok(if plan.acts() { Outcome::Acted } else { Outcome::Settled(plan.requeue) })
    }

    async fn write_status(
        &self,
        object: Arc<R::Object>,
        plan: &Plan<R::Status, R::Action>,
    ) -> Result<Arc<R::Object>, PassError> {
        let Some(status) = &plan.status else { return Ok(object) };
        if object.status() == Some(status) {
            return Ok(object);
        }
        let mut wanted = (*object).clone();
        *wanted.status_mut() = Some(status.clone());
        self.objects.update_status(wanted).await.map_err(objects("write the status"))
    }

    /// The actions of one stage all run to their end; the first error is the stage's.
    async fn apply_stage(&self, object: &R::Object, stage: &[R::Action]) -> Result<(), PassError> {
        let mut result = Ok(());
        for some in stage.chunks(PARALLEL_ACTIONS) {
            let mut running = Vec::with_capacity(some.len());
            for action in some {
                running.push(self.apply_action(object, action));
            }
            for ended in future::join_all(running).await {
                result = result.and(ended);
            }
        }
        result
    }

    async fn apply_action(&self, object: &R::Object, action: &R::Action) -> Result<(), PassError> {
        let result = self.reconciler.apply(object, action).await;
        let failed = if result.is_ok() { FailedLabel::No } else { FailedLabel::Yes };
        let labels = ActionLabels { controller: R::NAME, action: R::action_name(action), failed };
        self.metrics.actions.get_or_create(&labels).inc();
        let (namespace, object) = (object.namespace(), object.name_any());
        // Its name only: what an action carries (a container's environment) may be secret.
        let action = R::action_name(action);
        match &result {
            Ok(()) => info!(controller = R::NAME, namespace, object, action, "action applied"),
            Err(error) => warn!(controller = R::NAME, namespace, object, action, error = chain(error), "action failed"),
        }
        result
    }

    async fn hold_finalizer(&self, object: Arc<R::Object>) -> Result<Arc<R::Object>, PassError> {
        let Some(ours) = R::FINALIZER else { return Ok(object) };
        let mut finalizers = object.finalizers().to_vec();
        // Upstream allows no new finalizer on an object that is being deleted.
        if finalizers.iter().any(|f| f == ours) || object.meta().deletion_timestamp.is_some() {
            return Ok(object);
        }
        finalizers.push(ours.to_owned());
        self.objects.set_finalizers(&*object, finalizers).await.map_err(objects("add the finalizer"))
    }

    async fn release_finalizer(&self, object: &R::Object) -> Result<(), PassError> {
        let Some(ours) = R::FINALIZER else { return Ok(()) };
        if !object.finalizers().iter().any(|f| f == ours) {
            return Ok(());
        }
        let others = object.finalizers().iter().filter(|f| *f != ours).cloned().collect();
        self.objects.set_finalizers(object, others).await.map_err(objects("remove the finalizer"))?;
        Ok(())
    }
}

fn objects(doing: &'static str) -> impl FnOnce(ApiError) -> PassError {
    move |source| PassError::Objects { doing, source }
}

/// How events and logs name an object.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

/// The name a pass is told.
pub fn name_of<K: Resource>(object: &K) -> ObjectName {
    ObjectName { namespace: object.meta().namespace.clone(), name: object.name_any() }
}
