//! Docker's event stream, kept up as long as somebody listens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
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
use tokio::sync::broadcast::{self, error::RecvError};

use super::{DockerEngine, errors::Call};
use crate::adapters::containers::{ContainerId, EngineEvent, EngineResult};

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

/// Events that one who does not keep up may be behind; who is further is told that some went untold.
const BACKLOG: usize = 1024;

/// The one connection of an engine for all who listen. It is made for the first of them and closed after the last: asking for the
/// engine's time costs 10 ms of a processor, which nobody has to spare while a container is being stopped.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Hub>>);

#[derive(Default)]
struct Hub {
    /// Weak, so that all hear it when the task that tells them ends in whatever way, and the next who listens begins another.
    listeners: Option<broadcast::WeakSender<EngineEvent>>,
    /// `Connected` or `Disconnected`, as was told last; None: not known yet.
    connection: Option<EngineEvent>,
}

struct Listener {
    engine: DockerEngine,
    connection: Option<BoxStream<'static, Result<EventMessage, Error>>>,
    connected_at: Instant,
    backoff: ExponentialBackoff,
    wait: Option<Duration>,
    /// The caller knows that there is no connection.
    told: bool,
}

/// Hears of everything from this call on, not only from when it is first asked for an event.
pub(super) fn listen(engine: &DockerEngine) -> BoxStream<'static, EngineEvent> {
    let mut hub = engine.events.hub();
    let (heard, first) = match hub.listeners.as_ref().and_then(broadcast::WeakSender::upgrade) {
        Some(listeners) => (listeners.subscribe(), hub.connection.clone()),
        None => {
            let (listeners, heard) = broadcast::channel(BACKLOG);
            *hub = Hub { listeners: Some(listeners.downgrade()), connection: None };
            tokio::spawn(tell(engine.clone(), listeners));
            (heard, None)
        }
    };
    drop(hub);
    let told = stream::unfold(heard, |mut heard| async move {
        let event = match heard.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => EngineEvent::Connected,
            // Nobody tells any more: the process ends, or that task has failed.
            Err(RecvError::Closed) => return None,
        };
        Some((event, heard))
    });
    stream::iter(first).chain(told).boxed()
}

/// Until nobody listens.
async fn tell(engine: DockerEngine, listeners: broadcast::Sender<EngineEvent>) {
    let shared = engine.events.clone();
    let mut listener = Listener {
        engine,
        connection: None,
        connected_at: Instant::now(),
        backoff: backoff(),
        wait: None,
        told: false,
    };
    loop {
        // What is dropped half way is heard by nobody, or comes again.
        let event = tokio::select! {
            event = listener.next() => Some(event),
            () = listeners.closed() => None,
        };
        let mut hub = shared.hub();
        let Some(event) = event else {
            if listeners.receiver_count() > 0 {
                continue;
            }
            *hub = Hub::default();
            return;
        };
        if matches!(event, EngineEvent::Connected | EngineEvent::Disconnected(_)) {
            hub.connection = Some(event.clone());
        }
        // Nobody listens: the next turn ends this.
        listeners.send(event).ok();
    }
}

impl Shared {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().expect("nothing panics while it holds the listeners")
    }
}

impl Listener {
    async fn next(&mut self) -> EngineEvent {
        loop {
            let event = match &mut self.connection {
                Some(connection) => match connection.next().await {
                    Some(Ok(message)) if message.typ == Some(EventMessageTypeEnum::NETWORK) => {
                        network_event(&self.engine, message).await
                    }
                    Some(Ok(message)) => self.container_event(message),
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

    fn container_event(&self, message: EventMessage) -> Option<EngineEvent> {
        let event = container_event(message);
        if let Some(EngineEvent::Container { id, action, .. }) = &event
            && action == "die"
        {
            self.engine.teardowns.ended(id);
        }
        event
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

/// A network's event names the container that joined or left it, and no more: the rest is looked up in the engine's list, for an
/// inspection waits until a start that the container is in has ended, and all events behind this one with it. What the list does
/// not have is on its way out, of which its own events tell.
async fn network_event(engine: &DockerEngine, message: EventMessage) -> Option<EngineEvent> {
    let id = message.actor?.attributes?.remove("container")?;
    let container = engine.listed_as(&id).await.ok()??;
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
