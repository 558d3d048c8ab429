//! A git repository as a directory: one commit of it is read, a task beside looks for the next.
//!
//! What is read is always a whole commit that is on the disk already. So a repository that cannot be reached, a branch that is
//! gone and a password that no longer fits change nothing of what is applied, and are told; a new process begins with the
//! commit it finds. A fetch runs on a thread of its own, ends at its deadline, and never holds up a pass or the shutdown.

mod fetch;
mod tree;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep},
};
use tracing::{info, warn};

pub use self::fetch::{Commit, Failure};
use self::{fetch::Job, tree::Place};
use super::files::{Directory, Listing};
use crate::{
    api::source::{GitSource, SourceReason},
    runtime::{
        backoff::{Backoff, seed_of},
        clock::Clock,
    },
};

/// After a fetch that failed.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// How long a fetch that is told to end may take to do so before it is left alone.
const GRACE: Duration = Duration::from_secs(5);
/// How often a fetch under way is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What one commit may take on the disk.
const MOST_BYTES: u64 = 1 << 30;

/// Where the repositories of all Sources are.
#[derive(Clone)]
pub struct Repositories {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
}

/// What is known of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Whose files are read; `None`: none has been fetched yet.
    pub commit: Option<Commit>,
    /// When a fetch first found it, as far as this process knows.
    pub since: Option<Timestamp>,
    /// Why the last fetch found nothing.
    pub failure: Option<Failure>,
    /// The request that the last fetch answered.
    pub answered: Option<String>,
}

impl Repositories {
    /// Under a directory that is made when it is needed.
    pub fn new(directory: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { directory: directory.into(), clock }
    }

    /// Begins to follow a repository; it is followed until what is answered is dropped. Must be called inside a runtime.
    pub async fn follow(&self, source: &str, git: &GitSource, interval: Duration) -> GitDirectory {
        let directory = self.directory.join(source);
        // A commit of another repository must not be taken for one of this.
        let own = directory.join(digest(git));
        let (above, place_of_ours) = (directory, own.clone());
        let begun = tokio::task::spawn_blocking(move || begin(&above, &place_of_ours)).await;
        // What cannot be looked at is fetched anew.
        let known = begun.ok().flatten().unwrap_or_default();
        let shared = Arc::new(Shared { known: Mutex::new(known), ..Shared::default() });
        let timeout = Duration::from_secs(git.timeout_seconds.into());
        let job = Job { git: git.clone(), directory: own.clone(), number: 0, timeout };
        let follower =
            Follower { source: source.to_owned(), job, interval, shared: shared.clone(), clock: self.clock.clone() };
        GitDirectory { place: place(source, git), directory: own, shared, task: tokio::spawn(follower.run()) }
    }

    /// Removes what a Source had fetched.
    pub async fn forget(&self, source: &str) {
        let directory = self.directory.join(source);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || fetch::remove(&directory)).await {
            warn!(source, %error, "what was fetched is left over");
        }
    }
}

/// Leaves only this repository's directory, and in it only one commit that is whole.
fn begin(directory: &Path, own: &Path) -> Option<Known> {
    let name = own.file_name()?.to_str()?;
    fetch::keep_only(directory, Some(name)).ok();
    let mut found = None;
    for entry in std::fs::read_dir(own).ok()?.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let whole = || {
            let repository = fetch::open(own, &id)?;
            let all =
                Place { root: PathBuf::from(super::files::NO_HOST), path: String::new(), identity: String::new() };
            tree::read(&repository, &id, &all, &BTreeSet::new())?;
            fetch::subject_of(&repository, &id)
        };
        match whole() {
            Ok(commit) if found.is_none() => found = Some(commit),
            Ok(_) | Err(_) => {
                fetch::remove(&entry.path()).ok();
            }
        }
    }
    Some(Known { commit: found, ..Known::default() })
}

/// Of what tells one repository from another, and what is wanted of it.
fn digest(git: &GitSource) -> String {
    let text = format!("{}\0{:?}\0{:?}\0{:?}", git.url, git.branch, git.tag, git.commit);
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Files of a commit are on no disk, and a Compose file says things relative to where it is. So they seem to be in a directory
/// that no host has, named as a clone would be: Compose takes a project's name from it.
fn place(source: &str, git: &GitSource) -> Place {
    let last = git.url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = last.trim_end_matches(".git");
    let path = git.path.as_deref().unwrap_or_default();
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let path = path.join("/");
    Place {
        root: Path::new(super::files::NO_HOST).join(source).join(if name.is_empty() { "repository" } else { name }),
        identity: format!("{} {path}", git.url),
        path,
    }
}

/// A repository that is followed, at the commit that was found last.
pub struct GitDirectory {
    place: Place,
    directory: PathBuf,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for GitDirectory {
    fn drop(&mut self) {
        // With its future goes the flag that ends a fetch under way.
        self.task.abort();
    }
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    /// What was asked for last, by the Source's annotation.
    request: Mutex<Option<String>>,
    /// Something else is known than before.
    news: Notify,
    /// Fetch now.
    now: Notify,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) -> MutexGuard<'_, Option<String>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for GitDirectory {
    fn read<'a>(&'a mut self, also: &'a BTreeSet<PathBuf>) -> BoxFuture<'a, Listing> {
        async move {
            // What was told before is in what is read now.
            self.shared.news.notified().now_or_never();
            let known = self.shared.known().clone();
            let Some(Commit { id, .. }) = known.commit.clone() else {
                let why = known.failure.as_ref().map_or("has not been fetched yet", |_| "could not be fetched");
                return Listing { git: Some(known), ..Listing::unreadable(why) };
            };
            let (directory, place, also) = (self.directory.clone(), self.place.clone(), also.clone());
            let read = move || tree::read(&fetch::open(&directory, &id)?, &id, &place, &also);
            let why = match tokio::task::spawn_blocking(read).await {
                Ok(Ok(listing)) => return Listing { git: Some(known), ..listing },
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            // Somebody was at our files. The next fetch makes them anew.
            fetch::remove(&self.directory).ok();
            let message = format!("what was fetched is damaged and is fetched again: {why}");
            let failure = Some(Failure { reason: SourceReason::FetchFailed, message: message.clone() });
            let known = Known { commit: None, failure, ..known };
            self.shared.known().clone_from(&known);
            Listing { git: Some(known), ..Listing::unreadable(message) }
        }
        .boxed()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        // The permit stays when the future is dropped before it is taken.
        self.shared.news.notified().boxed()
    }

    fn request(&mut self, request: Option<&str>) {
        let mut last = self.shared.request();
        if last.as_deref() != request {
            *last = request.map(str::to_owned);
            self.shared.now.notify_one();
        }
    }
}

/// Fetches for ever.
struct Follower {
    source: String,
    job: Job,
    interval: Duration,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

impl Follower {
    async fn run(self) {
        let (mut failures, mut overdue) = (0_u32, None);
        loop {
            let request = self.shared.request().clone();
            let fetched = self.fetch(&mut overdue).await;
            let wait = match &fetched {
                Ok(_) => {
                    failures = 0;
                    self.interval
                }
                Err(_) => {
                    failures = failures.saturating_add(1);
                    RETRY.delay(failures - 1, seed_of(&self.source))
                }
            };
            self.note(fetched, request);
            // Both arms are cancel-safe: a notification that is not taken keeps its permit.
            tokio::select! {
                biased;
                () = self.shared.now.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    fn note(&self, fetched: Result<Commit, Failure>, request: Option<String>) {
        let mut known = self.shared.known();
        let before = known.clone();
        known.answered = request;
        match fetched {
            Ok(commit) => {
                if known.commit.as_ref() != Some(&commit) {
                    info!(source = %self.source, commit = %commit.id, subject = %commit.subject, "a commit was fetched");
                    known.since = Some(self.clock.now());
                }
                known.commit = Some(commit);
                known.failure = None;
            }
            Err(failure) => known.failure = Some(failure),
        }
        if *known != before {
            self.shared.news.notify_one();
        }
    }

    /// One fetch, on a thread of its own: a process that ends does not wait for it.
    async fn fetch(&self, overdue: &mut Option<JoinHandle<()>>) -> Result<Commit, Failure> {
        let fail = |message: String| Failure { reason: SourceReason::FetchFailed, message };
        if overdue.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Err(fail(format!("an earlier fetch of {} does not end", self.job.git.url)));
        }
        let interrupt = Interrupt(Arc::new(AtomicBool::new(false)));
        // Whatever an earlier process or directory left under way has another number.
        let job = Job { number: fastrand::u64(..), ..self.job.clone() };
        let (flag, fetched) = (interrupt.0.clone(), job.clone());
        let (tell, told) = oneshot::channel();
        let thread = thread::Builder::new().name("git-fetch".to_owned()).spawn(move || {
            // Nobody listens any longer after the deadline.
            tell.send(fetch::fetch(&fetched, &flag)).ok();
        });
        let thread = thread.map_err(|error| fail(format!("no thread can be made: {error}")))?;
        let (deadline, mut told) = (Instant::now() + self.job.timeout, told);
        let why = loop {
            // Cancel-safe: the answer stays in its channel.
            tokio::select! {
                biased;
                answer = &mut told => return answer.unwrap_or_else(|_| Err(fail("the fetch broke off".to_owned()))),
                () = sleep(LOOK) => {}
            }
            let incoming = job.incoming();
            if Instant::now() >= deadline {
                break format!("{} was not fetched within {} s", self.job.git.url, self.job.timeout.as_secs());
            }
            if tokio::task::spawn_blocking(move || size(&incoming)).await.unwrap_or(0) > MOST_BYTES {
                break format!("{} is larger than {} MiB", self.job.git.url, MOST_BYTES >> 20);
            }
        };
        drop(interrupt);
        if tokio::time::timeout(GRACE, &mut told).await.is_err() {
            *overdue = Some(thread);
        }
        Err(fail(why))
    }
}

/// Ends a fetch when it is dropped.
struct Interrupt(Arc<AtomicBool>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes of all files below; what cannot be seen counts nothing.
fn size(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::named("https://h/infra/hosts.git", None, "/gaia.git/prod/hosts", "")]
    #[case::with_a_path("https://h/infra/hosts.git/", Some("a//b/"), "/gaia.git/prod/hosts", "a/b")]
    #[case::no_suffix("ssh://git@h/hosts", Some("a"), "/gaia.git/prod/hosts", "a")]
    #[case::no_name("file:///", None, "/gaia.git/prod/file:", "")]
    fn where_files_seem_to_be(#[case] url: &str, #[case] path: Option<&str>, #[case] root: &str, #[case] inside: &str) {
        let git = GitSource { url: url.to_owned(), path: path.map(str::to_owned), ..GitSource::default() };
        let place = place("prod", &git);
        assert_eq!((place.root.to_str(), place.path.as_str()), (Some(root), inside));
        assert_eq!(place.identity, format!("{url} {inside}"));
    }

    #[test]
    fn another_ref_or_url_is_another_place_and_a_path_is_not() {
        let git = GitSource { url: "https://h/r.git".to_owned(), ..GitSource::default() };
        let branch = GitSource { branch: Some("main".to_owned()), ..git.clone() };
        let tag = GitSource { tag: Some("main".to_owned()), ..git.clone() };
        let path = GitSource { path: Some("p".to_owned()), ..git.clone() };
        assert_eq!(digest(&git), digest(&path));
        assert!(digest(&git) != digest(&branch) && digest(&branch) != digest(&tag));
    }
}
