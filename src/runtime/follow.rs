//! Wake-ups from changes of other kinds: whoever decides by them is looked at again. A hint, like every wake-up.

use futures::StreamExt;
use kube::runtime::watcher::Event;
use tokio_util::sync::CancellationToken;

use super::{
    objects::{Object, Objects},
    wakeups::{Wake, Wakeups},
};

/// Follows every `K` until `shutdown`, and wakes whom `whom` names for each change.
pub async fn follow<K: Object, O: Objects>(
    objects: O,
    wakeups: Wakeups,
    whom: impl Fn(&K) -> Vec<Wake> + Send + 'static,
    shutdown: CancellationToken,
) {
    let mut changes = objects.watch::<K>();
    loop {
        // Cancel-safe: a token, a stream's next.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            event = changes.next() => match event {
                Some(Event::Apply(object) | Event::Delete(object)) => {
                    for wake in whom(&object) {
                        match wake {
                            Wake::One(name) => wakeups.wake(&name),
                            Wake::Everything => wakeups.wake_everything(),
                        }
                    }
                }
                // Start-up, or a watch that fell behind.
                Some(Event::InitDone) => wakeups.wake_everything(),
                Some(Event::Init | Event::InitApply(_)) => {}
                None => return,
            },
        }
    }
}
