//! Bugs planted at the seams, to see that the simulator finds them: adapters that do what careless ones do.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use gaia::{
    adapters::{
        containers::{
            Container, ContainerId, ContainerRequest, ContainerSummary, Containers, EngineError, EngineEvent,
            EngineResult, ExecResult, PullProgress,
        },
        simulated::containers::SimulatedContainers,
    },
    gitops::files::{Directory, Files, Listing, simulated::SimulatedFiles},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    None,
    /// "No answer" is read as "nothing there".
    AwayIsEmpty,
    /// A create whose answer was lost is tried again at once, under another name.
    CreatesTwice,
    /// A removal counts as done once it was asked for.
    RemovesOnPaper,
    /// The listing is answered from a cache that is one call old.
    LooksAtYesterday,
    /// A file that does not parse is left out, as if it were not there.
    SkipsBrokenFiles,
    /// A container is started whether the card is its holder's or not.
    StartsWithoutRight,
    /// Who held the card once may start for ever.
    OnceAHolder,
    /// The lease goes to the next one without any handoff.
    MovesAtOnce,
    /// Or with one that needs no proof.
    NeedsNoProof,
    /// What the driver does not tell is nothing.
    SilenceIsFree,
    /// A new lease has the token of the old one.
    TokenStays,
    /// The new holder gets a lease, and the old one keeps its own.
    KeepsTheOldLease,
    /// Every other look comes to another answer.
    ChangesItsMind,
    /// Nobody takes up a card that is free.
    LeavesItIdle,
    /// A claim that should lapse stays.
    NeverLapses,
    /// A handoff that a crash interrupted is not looked at again.
    ForgetsAfterACrash,
    /// A handoff that fails leaves the old holder as it is.
    PutsNobodyBack,
    /// The lease goes back before the new holder is gone.
    ReturnsTooEarly,
}

impl Bug {
    pub const PLANTED: [Bug; 18] = [
        Bug::AwayIsEmpty,
        Bug::CreatesTwice,
        Bug::RemovesOnPaper,
        Bug::LooksAtYesterday,
        Bug::SkipsBrokenFiles,
        Bug::StartsWithoutRight,
        Bug::OnceAHolder,
        Bug::MovesAtOnce,
        Bug::NeedsNoProof,
        Bug::SilenceIsFree,
        Bug::TokenStays,
        Bug::KeepsTheOldLease,
        Bug::ChangesItsMind,
        Bug::LeavesItIdle,
        Bug::NeverLapses,
        Bug::ForgetsAfterACrash,
        Bug::PutsNobodyBack,
        Bug::ReturnsTooEarly,
    ];
}

/// The engine as the planted bug makes the process see it.
pub struct Seam {
    pub engine: SimulatedContainers,
    pub bug: Bug,
    cache: Mutex<std::collections::BTreeMap<String, Vec<Container>>>,
}

impl Seam {
    pub fn new(engine: SimulatedContainers, bug: Bug) -> Self {
        Self { engine, bug, cache: Mutex::default() }
    }
}

impl Containers for Seam {
    fn list<'a>(&'a self, label: Option<(&'a str, Option<&'a str>)>) -> BoxFuture<'a, EngineResult<Vec<Container>>> {
        async move {
            let listed = self.engine.list(label).await;
            match self.bug {
                Bug::AwayIsEmpty => Ok(listed.unwrap_or_default()),
                Bug::LooksAtYesterday => {
                    let listed = listed?;
                    let before =
                        self.cache.lock().expect("never poisoned").insert(format!("{label:?}"), listed.clone());
                    Ok(before.unwrap_or(listed))
                }
                _ => listed,
            }
        }
        .boxed()
    }

    fn summaries<'a>(
        &'a self,
        label: Option<(&'a str, Option<&'a str>)>,
    ) -> BoxFuture<'a, EngineResult<Vec<ContainerSummary>>> {
        async move {
            let listed = self.engine.summaries(label).await;
            if self.bug == Bug::AwayIsEmpty { Ok(listed.unwrap_or_default()) } else { listed }
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, EngineResult<Option<Container>>> {
        async move {
            let seen = self.engine.inspect(id_or_name).await;
            if self.bug == Bug::AwayIsEmpty { Ok(seen.unwrap_or_default()) } else { seen }
        }
        .boxed()
    }

    fn differences<'a>(
        &'a self,
        id: &'a ContainerId,
        spec: &'a gaia::api::container::ContainerSpec,
    ) -> BoxFuture<'a, EngineResult<Vec<String>>> {
        self.engine.differences(id, spec)
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> BoxFuture<'a, EngineResult<ContainerId>> {
        async move {
            let made = self.engine.create(request).await;
            match (self.bug, &made) {
                (Bug::CreatesTwice, Err(EngineError::MayHaveTakenEffect(_))) => {
                    let again = ContainerRequest { name: format!("{}-2", request.name), ..request.clone() };
                    self.engine.create(&again).await
                }
                _ => made,
            }
        }
        .boxed()
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.start(id)
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.stop(id, grace)
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        if self.bug == Bug::RemovesOnPaper { async { Ok(()) }.boxed() } else { self.engine.remove(id) }
    }

    fn rename<'a>(&'a self, id: &'a ContainerId, name: &'a str) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.rename(id, name)
    }

    fn forbid_restarts<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.forbid_restarts(id)
    }

    fn ensure_network<'a>(&'a self, name: &'a str) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.ensure_network(name)
    }

    fn ensure_attached<'a>(
        &'a self,
        id: &'a ContainerId,
        network: &'a str,
        aliases: &'a [String],
    ) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.ensure_attached(id, network, aliases)
    }

    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, EngineResult<Option<String>>> {
        self.engine.image(image)
    }

    fn pull<'a>(
        &'a self,
        image: &'a str,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> BoxFuture<'a, EngineResult<()>> {
        self.engine.pull(image, progress)
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, EngineResult<ExecResult>> {
        self.engine.exec(id, command, timeout)
    }

    fn events(&self) -> BoxStream<'static, EngineEvent> {
        self.engine.events()
    }
}

/// The files as the planted bug makes the process see them.
pub fn files(files: &SimulatedFiles, bug: Bug) -> Arc<dyn Files> {
    match bug {
        Bug::SkipsBrokenFiles => Arc::new(Skipping(files.clone())),
        _ => Arc::new(files.clone()),
    }
}

struct Skipping(SimulatedFiles);

impl Files for Skipping {
    fn open(&self, directory: &Path) -> Box<dyn Directory> {
        Box::new(SkippingDirectory(self.0.open(directory)))
    }
}

struct SkippingDirectory(Box<dyn Directory>);

impl Directory for SkippingDirectory {
    fn read<'a>(&'a mut self, also: &'a std::collections::BTreeSet<std::path::PathBuf>) -> BoxFuture<'a, Listing> {
        async move {
            let mut listing = self.0.read(also).await;
            // What people break in this simulation ends in the middle of a mapping.
            listing.files.retain(|file| file.text.trim_end().ends_with('}'));
            listing
        }
        .boxed()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        self.0.changed()
    }
}
