//! What every engine does. A case knows nothing of which one it is on.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use gaia::{
    adapters::{
        containers::{
            Container, ContainerId, ContainerState, ContainerSummary, EngineError, EngineEvent, EngineHealth,
            TerminalReason,
        },
        probes::ProbeOutcome,
    },
    api::{
        container::{Port, Protocol},
        workload::{DockerProbe, ExecProbe, HttpProbe, Probe, TcpProbe},
    },
};

use crate::{
    support::{eventually, port::own_port},
    world::{DEADLINE, LABEL, PORT, Process, World, healthcheck, words},
};

/// Longer than a process that heeds the signal needs.
const GRACE: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[track_caller]
fn assert_terminal<T: std::fmt::Debug>(result: Result<T, EngineError>, expected: TerminalReason) {
    match result {
        Err(EngineError::Terminal { reason, .. }) if reason == expected => {}
        other => panic!("expected {expected}, got {other:?}"),
    }
}

fn aliases(container: &Container, network: &str) -> Option<Vec<String>> {
    container.attachments.iter().find(|found| found.network == network).map(|found| found.aliases.clone())
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub async fn lives_from_create_to_remove(world: &World) {
    let id = world.made("a", Process::Serves).await;
    let made = world.look(&id).await;
    assert_eq!((made.state, made.name.as_str()), (ContainerState::Created, world.name("a").as_str()));
    assert!(made.created_at.is_some() && made.started_at.is_none() && made.finished_at.is_none());

    world.engine.start(&id).await.expect("it starts");
    let running = world.look(&id).await;
    assert_eq!(running.state, ContainerState::Running);
    assert!(running.started_at.is_some() && running.finished_at.is_none());
    assert!(running.attachments.iter().all(|attachment| attachment.ip.is_some()), "{:?}", running.attachments);

    world.engine.stop(&id, GRACE).await.expect("it stops");
    let stopped = world.look(&id).await;
    assert_eq!((stopped.state, stopped.exit_code), (ContainerState::Exited, 0));
    assert!(stopped.finished_at >= stopped.started_at);
    assert!(stopped.attachments.iter().all(|attachment| attachment.ip.is_none()));

    world.engine.start(&id).await.expect("it starts again");
    assert_eq!(world.look(&id).await.state, ContainerState::Running);
    world.engine.stop(&id, GRACE).await.expect("it stops again");
    world.engine.remove(&id).await.expect("it is removed");
    assert_eq!(world.engine.inspect(&id.0).await, Ok(None));
    assert_eq!(world.engine.inspect(&world.name("a")).await, Ok(None));
}

pub async fn a_summary_says_what_a_look_shows(world: &World) {
    let id = world.made("a", Process::Serves).await;
    let agree = async |state: ContainerState| {
        let all = world.engine.summaries(None).await.expect("a list");
        let summary = all.into_iter().find(|summary| summary.id == id).expect("it is listed");
        let seen = ContainerSummary::from(&world.look(&id).await);
        assert_eq!(ContainerSummary { trace: String::new(), ..summary.clone() }, seen);
        assert_eq!(seen.state, state);
        summary.trace
    };
    agree(ContainerState::Created).await;
    world.engine.start(&id).await.expect("it starts");
    let first_run = agree(ContainerState::Running).await;
    world.engine.rename(&id, &world.name("b")).await.expect("it is renamed");
    assert_eq!(agree(ContainerState::Running).await, first_run);
    world.engine.stop(&id, GRACE).await.expect("it stops");
    agree(ContainerState::Exited).await;
    world.engine.start(&id).await.expect("it starts again");
    assert_ne!(agree(ContainerState::Running).await, first_run, "another run");
    world.engine.stop(&id, GRACE).await.expect("it stops again");
    world.engine.remove(&id).await.expect("it is removed");
    let all = world.engine.summaries(None).await.expect("a list");
    assert!(all.iter().all(|summary| summary.id != id), "{all:?}");
}

pub async fn reaching_an_end_twice_is_reaching_it_once(world: &World) {
    let id = world.running("a", Process::Serves).await;
    let before = world.look(&id).await;
    world.engine.start(&id).await.expect("it runs already");
    assert_eq!(world.look(&id).await, before);
    let same = world.name("a");
    world.engine.rename(&id, &same).await.expect("it is called so already");
    world.network("net").await;
    world.network("net").await;
    assert_eq!(world.look(&id).await, before);
    for _ in 0..2 {
        world.engine.stop(&id, GRACE).await.expect("it stands");
    }
    for _ in 0..2 {
        world.engine.remove(&id).await.expect("it is gone");
    }
}

pub async fn keeps_the_exit_code(world: &World) {
    let id = world.running("a", Process::Exits(3)).await;
    let ended = world.wait_until_exited(&id).await;
    assert_eq!((ended.exit_code, ended.oom_killed), (3, false));
    // Restart policy `no`: had the engine one, it would have started it again, and told of a later start.
    assert_eq!(world.look(&id).await.started_at, ended.started_at);
}

pub async fn refuses_a_name_that_is_taken(world: &World) {
    let request = world.request("a", Process::Serves).await;
    let first = world.engine.create(&request).await.expect("the name is free");
    assert_terminal(world.engine.create(&request).await, TerminalReason::NameTaken);
    world.engine.remove(&first).await.expect("it is removed");
    world.engine.create(&request).await.expect("the name is free again");
}

pub async fn refuses_an_image_that_is_not_there(world: &World) {
    let mut request = world.request("a", Process::Serves).await;
    assert!(world.engine.image(&request.spec.image).await.expect("an answer").is_some());
    request.spec.image = "gaia-test-nowhere:v1".to_owned();
    assert_eq!(world.engine.image(&request.spec.image).await, Ok(None));
    assert_terminal(world.engine.create(&request).await, TerminalReason::ImageNotFound);
    assert_eq!(world.list().await, []);
}

pub async fn refuses_a_network_that_is_not_there(world: &World) {
    let mut request = world.request("a", Process::Serves).await;
    request.networks.push((world.name("nowhere"), Vec::new()));
    assert_terminal(world.engine.create(&request).await, TerminalReason::NetworkNotFound);
    assert_eq!(world.list().await, []);
    let id = world.made("b", Process::Serves).await;
    let refused = world.engine.ensure_attached(&id, &world.name("nowhere"), &[]).await;
    assert_terminal(refused, TerminalReason::NetworkNotFound);
}

fn port(host_port: u16) -> Port {
    Port { container_port: PORT, host_port: Some(host_port), host_ip: None, protocol: None }
}

async fn publishing(world: &World, short: &str, host_port: u16) -> ContainerId {
    let mut request = world.request(short, Process::Serves).await;
    request.spec.ports = vec![port(host_port)];
    world.engine.create(&request).await.expect("it is made")
}

pub async fn publishes_ports_on_the_loopback(world: &World) {
    let host_port = own_port();
    let id = publishing(world, "a", host_port).await;
    assert_eq!(world.look(&id).await.ports, []);
    world.engine.start(&id).await.expect("it starts");
    let ports = world.look(&id).await.ports;
    assert_eq!(ports.len(), 1);
    assert_eq!((ports[0].container_port, ports[0].host_port, ports[0].protocol), (PORT, host_port, Protocol::TCP));
    assert_eq!(ports[0].host_ip, "127.0.0.1");
}

pub async fn refuses_a_port_that_is_in_use(world: &World) {
    let host_port = own_port();
    let first = publishing(world, "a", host_port).await;
    let second = publishing(world, "b", host_port).await;
    world.engine.start(&first).await.expect("the port is free");
    assert_terminal(world.engine.start(&second).await, TerminalReason::PortInUse);
    let refused = world.look(&second).await;
    assert_eq!(refused.state, ContainerState::Created);
    assert!(!refused.error.is_empty());
    world.engine.stop(&first, GRACE).await.expect("it stops");
    world.engine.start(&second).await.expect("the port is free again");
    assert_eq!(world.look(&second).await.error, "");
}

pub async fn picks_a_port_when_it_may(world: &World) {
    let (first, second) = (publishing(world, "a", 0).await, publishing(world, "b", 0).await);
    world.engine.start(&first).await.expect("it starts");
    world.engine.start(&second).await.expect("it starts");
    let picked = [world.look(&first).await.ports[0].host_port, world.look(&second).await.ports[0].host_port];
    assert!(picked[0] != picked[1] && !picked.contains(&0), "{picked:?}");
}

pub async fn joins_every_network_it_was_asked_to(world: &World) {
    let other = world.network("other").await;
    let mut request = world.request("a", Process::Serves).await;
    let first = request.networks[0].0.clone();
    request.networks[0].1 = strings(&["web", "api"]);
    request.networks.push((other.clone(), strings(&["side"])));
    let id = world.engine.create(&request).await.expect("it is made");
    world.engine.start(&id).await.expect("it starts");
    let seen = world.look(&id).await;
    assert_eq!(seen.attachments.len(), 2);
    assert_eq!(aliases(&seen, &first), Some(strings(&["api", "web"])));
    assert_eq!(aliases(&seen, &other), Some(strings(&["side"])));
}

pub async fn moves_aliases(world: &World) {
    let network = world.network("net").await;
    let id = world.running("a", Process::Serves).await;
    world.engine.ensure_attached(&id, &network, &strings(&["web"])).await.expect("attached");
    let attached = world.look(&id).await;
    assert_eq!(aliases(&attached, &network), Some(strings(&["web"])));
    // Nothing to do is nothing done: the address stays.
    world.engine.ensure_attached(&id, &network, &strings(&["web"])).await.expect("attached already");
    assert_eq!(world.look(&id).await, attached);
    world.engine.ensure_attached(&id, &network, &[]).await.expect("attached without a name");
    assert_eq!(aliases(&world.look(&id).await, &network), Some(Vec::new()));

    let other = world.network("other").await;
    assert_eq!(aliases(&world.look(&id).await, &other), None);
    world.engine.ensure_attached(&id, &other, &strings(&["b", "a"])).await.expect("attached to another");
    let seen = world.look(&id).await;
    assert_eq!(aliases(&seen, &other), Some(strings(&["a", "b"])));
    assert_eq!(seen.state, ContainerState::Running);

    world.engine.stop(&id, GRACE).await.expect("it stops");
    world.engine.ensure_attached(&id, &network, &strings(&["later"])).await.expect("also while it stands");
    world.engine.start(&id).await.expect("it starts");
    assert_eq!(aliases(&world.look(&id).await, &network), Some(strings(&["later"])));
}

pub async fn renames(world: &World) {
    let id = world.running("a", Process::Serves).await;
    let other = world.made("b", Process::Serves).await;
    assert_terminal(world.engine.rename(&id, &world.name("b")).await, TerminalReason::NameTaken);
    world.engine.rename(&id, &world.name("c")).await.expect("the name is free");
    assert_eq!(world.look(&id).await.name, world.name("c"));
    world.engine.rename(&other, &world.name("a")).await.expect("the name is free now");
    let found = world.engine.inspect(&world.name("a")).await.expect("an answer").expect("by name");
    assert_eq!(found.id, other);
}

pub async fn takes_restart_policies_away(world: &World) {
    let id = world.running("a", Process::Serves).await;
    let made = world.look(&id).await;
    assert!(!made.restarts_itself, "what is made has none");
    for _ in 0..2 {
        world.restart_always(&id).await;
        assert!(world.look(&id).await.restarts_itself);
        world.engine.forbid_restarts(&id).await.expect("it runs");
        assert_eq!(world.look(&id).await, made, "nothing else is touched");
    }
    world.engine.stop(&id, GRACE).await.expect("it stops");
    world.restart_always(&id).await;
    world.engine.forbid_restarts(&id).await.expect("it stands");
    assert!(!world.look(&id).await.restarts_itself);
}

pub async fn kills_what_ignores_the_stop_signal(world: &World) {
    let id = world.running("a", Process::IgnoresStop).await;
    let before = tokio::time::Instant::now();
    world.engine.stop(&id, Duration::from_secs(1)).await.expect("it is stopped all the same");
    assert!(before.elapsed() >= Duration::from_secs(1), "it was not given its grace");
    let stopped = world.look(&id).await;
    assert_eq!((stopped.state, stopped.exit_code), (ContainerState::Exited, 137));
}

pub async fn tells_how_a_process_took_the_stop_signal(world: &World) {
    let id = world.running("a", Process::HeedsStop(5)).await;
    // A signal that comes before the process has set up its handler is lost; what it does then is not the question.
    eventually("the process is up", DEADLINE, async || {
        world.engine.exec(&id, &words("/peer echo hello"), DEADLINE).await.ok()
    })
    .await;
    world.engine.stop(&id, GRACE).await.expect("it stops");
    assert_eq!(world.look(&id).await.exit_code, 5);
}

pub async fn tells_why_a_start_failed(world: &World) {
    let id = world.made("a", Process::Broken).await;
    assert_terminal(world.engine.start(&id).await, TerminalReason::StartFailed);
    let seen = world.look(&id).await;
    assert_eq!((seen.state, seen.exit_code), (ContainerState::Created, 127));
    assert!(!seen.error.is_empty());
    world.engine.remove(&id).await.expect("it can be removed");
}

pub async fn lists_by_label_and_nothing_else(world: &World) {
    let ours = world.made("a", Process::Serves).await;
    let mut foreign = world.request("b", Process::Serves).await;
    // It carries the label, so that it is cleaned away, but with another value than is asked for.
    foreign.labels.insert("gaia.test/owner".to_owned(), "them".to_owned());
    let foreign = world.engine.create(&foreign).await.expect("it is made");
    let ids = |found: Vec<Container>| found.into_iter().map(|container| container.id).collect::<Vec<_>>();

    let theirs = world.engine.list(Some(("gaia.test/owner", Some("them")))).await.expect("a list");
    assert!(ids(theirs.clone()).contains(&foreign) && !ids(theirs).contains(&ours));
    let any_value = world.engine.list(Some(("gaia.test/owner", None))).await.expect("a list");
    assert!(ids(any_value.clone()).contains(&foreign) && !ids(any_value).contains(&ours));
    let nobodys = world.engine.list(Some((LABEL, Some("nobody")))).await.expect("a list");
    assert_eq!(nobodys, []);
    for label in
        [Some(("gaia.test/owner", Some("them"))), Some(("gaia.test/owner", None)), Some((LABEL, Some("nobody")))]
    {
        let looked_at = world.engine.list(label).await.expect("a list");
        let summaries: Vec<_> = looked_at.iter().map(ContainerSummary::from).collect();
        let mut listed = world.engine.summaries(label).await.expect("a list");
        listed.iter_mut().for_each(|summary| summary.trace.clear());
        assert_eq!(listed, summaries, "{label:?}");
    }
    let all = ids(world.engine.list(None).await.expect("a list"));
    assert!(all.contains(&ours) && all.contains(&foreign));
    let mut labels: BTreeMap<_, _> = world.look(&ours).await.labels;
    labels.retain(|key, _| key.starts_with("gaia.test/"));
    assert_eq!(labels, world.labels());
}

pub async fn takes_no_part_of_an_id_for_a_name(world: &World) {
    let id = world.made("a", Process::Serves).await;
    assert!(world.engine.inspect(&id.0).await.expect("an answer").is_some());
    assert_eq!(world.engine.inspect(&id.0[..10]).await, Ok(None));
    assert_eq!(world.engine.inspect("../images").await, Ok(None));
}

async fn checked(world: &World, process: Process) -> ContainerId {
    let mut request = world.request("a", process).await;
    request.spec.healthcheck = Some(healthcheck());
    let id = world.engine.create(&request).await.expect("it is made");
    world.engine.start(&id).await.expect("it starts");
    id
}

pub async fn says_when_its_health_check_passes(world: &World) {
    let id = checked(world, Process::ReadyAfter(1)).await;
    assert_eq!(world.look(&id).await.health, Some(EngineHealth::Starting));
    world.wait_for(&id, "healthy", |seen| seen.health == Some(EngineHealth::Healthy)).await;
    world.engine.stop(&id, GRACE).await.expect("it stops");
    assert_eq!(world.look(&id).await.health, None);
}

pub async fn says_when_its_health_check_fails(world: &World) {
    let id = checked(world, Process::Sleeps).await;
    let seen = world.wait_for(&id, "unhealthy", |seen| seen.health == Some(EngineHealth::Unhealthy)).await;
    assert_eq!(seen.state, ContainerState::Running);
}

pub async fn runs_commands_inside(world: &World) {
    let id = world.running("a", Process::Serves).await;
    let run = async |command: &str| world.engine.exec(&id, &words(command), DEADLINE).await.expect("it runs");
    assert_eq!(run("/peer exit 7").await.exit_code, 7);
    let said = run("/peer echo hello").await;
    assert_eq!((said.exit_code, said.output.as_str()), (0, "hello\n"));
    eventually("its own check passes", DEADLINE, async || {
        (run("/peer healthcheck").await.exit_code == 0).then_some(())
    })
    .await;
}

pub async fn refuses_to_run_commands_in_what_does_not_run(world: &World) {
    let id = world.made("a", Process::Serves).await;
    assert_terminal(world.engine.exec(&id, &words("/peer exit 0"), DEADLINE).await, TerminalReason::Refused);
}

pub async fn refuses_to_remove_what_runs(world: &World) {
    let id = world.running("a", Process::Serves).await;
    assert_terminal(world.engine.remove(&id).await, TerminalReason::Refused);
    assert_eq!(world.look(&id).await.state, ContainerState::Running);
}

pub async fn does_not_find_what_is_not_there(world: &World) {
    let id = world.made("a", Process::Serves).await;
    let network = world.network("net").await;
    world.engine.remove(&id).await.expect("it is removed");
    let missing = |result| matches!(result, Err(EngineError::NotFound(_)));
    assert!(missing(world.engine.start(&id).await));
    assert!(missing(world.engine.stop(&id, GRACE).await));
    assert!(missing(world.engine.rename(&id, &world.name("b")).await));
    assert!(missing(world.engine.ensure_attached(&id, &network, &[]).await));
    assert!(missing(world.engine.exec(&id, &words("/peer env"), DEADLINE).await.map(|_| ())));
}

pub async fn tells_what_happens(world: &World) {
    let mut events = world.engine.events();
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    let id = world.running("a", Process::Serves).await;
    world.engine.stop(&id, GRACE).await.expect("it stops");
    world.engine.rename(&id, &world.name("b")).await.expect("it is renamed");
    world.engine.remove(&id).await.expect("it is removed");
    let mut actions = Vec::new();
    let listen = async {
        while actions.last().is_none_or(|action| action != "destroy") {
            let event = events.next().await.expect("the stream has no end");
            let EngineEvent::Container { id: told, name, labels, action } = event else {
                panic!("the connection was lost: {event:?}");
            };
            if told == id {
                assert_eq!(labels.get(LABEL), world.labels().get(LABEL));
                // Who joins or leaves a network is looked up, and may have another name by then.
                let looked_up = ["connect", "disconnect"].contains(&action.as_str());
                let renamed = action == "rename" || actions.contains(&"rename".to_owned());
                let expected = world.name(if renamed { "b" } else { "a" });
                assert!(name == expected || looked_up && name == world.name("b"), "{action}: {name}");
                actions.push(action);
            }
        }
    };
    tokio::time::timeout(DEADLINE, listen).await.expect("every event comes in time");
    let essential = ["create", "start", "die", "rename", "destroy"];
    let told: Vec<_> = actions.iter().map(String::as_str).filter(|action| essential.contains(action)).collect();
    assert_eq!(told, essential, "of {actions:?}");
}

fn http(path: &str, port: u16) -> Probe {
    let http = HttpProbe { path: path.to_owned(), port, scheme: None };
    Probe { http: Some(http), ..Probe::default() }
}

fn tcp(port: u16) -> Probe {
    Probe { tcp: Some(TcpProbe { port }), ..Probe::default() }
}

pub async fn probes_over_the_network(world: &World) {
    let id = world.running("a", Process::ReadyAfter(2)).await;
    let target = world.look(&id).await;
    let probe = async |action: Probe| world.probes.probe(&target, &action, PROBE_TIMEOUT).await;
    assert!(matches!(probe(http("/healthz", PORT)).await, ProbeOutcome::Failure(_)));
    for action in [http("/healthz", PORT), http("healthz", PORT), tcp(PORT)] {
        eventually("the probe passes", DEADLINE, async || {
            (probe(action.clone()).await == ProbeOutcome::Success).then_some(())
        })
        .await;
    }
}

pub async fn probes_by_command_and_by_health_check(world: &World) {
    let id = checked(world, Process::ReadyAfter(1)).await;
    let by_engine = Probe { docker: Some(DockerProbe {}), ..Probe::default() };
    let target = world.look(&id).await;
    assert!(matches!(world.probes.probe(&target, &by_engine, PROBE_TIMEOUT).await, ProbeOutcome::Unknown(_)));
    let target = world.wait_for(&id, "healthy", |seen| seen.health == Some(EngineHealth::Healthy)).await;
    assert_eq!(world.probes.probe(&target, &by_engine, PROBE_TIMEOUT).await, ProbeOutcome::Success);
    let by_command = |command| Probe { exec: Some(ExecProbe { command: words(command) }), ..Probe::default() };
    let passed = world.probes.probe(&target, &by_command("/peer healthcheck"), DEADLINE).await;
    assert_eq!(passed, ProbeOutcome::Success);
    let failed = world.probes.probe(&target, &by_command("/peer exit 7"), DEADLINE).await;
    assert!(matches!(failed, ProbeOutcome::Failure(why) if why.contains('7')));
}

pub async fn probes_fail_once_the_container_has_ended(world: &World) {
    let id = world.running("a", Process::Serves).await;
    let stale = world.look(&id).await;
    world.engine.stop(&id, GRACE).await.expect("it stops");
    let seen = world.look(&id).await;
    for (target, action) in [(&stale, tcp(PORT)), (&stale, http("/", PORT)), (&seen, tcp(PORT))] {
        let outcome = world.probes.probe(target, &action, PROBE_TIMEOUT).await;
        assert!(matches!(outcome, ProbeOutcome::Failure(_)), "{outcome:?}");
    }
}
