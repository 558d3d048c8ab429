//! The HTTP API of the GAIA orchestrator (port 6410), request by request as its clients know it, on the objects of ours.
//!
//! Calls only write specs and read statuses. Where the old API blocks, a call watches the objects until the answer is in
//! them; where it kept a lease, a queue or a history of its own, those are now `Gpu`, `GpuClaim` and `Handoff` objects.
//!
//! | file | question |
//! |---|---|
//! | [`routes`] | which path and method is which call |
//! | [`body`], [`reply`] | how bodies are read, and answers and errors written |
//! | [`names`] | who is who: GAIA's names and ours |
//! | [`overview`], [`openapi`] | health, directory, status; what can be asked |
//! | [`card`] | which card it is about, and who has it in the wire's words |
//! | [`gpu`], [`claims`], [`power`] | who has the card, who wants it, and its sleep |
//! | [`handoff`], [`transfer`] | the card goes from one to another |
//! | [`containers`], [`stacks`] | what runs, and what shall run |
//! | [`availability`], [`maintenance`], [`watch`] | how well it goes, and whether somebody works on it |
//! | [`legacy`] | the state file of GAIA's own orchestrator |
//! | [`notification`], [`observer`], [`oracle`], [`hub`], [`socket`], [`delivery`] | who is told what |

mod availability;
mod body;
mod card;
mod claims;
mod containers;
mod delivery;
mod gpu;
mod handoff;
mod hub;
mod legacy;
mod maintenance;
mod names;
mod notification;
mod observer;
mod openapi;
mod oracle;
mod overview;
mod power;
mod routes;
mod socket;
mod stacks;
mod transfer;
mod watch;

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use axum::Router;
use futures::{StreamExt, stream::BoxStream};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use delivery::{Delivery, Patience, WebTarget};
pub use hub::Hub;
pub use legacy::Legacy;
pub use overview::directory;

use super::reply;
use crate::{
    adapters::{containers::Containers, probes::Probes},
    api::{
        gpu::{Gpu, Holder},
        gpuclaim::GpuClaim,
        handoff::Handoff,
        workload::Workload,
    },
    registry::{ApiError, ObjectName, Patch, Reason, WriteOptions},
    runtime::clock::Clock,
    runtime::objects::{Object, Objects},
    runtime::registry_objects::RegistryObjects,
};
use names::Owner;
use reply::Refusal;

/// Under which name the facade writes.
pub const FIELD_MANAGER: &str = "gaia-facade";

/// What the calls are answered from. Clones share everything.
#[derive(Clone)]
pub struct Gaia {
    pub objects: RegistryObjects,
    /// For services that no probe looks at.
    pub containers: Arc<dyn Containers>,
    pub probes: Arc<dyn Probes>,
    pub clock: Arc<dyn Clock>,
    /// Who is told what happens.
    pub hub: Hub,
    /// GAIA's shared directory, where its tools leave the flag of maintenance. None: nobody said where.
    pub shared_dir: Option<PathBuf>,
    /// Ends every wait when cancelled.
    pub shutdown: CancellationToken,
}

/// The routes of the facade, and only those: everything else is somebody else's.
pub fn router(gaia: Gaia) -> Router {
    routes::router(gaia)
}

/// Watches the objects and tells the hub what GAIA's clients want to hear, until `stop`.
pub async fn observe(gaia: Gaia, stop: CancellationToken) -> Result<(), Infallible> {
    observer::run(gaia, stop).await
}

/// Why a wait went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Something is different: look again.
    Changed,
    TooLate,
    /// The process ends.
    Ending,
}

type Changes = BoxStream<'static, ()>;

impl Gaia {
    /// Ready whenever any object a call may wait for has changed. Begun before the first look, it misses nothing.
    fn changes(&self) -> Changes {
        let kinds = [
            self.objects.watch::<Gpu>().map(|_| ()).boxed(),
            self.objects.watch::<GpuClaim>().map(|_| ()).boxed(),
            self.objects.watch::<Handoff>().map(|_| ()).boxed(),
            self.objects.watch::<Workload>().map(|_| ()).boxed(),
        ];
        futures::stream::select_all(kinds).boxed()
    }

    async fn turn(&self, changes: &mut Changes, deadline: Instant) -> Turn {
        // Nothing is lost with any arm: a change that is not taken now is taken in the next turn.
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Turn::Ending,
            change = changes.next() => if change.is_some() { Turn::Changed } else { Turn::Ending },
            () = sleep_until(deadline) => Turn::TooLate,
        }
    }

    async fn workload(&self, name: &str) -> Result<Option<Arc<Workload>>, Refusal> {
        Ok(self.objects.get::<Workload>(&in_namespace(name)).await?)
    }

    async fn holder(&self, owner: Owner) -> Result<Holder, Refusal> {
        let known = match owner.workload() {
            Some((name, _)) => self.workload(name).await?.is_some(),
            None => false,
        };
        Ok(owner.holder(known))
    }

    /// A merge patch of metadata and spec.
    async fn patch<K: Object>(&self, name: &ObjectName, patch: Value) -> Result<(), ApiError> {
        let registry = &self.objects.registry;
        let kind = registry.kinds().of::<K>();
        let kind = kind.ok_or_else(|| ApiError::new(Reason::NotFound, "the kind is not served"))?;
        let options = WriteOptions { field_manager: FIELD_MANAGER.to_owned(), ..WriteOptions::default() };
        registry.patch(&kind, name, Patch::Merge(patch), &options).await.map(|_| ())
    }
}

/// An object where GAIA's are.
fn in_namespace(name: &str) -> ObjectName {
    ObjectName { namespace: Some(names::NAMESPACE.to_owned()), name: name.to_owned() }
}
