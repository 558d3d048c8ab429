//! When a card counts as free of its old holder: by processes and by memory, so many samples in a row. Pure.

use jiff::Timestamp;

use crate::{
    adapters::{
        containers::{ContainerId, ContainerState, ContainerSummary},
        gpus::{GpuProcess, GpuSample},
    },
    api::handoff::MemorySample,
};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub uuid: String,
    /// Containers of the old holder.
    pub from: Vec<ContainerId>,
    /// Processes that the last reading of the card said are the old holder's: they stay its own when somebody removes the
    /// container around them.
    pub from_pids: Vec<u32>,
    /// Memory of strangers counts, since nobody knows which processes are the old holder's. Otherwise others are named and
    /// not blamed.
    pub others_count: bool,
    /// Processes that are known to be somebody else's: other workloads' and the recipient's.
    pub known: Vec<u32>,
    /// Every container that the engine has. A process of any other has outlived its container; whose that was, nobody may
    /// have seen in time. Unless it is `known`, it counts as the old holder's: a card is not taken on a guess.
    pub containers: Vec<ContainerId>,
    pub recipient: Vec<ContainerId>,
    pub processes: bool,
    pub memory: bool,
    pub floor_mib: u64,
    pub samples: usize,
    pub interval_ms: u32,
}

/// What sampling has shown so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proof {
    /// When the first of the last `samples` samples was begun, if all of them were free.
    pub free_since: Option<Timestamp>,
    pub curve: Vec<MemorySample>,
    pub pids: Vec<u32>,
    /// Why the last sample was not free, or could not be had.
    pub blocker: Option<String>,
    /// Nothing was measured for it: see [`on_the_engines_word`].
    pub by_engine: bool,
}

/// What `EngineOnly` makes of the samples, if there are any: they stay in the record and prove nothing. The old holder counts as
/// gone as long as none of its containers runs; so does an outsider, who has none. An engine that does not answer is the
/// caller's to notice: its list is whole or there is none.
pub fn on_the_engines_word(sampled: Option<Proof>, from: &[ContainerSummary]) -> Proof {
    let running: Vec<&str> = from.iter().filter(|c| !is_stopped(c.state)).map(|c| c.name.as_str()).collect();
    let (free_since, blocker) = match running.is_empty() {
        // What the engine lists now is after whatever was done before.
        true => (Some(Timestamp::MAX), None),
        false => (None, Some(format!("the old holder's containers still run: {}", running.join(", ")))),
    };
    Proof { free_since, blocker, by_engine: true, ..sampled.unwrap_or_default() }
}

/// One that is being removed may still have a process.
pub fn is_stopped(state: ContainerState) -> bool {
    match state {
        ContainerState::Created | ContainerState::Exited | ContainerState::Dead => true,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting | ContainerState::Removing => {
            false
        }
    }
}

/// None: free. What is not known is not free.
pub fn blocker(sample: &GpuSample, subject: &Subject) -> Option<String> {
    let Some(processes) = &sample.processes else {
        return Some("the driver does not tell the processes on the card".to_owned());
    };
    let is_its = |p: &&GpuProcess| {
        let inside = p.container.as_ref();
        subject.from_pids.contains(&p.pid)
            || inside.is_some_and(|id| subject.from.contains(id))
            || is_orphan(p, subject) && !subject.known.contains(&p.pid)
    };
    let (its, others): (Vec<_>, Vec<_>) = processes.iter().partition(is_its);
    if subject.processes && !its.is_empty() {
        let named = |p: &&GpuProcess| match is_orphan(p, subject) {
            true => format!("{} (its container is gone)", p.pid),
            false => p.pid.to_string(),
        };
        let pids: Vec<String> = its.iter().map(named).collect();
        return Some(format!("the old holder's processes are still on the card: {}", pids.join(", ")));
    }
    if !subject.memory {
        return None;
    }
    let Some(used) = sample.memory_used_mib else { return Some("the driver does not tell the used memory".to_owned()) };
    let is_known = |p: &&&GpuProcess| {
        subject.known.contains(&p.pid) || p.container.as_ref().is_some_and(|id| subject.recipient.contains(id))
    };
    let excused: u64 = others.iter().filter(|p| !subject.others_count || is_known(p)).filter_map(|p| p.used_mib).sum();
    let left = used.saturating_sub(excused);
    if left < subject.floor_mib {
        return None;
    }
    let foreign: Vec<String> = others
        .iter()
        .map(|p| format!("{} ({} MiB)", p.pid, p.used_mib.map_or("?".to_owned(), |mib| mib.to_string())))
        .collect();
    let whose = if foreign.is_empty() { String::new() } else { format!("; other processes: {}", foreign.join(", ")) };
    Some(format!("{left} MiB are still used, {} MiB would count as free{whose}", subject.floor_mib))
}

fn is_orphan(process: &GpuProcess, subject: &Subject) -> bool {
    process.container.as_ref().is_some_and(|id| !process.other_engine && !subject.containers.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            uuid: "GPU-0".into(),
            from: vec![ContainerId("old".into())],
            from_pids: Vec::new(),
            others_count: false,
            known: Vec::new(),
            containers: ["old", "stranger"].map(|id| ContainerId(id.to_owned())).to_vec(),
            recipient: Vec::new(),
            processes: true,
            memory: true,
            floor_mib: 500,
            samples: 3,
            interval_ms: 15,
        }
    }

    fn sample(used: Option<u64>, processes: Option<Vec<(u32, &str, u64)>>) -> GpuSample {
        let process = |(pid, container, mib): (u32, &str, u64)| GpuProcess {
            pid,
            name: None,
            container: Some(ContainerId(container.to_owned())),
            other_engine: false,
            used_mib: Some(mib),
        };
        let processes = processes.map(|list| list.into_iter().map(process).collect());
        GpuSample { memory_total_mib: 16_000, memory_used_mib: used, processes }
    }

    #[test]
    fn free_needs_both_and_knowledge() {
        let free = |used, processes| blocker(&sample(used, processes), &subject()).is_none();
        assert!(free(Some(300), Some(vec![])));
        assert!(!free(Some(300), Some(vec![(1, "old", 100)])), "its process is there");
        assert!(!free(Some(9000), Some(vec![])), "memory drains late");
        assert!(!free(None, Some(vec![])), "unknown memory is not free");
        assert!(!free(Some(300), None), "unknown processes are not none");
    }

    #[test]
    fn strangers_are_excused_but_for_an_outsider() {
        let busy = sample(Some(5300), Some(vec![(7, "stranger", 5000)]));
        assert_eq!(blocker(&busy, &subject()), None);
        let outsider = Subject { from: Vec::new(), others_count: true, processes: false, ..subject() };
        let why = blocker(&busy, &outsider).expect("not free");
        assert!(why.contains("7 (5000 MiB)"), "{why}");
        let known = Subject { known: vec![7], ..outsider.clone() };
        assert_eq!(blocker(&busy, &known), None, "it is another workload's");
        let recipient = Subject { recipient: vec![ContainerId("stranger".into())], ..outsider };
        assert_eq!(blocker(&busy, &recipient), None, "it is the recipient's own");
    }

    fn container(state: ContainerState) -> ContainerSummary {
        let (id, name) = (ContainerId("old".to_owned()), "old-live".to_owned());
        ContainerSummary { id, name, labels: Default::default(), state, trace: String::new() }
    }

    #[test]
    fn the_engines_word_is_that_nothing_of_the_old_holder_runs() {
        use ContainerState::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        let cases = [
            (vec![], true),
            (vec![Exited], true),
            (vec![Created, Dead], true),
            (vec![Running], false),
            (vec![Exited, Paused], false),
            (vec![Restarting], false),
            (vec![Removing], false),
        ];
        for (states, gone) in cases {
            let containers: Vec<ContainerSummary> = states.iter().copied().map(container).collect();
            let proof = on_the_engines_word(None, &containers);
            assert_eq!((proof.free_since.is_some(), proof.by_engine), (gone, true), "{states:?}");
            assert_eq!(proof.blocker.is_none(), gone, "{states:?}");
        }
    }

    #[test]
    fn what_was_sampled_stays_in_the_record_and_proves_nothing() {
        let full = Proof { blocker: Some("9000 MiB".into()), pids: vec![7], ..Proof::default() };
        let proof = on_the_engines_word(Some(full), &[container(ContainerState::Exited)]);
        assert_eq!((proof.pids, proof.blocker), (vec![7], None));
        let free = Proof { free_since: Some(Timestamp::MIN), ..Proof::default() };
        let proof = on_the_engines_word(Some(free), &[container(ContainerState::Running)]);
        assert_eq!(proof.free_since, None);
        assert!(proof.blocker.expect("why").contains("old-live"));
    }

    #[test]
    fn an_orphan_of_the_old_holder_is_its_own_and_not_a_stranger() {
        let orphaned = sample(Some(5300), Some(vec![(7, "removed", 5000)]));
        let remembered = Subject { from_pids: vec![7], ..subject() };
        for subject in [remembered, subject()] {
            let why = blocker(&orphaned, &subject).expect("not free");
            assert!(why.contains("still on the card: 7 (its container is gone)"), "{why}");
            let memory = Subject { processes: false, ..subject };
            assert!(blocker(&orphaned, &memory).expect("not free").contains("5300 MiB"));
        }
        let anothers = Subject { known: vec![7], ..subject() };
        assert_eq!(blocker(&orphaned, &anothers), None, "it was seen as another workload's");
    }

    #[test]
    fn what_another_engine_runs_is_a_strangers() {
        let mut sample = sample(Some(5300), Some(vec![(7, "of-podman", 5000)]));
        for process in sample.processes.iter_mut().flatten() {
            process.other_engine = true;
        }
        assert_eq!(blocker(&sample, &subject()), None);
    }

    #[test]
    fn policies_look_at_one_thing() {
        let asleep = sample(Some(300), Some(vec![(1, "old", 100)]));
        assert_eq!(blocker(&asleep, &Subject { processes: false, ..subject() }), None);
        let late = sample(Some(9000), Some(vec![]));
        assert_eq!(blocker(&late, &Subject { memory: false, ..subject() }), None);
    }
}
