//! The calls in memory, found by id, by droplet and by status without looking at others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::Page;
use crate::droplets::{
    names,
    record::{Filter, Record},
};

/// In the order of creation: microseconds, then the order in which they came.
type Place = (i64, u64);

/// What a filter may name: a droplet, a status, both, or nothing.
type Index = (Option<String>, Option<&'static str>);

pub struct Memory {
    most: usize,
    came: u64,
    records: BTreeMap<Place, Arc<Record>>,
    places: HashMap<String, Place>,
    found: HashMap<Index, BTreeSet<Place>>,
}

impl Memory {
    pub fn new(most: usize) -> Self {
        Self { most, came: 0, records: BTreeMap::new(), places: HashMap::new(), found: HashMap::new() }
    }

    /// The oldest go when there are too many.
    pub fn put(&mut self, record: Arc<Record>) {
        if let Some(place) = self.places.get(&record.id).copied() {
            self.remove(place);
        }
        self.came += 1;
        let place = ((record.created_at * 1e6) as i64, self.came);
        for index in indices(&record) {
            self.found.entry(index).or_default().insert(place);
        }
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
        for index in indices(&record) {
            if let Some(places) = self.found.get_mut(&index) {
                places.remove(&place);
                if places.is_empty() {
                    self.found.remove(&index);
                }
            }
        }
    }

    pub fn get(&self, id: &str) -> Option<Arc<Record>> {
        self.records.get(self.places.get(id)?).cloned()
    }

    pub fn page(&self, filter: &Filter, limit: usize) -> Page {
        let nothing = Page { records: Vec::new(), total: 0 };
        let status = match &filter.status {
            None => None,
            Some(status) => match crate::droplets::retry::Verdict::ALL.iter().find(|v| v.as_str() == status) {
                Some(verdict) => Some(verdict.as_str()),
                None => return nothing,
            },
        };
        let index = (filter.droplet_name.as_deref().map(names::key), status);
        let Some(places) = self.found.get(&index) else { return nothing };
        let records = places.iter().rev().take(limit).filter_map(|place| self.records.get(place).cloned()).collect();
        Page { records, total: places.len() }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }
}

fn indices(record: &Record) -> [Index; 4] {
    let name = Some(names::key(&record.droplet_name));
    let status = Some(record.status.as_str());
    [(None, None), (name.clone(), None), (None, status), (name, status)]
}
