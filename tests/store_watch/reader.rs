//! A client: lists, watches, breaks off, comes back, and checks each change against what it has.

use std::{collections::BTreeMap, sync::Arc};

use gaia::store::{Change, ChangeKind, EmbeddedStore, Key, Revision, Store, StoreError, Version, Watch};
use serde_json::Value;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{LOG, Scope, record::Event};

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// Reads whatever there is at once.
    Quick,
    /// Falls behind, and is told 410.
    Slow,
    /// Breaks off after a few answers, or in the middle of a call, and comes back where it was.
    Fickle,
}

impl Temper {
    pub const ALL: [Temper; 3] = [Temper::Quick, Temper::Slow, Temper::Fickle];
}

/// Everything told after `from`, up to and including `to`.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from: u64,
    pub to: u64,
    pub count: u64,
    pub sum: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct List {
    pub revision: u64,
    pub sum: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    told: u64,
    created: u64,
    deleted: u64,
    expired: u64,
    resumed: u64,
    dropped_calls: u64,
    bookmarks: u64,
    lists: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.created += other.created;
        self.deleted += other.deleted;
        self.expired += other.expired;
        self.resumed += other.resumed;
        self.dropped_calls += other.dropped_calls;
        self.bookmarks += other.bookmarks;
        self.lists += other.lists;
    }

    /// A check that had nothing to check has not held.
    pub fn assert_everything_happened(&self) {
        let Self { told, created, deleted, expired, resumed, dropped_calls, bookmarks, lists } = *self;
        for happened in [told, created, deleted, expired, resumed, dropped_calls, bookmarks, lists] {
            assert!(happened > 20, "too little happened: {self:?}");
        }
    }
}

pub struct Reader {
    store: Arc<EmbeddedStore>,
    /// Nothing more will be written.
    ended: CancellationToken,
    pub scope: Scope,
    pub temper: Temper,
    random: fastrand::Rng,
    mirror: BTreeMap<Key, Arc<Version>>,
    /// The last revision told, or listed.
    last: u64,
    span: Span,
    pub spans: Vec<Span>,
    pub lists: Vec<List>,
    pub counts: Counts,
}

impl Reader {
    pub fn new(store: Arc<EmbeddedStore>, ended: CancellationToken, scope: Scope, temper: Temper, seed: usize) -> Self {
        Self {
            store,
            ended,
            scope,
            temper,
            random: fastrand::Rng::with_seed(seed as u64),
            mirror: BTreeMap::new(),
            last: 0,
            span: Span { from: 0, to: 0, count: 0, sum: 0 },
            spans: Vec::new(),
            lists: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Until the object `end` is there and everything before it was told.
    pub async fn run(mut self, end: Key) -> Self {
        loop {
            self.list().await;
            let mut position = Revision(self.last);
            // Comes back where it was until that is gone.
            loop {
                let mut watch = match self.store.watch(self.scope.prefix(), position).await {
                    Ok(watch) => watch,
                    Err(StoreError::Expired { asked, oldest }) => {
                        assert!(asked == position && oldest > asked);
                        self.counts.expired += 1;
                        break;
                    }
                    Err(other) => panic!("a reader was told {other:?}"),
                };
                assert_eq!(watch.position(), position);
                match self.read(&mut *watch, &end).await {
                    Left::AtTheEnd => return self,
                    Left::BrokenOff => {
                        position = watch.position();
                        self.counts.resumed += 1;
                    }
                    Left::Expired => {
                        self.counts.expired += 1;
                        break;
                    }
                }
            }
        }
    }

    async fn list(&mut self) {
        self.close_span(self.last);
        let snapshot = self.store.list(&self.scope.prefix()).await.unwrap();
        assert!(snapshot.revision.0 >= self.last, "a list is not older than what was told");
        self.mirror = snapshot.items.iter().map(|version| (version.key.clone(), version.clone())).collect();
        assert!(snapshot.items.iter().all(|version| version.revision <= snapshot.revision && self.whole(version)));
        let listed = snapshot.items.iter().map(|version| Event::listed(version.key.as_str(), version.revision.0));
        self.lists.push(List { revision: snapshot.revision.0, sum: listed.fold(0, u64::wrapping_add) });
        self.last = snapshot.revision.0;
        self.span = Span { from: self.last, to: self.last, count: 0, sum: 0 };
        self.counts.lists += 1;
    }

    async fn read(&mut self, watch: &mut dyn Watch, end: &Key) -> Left {
        let mut answers = if self.temper == Temper::Fickle { self.random.u32(1..8) } else { u32::MAX };
        while answers > 0 {
            if (self.ended.is_cancelled() || self.random.u8(..16) == 0) && self.bookmark(watch, end).await {
                return Left::AtTheEnd;
            }
            if self.temper == Temper::Slow {
                self.doze(watch.position()).await;
            }
            answers -= 1;
            // `next` may be dropped at any moment; the call that is dropped has lost nothing.
            let answer = tokio::select! {
                biased;
                answer = watch.next() => answer,
                () = yield_now(), if self.temper == Temper::Fickle => {
                    self.counts.dropped_calls += 1;
                    continue;
                }
                // Scopes that nobody writes to any more still see the end.
                () = self.ended.cancelled() => continue,
            };
            match answer {
                Ok(changes) => {
                    assert!(!changes.is_empty(), "an answer has a change");
                    changes.iter().for_each(|change| self.hear(change));
                    assert!(watch.position().0 >= self.last, "what was told is behind the position");
                }
                Err(StoreError::Expired { asked, .. }) => {
                    assert_eq!(asked, watch.position());
                    self.close_span(asked.0);
                    self.last = asked.0;
                    return Left::Expired;
                }
                Err(other) => panic!("a reader was told {other:?}"),
            }
        }
        Left::BrokenOff
    }

    /// Until this many changes wait, at times more than are kept.
    async fn doze(&mut self, position: Revision) {
        let waiting = self.random.u64(..LOG as u64 * 5 / 4);
        while !self.ended.is_cancelled() && self.store.revision().await.unwrap().0 < position.0 + waiting {
            yield_now().await;
        }
    }

    /// What the bookmark says was told is compared with the record later. True at the end of everything.
    async fn bookmark(&mut self, watch: &mut dyn Watch, end: &Key) -> bool {
        let written = self.store.get(end).await.unwrap();
        let mark = watch.catch_up().0;
        assert!(mark >= self.last, "a bookmark is not behind what was told");
        self.close_span(mark);
        self.last = mark;
        self.counts.bookmarks += 1;
        written.is_some_and(|end| mark >= end.revision.0)
    }

    fn hear(&mut self, change: &Change) {
        let version = &change.version;
        assert!(version.revision.0 > self.last, "ordered, unique: {} after {}", version.revision, self.last);
        assert!(self.scope.wants(&version.object), "filtered: {} for {:?}", version.key.as_str(), self.scope);
        assert!(self.whole(version), "atomic: {version:?}");
        let had = match change.kind {
            ChangeKind::Created | ChangeKind::Updated => self.mirror.insert(version.key.clone(), version.clone()),
            ChangeKind::Deleted => self.mirror.remove(&version.key),
        };
        assert_eq!(change.previous, had, "previous value, at {}", version.revision);
        assert_eq!(change.kind == ChangeKind::Created, had.is_none(), "is-create, at {}", version.revision);
        let event = Event::of(change.kind, version, had.map_or(0, |had| had.revision.0));
        self.span.count += 1;
        self.span.sum = self.span.sum.wrapping_add(event.sum);
        self.last = version.revision.0;
        self.counts.told += 1;
        self.counts.created += u64::from(change.kind == ChangeKind::Created);
        self.counts.deleted += u64::from(change.kind == ChangeKind::Deleted);
    }

    /// The text says what the value says, and both say which revision they are.
    fn whole(&self, version: &Version) -> bool {
        let text: Value = serde_json::from_slice(&version.json).expect("JSON");
        text == version.object && text["metadata"]["resourceVersion"] == version.revision.to_string()
    }

    fn close_span(&mut self, to: u64) {
        self.spans.push(Span { to, ..self.span });
        self.span = Span { from: to, to, count: 0, sum: 0 };
    }
}

/// Why a reader stopped reading a watch.
enum Left {
    AtTheEnd,
    BrokenOff,
    Expired,
}
