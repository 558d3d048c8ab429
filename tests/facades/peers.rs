//! GAIA's services as handoffs meet them: each call is noted down, and answered as the test says; else as simulated ones do,
//! which take memory of the card and let go of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use gaia::adapters::{
    peers::{Peer, PeerError, PeerRequest, Peers},
    simulated::{containers::SimulatedContainers, peers::SimulatedPeers},
};
use tokio::sync::Notify;

/// What a service says to a call.
#[derive(Clone)]
pub enum Says {
    Yes,
    /// An answer that is not 2xx.
    No,
    /// Nothing, until it is let go; then yes.
    Nothing(Arc<Notify>),
}

/// A call as it came: `POST gaia-core/gpu/release`, and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub to: String,
    pub body: Option<String>,
}

#[derive(Clone)]
pub struct Services {
    simulated: SimulatedPeers,
    calls: Arc<Mutex<Vec<Call>>>,
    answers: Arc<Mutex<BTreeMap<String, Says>>>,
}

impl Services {
    pub fn new(engine: SimulatedContainers) -> Self {
        Self { simulated: SimulatedPeers::new(engine), calls: Arc::default(), answers: Arc::default() }
    }

    /// For every call of this path from now on.
    pub fn answer(&self, path: &str, says: Says) {
        self.answers.lock().expect("nobody panicked").insert(path.to_owned(), says);
    }

    /// The service hangs until the returned handle lets it go.
    pub fn hang(&self, path: &str) -> Arc<Notify> {
        let let_go = Arc::new(Notify::new());
        self.answer(path, Says::Nothing(let_go.clone()));
        let_go
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("nobody panicked").clone()
    }

    /// Whom was called for what, in order.
    pub fn paths(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.to).collect()
    }

    pub fn forget(&self) {
        self.calls.lock().expect("nobody panicked").clear();
    }
}

impl Peers for Services {
    fn call<'a>(&'a self, request: &'a PeerRequest, limit: Duration) -> BoxFuture<'a, Result<String, PeerError>> {
        Box::pin(async move {
            let (name, path) = match &request.peer {
                Peer::Container { container, path, .. } => (container.name.clone(), path.clone()),
                Peer::Url(url) => (url.clone(), String::new()),
            };
            let to = format!("{:?} {name}{path}", request.method);
            let says = self.answers.lock().expect("nobody panicked").get(&path).cloned().unwrap_or(Says::Yes);
            self.calls.lock().expect("nobody panicked").push(Call { to, body: request.body.clone() });
            match says {
                Says::Yes => self.simulated.call(request, limit).await,
                Says::No => Err(PeerError::Refused(format!("{name}: 409"))),
                Says::Nothing(let_go) => match tokio::time::timeout(limit, let_go.notified()).await {
                    Ok(()) => self.simulated.call(request, limit).await,
                    Err(_) => Err(PeerError::Unreachable(format!("{name} does not answer"))),
                },
            }
        })
    }
}
