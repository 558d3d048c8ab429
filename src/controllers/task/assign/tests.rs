use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{api::worker::WorkerGpu, mloc::needs::GpuNeeds};

fn worker(cores: u32) -> WorkerHardware {
    WorkerHardware { cpu_cores: Some(cores), ..WorkerHardware::default() }
}

fn idle<'w>(id: &'w str, hardware: &'w WorkerHardware) -> Idle<'w> {
    Idle { id, offer: Offer { hardware, executors: None } }
}

fn seeker(cores: u64, submitter: &str, second: i64) -> Seeker {
    let needs = Needs { millicores: cores * 1000, ..Needs::default() };
    let since = Timestamp::from_second(second).expect("a time");
    Seeker { needs, priority: 0, submitter: submitter.to_owned(), since, avoid: None }
}

fn key(n: usize) -> Key {
    ("default".to_owned(), format!("t{n:04}"))
}

fn queue(seekers: &[Seeker]) -> Queue {
    let mut queue = Queue::default();
    seekers.iter().enumerate().for_each(|(n, seeker)| queue.insert(&key(n), seeker.clone()));
    queue
}

fn given(
    seekers: &[Seeker],
    barred: &BTreeSet<Key>,
    idle: &[Idle<'_>],
    running: &[(&str, usize)],
) -> Vec<(usize, usize)> {
    let (queue, running) = (queue(seekers), running.iter().copied().collect());
    let demand = seekers.len() - barred.len();
    let pairs = assign(&queue, barred, idle, &running, demand, &Weights::default());
    let place = |wanted: &Key| (0..seekers.len()).find(|n| key(*n) == *wanted).expect("one of them");
    pairs.into_iter().map(|(key, worker)| (place(key), worker)).collect()
}

fn assigned(seekers: &[Seeker], idle: &[Idle<'_>], running: &[(&str, usize)]) -> Vec<(usize, usize)> {
    given(seekers, &BTreeSet::new(), idle, running)
}

#[test]
fn who_waits_longest_goes_first_and_a_higher_priority_before() {
    let hardware = worker(2);
    let idle = [idle("w1", &hardware)];
    let mut seekers = [seeker(1, "a", 3), seeker(1, "a", 1), seeker(1, "a", 2)];
    assert_eq!(assigned(&seekers, &idle, &[]), [(1, 0)]);
    seekers[2].priority = 5;
    assert_eq!(assigned(&seekers, &idle, &[]), [(2, 0)]);
}

#[test]
fn a_long_queue_of_one_does_not_hold_up_another() {
    let hardware = worker(2);
    let idle = [idle("w1", &hardware), idle("w2", &hardware)];
    let seekers = [seeker(1, "a", 1), seeker(1, "a", 2), seeker(1, "b", 3)];
    let pairs = assigned(&seekers, &idle, &[]);
    assert_eq!(pairs.iter().map(|(seeker, _)| *seeker).collect::<Vec<_>>(), [0, 2]);
    let pairs = assigned(&seekers, &idle, &[("b", 3)]);
    assert_eq!(pairs.iter().map(|(seeker, _)| *seeker).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_fits_nobody_free_holds_up_nobody() {
    let hardware = worker(2);
    let idle = [idle("w1", &hardware)];
    let seekers = [seeker(64, "a", 1), seeker(64, "a", 2), seeker(1, "a", 3)];
    assert_eq!(assigned(&seekers, &idle, &[]), [(2, 0)]);
}

#[test]
fn who_failed_it_gets_it_again_only_when_nobody_else_can() {
    let hardware = worker(2);
    let both = [idle("w1", &hardware), idle("w2", &hardware)];
    let seekers = [Seeker { avoid: Some("w1".to_owned()), ..seeker(1, "a", 1) }];
    assert_eq!(assigned(&seekers, &both, &[]), [(0, 1)]);
    assert_eq!(assigned(&seekers, &both[..1], &[]), [(0, 0)]);
}

/// The same without an index: everybody is sorted, and looked at in turn.
fn one_by_one(
    seekers: &[Seeker],
    barred: &BTreeSet<Key>,
    idle: &[Idle<'_>],
    running: &[(&str, usize)],
) -> Vec<(usize, usize)> {
    let mut free: Vec<usize> = (0..idle.len()).collect();
    let mut pairs = Vec::new();
    let mut order: Vec<usize> = (0..seekers.len()).filter(|n| !barred.contains(&key(*n))).collect();
    let demand = order.len();
    order.sort_by_key(|n| seekers[*n].since);
    let mut priorities: BTreeMap<Reverse<i32>, BTreeMap<&str, VecDeque<usize>>> = BTreeMap::new();
    for n in order {
        let queues = priorities.entry(Reverse(seekers[n].priority)).or_default();
        queues.entry(&seekers[n].submitter).or_default().push_back(n);
    }
    let mut hopeless: BTreeSet<&Needs> = BTreeSet::new();
    for queues in priorities.values_mut() {
        let had = |who: &str| running.iter().find(|(name, _)| *name == who).map_or(0, |(_, count)| *count);
        let mut shares: BTreeMap<&str, usize> = queues.keys().map(|who| (*who, had(who))).collect();
        while !free.is_empty() {
            let head = |(who, queue): (&&'_ str, &VecDeque<usize>)| {
                let n = *queue.front()?;
                Some((shares[who], seekers[n].since, n))
            };
            let Some((_, _, n)) = queues.iter().filter_map(head).min() else { break };
            let seeker = &seekers[n];
            queues.get_mut(seeker.submitter.as_str()).expect("his").pop_front();
            if hopeless.contains(&seeker.needs) {
                continue;
            }
            match choose(seeker, idle, &free, demand.saturating_sub(pairs.len()), &Weights::default()) {
                Some(place) => {
                    pairs.push((n, free.remove(place)));
                    *shares.get_mut(seeker.submitter.as_str()).expect("his") += 1;
                }
                None => drop(hopeless.insert(&seeker.needs)),
            }
        }
    }
    pairs
}

const SUBMITTERS: [&str; 3] = ["a", "b", "c"];
const IDS: [&str; 6] = ["w0", "w1", "w2", "w3", "w4", "w5"];

fn any_seeker() -> impl Strategy<Value = Seeker> {
    let gpu = prop::option::weighted(0.3, Just(GpuNeeds { count: 1, ..GpuNeeds::default() }));
    let avoid = prop::option::weighted(0.2, prop::sample::select(&IDS));
    (0_u64..4, gpu, -1_i32..2, prop::sample::select(&SUBMITTERS), 0_i64..12, avoid).prop_map(
        |(cores, gpu, priority, submitter, second, avoid)| {
            let seeker = seeker(cores, submitter, second);
            let needs = Needs { gpu, ..seeker.needs };
            Seeker { needs, priority, avoid: avoid.map(|avoid| avoid.to_owned()), ..seeker }
        },
    )
}

fn any_worker() -> impl Strategy<Value = WorkerHardware> {
    (0_u32..4, any::<bool>()).prop_map(|(cores, card)| {
        let gpu = WorkerGpu { index: 0, name: "card".to_owned(), uuid: None, memory_bytes: None };
        WorkerHardware { gpus: if card { vec![gpu] } else { Vec::new() }, ..worker(cores) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_lines_give_what_everybody_one_by_one_would_get(
        seekers in prop::collection::vec(any_seeker(), 0..24),
        barred in prop::collection::btree_set((0_usize..24).prop_map(key), 0..4),
        workers in prop::collection::vec(any_worker(), 0..6),
        counts in prop::array::uniform3(0_usize..4),
    ) {
        let barred: BTreeSet<Key> = barred.into_iter().filter(|key| *key < self::key(seekers.len())).collect();
        let idle: Vec<Idle<'_>> = IDS.iter().zip(&workers).map(|(id, hardware)| idle(id, hardware)).collect();
        let running: Vec<(&str, usize)> = SUBMITTERS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect();
        prop_assert_eq!(
            given(&seekers, &barred, &idle, &running),
            one_by_one(&seekers, &barred, &idle, &running)
        );
    }
}
