//! What the store holds in memory, and how writes move through it: decided against the head, queued, published when
//! durable. Synchronous and without I/O; the lock around it is the store's.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use axum::body::Bytes;
use imbl::OrdMap;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Change, ChangeKind, Engine, EngineError, Entry, Key, Revision, Row, StoreError, StoreResult, Version, log::Log,
};

/// Of so many of the latest changes the objects are kept as trees too.
const TREES: usize = 128;

pub(super) type Verdict = StoreResult<Arc<Version>>;

/// A write somebody asks for.
pub(super) enum Wish {
    Create { key: Key, object: Value },
    Update { key: Key, object: Value, expected: Revision },
    Delete { key: Key, expected: Revision },
}

impl Wish {
    pub fn key(&self) -> &Key {
        match self {
            Wish::Create { key, .. } | Wish::Update { key, .. } | Wish::Delete { key, .. } => key,
        }
    }
}

/// A writer that waits. Its verdict holds once everything queued before it is durable.
pub(super) struct Ticket {
    pub change: Option<Change>,
    pub verdict: Verdict,
    pub reply: oneshot::Sender<Verdict>,
    /// Its place in the bounded queue.
    pub place: OwnedSemaphorePermit,
}

pub(super) struct State {
    /// Durable objects: what readers see.
    pub objects: OrdMap<Key, Arc<Version>>,
    /// The last durable write.
    pub revision: Revision,
    pub log: Log,
    /// Decided, not yet durable. Together with `objects` this is the head that writes are compared with.
    pending: HashMap<Key, Change>,
    /// The last revision given out.
    head: Revision,
    pub queue: VecDeque<Ticket>,
    pub closed: bool,
}

impl State {
    /// Reads everything an engine holds, and how many log entries those are. The log keeps the last `capacity` changes.
    pub fn load(engine: &mut dyn Engine, capacity: usize) -> Result<(Self, usize), EngineError> {
        let image = engine.load()?;
        let mut objects = OrdMap::new();
        for row in image.objects {
            objects.insert(row.key.clone(), parse(&row)?);
        }
        let mut log = Log::new(capacity, image.compacted);
        let mut latest = HashMap::new();
        let history = engine.history(image.compacted)?;
        agree(&history, &objects, image.revision)?;
        for entry in &history {
            log.push(revive(entry, &objects, &mut latest)?);
        }
        let state = Self {
            objects,
            revision: image.revision,
            log,
            pending: HashMap::new(),
            head: image.revision,
            queue: VecDeque::new(),
            closed: false,
        };
        Ok((state, history.len()))
    }

    /// Whether a write to this object is decided but not durable.
    pub fn is_pending(&self, key: &Key) -> bool {
        self.pending.contains_key(key)
    }

    /// Closed, and no write is on its way to the disk any more: whoever watches has been told everything.
    pub fn is_over(&self) -> bool {
        self.closed && self.pending.is_empty()
    }

    /// Compares a write with the head and, if it holds, gives it the next revision. The verdict must not be told before
    /// everything that is pending now is durable.
    pub fn decide(&mut self, wish: Wish) -> (Option<Change>, Verdict) {
        match self.compare(wish) {
            Ok(Step::Stay(version)) => (None, Ok(version)),
            Ok(Step::Move { kind, key, object, previous }) => {
                let version = Arc::new(self.make(key.clone(), object));
                let change = Change { kind, version: version.clone(), previous };
                self.pending.insert(key, change.clone());
                (Some(change), Ok(version))
            }
            Err(refusal) => (None, Err(refusal)),
        }
    }

    fn compare(&self, wish: Wish) -> StoreResult<Step> {
        match wish {
            Wish::Create { key, object } => match self.at_head(&key) {
                Some(present) => Err(StoreError::AlreadyExists(present.clone())),
                None => Ok(Step::Move { kind: ChangeKind::Created, key, object, previous: None }),
            },
            Wish::Update { key, mut object, expected } => {
                let present = self.expect(&key, expected)?;
                stamp(&mut object, present.revision);
                if present.object == object {
                    return Ok(Step::Stay(present));
                }
                Ok(Step::Move { kind: ChangeKind::Updated, key, object, previous: Some(present) })
            }
            Wish::Delete { key, expected } => {
                let present = self.expect(&key, expected)?;
                let object = present.object.clone();
                Ok(Step::Move { kind: ChangeKind::Deleted, key, object, previous: Some(present) })
            }
        }
    }

    fn expect(&self, key: &Key, expected: Revision) -> StoreResult<Arc<Version>> {
        match self.at_head(key) {
            None => Err(StoreError::NotFound(key.clone())),
            Some(present) if present.revision != expected => Err(StoreError::Conflict(present.clone())),
            Some(present) => Ok(present.clone()),
        }
    }

    fn at_head(&self, key: &Key) -> Option<&Arc<Version>> {
        match self.pending.get(key) {
            Some(Change { kind: ChangeKind::Created | ChangeKind::Updated, version, .. }) => Some(version),
            Some(Change { kind: ChangeKind::Deleted, .. }) => None,
            None => self.objects.get(key),
        }
    }

    fn make(&mut self, key: Key, mut object: Value) -> Version {
        self.head.0 += 1;
        stamp(&mut object, self.head);
        let json = serde_json::to_vec(&object).expect("a Value has string keys and no failing serializer");
        Version::new(key, self.head, object, json.into())
    }

    /// Shows durable changes to readers and watchers. They are in order and follow `revision`, which is answered as it
    /// is afterwards.
    pub fn publish(&mut self, changes: Vec<Change>) -> Revision {
        for change in changes {
            let Version { key, revision, .. } = &*change.version;
            debug_assert!(*revision > self.revision, "writes are published in order");
            match change.kind {
                ChangeKind::Created | ChangeKind::Updated => self.objects.insert(key.clone(), change.version.clone()),
                ChangeKind::Deleted => self.objects.remove(key),
            };
            if self.pending.get(key).is_some_and(|pending| pending.version.revision == *revision) {
                self.pending.remove(key);
            }
            self.revision = *revision;
            self.head = self.head.max(*revision);
            let superseded = change.previous.as_ref().map(|previous| previous.revision);
            self.log.push(change);
            let old = self.log.len().saturating_sub(TREES);
            let superseded = superseded.and_then(|revision| self.log.place_of(revision)).filter(|place| *place < old);
            for place in superseded.into_iter().chain(old.checked_sub(1)) {
                self.slim_down(place);
            }
        }
        self.revision
    }

    /// Leaves only the texts of a change that is no longer among the latest: watches have passed it, and most that is written once is
    /// not looked into again.
    fn slim_down(&mut self, place: usize) {
        let Some(version) = self.log.version_at(place) else { return };
        let is_present = self.objects.get(&version.key).is_some_and(|present| present.revision == version.revision);
        let slim = Arc::new(version.slim(is_present));
        if is_present {
            self.objects.insert(slim.key.clone(), slim.clone());
        }
        self.log.replace(place, slim);
    }

    /// Forgets every pending write: the head is the durable state again. Answers the writers that were still queued.
    pub fn roll_back(&mut self) -> VecDeque<Ticket> {
        self.pending.clear();
        self.head = self.revision;
        std::mem::take(&mut self.queue)
    }

    /// Entries that a commit thought to have failed, as changes ready for [`State::publish`].
    pub fn revive(&self, entries: &[Entry]) -> Result<Vec<Change>, EngineError> {
        let mut latest = HashMap::new();
        entries.iter().map(|entry| revive(entry, &self.objects, &mut latest)).collect()
    }
}

/// A whole and valid row may still be a stale one. Where the log reaches, it must tell the same story as the objects.
fn agree(history: &[Entry], objects: &OrdMap<Key, Arc<Version>>, revision: Revision) -> Result<(), EngineError> {
    let last: HashMap<_, _> = history.iter().map(|entry| (&entry.row.key, entry)).collect();
    for (key, entry) in last {
        let logged = match entry.kind {
            ChangeKind::Created | ChangeKind::Updated => Some(entry.row.revision),
            ChangeKind::Deleted => None,
        };
        let stored = objects.get(key).map(|version| version.revision);
        if logged != stored {
            return Err(disagree(format!("{}: the log says {logged:?}, the object says {stored:?}", key.as_str())));
        }
    }
    match history.last() {
        Some(entry) if entry.row.revision != revision => {
            Err(disagree(format!("the log ends at revision {}, the state is of {revision}", entry.row.revision)))
        }
        Some(_) | None => Ok(()),
    }
}

fn disagree(how: String) -> EngineError {
    EngineError::Damaged {
        what: "the stored state".into(),
        help: format!(
            "It contradicts itself ({how}). Restore a backup, or see what can be had: gaia recover --dry-run."
        ),
    }
}

/// What the comparison came to.
enum Step {
    /// The version is there already.
    Stay(Arc<Version>),
    Move {
        kind: ChangeKind,
        key: Key,
        object: Value,
        previous: Option<Arc<Version>>,
    },
}

/// The entry of a change, for the engine.
pub(super) fn entry(change: &Change) -> Entry {
    let Version { key, revision, json, .. } = &*change.version;
    Entry {
        kind: change.kind,
        row: Row { key: key.clone(), revision: *revision, json: json.clone() },
        previous: change.previous.as_ref().map(|previous| (previous.revision, previous.json.clone())),
    }
}

/// The change of an entry. Versions that are known already are shared instead of parsed again.
fn revive(
    entry: &Entry,
    objects: &OrdMap<Key, Arc<Version>>,
    latest: &mut HashMap<Key, Arc<Version>>,
) -> Result<Change, EngineError> {
    let Row { key, revision, .. } = &entry.row;
    let known = |revision: Revision, latest: &HashMap<Key, Arc<Version>>| {
        let candidates = [objects.get(key), latest.get(key)];
        candidates.into_iter().flatten().find(|version| version.revision == revision).cloned()
    };
    let version = known(*revision, latest).map_or_else(|| parse(&entry.row), Ok)?;
    let previous = match &entry.previous {
        None => None,
        Some((revision, json)) => Some(match known(*revision, latest) {
            Some(version) => version,
            None => parse(&Row { key: key.clone(), revision: *revision, json: json.clone() })?,
        }),
    };
    latest.insert(key.clone(), version.clone());
    Ok(Change { kind: entry.kind, version, previous })
}

fn parse(row: &Row) -> Result<Arc<Version>, EngineError> {
    let version = Version::stored(row.key.clone(), row.revision, Bytes::clone(&row.json));
    let version = version.map_err(|error| EngineError::Damaged {
        what: format!("the object {} of revision {}", row.key.as_str(), row.revision),
        help: format!("It is not JSON ({error}). Restore a backup, or see what can be had: gaia recover --dry-run."),
    })?;
    Ok(Arc::new(version))
}

/// Fills in `metadata.resourceVersion`. What is not a JSON object has no metadata and stays as it is.
fn stamp(object: &mut Value, revision: Revision) {
    if let Value::Object(fields) = object
        && let Value::Object(metadata) = fields.entry("metadata").or_insert_with(|| Value::Object(Default::default()))
    {
        metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{MemoryEngine, Prefix};

    fn key(name: &str) -> Key {
        Key::new("test.dev", "things", None, name)
    }

    fn write(state: &mut State, wish: Wish) {
        let (change, verdict) = state.decide(wish);
        verdict.expect("it holds");
        state.publish(change.into_iter().collect());
    }

    fn update(state: &mut State, name: &str, number: usize) {
        let expected = state.objects.get(&key(name)).expect("it was created").revision;
        write(state, Wish::Update { key: key(name), object: json!({"number": number}), expected });
    }

    /// Trees that are kept: of what there is, and of what the log tells.
    fn trees(state: &State) -> (usize, usize) {
        let found = state.log.after(Revision(0), &Prefix::all(), usize::MAX, usize::MAX).expect("all of it is kept");
        let told = found.changes.iter().flat_map(|change| [Some(&change.version), change.previous.as_ref()]).flatten();
        let mut told: Vec<_> = told.filter(|version| version.object.made().is_some()).map(Arc::as_ptr).collect();
        told.sort_unstable();
        told.dedup();
        let present = state.objects.values().filter(|version| version.object.made().is_some());
        (present.count(), told.len())
    }

    #[test]
    fn only_the_latest_changes_keep_their_trees() {
        let (mut state, _) = State::load(&mut MemoryEngine::default(), 10_000).expect("it is empty");
        for n in 0..3 * TREES {
            write(&mut state, Wish::Create { key: key(&n.to_string()), object: json!({"number": n}) });
        }
        assert_eq!(trees(&state), (TREES, TREES));
        for number in 0..3 * TREES {
            update(&mut state, "7", number);
        }
        // The one before the eldest is told with it.
        assert_eq!(trees(&state), (1, TREES + 1));
        assert_eq!(state.objects.values().map(|version| version.object["number"].as_u64()).max(), Some(Some(383)));
    }

    #[test]
    fn what_was_decoded_stays_with_what_there_is() {
        let (mut state, _) = State::load(&mut MemoryEngine::default(), 10_000).expect("it is empty");
        for name in ["stays", "changes"] {
            write(&mut state, Wish::Create { key: key(name), object: json!({"number": 1}) });
        }
        let decoded = |state: &State, name: &str| {
            state.objects.get(&key(name)).expect("it is there").decode::<Value>().expect("a value")
        };
        let before = decoded(&state, "stays");
        for number in 0..2 * TREES {
            update(&mut state, "changes", number);
        }
        assert!(state.objects[&key("stays")].object.made().is_none());
        assert!(Arc::ptr_eq(&before, &decoded(&state, "stays")));
        assert_eq!(decoded(&state, "changes")["number"], 2 * TREES - 1);
    }
}
