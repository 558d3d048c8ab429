//! A container that is the right one: runs or rests as wished, on the right networks, alive.

use super::{Scene, Step, VariantPlan};
use crate::{
    adapters::containers::{Container, ContainerState},
    api::{
        container::ContainerSpec,
        workload::{RestartPolicy, VariantHealth},
    },
    controllers::workload::{
        conclusion::{Conclusion, Kind},
        names,
        observed::{Action, Named},
        reason::Reason,
        right::{self, Right},
        status::Runs,
    },
    runtime::events::Note,
};

/// `made_from`: None for an adopted container, whose networks are not ours.
pub(super) fn decide(
    scene: &Scene<'_>,
    plan: &mut VariantPlan,
    container: &Container,
    running: bool,
    made_from: Option<&ContainerSpec>,
) {
    let name = &container.name;
    if made_from.is_some() && container.restarts_itself {
        forbid_restarts(scene, plan, container);
    }
    match (container.state, running) {
        (ContainerState::Running, true) => keep_running(scene, plan, container, made_from),
        (ContainerState::Created | ContainerState::Exited, true) => start(scene, plan, container, made_from),
        (ContainerState::Created | ContainerState::Exited | ContainerState::Dead, false) => {
            plan.conclude(Conclusion::new(Kind::AsWished, Reason::Stopped, format!("{name} does not run, as wished")));
        }
        (ContainerState::Running | ContainerState::Restarting | ContainerState::Paused, false) => {
            stop(scene, plan, container, format!("{name} is stopped, for it is not to run"));
        }
        (ContainerState::Paused, true) => {
            plan.conclude(Conclusion::new(Kind::Stalled, Reason::Paused, format!("{name} is paused: unpause it")));
        }
        (ContainerState::Restarting, true) => {
            let message = format!("the engine restarts {name} by its own policy");
            plan.conclude(Conclusion::new(Kind::UnderWay, Reason::Restarting, message));
        }
        (ContainerState::Removing, _) => {
            plan.conclude(Conclusion::new(Kind::UnderWay, Reason::Removing, format!("the engine removes {name}")));
            plan.wake(scene.now + jiff::SignedDuration::from_secs(1));
        }
        (ContainerState::Dead, true) => {
            let message = format!("the removal of {name} failed half way: remove it");
            plan.conclude(Conclusion::new(Kind::Stalled, Reason::Dead, message));
        }
    }
}

/// `docker update --restart`: the engine would start it when it is not to run, and without our pauses.
fn forbid_restarts(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container) {
    let message = format!("{} was found with a restart policy of the engine's: it is taken away", container.name);
    let note = Note::warning(Reason::Drift.as_str(), Reason::ForbiddingRestarts.as_str(), message.clone());
    let action = Action::ForbidRestarts { variant: scene.variant, container: Named::from(container) };
    let meanwhile = Conclusion::new(Kind::UnderWay, Reason::ForbiddingRestarts, message);
    if plan.act(scene, Step::Clear, action, meanwhile) {
        plan.notes.push(note);
    }
}

fn keep_running(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container, made_from: Option<&ContainerSpec>) {
    if right::started_without(&scene.seen.right, container.started_at) {
        let message = format!("{} was started while another held the card", container.name);
        return stop(scene, plan, container, message);
    }
    attach(scene, plan, container, made_from);
    if scene.seen.health.liveness_failed {
        return not_alive(scene, plan, container, made_from);
    }
    if let Some(at) = Runs::seen(container, scene.before, true, scene.now).forgiven_at(container) {
        plan.wake(at);
    }
    let name = &container.name;
    plan.conclude(match scene.seen.health.health {
        VariantHealth::Healthy => {
            Conclusion::new(Kind::AsWished, Reason::Running, format!("{name} runs and is healthy"))
        }
        VariantHealth::Starting => Conclusion::new(Kind::UnderWay, Reason::Starting, format!("{name} is starting")),
        VariantHealth::Unhealthy => {
            Conclusion::new(Kind::NotReady, Reason::Unhealthy, format!("{name} runs and is unhealthy"))
        }
        VariantHealth::Unknown => {
            let message = format!("{name} runs; its probes have not told anything yet");
            Conclusion::new(Kind::Unknown, Reason::HealthUnknown, message)
        }
    });
}

/// The liveness probe has failed: started anew, no faster than a crash would be; with `Never`, only stopped.
fn not_alive(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container, made_from: Option<&ContainerSpec>) {
    let runs = Runs::seen(container, scene.before, true, scene.now);
    let message = format!("{} runs but does not answer its liveness probe", container.name);
    if scene.workload.spec.restart_policy == RestartPolicy::Never {
        stop(scene, plan, container, message);
        return;
    }
    // To start it anew would be to start it: while it gives its card away, that would take the card again.
    if let Right::Denied { message: why, .. } = &scene.seen.right {
        plan.conclude(Conclusion::new(Kind::NotReady, Reason::Unhealthy, format!("{message}, and {why}")));
        return;
    }
    let started = container.started_at.unwrap_or(scene.now);
    let restart_at =
        runs.restart_at(&Container { finished_at: Some(started), ..container.clone() }, scene.uid(), scene.now);
    if restart_at > scene.now {
        plan.wake(restart_at);
        plan.conclude(Conclusion::new(Kind::NotReady, Reason::Unhealthy, message));
        return;
    }
    let note = Note::warning(
        Reason::LivenessFailed.as_str(),
        Reason::Restarting.as_str(),
        format!("{message}: it is restarted"),
    );
    let action = Action::Restart {
        variant: scene.variant,
        container: Named::from(container),
        grace: scene.grace(),
        network: made_from.map(|_| names::network(scene.namespace())),
    };
    if plan.act(scene, Step::Build, action, Conclusion::new(Kind::UnderWay, Reason::Restarting, message)) {
        plan.notes.push(note);
    }
}

fn start(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container, made_from: Option<&ContainerSpec>) {
    let name = &container.name;
    let runs = Runs::seen(container, scene.before, true, scene.now);
    let crashed = container.state == ContainerState::Exited && runs.begun;
    let ended = format!("{name} ended with exit code {}{}", container.exit_code, cause(container));
    if crashed && !may_restart(scene.workload.spec.restart_policy, container) {
        plan.conclude(Conclusion::new(
            Kind::NotReady,
            Reason::Exited,
            format!("{ended}; its restart policy leaves it"),
        ));
        return;
    }
    if let Some(gate) = scene.gate {
        plan.conclude(gate.clone());
        return;
    }
    if let Right::Denied { message, .. } = &scene.seen.right {
        plan.conclude(Conclusion::new(Kind::UnderWay, Reason::WaitingForGpu, format!("{name} {message}")));
        return;
    }
    let restart_at = runs.restart_at(container, scene.uid(), scene.now);
    // Said before the pause as after it, or the condition would change its reason at every restart of a crash loop.
    let again = || {
        let number = runs.restarts.saturating_add(1);
        let (reason, how) = match runs.in_a_row {
            0 => (Reason::Restarting, "at once"),
            _ => (Reason::CrashLoopBackOff, "after a pause"),
        };
        Conclusion::new(Kind::UnderWay, reason, format!("{ended} and is started again {how} (restart {number})"))
    };
    if crashed && restart_at > scene.now {
        plan.wake(restart_at);
        plan.conclude(again());
        return;
    }
    attach(scene, plan, container, made_from);
    let action = Action::Start {
        variant: scene.variant,
        container: Named::from(container),
        network: made_from.map(|_| names::network(scene.namespace())),
    };
    let starting = match crashed {
        true => again(),
        false => Conclusion::new(Kind::UnderWay, Reason::Starting, format!("{name} is started")),
    };
    if plan.act(scene, Step::Finish, action, starting) && crashed {
        let message = format!("{ended}: it is started again");
        plan.notes.push(Note::warning(Reason::Exited.as_str(), Reason::Starting.as_str(), message));
    }
}

fn stop(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container, message: String) {
    let action = Action::Stop { variant: scene.variant, container: Named::from(container), grace: scene.grace() };
    plan.act(scene, Step::Clear, action, Conclusion::new(Kind::UnderWay, Reason::Stopping, message));
}

/// Mends networks and aliases. Before a start that comes with the start; on a running container the active one gets its
/// alias before the other loses it.
fn attach(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container, made_from: Option<&ContainerSpec>) {
    let Some(spec) = made_from else { return };
    let gives_up = container.state == ContainerState::Running && !scene.active;
    let step = if gives_up { Step::Finish } else { Step::Build };
    for (network, aliases) in names::networks(scene.namespace(), &scene.name(), spec, scene.active) {
        let attached = container.attachments.iter().find(|a| a.network == network);
        let right = |seen: &[String]| match names::owner(&container.labels) {
            Some(_) => same(seen, &aliases, &container.name),
            None => enough(seen, &aliases, &container.name, &scene.name()),
        };
        if attached.is_some_and(|a| right(&a.aliases)) {
            continue;
        }
        let message = format!("{} is attached to {network} as {aliases:?}", container.name);
        let action = Action::Attach { variant: scene.variant, container: Named::from(container), network, aliases };
        plan.act(scene, step, action, Conclusion::new(Kind::UnderWay, Reason::Attaching, message));
    }
}

/// Of one that was taken over: attaching it anew would break its connections, so what it answers to besides may stay. Not so
/// the workload's name, where another variant is to answer.
fn enough(seen: &[String], wanted: &[String], own: &str, workload: &str) -> bool {
    let surplus = seen.iter().any(|alias| alias == workload) && !wanted.iter().any(|alias| alias == workload);
    !surplus && wanted.iter().all(|alias| alias == own || seen.contains(alias))
}

/// Engines list a container's own name among its aliases, or do not.
fn same(seen: &[String], wanted: &[String], own: &str) -> bool {
    let mut seen: Vec<&String> = seen.iter().filter(|alias| *alias != own).collect();
    let mut wanted: Vec<&String> = wanted.iter().filter(|alias| *alias != own).collect();
    seen.sort();
    wanted.sort();
    seen == wanted
}

fn may_restart(policy: RestartPolicy, container: &Container) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => container.exit_code != 0 || container.oom_killed,
        RestartPolicy::Never => false,
    }
}

fn cause(container: &Container) -> String {
    match (container.oom_killed, container.error.as_str()) {
        (true, _) => " (out of memory)".to_owned(),
        (false, "") => String::new(),
        (false, error) => format!(" ({error})"),
    }
}
