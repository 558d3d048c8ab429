//! Which task goes to which worker: a pure function of who waits and who is free. It looks at the head of each line ([`Queue`]), and on
//! along those from which somebody goes: what it costs follows from the lines and the free workers, not from how many wait.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
};

use super::{
    queue::{Queue, Seeker},
    view::Key,
};
use crate::{
    api::worker::WorkerHardware,
    mloc::needs::{Needs, Offer, Weights},
};

/// A worker that can take a task now.
#[derive(Debug, Clone, Copy)]
pub struct Idle<'w> {
    pub id: &'w str,
    pub offer: Offer<'w>,
}

/// Pairs of tasks and places in `idle`; every worker once at most. The higher priority first; of the same one the submitter
/// who has least running; of his the one that waits longest. What fits no free worker holds up nobody. Who is `barred` does not take part.
/// `running` counts what each submitter has with workers, `demand` all tasks that are still to be given to one.
pub fn assign<'q>(
    queue: &'q Queue,
    barred: &BTreeSet<Key>,
    idle: &[Idle<'_>],
    running: &HashMap<&str, usize>,
    demand: usize,
    weights: &Weights,
) -> Vec<(&'q Key, usize)> {
    let mut free: Vec<usize> = (0..idle.len()).collect();
    let mut pairs = Vec::new();
    let mut hopeless: BTreeSet<&Needs> = BTreeSet::new();
    for lines in queue.lines() {
        if free.is_empty() {
            break;
        }
        let mut shares: HashMap<&str, usize> = HashMap::new();
        let share = |shares: &HashMap<&str, usize>, who: &str| {
            running.get(who).copied().unwrap_or(0) + shares.get(who).copied().unwrap_or(0)
        };
        let mut rest = Vec::new();
        let mut heads = BinaryHeap::new();
        for (needs, submitters) in lines.iter().filter(|(needs, _)| !hopeless.contains(needs)) {
            for (who, line) in submitters {
                let mut line = line.iter().filter(|(_, key)| !barred.contains(key));
                if let Some((since, key)) = line.next() {
                    heads.push(Reverse((share(&shares, who), *since, key, rest.len())));
                    rest.push((needs, who.as_str(), line));
                }
            }
        }
        while !free.is_empty() {
            let Some(Reverse((had, since, key, n))) = heads.pop() else { break };
            let (needs, who, line) = &mut rest[n];
            if hopeless.contains(*needs) {
                continue;
            }
            // Others of his may have been given to workers since it was put here.
            let has = share(&shares, who);
            if has > had {
                heads.push(Reverse((has, since, key, n)));
                continue;
            }
            let Some(seeker) = queue.get(key) else { continue };
            match choose(seeker, idle, &free, demand.saturating_sub(pairs.len()), weights) {
                Some(place) => {
                    pairs.push((key, free.remove(place)));
                    *shares.entry(*who).or_default() += 1;
                    if let Some((since, key)) = line.next() {
                        heads.push(Reverse((has + 1, *since, key, n)));
                    }
                }
                None => {
                    hopeless.insert(*needs);
                }
            }
        }
    }
    pairs
}

/// The place in `free` of the worker to take.
fn choose(seeker: &Seeker, idle: &[Idle<'_>], free: &[usize], demand: usize, weights: &Weights) -> Option<usize> {
    let fits = |place: &usize| seeker.needs.missing(idle[free[*place]].offer).is_none();
    let places: Vec<usize> = (0..free.len()).filter(fits).collect();
    let hardware: Vec<&WorkerHardware> = places.iter().map(|place| idle[free[*place]].offer.hardware).collect();
    let ordered = weights.order(&hardware, demand);
    let others = ordered.iter().find(|n| Some(idle[free[places[**n]]].id) != seeker.avoid.as_deref());
    others.or(ordered.first()).map(|n| places[*n])
}

#[cfg(test)]
mod tests;
