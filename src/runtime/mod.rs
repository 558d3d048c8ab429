//! How work is scheduled. One reconciler shape for every kind:
//!
//! `observe` (reads only) → `decide(object, observed, now) -> Plan { status, actions, requeue }` (pure) →
//! `apply(action)` (idempotent). The status is written by compare-and-swap *before* acting and speaks only of what was
//! observed; after acting the object is looked at afresh, and that pass may say Ready.
//!
//! A pass is told a name and nothing else, so that the common case and the case after a restart cannot differ: whatever
//! woke it (a watch, Docker, a timer, start-up), it begins by looking. Notifications make it fast, periodic requeues
//! make it right.

pub mod clock;
pub mod objects;
