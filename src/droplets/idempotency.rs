//! Calls under an `Idempotency-Key`: what counts as the same call, and what came of those that ended.
//!
//! A key belongs to a droplet, a method and a path; the payload says whether it is the same call. Keys and payloads are kept as
//! digests, so a long one costs no more than a short one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{names, record::Record};

/// From the end of a call until its key is free again.
pub const KEPT_SECONDS: f64 = 24.0 * 3600.0;
/// Bodies that a record keeps only a part of are kept for callers who ask again, up to this size.
pub const MOST_BODY_BYTES: usize = 1024 * 1024;
/// What a result costs beside its bodies, about.
const OVERHEAD_BYTES: usize = 1024;
/// All results; the oldest go first.
const BOUNDS: Bounds = Bounds { count: 10_000, bytes: 64 * 1024 * 1024 };

/// SHA-256.
pub type Fingerprint = [u8; 32];

/// A key at a droplet's method and path, and the payload it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    pub scope: Fingerprint,
    pub payload: Fingerprint,
}

impl Once {
    /// The payload counts byte by byte, as it was written.
    pub fn new(key: &str, droplet: &str, method: &str, path: &str, payload: Option<&str>) -> Self {
        let scope = fingerprint(&[Some(key), Some(&names::key(droplet)), Some(method), Some(path)]);
        Self { scope, payload: fingerprint(&[payload]) }
    }
}

fn fingerprint(parts: &[Option<&str>]) -> Fingerprint {
    let mut digest = Sha256::new();
    for part in parts {
        // With its length, or the end of one could be the beginning of the next.
        digest.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        digest.update(part.unwrap_or_default());
    }
    digest.finalize().into()
}

/// What came of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    pub record: Arc<Record>,
    /// The body, where the record has only a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Box<RawValue>>,
}

impl Made {
    pub fn new(record: Arc<Record>, body: Option<&RawValue>) -> Self {
        let part = record.response_body.as_deref().map(RawValue::get) != body.map(RawValue::get);
        let whole = body.filter(|body| part && body.get().len() <= MOST_BODY_BYTES).map(RawValue::to_owned);
        Self { record, whole }
    }

    /// As the first caller was told, unless that is too large: then as the record has it.
    pub fn body(&self) -> Option<&RawValue> {
        self.whole.as_deref().or(self.record.response_body.as_deref())
    }

    /// Unix seconds.
    fn ended_at(&self) -> f64 {
        self.record.completed_at.unwrap_or(self.record.created_at)
    }

    fn bytes(&self) -> usize {
        let length = |body: Option<&RawValue>| body.map_or(0, |body| body.get().len());
        OVERHEAD_BYTES + length(self.record.response_body.as_deref()) + length(self.whole.as_deref())
    }
}

/// What is known of a call before it is made.
#[derive(Debug, Clone)]
pub enum Before {
    Never,
    Made(Made),
    /// The key was used with another payload.
    OtherPayload,
}

struct Bounds {
    count: usize,
    bytes: usize,
}

/// The results of ended calls, by their keys; bounded in number, size and age.
pub struct Results {
    bounds: Bounds,
    by_scope: HashMap<Fingerprint, Kept>,
    /// In the order in which they came.
    order: BTreeMap<u64, Fingerprint>,
    came: u64,
    bytes: usize,
}

struct Kept {
    payload: Fingerprint,
    made: Made,
    number: u64,
}

impl Default for Results {
    fn default() -> Self {
        Self { bounds: BOUNDS, by_scope: HashMap::new(), order: BTreeMap::new(), came: 0, bytes: 0 }
    }
}

impl Results {
    /// `now` in Unix seconds.
    pub fn find(&self, once: &Once, now: f64) -> Before {
        match self.by_scope.get(&once.scope) {
            Some(kept) if now - kept.made.ended_at() > KEPT_SECONDS => Before::Never,
            Some(kept) if kept.payload != once.payload => Before::OtherPayload,
            Some(kept) => Before::Made(kept.made.clone()),
            None => Before::Never,
        }
    }

    /// The keys that are free again.
    pub fn put(&mut self, once: &Once, made: Made) -> Vec<Fingerprint> {
        self.remove(&once.scope);
        let now = made.ended_at();
        self.came += 1;
        self.bytes += made.bytes();
        self.order.insert(self.came, once.scope);
        self.by_scope.insert(once.scope, Kept { payload: once.payload, made, number: self.came });
        let mut free = Vec::new();
        while let Some(oldest) = self.order.values().next().copied() {
            let old = self.by_scope.get(&oldest).is_some_and(|kept| now - kept.made.ended_at() > KEPT_SECONDS);
            if !old && self.order.len() <= self.bounds.count && self.bytes <= self.bounds.bytes {
                break;
            }
            self.remove(&oldest);
            free.push(oldest);
        }
        free
    }

    fn remove(&mut self, scope: &Fingerprint) {
        if let Some(kept) = self.by_scope.remove(scope) {
            self.order.remove(&kept.number);
            self.bytes -= kept.made.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::droplets::{body, retry::Verdict};

    fn made(at: f64, text: &str) -> Made {
        let whole = body::read(text.as_bytes().to_vec());
        let record = Record {
            id: "id".to_owned(),
            droplet_name: "a".to_owned(),
            target_url: "http://a/x".to_owned(),
            method: "POST".to_owned(),
            status: Verdict::Success,
            response_status: Some(200),
            response_body: whole.as_deref().map(body::kept),
            retry_count: 0,
            created_at: at,
            completed_at: Some(at),
            duration_ms: Some(0),
            error_message: None,
            error: None,
        };
        Made::new(Arc::new(record), whole.as_deref())
    }

    fn once(key: &str) -> Once {
        Once::new(key, "a", "POST", "/x", Some("{}"))
    }

    #[test]
    fn the_same_call_is_the_same_in_every_part() {
        let call = once("k");
        assert_eq!(call, Once::new("k", "A", "POST", "/x", Some("{}")), "names are the same in any case");
        let others = [
            Once::new("K", "a", "POST", "/x", Some("{}")),
            Once::new("k", "b", "POST", "/x", Some("{}")),
            Once::new("k", "a", "PUT", "/x", Some("{}")),
            Once::new("k", "a", "POST", "/y", Some("{}")),
            Once::new("ka", "", "POST", "/x", Some("{}")),
        ];
        assert!(others.iter().all(|other| other.scope != call.scope));
        for payload in [None, Some(""), Some("{ }")] {
            let other = Once::new("k", "a", "POST", "/x", payload);
            assert!(other.scope == call.scope && other.payload != call.payload, "{payload:?}");
        }
    }

    #[test]
    fn a_result_is_found_for_a_day_and_only_with_its_payload() {
        let mut results = Results::default();
        assert!(matches!(results.find(&once("k"), 0.0), Before::Never));
        assert_eq!(results.put(&once("k"), made(100.0, "1")), [[0; 32]; 0]);
        for now in [0.0, 100.0, 100.0 + KEPT_SECONDS] {
            assert!(matches!(results.find(&once("k"), now), Before::Made(_)), "{now}");
        }
        let other = Once::new("k", "a", "POST", "/x", None);
        assert!(matches!(results.find(&other, 100.0), Before::OtherPayload));
        let later = 101.0 + KEPT_SECONDS;
        assert!(matches!(results.find(&once("k"), later), Before::Never));
        assert!(matches!(results.find(&other, later), Before::Never), "the key is free again");
        assert_eq!(results.put(&once("l"), made(later, "1")), [once("k").scope]);
        assert_eq!((results.by_scope.len(), results.order.len()), (1, 1));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_much() {
        let keys = ["1", "2", "3", "4"];
        let filled = |bounds| {
            let mut results = Results { bounds, ..Results::default() };
            let free: Vec<_> = keys.iter().flat_map(|key| results.put(&once(key), made(0.0, "1"))).collect();
            (results, free)
        };
        let (mut results, free) = filled(Bounds { count: 3, bytes: usize::MAX });
        assert_eq!(free, [once("1").scope]);
        assert_eq!(results.put(&once("2"), made(0.0, "1")), [[0; 32]; 0], "who is put again is none more");
        assert_eq!(results.put(&once("5"), made(0.0, "1")), [once("3").scope]);
        let (results, free) = filled(Bounds { count: 9, bytes: 3 * OVERHEAD_BYTES });
        assert_eq!(free, [once("1").scope, once("2").scope]);
        assert!(results.bytes <= 3 * OVERHEAD_BYTES);
    }

    #[test]
    fn bodies_are_whole_as_far_as_is_reasonable() {
        let text = |length: usize| format!("\"{}\"", "x".repeat(length));
        for length in [10, 20 * 1024, MOST_BODY_BYTES - 2] {
            let made = made(0.0, &text(length));
            assert_eq!(made.body().map(RawValue::get), Some(&*text(length)), "{length}");
            assert_eq!(made.whole.is_some(), length > 10 * 1024, "it is not kept twice");
            let read: Made = serde_json::from_str(&serde_json::to_string(&made).expect("JSON")).expect("ours");
            assert_eq!(read.body().map(RawValue::get), made.body().map(RawValue::get));
        }
        let large = made(0.0, &text(MOST_BODY_BYTES));
        assert!(large.body().is_some_and(|body| body.get().contains("_truncated")));
    }
}
