//! What was written, by the writers' own account: the truth that readers are compared with.

use std::collections::BTreeMap;

use gaia::store::{ChangeKind, Version};

use super::{
    Scope,
    reader::{List, Reader, Span},
};

/// One acknowledged write.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub revision: u64,
    /// Which of [`Scope::ALL`] cover it, a bit each.
    scopes: u8,
    /// Of the key, the kind of change, both revisions and the value.
    pub sum: u64,
    /// Of the key alone.
    key: u64,
    gone: bool,
}

impl Event {
    pub fn of(kind: ChangeKind, version: &Version, previous: u64) -> Self {
        let scopes = Scope::ALL.iter().enumerate().filter(|(_, scope)| scope.wants(&version.object));
        let key = sum(version.key.as_str().as_bytes(), 0);
        let number = version.object["number"].as_u64().expect("we wrote a number");
        let what = match kind {
            ChangeKind::Created => 1,
            ChangeKind::Updated => 2,
            ChangeKind::Deleted => 3,
        };
        let parts = [version.revision.0, what, previous, number];
        let total = parts.into_iter().fold(key, |total, part| sum(&part.to_le_bytes(), total));
        let scopes = scopes.fold(0, |bits, (number, _)| bits | 1 << number);
        Self { revision: version.revision.0, scopes, sum: total, key, gone: kind == ChangeKind::Deleted }
    }

    /// What a list that shows this version adds up.
    pub fn listed(key: &str, revision: u64) -> u64 {
        place(sum(key.as_bytes(), 0), revision)
    }
}

/// FNV-1a, carried on.
fn sum(bytes: &[u8], from: u64) -> u64 {
    let start = if from == 0 { 0xcbf2_9ce4_8422_2325 } else { from };
    bytes.iter().fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn place(key: u64, revision: u64) -> u64 {
    sum(&revision.to_le_bytes(), key)
}

#[derive(Default)]
pub struct Record {
    events: Vec<Event>,
    sorted: bool,
}

/// Number and sum of the changes up to a revision, and the sum of a list at it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    count: u64,
    sum: u64,
    listed: u64,
}

impl Record {
    pub fn add(&mut self, events: Vec<Event>) {
        self.events.extend(events);
        self.sorted = false;
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.events.sort_unstable_by_key(|event| event.revision);
            let without_a_gap = self.events.iter().zip(1..).all(|(event, revision)| event.revision == revision);
            assert!(without_a_gap, "the writers were given every revision once");
            self.sorted = true;
        }
    }

    /// Reliable, bookmarkable, atomic: all that a reader says it was told between two revisions is all there was.
    pub fn verify(&mut self, reader: &Reader) {
        self.sort();
        let spans = reader.spans.iter().flat_map(|span| [span.from, span.to]);
        let points: Vec<u64> = spans.chain(reader.lists.iter().map(|list| list.revision)).collect();
        let totals = self.totals(reader.scope, points);
        for Span { from, to, count, sum } in &reader.spans {
            let (before, after) = (totals[from], totals[to]);
            let written = (after.count - before.count, after.sum.wrapping_sub(before.sum));
            assert_eq!((*count, *sum), written, "{:?} after {from} up to {to} of {:?}", reader.temper, reader.scope);
        }
        for List { revision, sum } in &reader.lists {
            assert_eq!(*sum, totals[revision].listed, "a list of {:?} at {revision}", reader.scope);
        }
    }

    /// One pass over everything, remembered at these revisions.
    fn totals(&self, scope: Scope, mut points: Vec<u64>) -> BTreeMap<u64, Totals> {
        points.sort_unstable();
        points.dedup();
        let bit = Scope::ALL.iter().position(|known| *known == scope).expect("every reader has one of them");
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        let mut now = Totals::default();
        let mut events = self.events.iter().filter(|event| event.scopes & 1 << bit != 0).peekable();
        let mut at_points = BTreeMap::new();
        for point in points {
            while let Some(event) = events.next_if(|event| event.revision <= point) {
                now.count += 1;
                now.sum = now.sum.wrapping_add(event.sum);
                if let Some(replaced) = live.remove(&event.key) {
                    now.listed = now.listed.wrapping_sub(place(event.key, replaced));
                }
                if !event.gone {
                    live.insert(event.key, event.revision);
                    now.listed = now.listed.wrapping_add(place(event.key, event.revision));
                }
            }
            at_points.insert(point, now);
        }
        at_points
    }
}
