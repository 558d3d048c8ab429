//! Who owns whom, kept current change by change: one change costs what it touches, and not a look at everything there is.
//!
//! It knows the objects as of the last change noted, which may be a little behind the store. So what it says is abandoned
//! may be removed only at the version it speaks of.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;

use super::{
    super::{definitions, delete, metadata},
    owners,
};
use crate::store::{Change, ChangeKind, Key, Snapshot, Version};

#[derive(Default)]
pub struct Index {
    /// Of every object.
    uids: HashSet<String>,
    /// Objects that have owners or wait for us.
    known: HashMap<Key, Arc<Version>>,
    /// By the owner's uid.
    dependents: HashMap<String, BTreeSet<Key>>,
    /// What is being deleted and cannot go before we have done something.
    waiting: BTreeSet<Key>,
}

impl Index {
    /// Of everything there is, and what is to be looked at now.
    pub fn of(snapshot: &Snapshot) -> (Self, BTreeSet<Key>) {
        let mut index = Self::default();
        snapshot.items.iter().for_each(|version| index.enter(version));
        let abandoned = index.known.values().filter(|version| index.is_abandoned(version));
        let suspects = abandoned.map(|version| version.key.clone()).chain(index.waiting.iter().cloned()).collect();
        (index, suspects)
    }

    /// Notes a change and answers what it may have made garbage, or free to go.
    pub fn note(&mut self, change: &Change) -> BTreeSet<Key> {
        let (version, key) = (&change.version, &change.version.key);
        let deleting = metadata::is_deleting(&version.object);
        let none = Value::Null;
        let before = change.previous.as_ref().map_or(&none, |previous| &previous.object);
        let same_owners = before["metadata"]["ownerReferences"] == version.object["metadata"]["ownerReferences"];
        if let Some(previous) = &change.previous {
            self.leave(previous);
        }
        let mut suspects = BTreeSet::new();
        if change.kind == ChangeKind::Deleted {
            self.leave(version);
            let uid = metadata::text(&version.object, "uid").unwrap_or_default();
            self.uids.remove(uid);
            suspects.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        } else {
            self.enter(version);
            // Also when it was found abandoned before, and changed before it could be removed.
            if !same_owners || self.waiting.contains(key) || self.is_abandoned(version) {
                suspects.insert(key.clone());
            }
        }
        if deleting || !same_owners || change.kind == ChangeKind::Deleted {
            suspects.extend(self.waiting.iter().cloned());
        }
        suspects
    }

    /// The object as of the last change noted, when it has owners or waits.
    pub fn known(&self, key: &Key) -> Option<&Arc<Version>> {
        self.known.get(key)
    }

    /// What says that `uid` owns it.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Arc<Version>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|key| self.known.get(key))
    }

    /// Its owners are all gone. One without owners stands for itself.
    pub fn is_abandoned(&self, version: &Version) -> bool {
        let mut owners = owners(&version.object).peekable();
        owners.peek().is_some() && !metadata::is_deleting(&version.object) && owners.all(|uid| !self.uids.contains(uid))
    }

    fn enter(&mut self, version: &Arc<Version>) {
        let (key, object) = (&version.key, version.object.peek());
        self.uids.extend(metadata::text(&object, "uid").map(str::to_owned));
        for uid in owners(&object) {
            self.dependents.entry(uid.to_owned()).or_default().insert(key.clone());
        }
        if waits(&object) {
            self.waiting.insert(key.clone());
        }
        if waits(&object) || owners(&object).next().is_some() {
            self.known.insert(key.clone(), Arc::clone(version));
        }
    }

    fn leave(&mut self, version: &Version) {
        for uid in owners(&version.object) {
            if let Some(keys) = self.dependents.get_mut(uid) {
                keys.remove(&version.key);
                if keys.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
        self.waiting.remove(&version.key);
        self.known.remove(&version.key);
    }
}

fn waits(object: &Value) -> bool {
    const OURS: [&str; 3] = [delete::FOREGROUND, delete::ORPHAN, definitions::FINALIZER];
    metadata::is_deleting(object)
        && (object["kind"] == "Namespace" || metadata::finalizers(object).iter().any(|f| OURS.contains(f)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Revision;

    fn version(name: &str, revision: u64, owner: Option<&str>) -> Arc<Version> {
        let mut object = json!({"kind": "Thing", "metadata": {"name": name, "uid": format!("uid-{name}")}});
        if let Some(owner) = owner {
            object["metadata"]["ownerReferences"] = json!([{"uid": format!("uid-{owner}")}]);
        }
        Arc::new(metadata::version(Key::new("test.dev", "things", Some("ns"), name), Revision(revision), object))
    }

    fn change(kind: ChangeKind, version: &Arc<Version>, previous: Option<&Arc<Version>>) -> Change {
        Change { kind, version: Arc::clone(version), previous: previous.cloned() }
    }

    fn names(keys: &BTreeSet<Key>) -> Vec<&str> {
        keys.iter().filter_map(|key| key.as_str().rsplit('/').next()).collect()
    }

    #[test]
    fn a_deletion_names_those_it_leaves_alone() {
        let items = vec![version("owner", 1, None), version("child", 2, Some("owner")), version("other", 3, None)];
        let (mut index, suspects) = Index::of(&Snapshot { revision: Revision(3), items: items.clone() });
        assert!(suspects.is_empty());
        let gone = change(ChangeKind::Deleted, &items[0], Some(&items[0]));
        assert_eq!(names(&index.note(&gone)), ["child"]);
        assert!(index.is_abandoned(&items[1]));
        assert!(index.note(&change(ChangeKind::Deleted, &items[2], Some(&items[2]))).is_empty(), "it owned nobody");
    }

    #[test]
    fn what_was_left_alone_while_nobody_looked_is_found() {
        let orphan = version("child", 2, Some("owner"));
        let (index, suspects) = Index::of(&Snapshot { revision: Revision(2), items: vec![Arc::clone(&orphan)] });
        assert_eq!(names(&suspects), ["child"]);
        assert_eq!(index.dependents("uid-owner").count(), 1);
    }

    #[test]
    fn a_change_that_concerns_no_owner_is_no_news() {
        let child = version("child", 2, Some("owner"));
        let items = vec![version("owner", 1, None), Arc::clone(&child)];
        let (mut index, _) = Index::of(&Snapshot { revision: Revision(2), items });
        let later = version("child", 3, Some("owner"));
        assert!(index.note(&change(ChangeKind::Updated, &later, Some(&child))).is_empty());
        assert_eq!(index.known(&later.key).map(|v| v.revision), Some(Revision(3)), "it is known as it is now");
        let given_away = version("child", 4, Some("nobody"));
        assert_eq!(names(&index.note(&change(ChangeKind::Updated, &given_away, Some(&later)))), ["child"]);
        assert!(index.is_abandoned(&given_away));
        let free = version("child", 5, None);
        index.note(&change(ChangeKind::Updated, &free, Some(&given_away)));
        assert!(index.known(&free.key).is_none() && index.dependents.is_empty(), "nothing is kept of it");
    }
}
