//! How work is scheduled. One reconciler shape for every kind:
//!
//! `observe` (reads only) → `decide(object, observed, now) -> Plan { status, actions, requeue }` (pure) →
//! `apply(action)` (idempotent). The status is written by compare-and-swap *before* acting and speaks only of what was
//! observed; after acting the object is looked at afresh, and that pass may say Ready.
//!
//! **An activation takes no input.** A pass is told a name and nothing else, so that the common case and the case after
//! a restart cannot differ: whatever woke it (a watch, Docker, a timer, start-up), it begins by looking. A hint that is
//! lost, doubled or late therefore costs time, never correctness.
//!
//! **Notification and periodic scan.** Notifications make a controller fast; the requeue that ends every pass makes it
//! right. Nothing may work only because a notification arrived.
//!
//! **One code path.** Start-up, the quiet day and the recovery after a crash run the same pass. There is no "resync"
//! mode and no recorded phase to resume from: the next step follows from what is seen.
//!
//! | file | question |
//! |---|---|
//! | [`reconciler`] | what is a pass, and what follows from how it ended |
//! | [`queue`] | who runs the passes, one at a time per object |
//! | [`controller`] | what starts a controller: its queue, and tasks that follow other kinds |
//! | [`wakeups`], [`follow`] | how anything else asks for a pass |
//! | [`backoff`] | how long to wait after failures |
//! | [`objects`], [`registry_objects`] | how controllers see objects |
//! | [`events`], [`event_writer`] | how people are told |
//! | [`supervisor`] | who owns the tasks, and in which order they end |
//! | [`metrics`] | what is counted |
//! | [`clock`] | what time it is |

pub mod backoff;
pub mod clock;
pub mod controller;
pub mod event_writer;
pub mod events;
pub mod follow;
pub mod metrics;
pub mod objects;
pub mod queue;
pub mod reconciler;
pub mod registry_objects;
pub mod settle;
pub mod supervisor;
pub mod wakeups;
