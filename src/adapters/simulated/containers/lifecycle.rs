//! The life of a container: made, started, dying, removed. Each function returns whether it changed anything.

use std::{collections::BTreeMap, time::Duration};

use super::{
    images::image_id,
    machine::{Due, Held, Machine, Moment, is_alive},
};
use crate::{
    adapters::containers::{
        Attachment, Container, ContainerId, ContainerRequest, ContainerState, EngineError, EngineHealth, EngineResult,
        TerminalReason,
    },
    api::container::ContainerSpec,
};

/// Killed by a signal that cannot be ignored.
pub(super) const KILLED: i64 = 137;
/// Docker's defaults, where a health check leaves them out.
const HEALTH_INTERVAL_SECONDS: u32 = 30;
const HEALTH_RETRIES: u32 = 3;

impl Machine {
    pub fn create(&mut self, request: &ContainerRequest, now: Moment) -> EngineResult<ContainerId> {
        if self.find(&request.name).is_some() {
            return Err(terminal(TerminalReason::NameTaken, format!("the name {} is in use", request.name)));
        }
        if !self.images.is_present(&request.spec.image) {
            return Err(terminal(TerminalReason::ImageNotFound, format!("no such image: {}", request.spec.image)));
        }
        if let Some((network, _)) = request.networks.iter().find(|(name, _)| !self.networks.contains_key(name)) {
            return Err(terminal(TerminalReason::NetworkNotFound, format!("network {network} not found")));
        }
        let id = self.new_id();
        let mut labels: BTreeMap<_, _> = request.spec.labels.clone();
        labels.extend(request.labels.clone());
        let seen = Container {
            attachments: attachments(request),
            labels,
            ..blank(id.clone(), &request.name, &request.spec.image, now)
        };
        self.containers.insert(id.clone(), Held::new(seen, Some(request.spec.clone())));
        self.emit(&id, "create");
        Ok(id)
    }

    pub fn start(&mut self, id: &ContainerId, now: Moment) -> EngineResult<bool> {
        let held = self.get(id)?;
        match held.seen.state {
            ContainerState::Running | ContainerState::Restarting => return Ok(false),
            ContainerState::Paused | ContainerState::Removing | ContainerState::Dead => {
                let message = format!("container {} is {:?} and cannot be started", held.seen.name, held.seen.state);
                return Err(terminal(TerminalReason::Refused, message));
            }
            ContainerState::Created | ContainerState::Exited => {}
        }
        let spec = held.spec.clone().unwrap_or_default();
        let behaviour = self.behaviour(&held.seen.image);
        let ports = match self.publish(id, &spec) {
            Ok(ports) => ports,
            Err(error) => return Err(self.start_failed(id, TerminalReason::PortInUse, 128, error)),
        };
        if let Some(message) = &behaviour.start_fails {
            return Err(self.start_failed(id, TerminalReason::StartFailed, 127, message.clone()));
        }
        self.give_addresses(id);
        let pid = self.next_pid();
        let health = (behaviour.healthcheck || spec.healthcheck.is_some()).then_some(EngineHealth::Starting);
        let held = self.get_mut(id)?;
        held.run += 1;
        held.pid = pid;
        held.ready = false;
        let seen = &mut held.seen;
        (seen.state, seen.health, seen.ports) = (ContainerState::Running, health, ports);
        (seen.exit_code, seen.oom_killed, seen.error) = (0, false, String::new());
        (seen.started_at, seen.finished_at) = (Some(now.timestamp), None);
        let run = held.run;
        if behaviour.gpu_at_start {
            self.take_cards(id);
        }
        self.emit(id, "start");
        self.schedule_life(id, run, &spec, &behaviour, now);
        Ok(true)
    }

    fn schedule_life(
        &mut self,
        id: &ContainerId,
        run: u64,
        spec: &ContainerSpec,
        behaviour: &super::Behaviour,
        now: Moment,
    ) {
        match behaviour.ready_after {
            Some(after) => self.schedule(now, after, Due::Ready { id: id.clone(), run }),
            None => self.schedule(now, patience(spec), Due::GiveUp { id: id.clone(), run }),
        }
        if let Some((after, exit_code)) = behaviour.exits {
            self.schedule(now, after, Due::Exit { id: id.clone(), run, exit_code });
        }
        // A process that is ready at once is seen so by the next look.
        self.advance(now);
    }

    fn start_failed(
        &mut self,
        id: &ContainerId,
        reason: TerminalReason,
        exit_code: i64,
        message: String,
    ) -> EngineError {
        if let Some(held) = self.containers.get_mut(id) {
            held.seen.exit_code = exit_code;
            held.seen.error = message.clone();
        }
        terminal(reason, message)
    }

    pub fn become_ready(&mut self, id: &ContainerId) {
        if let Some(held) = self.containers.get_mut(id) {
            held.ready = true;
            let health = if held.answers() { EngineHealth::Healthy } else { EngineHealth::Unhealthy };
            self.judge_health(id, health);
        }
    }

    /// The verdict of the engine's own health check, where there is one.
    pub fn judge_health(&mut self, id: &ContainerId, health: EngineHealth) {
        let Some(held) = self.containers.get_mut(id) else { return };
        if held.seen.health.is_none_or(|before| before == health) {
            return;
        }
        held.seen.health = Some(health);
        let word = match health {
            EngineHealth::Starting => "starting",
            EngineHealth::Healthy => "healthy",
            EngineHealth::Unhealthy => "unhealthy",
        };
        self.emit(id, &format!("health_status: {word}"));
    }

    /// The stop signal; the end comes when the process heeds it, at the latest after `grace`. Asking again hastens it
    /// at most. Returns the run it speaks of, or `None` when there is nothing to stop.
    pub fn signal_stop(&mut self, id: &ContainerId, grace: Duration, now: Moment) -> EngineResult<Option<u64>> {
        let held = self.get(id)?;
        if !is_alive(held.seen.state) {
            return Ok(None);
        }
        let run = held.run;
        let behaviour = self.behaviour(&held.seen.image);
        let (takes, exit_code) = behaviour.stops;
        self.emit(id, "kill");
        if !behaviour.ignores_stop && takes <= grace {
            self.schedule(now, takes, Due::Exit { id: id.clone(), run, exit_code });
        } else {
            self.schedule(now, grace, Due::Exit { id: id.clone(), run, exit_code: KILLED });
        }
        self.advance(now);
        Ok(Some(run))
    }

    /// The process is gone, for whatever reason.
    pub fn die(&mut self, id: &ContainerId, exit_code: i64, now: Moment) {
        if !self.containers.get(id).is_some_and(|held| is_alive(held.seen.state)) {
            return;
        }
        self.leave_cards(id, now);
        let Some(held) = self.containers.get_mut(id) else { return };
        let seen = &mut held.seen;
        (seen.state, seen.health, seen.exit_code) = (ContainerState::Exited, None, exit_code);
        seen.finished_at = Some(now.timestamp);
        seen.ports.clear();
        seen.attachments.iter_mut().for_each(|attachment| attachment.ip = None);
        held.ready = false;
        self.emit(id, "die");
    }

    pub fn remove(&mut self, id: &ContainerId) -> EngineResult<bool> {
        let Some(held) = self.containers.get(id) else { return Ok(false) };
        if is_alive(held.seen.state) {
            let message = format!("container {} is running: stop it before removing it", held.seen.name);
            return Err(terminal(TerminalReason::Refused, message));
        }
        self.emit(id, "destroy");
        self.containers.remove(id);
        Ok(true)
    }

    pub fn rename(&mut self, id: &ContainerId, name: &str) -> EngineResult<bool> {
        if self.get(id)?.seen.name == name {
            return Ok(false);
        }
        if self.find(name).is_some() {
            return Err(terminal(TerminalReason::NameTaken, format!("the name {name} is in use")));
        }
        self.get_mut(id)?.seen.name = name.to_owned();
        self.emit(id, "rename");
        Ok(true)
    }

    pub fn set_restarts(&mut self, id: &ContainerId, restarts: bool) -> EngineResult<bool> {
        let seen = &mut self.get_mut(id)?.seen;
        let changed = seen.restarts_itself != restarts;
        seen.restarts_itself = restarts;
        if changed {
            self.emit(id, "update");
        }
        Ok(changed)
    }
}

pub(super) fn terminal(reason: TerminalReason, message: String) -> EngineError {
    EngineError::Terminal { reason, message }
}

/// Just made, attached to nothing.
pub(super) fn blank(id: ContainerId, name: &str, image: &str, now: Moment) -> Container {
    Container {
        id,
        name: name.to_owned(),
        image: image.to_owned(),
        image_id: image_id(image),
        labels: BTreeMap::new(),
        state: ContainerState::Created,
        health: None,
        exit_code: 0,
        oom_killed: false,
        restarts_itself: false,
        error: String::new(),
        created_at: Some(now.timestamp),
        started_at: None,
        finished_at: None,
        attachments: Vec::new(),
        ports: Vec::new(),
    }
}

fn attachments(request: &ContainerRequest) -> Vec<Attachment> {
    let bridge = [("bridge".to_owned(), Vec::new())];
    let networks = if request.networks.is_empty() { &bridge[..] } else { &request.networks[..] };
    let mut attachments: Vec<_> = networks
        .iter()
        .map(|(network, aliases)| Attachment { network: network.clone(), aliases: sorted(aliases), ip: None })
        .collect();
    attachments.sort_by(|a, b| a.network.cmp(&b.network));
    attachments
}

pub(super) fn sorted(aliases: &[String]) -> Vec<String> {
    let mut aliases = aliases.to_vec();
    aliases.sort();
    aliases.dedup();
    aliases
}

/// How long the engine's health check goes on failing before it says so.
fn patience(spec: &ContainerSpec) -> Duration {
    let check = spec.healthcheck.as_ref();
    let interval = check.and_then(|check| check.interval_seconds).unwrap_or(HEALTH_INTERVAL_SECONDS);
    let retries = check.and_then(|check| check.retries).unwrap_or(HEALTH_RETRIES);
    let start = check.and_then(|check| check.start_period_seconds).unwrap_or(0);
    Duration::from_secs(u64::from(start) + u64::from(interval) * u64::from(retries))
}
