//! How old the list of droplets is, and what a new one changes: contract section 2.4 and 2.5.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::listing::Entry;

/// What is said for an age that nobody knows.
pub const UNKNOWN_AGE_SECONDS: i64 = 999_999;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheStatus {
    Active,
    Stale,
    Unavailable,
}

/// The list that is served, and since when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// When the registry said so last. None: a file without a time, or never.
    pub synced_at: Option<Timestamp>,
    pub droplets: Vec<Entry>,
    /// Since when the registry has been saying that there are none, while we serve those that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Timestamp>,
}

impl Cache {
    pub fn status(&self, expiry: Duration, now: Timestamp) -> CacheStatus {
        match self.synced_at {
            None => CacheStatus::Unavailable,
            Some(_) if self.droplets.is_empty() => CacheStatus::Unavailable,
            Some(at) if elapsed(at, now) > expiry => CacheStatus::Stale,
            Some(_) => CacheStatus::Active,
        }
    }

    /// Whole seconds.
    pub fn age_seconds(&self, now: Timestamp) -> i64 {
        self.synced_at.map_or(UNKNOWN_AGE_SECONDS, |at| elapsed(at, now).as_secs().try_into().unwrap_or(i64::MAX))
    }

    /// After the registry has answered with this list. An empty one takes effect once it has been empty for `expiry`: a registry
    /// that was just restarted has forgotten everybody.
    #[must_use]
    pub fn synced(self, droplets: Vec<Entry>, expiry: Duration, now: Timestamp) -> Self {
        if !droplets.is_empty() || self.droplets.is_empty() {
            return Self { synced_at: Some(now), droplets, empty_since: None };
        }
        let since = self.empty_since.unwrap_or(now);
        if elapsed(since, now) >= expiry {
            return Self { synced_at: Some(now), droplets, empty_since: None };
        }
        Self { empty_since: Some(since), ..self }
    }

    /// The file's text: ours, or the original's, which is a list without a time.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Self>(text).or_else(|error| match serde_json::from_slice::<Vec<Entry>>(text) {
            Ok(droplets) => Ok(Self { synced_at: None, droplets, empty_since: None }),
            Err(_) => Err(error),
        })
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(300);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
    }

    fn one() -> Vec<Entry> {
        vec![Entry { name: "a".into(), endpoint: "http://a".into(), ..Entry::default() }]
    }

    #[test]
    fn a_list_is_active_then_stale_and_never_gone() {
        let cache = Cache::default();
        assert_eq!((cache.status(EXPIRY, at(0)), cache.age_seconds(at(0))), (CacheStatus::Unavailable, 999_999));
        let cache = cache.synced(one(), EXPIRY, at(0));
        assert_eq!((cache.status(EXPIRY, at(300)), cache.age_seconds(at(300))), (CacheStatus::Active, 300));
        assert_eq!(cache.status(EXPIRY, at(301)), CacheStatus::Stale);
        assert_eq!(cache.status(EXPIRY, at(-50)), CacheStatus::Active, "a clock that was set back");
    }

    #[test]
    fn an_empty_list_counts_once_it_stayed_empty() {
        let cache = Cache::default().synced(Vec::new(), EXPIRY, at(0));
        assert_eq!(cache.synced_at, Some(at(0)), "where there was none it counts at once");
        let cache = cache.synced(one(), EXPIRY, at(10)).synced(Vec::new(), EXPIRY, at(70));
        assert_eq!((cache.droplets.len(), cache.synced_at), (1, Some(at(10))));
        let again = cache.clone().synced(one(), EXPIRY, at(130));
        assert_eq!(again.empty_since, None, "they are back");
        assert_eq!(cache.clone().synced(Vec::new(), EXPIRY, at(369)).droplets.len(), 1);
        assert_eq!(cache.synced(Vec::new(), EXPIRY, at(370)).droplets.len(), 0);
    }

    #[test]
    fn both_files_are_read() {
        let cache = Cache::default().synced(one(), EXPIRY, at(0));
        let text = serde_json::to_vec(&cache).expect("JSON");
        assert_eq!(Cache::parse(&text).expect("ours"), cache);
        let original = br#"[{"id": 1, "name": "a", "endpoint": "http://a", "metadata": {}}]"#;
        let cache = Cache::parse(original).expect("the original's");
        assert_eq!((cache.droplets.len(), cache.synced_at), (1, None));
        for junk in ["", "{", "[1]", r#"{"droplets": [{"id": 1}]}"#] {
            assert!(Cache::parse(junk.as_bytes()).is_err(), "{junk}");
        }
    }
}
