//! What can be said about the variants of workloads, in the words of `gaia.sh`. Pure.

use kube::ResourceExt;

use crate::api::{
    condition,
    workload::{Variant, VariantHealth, VariantState, VariantStatus, Workload},
};

/// Reason of a workload whose card is somebody else's.
const WAITING_FOR_GPU: &str = "WaitingForGpu";

/// How a variant stands towards what is wished of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As wished.
    There,
    /// On the way, and where.
    Going(String),
    /// It will not start before it has its card, however long one waits.
    WaitsForCard(String),
    /// Somebody must change something first.
    Stuck(String),
}

pub fn has(workload: &Workload, variant: Variant) -> bool {
    match variant {
        Variant::Live => workload.spec.live.is_some(),
        Variant::Candidate => workload.spec.candidate.is_some(),
    }
}

/// Whether it is wished to run.
pub fn wished(workload: &Workload, variant: Variant) -> bool {
    match variant {
        Variant::Live => workload.spec.live.as_ref().is_some_and(|live| live.running),
        Variant::Candidate => workload.spec.candidate.as_ref().is_some_and(|candidate| candidate.running),
    }
}

pub fn seen(workload: &Workload, variant: Variant) -> VariantStatus {
    let status = workload.status.as_ref();
    let found = match variant {
        Variant::Live => status.and_then(|status| status.live.clone()),
        Variant::Candidate => status.and_then(|status| status.candidate.clone()),
    };
    found.unwrap_or_default()
}

/// Of `gaia live|candidate start|stop`.
pub fn standing(workload: &Workload, variant: Variant, running: bool) -> Standing {
    if !is_current(workload) {
        return Standing::Going("asked".to_owned());
    }
    let seen = seen(workload, variant);
    let (reason, message) = ready(workload);
    let told = || match message.is_empty() {
        true => reason.to_owned(),
        false => format!("{reason}: {message}"),
    };
    let conditions = workload.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let there = match (running, seen.state) {
        (true, VariantState::Running) => {
            seen.health == VariantHealth::Healthy || condition::is_true(conditions, condition::READY)
        }
        (false, VariantState::Absent | VariantState::Created | VariantState::Exited) => true,
        (true | false, _) => false,
    };
    match there {
        true => Standing::There,
        false if condition::is_true(conditions, condition::STALLED) => Standing::Stuck(told()),
        false if running && reason == WAITING_FOR_GPU && seen.state != VariantState::Running => {
            Standing::WaitsForCard(told())
        }
        false => Standing::Going(told()),
    }
}

/// The controller has seen the spec as it is now.
pub fn is_current(workload: &Workload) -> bool {
    workload.status.as_ref().is_some_and(|status| status.observed_generation == workload.metadata.generation)
}

/// Reason and message of `Ready`.
fn ready(workload: &Workload) -> (&str, &str) {
    let ready = workload.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == condition::READY);
    ready.map_or(("", ""), |ready| (ready.reason.as_str(), ready.message.as_str()))
}

/// How a line of the overview begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Healthy,
    Running,
    Stopped,
}

impl Mark {
    fn of(status: &VariantStatus) -> Self {
        match (status.state, status.health) {
            (VariantState::Running, VariantHealth::Healthy) => Mark::Healthy,
            (VariantState::Running, _) => Mark::Running,
            _ => Mark::Stopped,
        }
    }

    pub fn text(self, color: bool) -> String {
        let (word, code) = match self {
            Mark::Healthy => ("[healthy]", 32),
            Mark::Running => ("[running]", 33),
            Mark::Stopped => ("[stopped]", 31),
        };
        if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// `  [healthy] gaia-core :6415`, with a note when it is not as it is wished to be.
pub fn line(workload: &Workload, variant: Variant, color: bool) -> String {
    let seen = seen(workload, variant);
    let mark = match (seen.state, ready(workload).0) {
        // A container without any probe is as healthy as it can be.
        (VariantState::Running, "Running") if seen.health == VariantHealth::Unknown => Mark::Healthy,
        _ => Mark::of(&seen),
    };
    let mut line = format!("  {} {}", mark.text(color), shown_name(workload, variant));
    if mark != Mark::Stopped {
        line.extend(ports(workload, variant).iter().map(|port| format!(" :{port}")));
    }
    if workload.status.as_ref().and_then(|status| status.active) == Some(variant) && variant == Variant::Candidate {
        line.push_str(" (answers)");
    }
    let note = match seen.state {
        VariantState::Unknown => "the engine has not told".to_owned(),
        _ => match standing(workload, variant, wished(workload, variant)) {
            Standing::There => String::new(),
            Standing::Going(why) | Standing::WaitsForCard(why) | Standing::Stuck(why) => why,
        },
    };
    if !note.is_empty() {
        line.push_str(&format!("  {note}"));
    }
    line.push('\n');
    line
}

/// As GAIA names its containers.
pub fn shown_name(workload: &Workload, variant: Variant) -> String {
    match variant {
        Variant::Live => workload.name_any(),
        Variant::Candidate => format!("{}-candidate", workload.name_any()),
    }
}

fn ports(workload: &Workload, variant: Variant) -> Vec<u16> {
    let container = match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    };
    container.iter().flat_map(|container| &container.ports).filter_map(|port| port.host_port).collect()
}

/// The workload that a word means: its name, or what follows `gaia-` in it.
pub fn named<'a>(workloads: &'a [Workload], word: &str) -> Option<&'a Workload> {
    let called = |name: &str| workloads.iter().find(|workload| workload.name_any() == name);
    called(word).or_else(|| called(&format!("gaia-{word}")))
}

#[cfg(test)]
pub mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A workload of both variants; `live` and `candidate` are their states.
    pub fn workload(name: &str, live: Value, candidate: Value, reason: &str) -> Workload {
        let container = |port| json!({"image": "x", "ports": [{"containerPort": 80, "hostPort": port}]});
        let ready = reason == "Running";
        let mut conditions = vec![json!({"type": "Ready", "status": if ready { "True" } else { "False" },
            "reason": reason, "message": if ready { "" } else { "told" },
            "lastTransitionTime": "2026-11-20T10:00:00Z"})];
        if reason == "ImageNotFound" {
            conditions.push(json!({"type": "Stalled", "status": "True", "reason": reason, "message": "",
                "lastTransitionTime": "2026-11-20T10:00:00Z"}));
        }
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "generation": 2},
            "spec": {"live": {"running": true, "container": container(6415)},
                "candidate": {"running": candidate["state"] == "Running", "container": container(6416)}},
            "status": {"observedGeneration": 2, "active": "Live", "live": live, "candidate": candidate,
                "conditions": conditions},
        }))
        .expect("a Workload")
    }

    pub fn state(state: &str, health: &str) -> Value {
        json!({"state": state, "health": health})
    }

    #[rstest]
    #[case("Running", "Healthy", "Running", true, Standing::There)]
    #[case("Running", "Starting", "Starting", true, Standing::Going("Starting: told".to_owned()))]
    #[case("Running", "Unknown", "Running", true, Standing::There)]
    #[case("Absent", "Unknown", "WaitingForGpu", true, Standing::WaitsForCard("WaitingForGpu: told".to_owned()))]
    #[case("Absent", "Unknown", "ImageNotFound", true, Standing::Stuck("ImageNotFound: told".to_owned()))]
    #[case("Exited", "Unknown", "Stopped", false, Standing::There)]
    #[case("Running", "Healthy", "Stopping", false, Standing::Going("Stopping: told".to_owned()))]
    #[case("Unknown", "Unknown", "EngineUnreachable", false, Standing::Going("EngineUnreachable: told".to_owned()))]
    fn a_variant_is_there_or_not(
        #[case] seen: &str,
        #[case] health: &str,
        #[case] reason: &str,
        #[case] running: bool,
        #[case] expected: Standing,
    ) {
        let workload = workload("web", state(seen, health), state("Absent", "Unknown"), reason);
        assert_eq!(standing(&workload, Variant::Live, running), expected);
    }

    #[test]
    fn an_old_status_says_nothing() {
        let mut workload = workload("web", state("Running", "Healthy"), state("Absent", "Unknown"), "Running");
        workload.metadata.generation = Some(3);
        assert_eq!(standing(&workload, Variant::Live, true), Standing::Going("asked".to_owned()));
    }

    #[test]
    fn short_names_are_understood() {
        let all = ["gaia-core", "web"]
            .map(|n| workload(n, state("Running", "Healthy"), state("Absent", "Unknown"), "Running"));
        assert_eq!(named(&all, "core").map(ResourceExt::name_any).as_deref(), Some("gaia-core"));
        assert_eq!(named(&all, "web").map(ResourceExt::name_any).as_deref(), Some("web"));
        assert!(named(&all, "prime").is_none());
    }
}
