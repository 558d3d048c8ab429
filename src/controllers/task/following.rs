//! What the loop follows: tasks, workers and cards in the store, the bus, the results that come in; and when it turns without news.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream, stream::BoxStream};
use kube::runtime::watcher::Event;
use tokio::time::Instant;

use super::{
    Tasks,
    transition::holder,
    view::{Key, key_of},
};
use crate::{
    adapters::bus::BusEvent,
    api::{gpu::Gpu, gpuclaim::GpuClaim, task::Task, worker::Worker},
    runtime::objects::Objects,
};

/// News that are taken together, at most.
const BATCH: usize = 512;
/// What the bus tells beyond this while tasks and workers are not known yet is left to a look at it.
const MOST_HEARD: usize = 4096;
/// Without anything to wait for.
const IDLE: Duration = Duration::from_secs(60);

enum News {
    Task(Box<Event<Task>>),
    Worker(Box<Event<Worker>>),
    Card(Box<Event<Gpu>>),
    Claim(Box<Event<GpuClaim>>),
    Bus(BusEvent),
    /// A result was stored; none: several may have been.
    Stored(Option<String>),
}

/// Which watches have not told everything yet, and what they told so far.
pub(super) struct Listed {
    pub(super) tasks: bool,
    pub(super) workers: bool,
    seen: BTreeSet<Key>,
}

impl Default for Listed {
    fn default() -> Self {
        Self { tasks: true, workers: true, seen: BTreeSet::new() }
    }
}

impl<O: Objects> Tasks<O> {
    /// For ever.
    pub(super) async fn run(mut self) {
        let mut news = self.news().ready_chunks(BATCH);
        loop {
            let due = self.due();
            // Cancel-safe: the end of a task of ours, a stream's next, a point in time.
            let batch = tokio::select! {
                biased;
                sent = self.outgoing.next() => {
                    self.sent(sent).await;
                    Some(Vec::new())
                }
                batch = news.next() => batch,
                () = tokio::time::sleep_until(due) => Some(Vec::new()),
            };
            let Some(batch) = batch else { return };
            for news in batch {
                self.take(news);
            }
            if self.unknown.tasks || self.unknown.workers || self.view.cards.unknown.any() {
                continue;
            }
            if self.next_reading.is_some_and(|at| at <= Instant::now()) {
                self.next_reading = None;
                self.stored.extend(self.unread.drain(..).map(Some));
            }
            self.deliver().await;
            self.hear().await;
            self.pass().await;
            self.count();
            if self.next_look.is_some_and(|at| at <= Instant::now()) {
                self.look().await;
            }
            if self.next_sweep <= Instant::now() {
                self.sweep().await;
            }
            if self.next_leftover().is_some_and(|at| at <= Instant::now()) {
                self.clear_up().await;
            }
        }
    }

    fn news(&self) -> BoxStream<'static, News> {
        let stored = stream::unfold(self.reality.results.stored(), |mut stored| async move {
            use tokio::sync::broadcast::error::RecvError;
            match stored.recv().await {
                Ok(task) => Some((News::Stored(Some(task)), stored)),
                Err(RecvError::Lagged(_)) => Some((News::Stored(None), stored)),
                Err(RecvError::Closed) => None,
            }
        });
        let all: [BoxStream<'static, News>; 6] = [
            self.objects.watch::<Task>().map(|event| News::Task(event.into())).boxed(),
            self.objects.watch::<Worker>().map(|event| News::Worker(event.into())).boxed(),
            self.objects.watch::<Gpu>().map(|event| News::Card(event.into())).boxed(),
            self.objects.watch::<GpuClaim>().map(|event| News::Claim(event.into())).boxed(),
            self.reality.bus.events().map(News::Bus).boxed(),
            stored.boxed(),
        ];
        stream::select_all(all).boxed()
    }

    fn due(&self) -> Instant {
        let now = self.clock.now();
        let retry = self.retries.values().min().map(|at| {
            let wait = at.duration_since(now);
            Instant::now() + Duration::try_from(wait).unwrap_or(Duration::ZERO)
        });
        [retry, self.next_begun(), self.next_look, self.next_reading, Some(self.next_sweep), self.next_leftover()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn take(&mut self, news: News) {
        match news {
            News::Task(event) => self.take_task(*event),
            News::Worker(event) => self.take_worker(*event),
            News::Card(event) => self.view.cards.take_card(*event),
            News::Claim(event) => {
                // Some may be gone without a word.
                if matches!(*event, Event::InitDone) {
                    self.dirty.extend(self.view.cards.claimants().cloned());
                }
                self.dirty.extend(self.view.cards.take_claim(*event));
            }
            News::Bus(event) if self.heard.len() < MOST_HEARD => self.heard.push(event),
            News::Bus(_) => self.look_soon(),
            // One is enough to look at everything.
            News::Stored(None) if self.stored.contains(&None) => {}
            News::Stored(_) if self.stored.len() >= MOST_HEARD => self.stored = vec![None],
            News::Stored(task) => self.stored.push(task),
        }
    }

    fn take_task(&mut self, event: Event<Task>) {
        match event {
            Event::Init => self.unknown.seen.clear(),
            Event::InitApply(task) => {
                self.unknown.seen.insert(key_of(&task));
                self.put(task.into());
            }
            Event::InitDone => {
                let gone: Vec<Key> =
                    self.view.keys().filter(|key| !self.unknown.seen.contains(*key)).cloned().collect();
                for key in gone {
                    self.dirty.extend(self.view.remove(&key));
                }
                self.unknown.tasks = false;
                self.dirty.extend(self.view.keys().cloned());
                // What was said before this process began may have been missed.
                self.look_soon();
                self.stored.push(None);
            }
            Event::Apply(task) => self.put(task.into()),
            Event::Delete(task) => {
                let key = key_of(&task);
                // Whoever has it runs it to its end.
                if let Some(worker) = holder(&task) {
                    self.view.occupied.insert(worker.to_owned(), key.clone());
                    self.look_soon();
                }
                self.left_behind.insert(key.clone());
                self.dirty.extend(self.view.remove(&key));
            }
        }
    }

    fn take_worker(&mut self, event: Event<Worker>) {
        match event {
            Event::Init => {}
            Event::InitApply(worker) | Event::Apply(worker) => self.dirty.extend(self.view.put_worker(&worker)),
            Event::InitDone => {
                self.unknown.workers = false;
                self.dirty.extend(self.view.keys().cloned());
            }
            Event::Delete(worker) => self.dirty.extend(self.view.remove_worker(&worker)),
        }
    }

    pub(super) fn put(&mut self, task: std::sync::Arc<Task>) {
        if task.phase().is_terminal() {
            self.sweep_soon();
        }
        // Also when the answer to the write that says so was lost, and nothing was published.
        if holder(&task).is_some() {
            self.look_soon();
        }
        self.dirty.extend(self.view.put(task));
    }
}
