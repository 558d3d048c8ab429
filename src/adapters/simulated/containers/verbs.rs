//! The verbs of [`Containers`], each an effect between two chances of a fault.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use tokio::time::{Instant, sleep};

use super::{
    Effect, Fault, SimulatedContainers, events,
    images::{Presence, image_id},
    lifecycle::terminal,
    machine::{Machine, Moment},
};
use crate::{
    adapters::containers::{
        Container, ContainerId, ContainerRequest, ContainerState, ContainerSummary, Containers, EngineError,
        EngineEvent, EngineResult, ExecResult, PullProgress, TerminalReason,
    },
    api::container::ContainerSpec,
};

/// How long a call that gets no answer takes to say so: the real adapter's deadline.
const DEADLINE: Duration = Duration::from_secs(10);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

impl SimulatedContainers {
    /// An effect of one step. `act` says whether it changed anything.
    async fn effect<T>(
        &self,
        effect: Effect,
        act: impl FnOnce(&mut Machine, Moment) -> EngineResult<(T, bool)>,
    ) -> EngineResult<T> {
        self.before(&effect).await?;
        let result = self.change(|machine, now| {
            reachable(machine)?;
            let (value, changed) = act(machine, now)?;
            if changed {
                machine.record(&effect, now);
            }
            Ok(value)
        });
        // A refusal by the engine is an answer too, and can be lost like any other.
        self.after(&effect).await?;
        result
    }

    async fn before(&self, effect: &Effect) -> EngineResult<()> {
        let fault = self.faults().before(effect);
        self.suffer(fault, effect, false).await
    }

    async fn after(&self, effect: &Effect) -> EngineResult<()> {
        let fault = self.faults().after(effect);
        self.suffer(fault, effect, true).await
    }

    async fn read<T>(&self, look: impl FnOnce(&mut Machine) -> T) -> EngineResult<T> {
        let fault = self.faults().read();
        match fault {
            Fault::LoseAnswer | Fault::Refuse => return Err(away()),
            Fault::Hang => {
                sleep(DEADLINE).await;
                return Err(away());
            }
            Fault::Slow(by) => sleep(by).await,
            Fault::Crash => self.crash().await,
            Fault::None => {}
        }
        self.step(|machine, _| {
            reachable(machine)?;
            Ok(look(machine))
        })
    }

    async fn suffer(&self, fault: Fault, effect: &Effect, done: bool) -> EngineResult<()> {
        match fault {
            Fault::None => Ok(()),
            Fault::Refuse if !done => Err(away()),
            Fault::Refuse | Fault::LoseAnswer => Err(lost(effect)),
            Fault::Slow(by) => {
                sleep(by).await;
                Ok(())
            }
            Fault::Hang => {
                sleep(DEADLINE).await;
                Err(lost(effect))
            }
            Fault::Crash => self.crash().await,
        }
    }

    pub(super) async fn crash<T>(&self) -> T {
        self.shared.crashes.send_modify(|count| *count += 1);
        std::future::pending().await
    }

    /// What people call the container; the id when it is gone.
    pub(super) fn name_of(&self, id: &ContainerId) -> String {
        self.lock().containers.get(id).map_or_else(|| id.0.clone(), |held| held.seen.name.clone())
    }

    async fn stop_and_wait(&self, id: &ContainerId, grace: Duration) -> EngineResult<()> {
        let effect = Effect::Stop { name: self.name_of(id) };
        self.before(&effect).await?;
        let run = self.change(|machine, now| {
            reachable(machine)?;
            let run = machine.signal_stop(id, grace, now)?;
            if run.is_some() {
                machine.record(&effect, now);
            }
            Ok(run)
        })?;
        if let Some(run) = run {
            // Bounded by the kill that was scheduled with the signal.
            self.wait_for(|machine| stopped(machine, id, run, &effect)).await?;
        }
        self.after(&effect).await
    }

    async fn pull_image(&self, image: &str, progress: &(dyn Fn(PullProgress) + Send + Sync)) -> EngineResult<()> {
        let effect = Effect::Pull { image: image.to_owned() };
        self.before(&effect).await?;
        let found = self.step(|machine, _| {
            reachable(machine)?;
            Ok(machine.images.get(image).cloned())
        })?;
        let found = found.ok_or_else(|| terminal(TerminalReason::ImageNotFound, format!("no such image: {image}")))?;
        if let Presence::Pullable { layers, bytes, takes } = found.presence {
            let started = Instant::now();
            while started.elapsed() < takes {
                let done = started.elapsed().as_secs_f64() / takes.as_secs_f64();
                progress(PullProgress {
                    layers_done: (layers as f64 * done) as usize,
                    layers,
                    bytes_done: (bytes as f64 * done) as u64,
                    bytes,
                });
                sleep(PROGRESS_EVERY.min(takes - started.elapsed())).await;
            }
            progress(PullProgress { layers_done: layers, layers, bytes_done: bytes, bytes });
            self.change(|machine, now| {
                reachable(machine).map_err(|_| lost(&effect))?;
                machine.images.set_present(image);
                machine.record(&effect, now);
                Ok(())
            })?;
        }
        self.after(&effect).await
    }
}

fn summary(seen: &Container) -> ContainerSummary {
    let ended = (seen.state == ContainerState::Exited).then_some(seen.exit_code);
    let trace = format!("{:?}", (seen.started_at, seen.health, ended, &seen.attachments));
    ContainerSummary { trace, ..ContainerSummary::from(seen) }
}

impl Containers for SimulatedContainers {
    fn list<'a>(&'a self, label: Option<(&'a str, Option<&'a str>)>) -> BoxFuture<'a, EngineResult<Vec<Container>>> {
        let carries = move |container: &Container| {
            let Some((key, value)) = label else { return true };
            container.labels.get(key).is_some_and(|found| value.is_none_or(|value| value == found))
        };
        self.read(move |machine| {
            machine.containers.values().map(|held| &held.seen).filter(|seen| carries(seen)).cloned().collect()
        })
        .boxed()
    }

    fn summaries<'a>(
        &'a self,
        label: Option<(&'a str, Option<&'a str>)>,
    ) -> BoxFuture<'a, EngineResult<Vec<ContainerSummary>>> {
        async move { Ok(self.list(label).await?.iter().map(summary).collect()) }.boxed()
    }

    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, EngineResult<Option<Container>>> {
        self.read(|machine| machine.find(id_or_name).map(|held| held.seen.clone())).boxed()
    }

    fn differences<'a>(
        &'a self,
        id: &'a ContainerId,
        spec: &'a ContainerSpec,
    ) -> BoxFuture<'a, EngineResult<Vec<String>>> {
        async move {
            let held =
                self.read(|machine| machine.get(id).map(|held| (held.seen.image.clone(), held.spec.clone()))).await?;
            let (image, made_from) = held?;
            Ok(differences(&image, made_from.as_ref(), spec))
        }
        .boxed()
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> BoxFuture<'a, EngineResult<ContainerId>> {
        let effect = Effect::Create { name: request.name.clone(), image: request.spec.image.clone() };
        self.effect(effect, |machine, now| Ok((machine.create(request, now)?, true))).boxed()
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        let effect = Effect::Start { name: self.name_of(id) };
        self.effect(effect, |machine, now| Ok(((), machine.start(id, now)?))).boxed()
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, EngineResult<()>> {
        self.stop_and_wait(id, grace).boxed()
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        let effect = Effect::Remove { name: self.name_of(id) };
        self.effect(effect, |machine, _| Ok(((), machine.remove(id)?))).boxed()
    }

    fn rename<'a>(&'a self, id: &'a ContainerId, name: &'a str) -> BoxFuture<'a, EngineResult<()>> {
        let effect = Effect::Rename { from: self.name_of(id), to: name.to_owned() };
        self.effect(effect, |machine, _| Ok(((), machine.rename(id, name)?))).boxed()
    }

    fn forbid_restarts<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>> {
        let effect = Effect::ForbidRestarts { name: self.name_of(id) };
        self.effect(effect, |machine, _| Ok(((), machine.set_restarts(id, false)?))).boxed()
    }

    fn ensure_network<'a>(&'a self, name: &'a str) -> BoxFuture<'a, EngineResult<()>> {
        let effect = Effect::EnsureNetwork { network: name.to_owned() };
        self.effect(effect, |machine, _| Ok(((), machine.ensure_network(name)))).boxed()
    }

    fn ensure_attached<'a>(
        &'a self,
        id: &'a ContainerId,
        network: &'a str,
        aliases: &'a [String],
    ) -> BoxFuture<'a, EngineResult<()>> {
        let (name, network_name) = (self.name_of(id), network.to_owned());
        let effect = Effect::Attach { name, network: network_name, aliases: aliases.to_vec() };
        self.effect(effect, |machine, _| Ok(((), machine.attach(id, network, aliases)?))).boxed()
    }

    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, EngineResult<Option<String>>> {
        self.read(|machine| machine.images.is_present(image).then(|| image_id(image))).boxed()
    }

    fn pull<'a>(
        &'a self,
        image: &'a str,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> BoxFuture<'a, EngineResult<()>> {
        self.pull_image(image, progress).boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, EngineResult<ExecResult>> {
        let effect = Effect::Exec { name: self.name_of(id), command: command.to_vec() };
        let run = self.effect(effect.clone(), |machine, _| Ok((exec(machine, id, command)?, false)));
        async move { tokio::time::timeout(timeout, run).await.unwrap_or_else(|_| Err(lost(&effect))) }.boxed()
    }

    fn events(&self) -> BoxStream<'static, EngineEvent> {
        events::subscribe(self.clone())
    }
}

/// `Some` when the run that was to be stopped is over, one way or another.
/// Of one that was found only the image is known.
fn differences(image: &str, made_from: Option<&ContainerSpec>, wanted: &ContainerSpec) -> Vec<String> {
    let Some(made_from) = made_from else {
        return (image != wanted.image)
            .then(|| format!("image is {image}, and is to be {}", wanted.image))
            .into_iter()
            .collect();
    };
    let fields = |spec: &ContainerSpec| {
        let spec =
            ContainerSpec { compose: None, networks: Vec::new(), network_options: Default::default(), ..spec.clone() };
        serde_json::to_value(spec).ok().and_then(|spec| spec.as_object().cloned()).unwrap_or_default()
    };
    let (is, to_be) = (fields(made_from), fields(wanted));
    let names: std::collections::BTreeSet<_> = is.keys().chain(to_be.keys()).collect();
    names
        .into_iter()
        .filter(|name| is.get(*name) != to_be.get(*name))
        .map(|name| format!("{name} is another"))
        .collect()
}

fn stopped(machine: &Machine, id: &ContainerId, run: u64, effect: &Effect) -> Option<EngineResult<()>> {
    if !machine.up {
        return Some(Err(lost(effect)));
    }
    let running =
        machine.containers.get(id).is_some_and(|held| held.run == run && super::machine::is_alive(held.seen.state));
    (!running).then_some(Ok(()))
}

/// The answer that the image holds for the command, else 0 from a process that is ready and 1 from another.
fn exec(machine: &Machine, id: &ContainerId, command: &[String]) -> EngineResult<ExecResult> {
    let held = machine.get(id)?;
    if held.seen.state != ContainerState::Running {
        return Err(terminal(TerminalReason::Refused, format!("container {} is not running", held.seen.name)));
    }
    let known = machine.behaviour(&held.seen.image).exec.get(command).cloned();
    Ok(known.unwrap_or_else(|| ExecResult { exit_code: i64::from(!held.answers()), output: String::new() }))
}

fn reachable(machine: &Machine) -> EngineResult<()> {
    if machine.up { Ok(()) } else { Err(away()) }
}

fn away() -> EngineError {
    EngineError::Unreachable("simulated: the connection is refused".to_owned())
}

fn lost(effect: &Effect) -> EngineError {
    EngineError::MayHaveTakenEffect(format!("no answer to \"{effect}\""))
}
