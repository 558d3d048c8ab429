//! One object, one Source: what another Source keeps is neither overwritten nor deleted. Pure.
//!
//! An object belongs to the Source that has it in its inventory; which is there first has it. Two that begin in the same
//! instant may both come to have it: then it is the older one's, and the other lets go of it in its next pass. Whoever is
//! refused says so where the document is, and comes by it once the other lets go.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use super::load::{LoadedFiles, ObjectId};
use crate::api::source::{FileError, Source};

/// What the other Sources keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others(BTreeMap<ObjectId, Holder>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    source: String,
    /// Where it is stated.
    place: String,
    /// It came into being before we did.
    older: bool,
}

impl Others {
    /// `all` may hold ourselves too. A Source on its way out keeps nothing.
    pub fn of(ours: &Source, all: &[Arc<Source>]) -> Self {
        let mut held: BTreeMap<ObjectId, Holder> = BTreeMap::new();
        let others = all.iter().filter(|s| s.name_any() != ours.name_any() && s.metadata.deletion_timestamp.is_none());
        for other in others {
            let older = seniority(other) < seniority(ours);
            for entry in other.status.iter().flat_map(|status| &status.inventory) {
                let holder = Holder { source: other.name_any(), place: other.place_of(entry), older };
                let before = held.entry(ObjectId::of(entry)).or_insert_with(|| holder.clone());
                if older && !before.older {
                    *before = holder;
                }
            }
        }
        Self(held)
    }

    pub fn keep(&self, id: &ObjectId) -> bool {
        self.0.contains_key(id)
    }

    /// Takes the documents out whose objects are another's, with an error for each; answers how many.
    pub fn refuse(&self, ours: &Source, loaded: &mut LoadedFiles) -> usize {
        let inventory = ours.status.iter().flat_map(|status| &status.inventory).map(ObjectId::of);
        let inventory: std::collections::BTreeSet<_> = inventory.collect();
        let refused = |id: &ObjectId| self.0.get(id).filter(|holder| holder.older || !inventory.contains(id));
        let errors: Vec<FileError> = loaded
            .documents
            .iter()
            .filter_map(|document| {
                let Holder { source, place, .. } = refused(&document.id)?;
                let message = format!("{} is kept by Source {source}, which has it from {place}", document.id);
                Some(FileError { file: document.file.clone(), line: Some(document.line), message })
            })
            .collect();
        loaded.documents.retain(|document| refused(&document.id).is_none());
        let count = errors.len();
        loaded.errors.extend(errors);
        loaded.errors.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
        count
    }
}

/// Smaller is older.
fn seniority(source: &Source) -> (Option<Timestamp>, String) {
    (source.metadata.creation_timestamp.as_ref().map(|time| time.0), source.name_any())
}
