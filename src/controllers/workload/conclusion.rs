//! From what each variant comes to, to the conditions of the workload.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::reason::Reason;
use crate::{
    api::condition::{self, ConditionStatus, READY, RECONCILING, STALLED},
    runtime::events::Note,
};

/// What a variant comes to in this pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    pub kind: Kind,
    pub reason: Reason,
    pub message: String,
}

/// The worse, the later: the worst speaks for the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// As the spec says.
    AsWished,
    /// Cannot be told.
    Unknown,
    /// Not as the spec says, and nothing is to be done about it now.
    NotReady,
    /// On the way, or waiting for something that will come by itself.
    UnderWay,
    /// Somebody must change something.
    Stalled,
}

impl Conclusion {
    pub fn new(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into() }
    }
}

/// The conditions that follow, and a note when Ready tells something new. `conclusions` has the active variant first.
pub fn conditions(
    before: &[Condition],
    conclusions: &[Conclusion],
    generation: Option<i64>,
    now: Timestamp,
) -> (Vec<Condition>, Option<Note>) {
    let mut conditions = before.to_vec();
    let now = Time(now);
    // `max_by_key` prefers the last of equals and the active variant comes first.
    let Some(worst) = conclusions.iter().rev().max_by_key(|c| c.kind) else {
        return (conditions, None);
    };
    let ready = match worst.kind {
        Kind::AsWished => ConditionStatus::True,
        Kind::Unknown => ConditionStatus::Unknown,
        Kind::NotReady | Kind::UnderWay | Kind::Stalled => ConditionStatus::False,
    };
    let mut put = |type_, status, told: &Conclusion| {
        condition::set(&mut conditions, type_, status, told.reason.as_str(), told.message.clone(), generation, &now);
    };
    put(READY, ready, worst);
    let mut present_only_when_true = |type_, kind| match conclusions.iter().find(|c| c.kind == kind) {
        Some(told) => {
            condition::set(
                &mut conditions,
                type_,
                ConditionStatus::True,
                told.reason.as_str(),
                told.message.clone(),
                generation,
                &now,
            );
        }
        None => condition::clear(&mut conditions, type_),
    };
    present_only_when_true(RECONCILING, Kind::UnderWay);
    present_only_when_true(STALLED, Kind::Stalled);
    let note = news(before, worst);
    (conditions, note)
}

/// Transitions are told, states are not. What is under way is told by the actions themselves.
fn news(before: &[Condition], worst: &Conclusion) -> Option<Note> {
    let known = before.iter().find(|c| c.type_ == READY).is_some_and(|c| c.reason == worst.reason.as_str());
    if known {
        return None;
    }
    let (reason, message) = (worst.reason.as_str(), worst.message.clone());
    match (worst.kind, worst.reason) {
        (Kind::AsWished, _) => Some(Note::normal(reason, Reason::None.as_str(), message)),
        (Kind::UnderWay, Reason::CrashLoopBackOff | Reason::EngineError)
        | (Kind::Unknown, Reason::EngineUnreachable)
        | (Kind::NotReady | Kind::Stalled, _) => Some(Note::warning(reason, Reason::None.as_str(), message)),
        (Kind::UnderWay | Kind::Unknown, _) => None,
    }
}
