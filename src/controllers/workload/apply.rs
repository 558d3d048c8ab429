//! Carrying out one action. What the engine refuses is remembered, and is part of what the next pass sees.

use super::{
    WorkloadReconciler, names,
    observed::{Action, Verb},
    reason::Reason,
    right::Right,
};
use crate::{
    adapters::containers::{ContainerId, EngineError, EngineResult},
    api::{
        container::ContainerSpec,
        workload::{Variant, Workload},
    },
    runtime::{
        events::Note,
        objects::Objects,
        reconciler::{PassError, name_of, reference},
    },
};

impl<O: Objects> WorkloadReconciler<O> {
    pub(super) async fn carry_out(&self, workload: &Workload, action: &Action) -> Result<(), PassError> {
        let at = (action.variant(), action.verb());
        if matches!(at.1, Verb::Start | Verb::Restart) && !self.may_still_start(workload, at.0).await? {
            return Ok(());
        }
        match self.bring_about(workload, action).await {
            Ok(done) => {
                self.failures.succeeded(workload, at);
                if let Some(note) = told(action).filter(|_| done) {
                    self.recorder.record(&reference(workload), note);
                }
                Ok(())
            }
            Err(error) => {
                self.failures.record(workload, at, &error, self.clock.now());
                let doing = format!("{} the {} container", verb(action.verb()), at.0.as_str());
                Err(PassError::Effect { doing, source: Box::new(error) })
            }
        }
    }

    /// A handoff may have begun since the pass looked, and its stop must not come before a start that follows from how it was.
    /// What is told to start now is stopped by it, for the engine does what it is told in turn.
    async fn may_still_start(&self, workload: &Workload, variant: Variant) -> Result<bool, PassError> {
        let read = |source| PassError::Objects { doing: "read the cards", source };
        let (live, candidate) = self.rights(workload).await.map_err(read)?;
        let right = if variant == Variant::Live { live } else { candidate };
        Ok(right == Right::Granted)
    }

    /// False: it was not done, for the right to it has gone.
    async fn bring_about(&self, workload: &Workload, action: &Action) -> EngineResult<bool> {
        let containers = &self.containers;
        match action {
            Action::Start { container, network, .. } => {
                return self.start(workload, action.variant(), &container.id, network.as_deref()).await;
            }
            Action::Restart { container, grace, network, .. } => {
                containers.stop(&container.id, *grace).await?;
                return self.start(workload, action.variant(), &container.id, network.as_deref()).await;
            }
            Action::Pull { image, .. } => self.puller.ensure(image, &name_of(workload), &reference(workload)),
            Action::Create { request, .. } => {
                let namespace = workload.metadata.namespace.as_deref().unwrap_or("default");
                containers.ensure_network(&names::network(namespace)).await?;
                for network in networks_to_make(&request.spec) {
                    containers.ensure_network(network).await?;
                }
                containers.create(request).await?;
            }
            Action::Stop { container, grace, .. } => containers.stop(&container.id, *grace).await?,
            Action::Remove { container, grace, .. } => {
                gone_is_fine(containers.stop(&container.id, *grace).await)?;
                gone_is_fine(containers.remove(&container.id).await)?;
            }
            Action::Rename { container, to, .. } => containers.rename(&container.id, to).await?,
            Action::ForbidRestarts { container, .. } => containers.forbid_restarts(&container.id).await?,
            Action::Attach { container, network, aliases, .. } => {
                // Only the namespace's own is ours to make; one that the spec names must exist.
                let own = names::network(workload.metadata.namespace.as_deref().unwrap_or("default"));
                if *network == own {
                    containers.ensure_network(&own).await?;
                }
                containers.ensure_attached(&container.id, network, aliases).await?;
            }
        }
        Ok(true)
    }

    /// The network may have been removed while nothing on it ran; making one takes its time, as stopping does. So the right is
    /// asked for once more where nothing comes between it and the start. Without an answer it is not started, and the next pass
    /// looks.
    async fn start(
        &self,
        workload: &Workload,
        variant: Variant,
        id: &ContainerId,
        network: Option<&str>,
    ) -> EngineResult<bool> {
        if let Some(network) = network {
            self.containers.ensure_network(network).await?;
        }
        match self.may_still_start(workload, variant).await {
            Ok(true) => self.containers.start(id).await.map(|()| true),
            Ok(false) | Err(_) => Ok(false),
        }
    }
}

/// Those that the spec lets us make.
fn networks_to_make(spec: &ContainerSpec) -> impl Iterator<Item = &String> {
    let may = |name: &&String| spec.network_options.get(*name).is_some_and(|options| options.create == Some(true));
    spec.networks.iter().filter(may)
}

fn gone_is_fine(result: EngineResult<()>) -> EngineResult<()> {
    match result {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// What to tell when it is done. Asking for a pull is not yet a pull: the puller tells.
fn told(action: &Action) -> Option<Note> {
    let done = |reason: Reason, message: String| Some(Note::normal(reason.as_str(), reason.as_str(), message));
    match action {
        Action::Pull { .. } => None,
        Action::Create { request, .. } => {
            done(Reason::Created, format!("container {} is made from {}", request.name, request.spec.image))
        }
        Action::Start { container, .. } => done(Reason::Started, format!("container {} is started", container.name)),
        Action::Stop { container, .. } => done(Reason::Stopped, format!("container {} is stopped", container.name)),
        Action::Restart { container, .. } => {
            done(Reason::Restarted, format!("container {} is restarted", container.name))
        }
        Action::Remove { container, .. } => done(Reason::Removed, format!("container {} is removed", container.name)),
        Action::Rename { container, to, .. } => {
            done(Reason::Renamed, format!("container {} is renamed to {to}", container.name))
        }
        Action::ForbidRestarts { container, .. } => {
            done(Reason::RestartsForbidden, format!("the engine no longer restarts {} by itself", container.name))
        }
        Action::Attach { container, network, aliases, .. } if aliases.is_empty() => {
            done(Reason::Attached, format!("container {} is on network {network} without alias", container.name))
        }
        Action::Attach { container, network, aliases, .. } => done(
            Reason::Attached,
            format!("container {} is on network {network} as {}", container.name, aliases.join(", ")),
        ),
    }
}

fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Pull => "pull the image of",
        Verb::Create => "make",
        Verb::Start => "start",
        Verb::Stop => "stop",
        Verb::Restart => "restart",
        Verb::Remove => "remove",
        Verb::Rename => "rename",
        Verb::ForbidRestarts => "take the restart policy of",
        Verb::Attach => "attach",
    }
}
