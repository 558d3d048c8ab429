//! When a card counts as free of its old holder: by processes and by memory, so many samples in a row. Pure.

use jiff::Timestamp;

use crate::{
    adapters::{
        containers::ContainerId,
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
    /// Memory of strangers counts, since nobody knows which processes are the old holder's. Otherwise others are named and
    /// not blamed.
    pub others_count: bool,
    /// Processes that are known to be somebody else's: other workloads' and the recipient's.
    pub known: Vec<u32>,
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
    /// When the first of the last `samples` samples was taken, if all of them were free.
    pub free_since: Option<Timestamp>,
    pub curve: Vec<MemorySample>,
    pub pids: Vec<u32>,
    /// Why the last sample was not free, or could not be had.
    pub blocker: Option<String>,
}

/// None: free. What is not known is not free.
pub fn blocker(sample: &GpuSample, subject: &Subject) -> Option<String> {
    let Some(processes) = &sample.processes else {
        return Some("the driver does not tell the processes on the card".to_owned());
    };
    let (its, others): (Vec<_>, Vec<_>) =
        processes.iter().partition(|p| p.container.as_ref().is_some_and(|id| subject.from.contains(id)));
    if subject.processes && !its.is_empty() {
        let pids: Vec<String> = its.iter().map(|p| p.pid.to_string()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            uuid: "GPU-0".into(),
            from: vec![ContainerId("old".into())],
            others_count: false,
            known: Vec::new(),
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

    #[test]
    fn policies_look_at_one_thing() {
        let asleep = sample(Some(300), Some(vec![(1, "old", 100)]));
        assert_eq!(blocker(&asleep, &Subject { processes: false, ..subject() }), None);
        let late = sample(Some(9000), Some(vec![]));
        assert_eq!(blocker(&late, &Subject { memory: false, ..subject() }), None);
    }
}
