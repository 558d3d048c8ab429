//! What to do so that the objects are as the files say. Pure.
//!
//! Guarantees:
//! 1. The inventory of a plan names everything that was in the inventory before and everything about to be applied. It
//!    is stored before the first apply, so that a crash loses track of nothing.
//! 2. Nothing is pruned unless the listing is complete and without any error, and is not an unknown empty directory.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    files::Listing,
    load::{LoadedFiles, ObjectId, order},
};
use crate::api::source::InventoryEntry;

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be stored before anything else happens.
    pub inventory: Vec<InventoryEntry>,
    /// No longer named by any file, to be deleted in this order if [`Plan::prune`] says so.
    pub surplus: Vec<InventoryEntry>,
    pub prune: Prune,
}

/// Whether the surplus may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prune {
    #[default]
    Yes,
    /// `spec.prune` is false.
    Off,
    /// Something was not read or is invalid: what is missing may only be misspelt.
    Broken,
    /// Not one file in a directory that is not the one (device and inode) the objects came from: an unmounted disk, a
    /// directory made anew.
    UnknownEmptyDirectory,
}

/// Compares what the files say with what was applied before.
pub fn diff(loaded: &LoadedFiles, inventory: &[InventoryEntry], empty: EmptyDirectory, prune: bool) -> Plan {
    let wished: BTreeSet<_> = loaded.documents.iter().map(|document| &document.id).collect();
    let mut union: BTreeMap<_, _> = inventory.iter().map(|entry| (ObjectId::of(entry), entry.clone())).collect();
    for document in &loaded.documents {
        let uid = union.get(&document.id).and_then(|before| before.uid.clone());
        union.insert(document.id.clone(), InventoryEntry { uid, ..document.inventory_entry() });
    }
    let mut surplus: Vec<_> = union.iter().filter(|(id, _)| !wished.contains(id)).collect();
    surplus.sort_by_key(|(id, _)| std::cmp::Reverse(order(id)));
    Plan {
        surplus: surplus.into_iter().map(|(_, entry)| entry.clone()).collect(),
        inventory: union.into_values().collect(),
        prune: match (prune, loaded.complete && loaded.errors.is_empty(), empty) {
            (false, _, _) => Prune::Off,
            (true, false, _) => Prune::Broken,
            (true, true, EmptyDirectory::Unknown) => Prune::UnknownEmptyDirectory,
            (true, true, EmptyDirectory::No | EmptyDirectory::Known) => Prune::Yes,
        },
    }
}

/// Whether a listing without any file can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyDirectory {
    /// It has files.
    No,
    /// Empty, and the very directory in which there were files before.
    Known,
    /// Empty, and perhaps not the directory that is meant.
    Unknown,
}

impl EmptyDirectory {
    /// `before`: the identity of the directory when it last had files.
    pub fn of(listing: &Listing, before: Option<&str>) -> Self {
        match &listing.root {
            _ if !listing.files.is_empty() => EmptyDirectory::No,
            Ok(now) if Some(now.0.as_str()) == before => EmptyDirectory::Known,
            Ok(_) | Err(_) => EmptyDirectory::Unknown,
        }
    }
}
