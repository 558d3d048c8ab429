//! What is said about one variant, and what the last status tells about its runs. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{names, observed::Health};
use crate::{
    adapters::containers::{Container, ContainerState, PublishedPort},
    api::workload::{VariantHealth, VariantState, VariantStatus},
    runtime::backoff::{Backoff, seed_of},
};

/// Before a container is started again that has crashed again. After its first crash it is started at once.
pub const RESTART: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
/// A run of this length makes the next crash the first one again.
pub const LONG_RUN: SignedDuration = SignedDuration::from_mins(10);

/// A variant without a container.
pub fn absent() -> VariantStatus {
    VariantStatus { state: VariantState::Absent, ..VariantStatus::default() }
}

/// The engine does not answer: what was known of the past stays, the present is not known.
pub fn unknown(before: &VariantStatus) -> VariantStatus {
    VariantStatus {
        state: VariantState::Unknown,
        health: VariantHealth::Unknown,
        healthy_since: None,
        ..before.clone()
    }
}

/// What the container shows, with the counts that follow from the status before. `wanted`: it is wished to run.
pub fn of(
    container: &Container,
    health: Health,
    before: Option<&VariantStatus>,
    wanted: bool,
    now: Timestamp,
) -> VariantStatus {
    let running = container.state == ContainerState::Running;
    let runs = Runs::seen(container, before, wanted, now);
    VariantStatus {
        container_id: Some(container.id.0.clone()),
        container_name: Some(container.name.clone()),
        state: state(container.state),
        health: if running { health.health } else { VariantHealth::Unknown },
        image_id: Some(container.image_id.clone()).filter(|id| !id.is_empty()),
        spec_hash: names::spec_hash(container).map(str::to_owned),
        restarts: runs.restarts,
        restarts_in_a_row: runs.in_a_row,
        exit_code: (container.state == ContainerState::Exited).then_some(container.exit_code),
        started_at: container.started_at.filter(|_| wanted && runs.begun).map(to_second),
        finished_at: container.finished_at.filter(|_| wanted && !running).map(to_second),
        healthy_since: healthy_since(container, health, before, now),
        ports: if running { container.ports.iter().map(port).collect() } else { Vec::new() },
    }
}

/// Since when this run has been seen healthy without a break.
pub fn healthy_since(
    container: &Container,
    health: Health,
    before: Option<&VariantStatus>,
    now: Timestamp,
) -> Option<Time> {
    if container.state != ContainerState::Running || health.health != VariantHealth::Healthy {
        return None;
    }
    let same_run = |b: &&VariantStatus| {
        b.container_id.as_deref() == Some(&container.id.0)
            && b.healthy_since
                .as_ref()
                .zip(container.started_at)
                .is_none_or(|(since, start)| since.0 >= to_second(start).0)
    };
    let known = before.filter(same_run).and_then(|b| b.healthy_since.clone());
    Some(known.unwrap_or_else(|| to_second(now)))
}

/// The runs of a container since it was last wished to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// It has been started since then. If not, starting it is no restart, and no restart policy forbids it.
    pub begun: bool,
    pub restarts: u32,
    pub in_a_row: u32,
}

impl Runs {
    pub fn seen(container: &Container, before: Option<&VariantStatus>, wanted: bool, now: Timestamp) -> Self {
        let before = before.filter(|b| b.container_id.as_deref() == Some(&container.id.0));
        let running = container.state == ContainerState::Running;
        let Some(before) = before else { return Self { begun: running, restarts: 0, in_a_row: 0 } };
        if !wanted {
            return Self { begun: running, restarts: before.restarts, in_a_row: 0 };
        }
        let started = container.started_at.map(to_second);
        let again = matches!((&before.started_at, &started), (Some(then), Some(now)) if then != now);
        let begun = running
            || before.started_at.is_some()
            // Made, then started within this wish.
            || (before.state == VariantState::Created && started.is_some())
            // Seen at rest within this wish, and another run has ended since.
            || (before.finished_at.is_some() && before.finished_at != container.finished_at.map(to_second));
        let in_a_row = before.restarts_in_a_row.saturating_add(u32::from(again));
        Self {
            begun,
            restarts: before.restarts.saturating_add(u32::from(again)),
            in_a_row: if ran_long(container, now) { 0 } else { in_a_row },
        }
    }

    /// When a crashed container may be started again. A clock that was set back cannot make the wait longer than the
    /// backoff itself.
    pub fn restart_at(&self, container: &Container, uid: &str, now: Timestamp) -> Timestamp {
        let after = |at: Timestamp, delay| at.saturating_add(delay).unwrap_or(Timestamp::MAX);
        // The status tells runs apart by the second they began in.
        let next_second = after(to_second(container.started_at.unwrap_or(now).min(now)).0, RESTART.first);
        let ended = container.finished_at.unwrap_or(now).min(now);
        match self.in_a_row.checked_sub(1) {
            None => ended.max(next_second),
            Some(failures) => after(ended, RESTART.delay(failures, seed_of(uid)).max(RESTART.first)),
        }
    }

    /// When a run that goes on makes the next crash the first one again. None: it would be anyway.
    pub fn forgiven_at(&self, container: &Container) -> Option<Timestamp> {
        let started = container.started_at.filter(|_| self.in_a_row > 0)?;
        Some(started.saturating_add(LONG_RUN).unwrap_or(Timestamp::MAX))
    }
}

fn ran_long(container: &Container, now: Timestamp) -> bool {
    let end = match container.state {
        ContainerState::Running => Some(now),
        _ => container.finished_at,
    };
    matches!((container.started_at, end), (Some(start), Some(end)) if end.duration_since(start) >= LONG_RUN)
}

fn state(state: ContainerState) -> VariantState {
    match state {
        ContainerState::Created => VariantState::Created,
        ContainerState::Running => VariantState::Running,
        ContainerState::Paused => VariantState::Paused,
        ContainerState::Restarting | ContainerState::Removing | ContainerState::Exited | ContainerState::Dead => {
            VariantState::Exited
        }
    }
}

/// As precise as the API keeps times: a status read back must equal the one that was written.
pub fn to_second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn port(port: &PublishedPort) -> String {
    let host = if port.host_ip.contains(':') { format!("[{}]", port.host_ip) } else { port.host_ip.clone() };
    format!("{host}:{}->{}/{:?}", port.host_port, port.container_port, port.protocol)
}
