//! One client's view of changes: first what there is, then what happens, with bookmarks between, until a deadline. Knows
//! no transport; the HTTP watch, the WebSocket and the event stream each write it down in their own way.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    registry::{ApiError, ApiResult, Kind, ListOptions, Reason, Registry, Selector, selector::Filtered},
    store::{Change, ChangeKind, Revision, StoreError, Version, Watch},
};

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How many initial objects are handed on at once.
const BATCH: usize = 256;

/// What a client is told next.
#[derive(Debug, Clone)]
pub enum Told {
    /// One of the objects there were at the start.
    Initial(Arc<Version>),
    Changed(ChangeKind, Arc<Version>),
    /// Everything up to here has been told. `initial_end`: the objects there were at the start, that is.
    Bookmark {
        revision: Revision,
        initial_end: bool,
    },
    /// The last thing told.
    Failed(ApiError),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what there is.
    Everything,
    /// With what happens from now on.
    Now,
    /// Right after a revision the client has seen.
    After(Revision),
}

/// What one client asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    pub from: From,
    pub selector: Selector,
    pub bookmarks: bool,
    /// The objects there were at the start are followed by a bookmark that says so.
    pub mark_initial_end: bool,
    /// None: until the client goes or the process ends.
    pub timeout: Option<Duration>,
}

/// A running view. Dropping it ends it.
pub struct Feed {
    pending: VecDeque<Told>,
    cursor: Option<Box<dyn Watch>>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Option<Instant>,
    shutdown: CancellationToken,
}

impl Feed {
    /// A revision that is gone is no error here but the first and last thing told: clients look for it in the stream,
    /// and at least one of them (kube-rs) never recovers from a 410 to the request itself. The same goes for a revision
    /// that is still to come: whoever has it saw it before the database was restored, and must list anew.
    pub async fn open(
        registry: &Registry,
        kind: &Kind,
        namespace: Option<&str>,
        wish: Wish,
        shutdown: CancellationToken,
    ) -> ApiResult<Self> {
        let mut pending = VecDeque::new();
        let after = match wish.from {
            From::After(revision) => revision,
            From::Now => registry.store().revision().await.map_err(broken)?,
            From::Everything => {
                let options = ListOptions { selector: wish.selector.clone(), ..ListOptions::default() };
                let list = registry.list(kind, namespace, &options).await?;
                pending.extend(list.items.into_iter().map(Told::Initial));
                list.revision
            }
        };
        let cursor = registry.watch(kind, namespace, after).await;
        let selector = wish.selector.clone();
        let cursor = cursor.map(|cursor| -> Box<dyn Watch> {
            if selector.is_empty() { cursor } else { Box::new(Filtered::new(cursor, selector)) }
        });
        Self::start(pending, cursor, after, &wish, shutdown)
    }

    /// From objects and a cursor that are there already.
    pub fn start(
        mut pending: VecDeque<Told>,
        cursor: ApiResult<Box<dyn Watch>>,
        after: Revision,
        wish: &Wish,
        shutdown: CancellationToken,
    ) -> ApiResult<Self> {
        if wish.mark_initial_end {
            pending.push_back(Told::Bookmark { revision: after, initial_end: true });
        }
        let cursor = match cursor {
            Ok(cursor) => Some(cursor),
            Err(error) if matches!(error.reason, Reason::Expired | Reason::Timeout) => {
                pending = VecDeque::from([Told::Failed(ApiError::new(Reason::Expired, error.message))]);
                None
            }
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        Ok(Self {
            pending,
            cursor,
            bookmarks: wish.bookmarks,
            next_bookmark: now + BOOKMARK_PERIOD,
            deadline: wish.timeout.map(|timeout| now + timeout),
            shutdown,
        })
    }

    /// What is to be told next, at least one thing; none when it is over. Cancel-safe: what was not handed out stays.
    pub async fn next(&mut self) -> Option<Vec<Told>> {
        if !self.pending.is_empty() {
            let count = self.pending.len().min(BATCH);
            return Some(self.pending.drain(..count).collect());
        }
        let deadline = self.deadline;
        let cursor = self.cursor.as_mut()?;
        // The cursor's `next` loses nothing when dropped, and the others hold nothing.
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => self.last_bookmark(),
            () = at(deadline) => self.last_bookmark(),
            () = sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
                Some(vec![Told::Bookmark { revision: cursor.catch_up(), initial_end: false }])
            }
            changes = cursor.next() => Some(match changes {
                Ok(changes) => changes.into_iter().map(changed).collect(),
                Err(error) => {
                    self.cursor = None;
                    vec![Told::Failed(broken(error))]
                }
            }),
        }
    }

    /// So that the next watch begins where this one ended.
    fn last_bookmark(&mut self) -> Option<Vec<Told>> {
        let mut cursor = self.cursor.take()?;
        self.bookmarks.then(|| vec![Told::Bookmark { revision: cursor.catch_up(), initial_end: false }])
    }
}

fn changed(change: Change) -> Told {
    Told::Changed(change.kind, change.version)
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a client is told of a store's refusal to follow.
pub fn broken(error: StoreError) -> ApiError {
    match error {
        StoreError::Expired { asked, oldest } => ApiError::too_old(asked, oldest),
        StoreError::Future { asked, latest } => ApiError::too_large(asked, latest),
        StoreError::AlreadyExists(_)
        | StoreError::NotFound(_)
        | StoreError::Conflict(_)
        | StoreError::Unavailable(_)
        | StoreError::Full(_)
        | StoreError::Closed => ApiError::new(Reason::ServiceUnavailable, error.to_string()),
    }
}
