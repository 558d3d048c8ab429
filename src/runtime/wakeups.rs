//! How anything outside the watch asks for a pass: Docker events, probe results, finished pulls.

use std::{collections::BTreeSet, sync::Arc};

use futures::{Stream, stream};
use tokio::sync::Notify;

use crate::{
    registry::ObjectName,
    sync::{Mutex, MutexGuard},
};

/// Names waiting beyond this many collapse into "everything", which is right for any set of names and takes no room.
const MOST_NAMES: usize = 4096;

/// A set of names that somebody wants looked at. Waking is synchronous, never blocks and never fails; a name woken
/// twice before it is taken is taken once. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct Wakeups {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    names: BTreeSet<(Option<String>, String)>,
    everything: bool,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    One(ObjectName),
    Everything,
}

impl Wakeups {
    pub fn wake(&self, name: &ObjectName) {
        let mut waiting = self.lock();
        if waiting.names.len() >= MOST_NAMES {
            waiting.names.clear();
            waiting.everything = true;
        } else {
            waiting.names.insert((name.namespace.clone(), name.name.clone()));
        }
        drop(waiting);
        self.shared.news.notify_one();
    }

    pub fn wake_everything(&self) {
        self.lock().everything = true;
        self.shared.news.notify_one();
    }

    /// What is waiting now, without waiting for more: for the simulator, which steps by itself.
    pub fn take(&self) -> Option<Wake> {
        let mut waiting = self.lock();
        if std::mem::take(&mut waiting.everything) {
            waiting.names.clear();
            return Some(Wake::Everything);
        }
        waiting.names.pop_first().map(|(namespace, name)| Wake::One(ObjectName { namespace, name }))
    }

    /// Everything asked for from now on. One reader: two would share the names between them.
    pub fn stream(&self) -> impl Stream<Item = Wake> + Send + 'static + use<> {
        stream::unfold(self.clone(), |wakeups| async move {
            loop {
                // `notify_one` before `notified` leaves a permit, so nothing is missed between the two.
                if let Some(wake) = wakeups.take() {
                    return Some((wake, wakeups));
                }
                wakeups.shared.news.notified().await;
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: Some("default".into()), name: name.into() }
    }

    #[tokio::test]
    async fn a_name_woken_twice_is_taken_once() {
        let wakeups = Wakeups::default();
        wakeups.wake(&name("a"));
        wakeups.wake(&name("a"));
        wakeups.wake(&name("b"));
        let mut stream = std::pin::pin!(wakeups.stream());
        assert_eq!(stream.next().await, Some(Wake::One(name("a"))));
        assert_eq!(stream.next().await, Some(Wake::One(name("b"))));
        assert_eq!(wakeups.take(), None);
    }

    #[test]
    fn too_many_names_become_everything() {
        let wakeups = Wakeups::default();
        for n in 0..=MOST_NAMES {
            wakeups.wake(&name(&n.to_string()));
        }
        assert_eq!(wakeups.take(), Some(Wake::Everything));
        assert_eq!(wakeups.take(), None);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let wakeups = Wakeups::default();
        let mut stream = Box::pin(wakeups.stream());
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        wakeups.wake(&name("late"));
        assert_eq!(reader.await.unwrap(), Some(Wake::One(name("late"))));
    }
}
