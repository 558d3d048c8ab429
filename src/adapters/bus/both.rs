//! Redis and the embedded bus side by side: workers of MLOC on the one, workers that are connected to us on the other. A worker is on
//! one of them, by how it has come.

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::{
    Bus, BusEvent, BusResult, Dispatch, Mark, Release, WorkerRecord,
    embedded::EmbeddedBus,
    redis::RedisBus,
    session::{CONNECTION, WEBSOCKET},
};

/// Both at once. A loss of either is told as a loss.
pub struct BothBuses<R = RedisBus> {
    pub redis: R,
    pub embedded: EmbeddedBus,
}

impl<R: Bus> BothBuses<R> {
    fn of(&self, worker: &str) -> &dyn Bus {
        if self.embedded.has(worker) { &self.embedded } else { &self.redis }
    }
}

impl<R: Bus> Bus for BothBuses<R> {
    fn events(&self) -> BoxStream<'static, BusEvent> {
        stream::select(self.redis.events(), self.embedded.events()).boxed()
    }

    fn roll<'a>(&'a self, known: &'a [String]) -> BoxFuture<'a, BusResult<Vec<WorkerRecord>>> {
        async move {
            let mut all = self.embedded.roll(known).await?;
            let elsewhere: Vec<String> = known.iter().filter(|id| !self.embedded.has(id)).cloned().collect();
            let redis = self.redis.roll(&elsewhere).await?;
            all.extend(redis.into_iter().filter(|record| !self.embedded.has(&record.id)));
            Ok(all)
        }
        .boxed()
    }

    fn remembers(&self) -> BoxFuture<'_, BusResult<bool>> {
        async move { Ok(self.redis.remembers().await? && self.embedded.remembers().await?) }.boxed()
    }

    fn remember(&self) -> BoxFuture<'_, BusResult<()>> {
        async move {
            self.redis.remember().await?;
            self.embedded.remember().await
        }
        .boxed()
    }

    fn dispatch<'a>(&'a self, dispatch: &'a Dispatch) -> BoxFuture<'a, BusResult<u64>> {
        self.of(&dispatch.worker).dispatch(dispatch)
    }

    fn release<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, BusResult<()>> {
        self.of(&release.worker).release(release)
    }

    fn mark<'a>(&'a self, worker: &'a str, mark: Mark, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        self.of(worker).mark(worker, mark, at)
    }

    fn restore<'a>(&'a self, record: &'a WorkerRecord) -> BoxFuture<'a, BusResult<()>> {
        match record.env.get(CONNECTION).is_some_and(|connection| connection == WEBSOCKET) {
            true => self.embedded.restore(record),
            false => self.redis.restore(record),
        }
    }

    fn remove<'a>(&'a self, worker: &'a str, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        self.of(worker).remove(worker, at)
    }
}
