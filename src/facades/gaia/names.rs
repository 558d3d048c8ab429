//! Who is who: GAIA's names for holders of the card and for services, and ours.
//!
//! `gaia-core` on the card is Prime, the inference process: core itself runs on the CPU since GAIA 0.3.

use crate::api::{
    gpu::{Holder, HolderKind},
    workload::Variant,
};

/// Where GAIA's objects are.
pub const NAMESPACE: &str = "default";
/// Which Workloads are GAIA's stack: this label, with the value `gaia`.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
pub const GAIA: &str = "gaia";
/// Who holds the card while it sleeps. On the wire that is nobody.
pub const SLEEPER: &str = "gaia-sleep";
/// What the wire calls nobody.
pub const NOBODY: &str = "none";
/// The Workload that infers.
pub const PRIME: &str = "gaia-prime";

/// Who may ask for the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Core,
    CoreCandidate,
    Study,
    StudyCandidate,
    Audio,
}

/// `none` is no requester: it was taken for one, and held the card in nobody's name.
pub const REQUESTERS: [(&str, Owner); 5] = [
    ("gaia-core", Owner::Core),
    ("gaia-core-candidate", Owner::CoreCandidate),
    ("gaia-study", Owner::Study),
    ("gaia-study-candidate", Owner::StudyCandidate),
    ("gaia-audio", Owner::Audio),
];

impl Owner {
    pub fn wire(self) -> &'static str {
        match self {
            Owner::Core => "gaia-core",
            Owner::CoreCandidate => "gaia-core-candidate",
            Owner::Study => "gaia-study",
            Owner::StudyCandidate => "gaia-study-candidate",
            Owner::Audio => "gaia-audio",
        }
    }

    /// The Workload and variant it stands for.
    pub fn workload(self) -> Option<(&'static str, Variant)> {
        match self {
            Owner::Core => Some((PRIME, Variant::Live)),
            Owner::CoreCandidate => Some((PRIME, Variant::Candidate)),
            Owner::Study => Some(("gaia-study", Variant::Live)),
            Owner::StudyCandidate => Some(("gaia-study", Variant::Candidate)),
            Owner::Audio => None,
        }
    }

    /// `known`: there is such a Workload. Else it is somebody who only asks, and nothing can be done to it.
    pub fn holder(self, known: bool) -> Holder {
        match self.workload().filter(|_| known) {
            Some((name, variant)) => {
                Holder { name: name.to_owned(), kind: HolderKind::Workload, namespace: NAMESPACE.to_owned(), variant }
            }
            None => external(self.wire()),
        }
    }
}

pub fn external(name: &str) -> Holder {
    Holder {
        name: name.to_owned(),
        kind: HolderKind::External,
        namespace: NAMESPACE.to_owned(),
        variant: Variant::Live,
    }
}

/// What the wire calls a holder.
pub fn wire(holder: &Holder) -> String {
    if holder.kind == HolderKind::External {
        let nobody = holder.name == SLEEPER;
        return if nobody { NOBODY.to_owned() } else { holder.name.clone() };
    }
    let name = if holder.name == PRIME { "gaia-core" } else { &holder.name };
    container(name, holder.variant)
}

/// Name of a service's container in GAIA: `gaia-study`, `gaia-study-candidate`.
pub fn container(name: &str, variant: Variant) -> String {
    match variant {
        Variant::Live => name.to_owned(),
        Variant::Candidate => format!("{name}-candidate"),
    }
}

/// A service that GAIA lists, and the ports at which people reach it.
pub struct Service {
    pub key: &'static str,
    pub live_port: u16,
    pub candidate_port: u16,
}

/// In the order in which GAIA lists them; they are listed whether or not they exist.
pub const SERVICES: [Service; 5] = [
    Service { key: "core", live_port: 6415, candidate_port: 6416 },
    Service { key: "web", live_port: 6414, candidate_port: 6417 },
    Service { key: "mcp", live_port: 8765, candidate_port: 8767 },
    Service { key: "study", live_port: 8766, candidate_port: 8768 },
    Service { key: "prime", live_port: 7777, candidate_port: 7778 },
];

/// `gaia-core` is `core`.
pub fn key_of(workload: &str) -> &str {
    workload.strip_prefix("gaia-").unwrap_or(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_and_owners_name_each_other() {
        for (word, owner) in REQUESTERS {
            assert_eq!(owner.wire(), word);
            assert_eq!(wire(&owner.holder(true)), word);
            assert_eq!(wire(&owner.holder(false)), word);
        }
        assert_eq!(Owner::CoreCandidate.holder(true).to_string(), "default/gaia-prime (candidate)");
        assert_eq!(wire(&external(SLEEPER)), NOBODY);
        assert_eq!(wire(&external("somebody")), "somebody");
    }
}
