//! Telling people what happened, from anywhere, without waiting and without failing. Writing is
//! [`super::event_writer`]'s.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

use super::{clock::Clock, metrics::RuntimeMetrics};

/// Notes that wait for the writer. Beyond it they are dropped and counted: events are a service, not a record.
const MOST_WAITING: usize = 1024;

/// What to tell. `reason` and `action` are PascalCase and come from an enum of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub type_: EventType,
    /// Why: the reason a condition would carry.
    pub reason: &'static str,
    /// What was done about it; same vocabulary.
    pub action: &'static str,
    /// For people. Must not carry secrets.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr)]
pub enum EventType {
    Normal,
    Warning,
}

impl Note {
    pub fn normal(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self { type_: EventType::Normal, reason, action, message: message.into() }
    }

    pub fn warning(reason: &'static str, action: &'static str, message: impl Into<String>) -> Self {
        Self { type_: EventType::Warning, reason, action, message: message.into() }
    }
}

/// A note with what it is about and when.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub regarding: ObjectReference,
    pub note: Note,
    pub at: Timestamp,
}

/// Hands notes to the writer. Clones share one bounded queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
    clock: Arc<dyn Clock>,
    metrics: RuntimeMetrics,
}

impl Recorder {
    /// The recorder, and the end the [writer](super::event_writer::EventWriter) (or a test) reads.
    pub fn new(clock: Arc<dyn Clock>, metrics: RuntimeMetrics) -> (Self, mpsc::Receiver<Recorded>) {
        let (queue, inbox) = mpsc::channel(MOST_WAITING);
        (Self { queue, clock, metrics }, inbox)
    }

    /// Returns at once. A note that finds the queue full, or no writer, is dropped and counted.
    pub fn record(&self, regarding: &ObjectReference, note: Note) {
        let recorded = Recorded { regarding: regarding.clone(), note, at: self.clock.now() };
        if self.queue.try_send(recorded).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}
