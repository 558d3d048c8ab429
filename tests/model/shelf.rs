//! API objects kept aside by their content: a state of the model names them by a hash, and is small and copied. What a
//! decision came to is remembered by everything it was made from, for decisions are pure.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, RwLock},
};

use serde::Serialize;

/// Names an object by its content. The default one names nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u64);

impl Id {
    pub const NONE: Id = Id(0);

    pub fn is_some(self) -> bool {
        self != Id::NONE
    }
}

/// The same in every run, unlike a `RandomState`.
pub fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Everything of one kind that has been seen.
pub struct Shelf<T> {
    kept: RwLock<HashMap<Id, Arc<T>>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { kept: RwLock::default() }
    }
}

impl<T> Shelf<T> {
    pub fn get(&self, id: Id) -> Option<Arc<T>> {
        self.kept.read().expect("nobody panics while writing").get(&id).cloned()
    }

    pub fn keep_as(&self, id: Id, value: impl FnOnce() -> T) -> Id {
        if self.get(id).is_none() {
            let value = Arc::new(value());
            self.kept.write().expect("nobody panics while writing").insert(id, value);
        }
        id
    }
}

impl<T: Serialize> Shelf<T> {
    pub fn keep(&self, value: T) -> Id {
        let text = serde_json::to_vec(&value).expect("objects of the API can be serialised");
        self.keep_as(Id(hash_of(&text).max(1)), || value)
    }
}

const SHARDS: u64 = 64;

/// From a hash of everything a pure function read to what it said.
pub struct Memo<V> {
    shards: Vec<Mutex<HashMap<u64, V>>>,
}

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl<V: Copy> Memo<V> {
    pub fn get_or(&self, key: &impl Hash, say: impl FnOnce() -> V) -> V {
        let key = hash_of(key);
        let shard = &self.shards[usize::try_from(key % SHARDS).unwrap_or_default()];
        if let Some(said) = shard.lock().expect("nobody panics while holding it").get(&key) {
            return *said;
        }
        let said = say();
        shard.lock().expect("nobody panics while holding it").insert(key, said);
        said
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().expect("nobody panics while holding it").len()).sum()
    }
}
