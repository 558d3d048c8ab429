//! The calls in memory, found by id, by droplet and by status without looking at others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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

/// The calls of one droplet, by what came of them.
type ByStatus = [BTreeSet<Place>; Verdict::ALL.len()];

pub struct Memory {
    most: usize,
    came: u64,
    records: BTreeMap<Place, Arc<Record>>,
    places: HashMap<String, Place>,
    /// By the names' keys. A call is in one set, and a page is put together from the newest of those that match: calls come more often
    /// than anybody looks.
    droplets: HashMap<String, ByStatus>,
}

impl Memory {
    pub fn new(most: usize) -> Self {
        Self { most, came: 0, records: BTreeMap::new(), places: HashMap::new(), droplets: HashMap::new() }
    }

    /// The oldest go when there are too many.
    pub fn put(&mut self, record: Arc<Record>) {
        if let Some(place) = self.places.get(&record.id).copied() {
            self.remove(place);
        }
        self.came += 1;
        let place = ((record.created_at * 1e6) as i64, self.came);
        let droplet = self.droplets.entry(names::key(&record.droplet_name)).or_default();
        droplet[record.status as usize].insert(place);
        self.places.insert(record.id.clone(), place);
        self.records.insert(place, record);
        while self.records.len() > self.most {
            let Some(oldest) = self.records.keys().next().copied() else { return };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: Place) {
        let Some(record) = self.records.remove(&place) else { return };
        self.places.remove(&record.id);
        let name = names::key(&record.droplet_name);
        let Some(droplet) = self.droplets.get_mut(&name) else { return };
        droplet[record.status as usize].remove(&place);
        if droplet.iter().all(BTreeSet::is_empty) {
            self.droplets.remove(&name);
        }
    }

    pub fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.records.get(self.places.get(id)?).cloned()
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
        let records = newest.into_iter().filter_map(|place| self.records.get(place).cloned()).collect();
        Page { records, total: sets().map(BTreeSet::len).sum() }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }
}
