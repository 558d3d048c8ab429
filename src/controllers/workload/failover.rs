//! Who answers while live does not do well: the candidate, if the spec lets it (`failover`). Pure.
//!
//! The candidate takes over as soon as it is known that live cannot answer: a probe has failed as often as its threshold
//! says, or the container does not run. Live gets its name back only after it has been healthy for a while, or else a
//! live that comes and goes would take the name along each time. What is not known moves nothing, and no container is
//! started or stopped by any of this. Who answers now is read off the aliases, so a new process goes on where the old
//! one ended.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{
    decide, names,
    observed::{EngineView, Health, VariantSeen, choose},
    reason::Reason,
    status,
    variant::Wish,
};
use crate::{
    adapters::containers::{Container, ContainerState},
    api::workload::{Probes, Variant, VariantHealth, Workload},
    runtime::events::Note,
};

/// Live must have been healthy for at least so long before it answers again.
const AT_LEAST: SignedDuration = SignedDuration::from_secs(10);

/// Who is to answer under the workload's name.
#[derive(Debug, Clone, PartialEq)]
pub struct Answering {
    pub variant: Variant,
    /// Time alone changes the answer then.
    pub wake_at: Option<Timestamp>,
    /// For when it is brought about: another than who answers now.
    pub note: Option<Note>,
}

/// How one variant does, as far as answering goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fitness {
    Down,
    /// Runs, and does not answer (yet).
    Unwell,
    Unknown,
    Well {
        since: Timestamp,
    },
}

pub fn decide(workload: &Workload, view: &EngineView, now: Timestamp) -> Answering {
    let wished = decide::active(workload);
    let nothing_to_choose = Answering { variant: wished, wake_at: None, note: None };
    if workload.spec.failover != Some(true) || wished != Variant::Live {
        return nothing_to_choose;
    }
    // An adopted candidate has no alias of ours to answer with.
    let Wish::Inline { running, .. } = decide::wish(workload, Variant::Candidate) else { return nothing_to_choose };
    let [live, candidate] = Variant::ALL.map(|variant| fitness(workload, variant, view.of(variant), now));
    let candidate = if running { candidate } else { Fitness::Down };
    choose_between(answers_now(workload, view), live, candidate, settled_after(workload.spec.probes.as_ref()), now)
}

fn choose_between(
    answers_now: Variant,
    live: Fitness,
    candidate: Fitness,
    settled_after: SignedDuration,
    now: Timestamp,
) -> Answering {
    let stay = |variant| Answering { variant, wake_at: None, note: None };
    match (answers_now, live, candidate) {
        (Variant::Live, Fitness::Down | Fitness::Unwell, Fitness::Well { .. }) => {
            let why = if live == Fitness::Down { "live does not run" } else { "live is not healthy" };
            switch(Variant::Candidate, Reason::FailedOver, format!("{why}: the candidate answers"))
        }
        (Variant::Live, _, _) => stay(Variant::Live),
        // Neither answers well, and live may.
        (Variant::Candidate, Fitness::Well { .. }, Fitness::Down | Fitness::Unwell) => switch(
            Variant::Live,
            Reason::FailedBack,
            "live is healthy and the candidate is not: live answers".to_owned(),
        ),
        (Variant::Candidate, Fitness::Well { since }, Fitness::Well { .. } | Fitness::Unknown) => {
            let settled_at = since.saturating_add(settled_after).unwrap_or(Timestamp::MAX);
            if now < settled_at {
                return Answering { wake_at: Some(settled_at), ..stay(Variant::Candidate) };
            }
            let message = format!("live has been healthy for {} s: it answers again", settled_after.as_secs());
            switch(Variant::Live, Reason::FailedBack, message)
        }
        (Variant::Candidate, Fitness::Down | Fitness::Unwell | Fitness::Unknown, Fitness::Down) => {
            switch(Variant::Live, Reason::FailedBack, "the candidate no longer runs: live is to answer".to_owned())
        }
        (Variant::Candidate, Fitness::Down | Fitness::Unwell | Fitness::Unknown, _) => stay(Variant::Candidate),
    }
}

fn switch(to: Variant, reason: Reason, message: String) -> Answering {
    let note = match to {
        Variant::Live => Note::normal(reason.as_str(), Reason::Attaching.as_str(), message),
        Variant::Candidate => Note::warning(reason.as_str(), Reason::Attaching.as_str(), message),
    };
    Answering { variant: to, wake_at: None, note: Some(note) }
}

fn fitness(workload: &Workload, variant: Variant, seen: &VariantSeen, now: Timestamp) -> Fitness {
    let Some(container) = kept(workload, variant, seen).filter(|c| c.state == ContainerState::Running) else {
        return Fitness::Down;
    };
    let Health { health, liveness_failed } = seen.health;
    match health {
        _ if liveness_failed => Fitness::Unwell,
        VariantHealth::Starting | VariantHealth::Unhealthy => Fitness::Unwell,
        VariantHealth::Unknown => Fitness::Unknown,
        VariantHealth::Healthy => {
            let since = status::healthy_since(container, seen.health, decide::before(workload, variant), now);
            Fitness::Well { since: since.map_or(now, |since| since.0) }
        }
    }
}

fn kept<'a>(workload: &Workload, variant: Variant, seen: &'a VariantSeen) -> Option<&'a Container> {
    match decide::wish(workload, variant) {
        Wish::Absent => None,
        Wish::Adopt { .. } => seen.named.as_ref(),
        Wish::Inline { spec, .. } => {
            choose(&seen.ours, Some(&spec.hash())).or(seen.composed.as_ref().map(|composed| &composed.container))
        }
    }
}

/// The candidate, if it carries the workload's name; live in every other case.
fn answers_now(workload: &Workload, view: &EngineView) -> Variant {
    let name = workload.name_any();
    let network = names::network(workload.metadata.namespace.as_deref().unwrap_or("default"));
    let aliased = kept(workload, Variant::Candidate, &view.candidate)
        .is_some_and(|c| c.attachments.iter().any(|a| a.network == network && a.aliases.contains(&name)));
    if aliased { Variant::Candidate } else { Variant::Live }
}

/// As long as it would take the probe to notice that live is not well after all.
fn settled_after(probes: Option<&Probes>) -> SignedDuration {
    let decisive = probes.and_then(|p| p.readiness.as_ref().or(p.liveness.as_ref()));
    let noticed = decisive.map_or(0, |p| i64::from(p.period_seconds) * i64::from(p.failure_threshold));
    AT_LEAST.max(SignedDuration::from_secs(noticed))
}
