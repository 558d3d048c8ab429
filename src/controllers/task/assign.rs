//! Which task goes to which worker: a pure function of who waits and who is free.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
};

use jiff::Timestamp;

use crate::{
    api::worker::WorkerHardware,
    mloc::needs::{Needs, Offer, Weights},
};

/// A task that may go to a worker now.
#[derive(Debug, Clone, Copy)]
pub struct Seeker<'t> {
    pub needs: &'t Needs,
    pub priority: i32,
    /// Who submitted it: those who have least running go first.
    pub submitter: &'t str,
    /// Waits since.
    pub since: Timestamp,
    /// Failed it last: is taken only when no other fits.
    pub avoid: Option<&'t str>,
}

/// A worker that can take a task now.
#[derive(Debug, Clone, Copy)]
pub struct Idle<'w> {
    pub id: &'w str,
    pub offer: Offer<'w>,
}

/// Pairs of places in `seekers` and `idle`; every worker once at most. The higher priority first; of the same one the submitter
/// who has least running; of his the one that waits longest. What fits no free worker holds up nobody. `running` counts what
/// each submitter has with workers, `demand` all tasks that are still to be given to one.
pub fn assign(
    seekers: &[Seeker<'_>],
    idle: &[Idle<'_>],
    running: &HashMap<&str, usize>,
    demand: usize,
    weights: &Weights,
) -> Vec<(usize, usize)> {
    let mut free: Vec<usize> = (0..idle.len()).collect();
    let mut pairs = Vec::new();
    if free.is_empty() {
        return pairs;
    }
    let mut hopeless: HashSet<&Needs> = HashSet::new();
    for (_, mut queues) in queues(seekers) {
        let mut shares: HashMap<&str, usize> =
            queues.keys().map(|who| (*who, running.get(who).copied().unwrap_or(0))).collect();
        while !free.is_empty() {
            let head = |who: &str| queues[who].front().map(|n| (seekers[*n].since, *n));
            let next = queues.keys().copied().filter_map(|who| Some((shares[who], head(who)?, who))).min();
            let Some((_, (_, n), who)) = next else { break };
            queues.entry(who).or_default().pop_front();
            let seeker = &seekers[n];
            if hopeless.contains(seeker.needs) {
                continue;
            }
            match choose(seeker, idle, &free, demand.saturating_sub(pairs.len()), weights) {
                Some(place) => {
                    pairs.push((n, free.remove(place)));
                    *shares.entry(who).or_default() += 1;
                }
                None => {
                    hopeless.insert(seeker.needs);
                }
            }
        }
    }
    pairs
}

/// By priority, then by submitter, those that wait longest in front.
fn queues<'t>(seekers: &[Seeker<'t>]) -> BTreeMap<Reverse<i32>, BTreeMap<&'t str, VecDeque<usize>>> {
    let mut order: Vec<usize> = (0..seekers.len()).collect();
    order.sort_by_key(|n| seekers[*n].since);
    let mut queues: BTreeMap<_, BTreeMap<_, VecDeque<_>>> = BTreeMap::new();
    for n in order {
        let of_priority = queues.entry(Reverse(seekers[n].priority)).or_default();
        of_priority.entry(seekers[n].submitter).or_default().push_back(n);
    }
    queues
}

/// The place in `free` of the worker to take.
fn choose(seeker: &Seeker<'_>, idle: &[Idle<'_>], free: &[usize], demand: usize, weights: &Weights) -> Option<usize> {
    let fits = |place: &usize| seeker.needs.missing(idle[free[*place]].offer).is_none();
    let places: Vec<usize> = (0..free.len()).filter(fits).collect();
    let hardware: Vec<&WorkerHardware> = places.iter().map(|place| idle[free[*place]].offer.hardware).collect();
    let ordered = weights.order(&hardware, demand);
    let others = ordered.iter().find(|n| Some(idle[free[places[**n]]].id) != seeker.avoid);
    others.or(ordered.first()).map(|n| places[*n])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(cores: u32) -> WorkerHardware {
        WorkerHardware { cpu_cores: Some(cores), ..WorkerHardware::default() }
    }

    fn idle<'w>(id: &'w str, hardware: &'w WorkerHardware) -> Idle<'w> {
        Idle { id, offer: Offer { hardware, executors: None } }
    }

    fn cores(cores: u64) -> Needs {
        Needs { millicores: cores * 1000, ..Needs::default() }
    }

    fn seeker<'t>(needs: &'t Needs, submitter: &'t str, second: i64) -> Seeker<'t> {
        let since = Timestamp::from_second(second).expect("a time");
        Seeker { needs, priority: 0, submitter, since, avoid: None }
    }

    fn assigned(seekers: &[Seeker<'_>], idle: &[Idle<'_>], running: &[(&str, usize)]) -> Vec<(usize, usize)> {
        let running = running.iter().copied().collect();
        assign(seekers, idle, &running, seekers.len(), &Weights::default())
    }

    #[test]
    fn who_waits_longest_goes_first_and_a_higher_priority_before() {
        let (needs, hardware) = (cores(1), worker(2));
        let idle = [idle("w1", &hardware)];
        let mut seekers = [seeker(&needs, "a", 3), seeker(&needs, "a", 1), seeker(&needs, "a", 2)];
        assert_eq!(assigned(&seekers, &idle, &[]), [(1, 0)]);
        seekers[2].priority = 5;
        assert_eq!(assigned(&seekers, &idle, &[]), [(2, 0)]);
    }

    #[test]
    fn a_long_queue_of_one_does_not_hold_up_another() {
        let (needs, hardware) = (cores(1), worker(2));
        let idle = [idle("w1", &hardware), idle("w2", &hardware)];
        let seekers = [seeker(&needs, "a", 1), seeker(&needs, "a", 2), seeker(&needs, "b", 3)];
        let pairs = assigned(&seekers, &idle, &[]);
        assert_eq!(pairs.iter().map(|(seeker, _)| *seeker).collect::<Vec<_>>(), [0, 2]);
        let pairs = assigned(&seekers, &idle, &[("b", 3)]);
        assert_eq!(pairs.iter().map(|(seeker, _)| *seeker).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_fits_nobody_free_holds_up_nobody() {
        let (large, small, hardware) = (cores(64), cores(1), worker(2));
        let idle = [idle("w1", &hardware)];
        let seekers = [seeker(&large, "a", 1), seeker(&large, "a", 2), seeker(&small, "a", 3)];
        assert_eq!(assigned(&seekers, &idle, &[]), [(2, 0)]);
    }

    #[test]
    fn who_failed_it_gets_it_again_only_when_nobody_else_can() {
        let (needs, hardware) = (cores(1), worker(2));
        let both = [idle("w1", &hardware), idle("w2", &hardware)];
        let seekers = [Seeker { avoid: Some("w1"), ..seeker(&needs, "a", 1) }];
        assert_eq!(assigned(&seekers, &both, &[]), [(0, 1)]);
        assert_eq!(assigned(&seekers, &both[..1], &[]), [(0, 0)]);
    }
}
