//! Docker's event stream, kept up for ever.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bollard::{
    errors::Error,
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::EventsOptionsBuilder,
};
use futures::{StreamExt, stream, stream::BoxStream};
use jiff::Timestamp;

use super::{DockerEngine, errors::Call};
use crate::adapters::containers::{ContainerId, Containers, EngineEvent, EngineResult};

/// What may change a decision. Everything else (exec, attach, top, resize) is noise of our own making.
const ACTIONS: [&str; 15] = [
    "create",
    "start",
    "die",
    "stop",
    "kill",
    "oom",
    "destroy",
    "rename",
    "update",
    "pause",
    "unpause",
    "restart",
    "health_status",
    "connect",
    "disconnect",
];
const MIN_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(10);

struct Listener {
    engine: DockerEngine,
    connection: Option<BoxStream<'static, Result<EventMessage, Error>>>,
    connected_at: Instant,
    backoff: ExponentialBackoff,
    wait: Option<Duration>,
    /// The caller knows that there is no connection.
    told: bool,
}

pub(super) fn listen(engine: DockerEngine) -> BoxStream<'static, EngineEvent> {
    let connected_at = Instant::now();
    let listener = Listener { engine, connection: None, connected_at, backoff: backoff(), wait: None, told: false };
    stream::unfold(listener, |mut listener| async move { Some((listener.next().await, listener)) }).boxed()
}

impl Listener {
    async fn next(&mut self) -> EngineEvent {
        loop {
            let event = match &mut self.connection {
                Some(connection) => match connection.next().await {
                    Some(Ok(message)) if message.typ == Some(EventMessageTypeEnum::NETWORK) => {
                        network_event(&self.engine, message).await
                    }
                    Some(Ok(message)) => container_event(message),
                    Some(Err(error)) => Some(self.disconnect(error.to_string())),
                    None => Some(self.disconnect("the engine ended the stream".to_owned())),
                },
                None => self.connect().await,
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// One attempt. `None` when it failed as the one before did.
    async fn connect(&mut self) -> Option<EngineEvent> {
        if let Some(wait) = self.wait.take() {
            tokio::time::sleep(wait).await;
        }
        match subscribe(&self.engine).await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.connected_at = Instant::now();
                self.told = false;
                Some(EngineEvent::Connected)
            }
            Err(error) => {
                self.wait = self.backoff.next();
                let told = std::mem::replace(&mut self.told, true);
                (!told).then(|| EngineEvent::Disconnected(error.to_string()))
            }
        }
    }

    /// A connection that has lasted starts the waits anew; one that breaks at once must not turn into a busy loop.
    fn disconnect(&mut self, why: String) -> EngineEvent {
        if self.connected_at.elapsed() > MAX_WAIT {
            self.backoff = backoff();
        }
        self.connection = None;
        self.wait = self.backoff.next();
        self.told = true;
        EngineEvent::Disconnected(why)
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_WAIT)
        .with_max_delay(MAX_WAIT)
        .with_jitter()
        .without_max_times()
        .build()
}

/// The stream from the engine's present on: it is asked for its time first and then replays what happened since, so
/// that nothing falls between `Connected` and the first byte of the stream.
async fn subscribe(engine: &DockerEngine) -> EngineResult<BoxStream<'static, Result<EventMessage, Error>>> {
    let call = Call::read("listen for events", "");
    let docker = engine.client().await?;
    let info = engine.within(call, super::DEADLINE, docker.info()).await?;
    let since = info.system_time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let since = since.ok_or_else(|| call.unanswered("the engine does not tell its time"))?;
    let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
    let filters = HashMap::from([("type", vec!["container", "network"]), ("event", ACTIONS.to_vec())]);
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    Ok(docker.events(Some(options)).boxed())
}

/// A network's event names the container that joined or left it, and no more: the rest is looked up. One that cannot be
/// looked at is on its way out, of which its own events tell.
async fn network_event(engine: &DockerEngine, message: EventMessage) -> Option<EngineEvent> {
    let id = message.actor?.attributes?.remove("container")?;
    let container = engine.inspect(&id).await.ok()??;
    Some(EngineEvent::Container {
        id: container.id,
        name: container.name,
        labels: container.labels,
        action: message.action?,
    })
}

fn container_event(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor?;
    let mut labels = actor.attributes.unwrap_or_default();
    let name = labels.remove("name").unwrap_or_default();
    // Docker mixes what it has to say about the event into the labels.
    for key in ["image", "exitCode", "signal", "oldName", "execDuration"] {
        labels.remove(key);
    }
    Some(EngineEvent::Container {
        id: ContainerId(actor.id?),
        name,
        labels: labels.into_iter().collect(),
        action: message.action?,
    })
}
