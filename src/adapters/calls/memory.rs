//! The calls in memory, found by id, by droplet and by status without looking at others.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Page;
use crate::droplets::{
    names,
    record::{Filter, Record},
    retry::Verdict,
};

/// In the order of creation: microseconds, then the order in which they came.
type Place = (i64, u64);

/// The calls of one droplet, by what came of them; each in order.
type ByStatus = [VecDeque<Place>; Verdict::ALL.len()];

pub struct Memory {
    most: usize,
    came: u64,
    /// In order. Calls end about in the order in which they began, and the oldest go first: both ends are where a queue is quick.
    records: VecDeque<(Place, Arc<Record>)>,
    places: HashMap<String, Place>,
    /// By the names' keys. A call is in one queue, and a page is put together from the newest of those that match: calls come more
    /// often than anybody looks.
    droplets: HashMap<String, ByStatus>,
}

impl Memory {
    pub fn new(most: usize) -> Self {
        Self { most, came: 0, records: VecDeque::new(), places: HashMap::new(), droplets: HashMap::new() }
    }

    /// The oldest go when there are too many.
    pub fn put(&mut self, record: Arc<Record>) {
        if let Some(place) = self.places.get(&record.id).copied() {
            self.remove(place);
        }
        self.came += 1;
        let place = ((record.created_at * 1e6) as i64, self.came);
        let droplet = self.droplets.entry(names::key(&record.droplet_name)).or_default();
        insert(&mut droplet[record.status as usize], place, |place| *place);
        self.places.insert(record.id.clone(), place);
        insert(&mut self.records, (place, record), |(place, _)| *place);
        while self.records.len() > self.most {
            let Some(oldest) = self.records.front().map(|(place, _)| *place) else { return };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: Place) {
        let Some((_, record)) = remove(&mut self.records, place, |(place, _)| *place) else { return };
        self.places.remove(&record.id);
        let name = names::key(&record.droplet_name);
        let Some(droplet) = self.droplets.get_mut(&name) else { return };
        remove(&mut droplet[record.status as usize], place, |place| *place);
        if droplet.iter().all(VecDeque::is_empty) {
            self.droplets.remove(&name);
        }
    }

    pub fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.at(*self.places.get(id)?).cloned()
    }

    fn at(&self, place: Place) -> Option<&Arc<Record>> {
        let found = self.records.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        self.records.get(found).map(|(_, record)| record)
    }

    pub fn page(&self, filter: &Filter, limit: usize) -> Page {
        let statuses: Vec<Verdict> = match &filter.status {
            None => Verdict::ALL.to_vec(),
            Some(status) => Verdict::ALL.into_iter().filter(|verdict| verdict.as_str() == status).collect(),
        };
        let droplets: Vec<&ByStatus> = match &filter.droplet_name {
            None => self.droplets.values().collect(),
            Some(name) => self.droplets.get(&names::key(name)).into_iter().collect(),
        };
        let sets = || droplets.iter().flat_map(|droplet| statuses.iter().map(|status| &droplet[*status as usize]));
        let mut newest: Vec<&Place> = sets().flat_map(|places| places.iter().rev().take(limit)).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.truncate(limit);
        let records = newest.into_iter().filter_map(|place| self.at(*place).cloned()).collect();
        Page { records, total: sets().map(VecDeque::len).sum() }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }
}

/// Behind what is before it: most often the last.
fn insert<T>(queue: &mut VecDeque<T>, item: T, place: impl Fn(&T) -> Place) {
    let own = place(&item);
    match queue.back().is_none_or(|last| place(last) < own) {
        true => queue.push_back(item),
        false => queue.insert(queue.partition_point(|other| place(other) < own), item),
    }
}

/// Most often the first.
fn remove<T>(queue: &mut VecDeque<T>, own: Place, place: impl Fn(&T) -> Place) -> Option<T> {
    match queue.front().is_some_and(|first| place(first) == own) {
        true => queue.pop_front(),
        false => queue.remove(queue.binary_search_by_key(&own, place).ok()?),
    }
}
