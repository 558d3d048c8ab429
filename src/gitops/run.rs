//! When to pass: at start, when a file changes, when somebody changes an object, when the Source changes or asks for it, and every
//! `spec.intervalSeconds` because any of these may have gone unheard.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    sync::{Gitops, Next, Syncer},
    watch::{ObjectChanges, watched},
};
use crate::{
    api::source::{FIELD_MANAGER, Source},
    runtime::{
        backoff::{Backoff, seed_of},
        objects::Objects,
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor},
    },
};

/// One save of an editor is several changes, and so is what a controller does to a new object.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// The Source could not be read or written.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// Somebody undoes what we do, again and again: give way a little more each time.
const FIGHT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(5));
/// Peace for so long, and the fight is over.
const PEACE: Duration = Duration::from_secs(10);
/// No Source: only its coming back wakes.
const IDLE: Duration = Duration::from_secs(3600);

/// Keeps every Source until shutdown.
pub fn spawn(supervisor: &mut Supervisor, gitops: Gitops) {
    supervisor.spawn(Stage::Intake, "gitops", |cancel| run(gitops, cancel));
}

/// One task for each Source that ever was; one of a deleted Source sleeps, so that a name never has two.
pub async fn run(gitops: Gitops, cancel: CancellationToken) -> Result<(), Infallible> {
    let objects = RegistryObjects { registry: gitops.registry.clone(), field_manager: FIELD_MANAGER };
    let mut sources = objects.watch::<Source>();
    let mut tasks = JoinSet::new();
    let mut known: BTreeMap<String, (Option<Seen>, Arc<Notify>)> = BTreeMap::new();
    loop {
        // All arms are cancel-safe: a token, a stream, and `join_next`, which loses no task.
        let event = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                // A task ends only at shutdown, or by a panic, which is the process's end too.
                if let Err(panic) = ended && panic.is_panic() {
                    std::panic::resume_unwind(panic.into_panic());
                }
                continue;
            }
            event = sources.next() => event,
        };
        let (source, seen) = match event {
            Some(Event::Apply(source) | Event::InitApply(source)) => {
                let seen = Seen::of(&source);
                (source, Some(seen))
            }
            Some(Event::Delete(source)) => (source, None),
            Some(Event::Init | Event::InitDone) => continue,
            // The store is closed: shutdown is near.
            None => {
                cancel.cancelled().await;
                break;
            }
        };
        match known.entry(source.name_any()) {
            Entry::Vacant(vacant) => {
                let wake = Arc::new(Notify::new());
                tasks.spawn(cancel.clone().run_until_cancelled_owned(keep(
                    gitops.clone(),
                    source.name_any(),
                    wake.clone(),
                )));
                vacant.insert((seen, wake));
            }
            Entry::Occupied(mut occupied) => {
                let (last, wake) = occupied.get_mut();
                // Our own status writes are no news.
                if *last != seen {
                    wake.notify_one();
                }
                *last = seen;
            }
        }
    }
    tasks.shutdown().await;
    Ok(())
}

/// What of a Source a pass depends on; setting the deletion timestamp counts the generation up.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    uid: Option<String>,
    generation: Option<i64>,
    request: Option<String>,
}

impl Seen {
    fn of(source: &Source) -> Self {
        let request = source.request().map(str::to_owned);
        Self { uid: source.uid(), generation: source.metadata.generation, request }
    }
}

/// Passes over one Source for ever. May be dropped anywhere: a pass that is cut short is a crash, which passes survive.
async fn keep(gitops: Gitops, name: String, wake: Arc<Notify>) {
    let mut changes = ObjectChanges::new(gitops.registry.clone());
    let mut syncer = Syncer::new(gitops.clone(), name.clone());
    let mut failures = 0;
    let mut fight = Fight::default();
    loop {
        if let Err(error) = changes.begin().await {
            warn!(source = %name, %error, "changes of objects are not heard for now");
        }
        let wait = match syncer.sync_once().await {
            Ok(Next::After(wait)) => {
                failures = 0;
                wait
            }
            Ok(Next::Gone) => IDLE,
            Err(error) => {
                failures += 1;
                error!(source = %name, %error, failures, "the source could not be kept");
                RETRY.delay(failures - 1, seed_of(&name))
            }
        };
        let pause = fight.after_pass(syncer.has_set_back());
        let watched = watched(&gitops.registry, syncer.watched());
        next_reason(wake.notified(), syncer.files_changed(), changes.next(&watched), pause, wait).await;
    }
}

/// Completes when another pass is due: at once for a wish, after [`DEBOUNCE`] for a file, for a changed object not before
/// `pause` is over, and after `wait` anyway.
async fn next_reason(
    wish: impl Future<Output = ()>,
    file: impl Future<Output = ()>,
    object: impl Future<Output = ()>,
    pause: Duration,
    wait: Duration,
) {
    // All arms are cancel-safe: notifications keep their permit, the cursor reads nothing when dropped.
    tokio::select! {
        biased;
        () = wish => {}
        () = file => sleep(DEBOUNCE).await,
        () = async { sleep(pause).await; object.await } => {}
        () = sleep(wait) => {}
    }
}

/// How often in a row somebody undid our work.
#[derive(Debug, Default)]
struct Fight {
    rounds: u32,
    last: Option<Instant>,
}

impl Fight {
    /// After a pass that had to set back what others had changed, or had not: how long to hear of no further change of
    /// objects. No more than [`DEBOUNCE`] the first few times.
    fn after_pass(&mut self, has_set_back: bool) -> Duration {
        if !has_set_back {
            return DEBOUNCE;
        }
        let now = Instant::now();
        let peace = self.last.is_none_or(|last| now.duration_since(last) > PEACE);
        self.rounds = if peace { 0 } else { self.rounds.saturating_add(1) };
        self.last = Some(now);
        match self.rounds {
            0..3 => DEBOUNCE,
            rounds => FIGHT.without_jitter(rounds - 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_way_in_a_fight_and_forgets_it_in_peace() {
        let mut fight = Fight::default();
        let waits: Vec<_> = (0..12).map(|_| fight.after_pass(true)).collect();
        assert_eq!(waits[..3], [DEBOUNCE; 3]);
        assert!(waits[3..].is_sorted() && waits[4] > DEBOUNCE && waits[11] >= Duration::from_secs(1), "{waits:?}");
        assert_eq!(fight.after_pass(false), DEBOUNCE, "a pass that set nothing back is no round");
        tokio::time::advance(PEACE + Duration::from_secs(1)).await;
        assert_eq!(fight.after_pass(true), DEBOUNCE);
    }

    /// Seconds until the next pass, when these happen at once.
    async fn seconds(wish: bool, file: bool, object: bool) -> f64 {
        let happens = async |does: bool| if does { ready(()).await } else { pending().await };
        let start = Instant::now();
        let (pause, wait) = (Duration::from_secs(5), Duration::from_secs(60));
        next_reason(happens(wish), happens(file), happens(object), pause, wait).await;
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn giving_way_keeps_no_file_and_no_wish_waiting() {
        assert_eq!(seconds(true, false, true).await, 0.0);
        assert!(seconds(false, true, true).await < 0.1);
        assert!((5.0..5.1).contains(&seconds(false, false, true).await));
        assert!((60.0..60.1).contains(&seconds(false, false, false).await));
    }
}
