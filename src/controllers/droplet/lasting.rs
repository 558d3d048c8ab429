//! Work that goes on when whoever waits for it leaves.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use tokio_util::task::{TaskTracker, task_tracker::TrackedFuture};

/// Runs where it is awaited, and as a task of its own only once whoever awaits it drops it: most callers stay, and a task for each
/// call costs them two switches.
pub struct Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    /// Absent once it has ended, and while it is polled: what panicked is not polled again.
    work: Option<Pin<Box<TrackedFuture<F>>>>,
}

impl<F> Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    /// `tracker` knows of it until it has ended, wherever it runs.
    pub fn new(tracker: &TaskTracker, work: F) -> Self {
        Self { work: Some(Box::pin(tracker.track_future(work))) }
    }
}

impl<F> Future for Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F> Drop for Lasting<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime the process has ended.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_ends_for_who_waits() {
        let tracker = TaskTracker::new();
        assert_eq!(Lasting::new(&tracker, async { 5 }).await, 5);
        assert!(tracker.is_empty());
    }

    #[tokio::test]
    async fn it_goes_on_without_who_waited() {
        for begun in [false, true] {
            let tracker = TaskTracker::new();
            let (go_on, wait) = oneshot::channel::<()>();
            let (done, ended) = oneshot::channel();
            let mut work = Lasting::new(&tracker, async move {
                wait.await.expect("somebody says so");
                done.send(()).expect("somebody waits");
            });
            if begun {
                assert!(futures::poll!(&mut work).is_pending());
            }
            drop(work);
            assert_eq!(tracker.len(), 1);
            go_on.send(()).expect("it goes on");
            ended.await.expect("it ends");
            tracker.close();
            tracker.wait().await;
        }
    }

    #[tokio::test]
    async fn a_panic_is_the_end_of_it() {
        let tracker = TaskTracker::new();
        let work = Lasting::new(&tracker, async { panic!("of a test") });
        assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
        assert!(tracker.is_empty());
    }
}
