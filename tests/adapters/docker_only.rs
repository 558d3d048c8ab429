//! What only a real engine can be asked: whether everything reaches it, what it does when it is away, and pulls.

use std::{
    collections::{BTreeMap, HashMap},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use bollard::{
    Docker,
    models::{NetworkDisconnectRequest, RestartPolicyNameEnum},
    query_parameters::RemoveImageOptions,
};
use futures::{FutureExt, StreamExt, stream::BoxStream};
use gaia::{
    adapters::{
        containers::{
            Attachment, ContainerId, Containers, EngineError, EngineEvent, TerminalReason, docker::DockerEngine,
        },
        probes::ProbeOutcome,
    },
    api::{
        container::{Mount, MountType, Port, Protocol, Resources},
        label,
        workload::{HttpProbe, HttpScheme, Probe},
    },
};

use tempfile::TempDir;

use crate::{
    gate::{Gate, Passage},
    support::{dockerd::docker_host, eventually, port::own_port, registry::Registry},
    world::{DEADLINE, PORT, Process, healthcheck, on_docker, words},
};

/// Bytes of an image that does not compress.
const NOISE: usize = 4 << 20;

async fn bollard() -> Docker {
    let docker = Docker::connect_with_host(docker_host()).expect("the engine is there");
    docker.negotiate_version().await.expect("the engine answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_the_spec_says_reaches_docker() {
    on_docker(async |world| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mount = |type_, source: Option<&str>, target: &str, read_only| Mount {
            type_: Some(type_),
            source: source.map(str::to_owned),
            target: target.to_owned(),
            read_only,
            ..Mount::default()
        };
        let mut request = world.request("a", Process::Serves).await;
        let spec = &mut request.spec;
        spec.env = BTreeMap::from([("GREETING".to_owned(), "hello = world".to_owned())]);
        spec.working_dir = Some("/data".to_owned());
        spec.user = Some("1000:1000".to_owned());
        spec.ports = vec![Port {
            container_port: 9,
            host_port: Some(0),
            host_ip: Some("0.0.0.0".to_owned()),
            protocol: Some(Protocol::UDP),
        }];
        spec.mounts = vec![
            mount(MountType::Bind, dir.path().to_str(), "/bound", Some(true)),
            mount(MountType::Volume, None, "/data", None),
            mount(MountType::Tmpfs, None, "/scratch", None),
        ];
        spec.healthcheck = Some(healthcheck());
        spec.resources = Some(Resources {
            cpus: Some("500m".to_owned()),
            memory: Some("64Mi".to_owned()),
            shm_size: Some("1Mi".to_owned()),
            ..Resources::default()
        });
        spec.stop_signal = Some("SIGINT".to_owned());
        spec.extra_hosts = vec!["elsewhere:192.0.2.1".to_owned()];
        spec.labels = BTreeMap::from([("theirs".to_owned(), "yes".to_owned())]);
        let id = world.engine.create(&request).await.expect("it is made");
        world.engine.start(&id).await.expect("it starts");

        let seen = bollard().await.inspect_container(&id.0, None).await.expect("it is there");
        let host = seen.host_config.expect("every container has one");
        assert_eq!(host.restart_policy.and_then(|policy| policy.name), Some(RestartPolicyNameEnum::NO));
        assert_eq!((host.nano_cpus, host.memory), (Some(500_000_000), Some(64 << 20)));
        assert_eq!(host.shm_size, Some(1 << 20));
        assert_eq!(host.extra_hosts, Some(vec!["elsewhere:192.0.2.1".to_owned()]));
        let config = seen.config.expect("every container has one");
        assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!((config.user.as_deref(), config.working_dir.as_deref()), (Some("1000:1000"), Some("/data")));
        let check = config.healthcheck.expect("it was asked for");
        assert_eq!(check.test, Some(words("CMD /peer healthcheck")));
        assert_eq!((check.interval, check.retries), (Some(1_000_000_000), Some(2)));
        assert_eq!(config.labels.unwrap_or_default().get("theirs").map(String::as_str), Some("yes"));
        let mounts: HashMap<_, _> =
            seen.mounts.iter().flatten().map(|mount| (mount.destination.clone(), mount)).collect();
        assert_eq!(mounts[&Some("/bound".to_owned())].rw, Some(false));
        assert!(mounts.contains_key(&Some("/data".to_owned())));
        assert!(mounts.contains_key(&Some("/scratch".to_owned())));
        let ports = world.look(&id).await.ports;
        assert!(ports.iter().any(|port| port.host_ip == "0.0.0.0" && port.protocol == Protocol::UDP), "{ports:?}");
        let env = world.engine.exec(&id, &words("/peer env"), DEADLINE).await.expect("it runs").output;
        assert!(env.lines().any(|line| line == "GREETING=hello = world"), "{env}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_bind_source_is_refused() {
    on_docker(async |world| {
        let mut request = world.request("a", Process::Serves).await;
        request.spec.mounts = vec![Mount {
            source: Some("/no/such/directory".to_owned()),
            target: "/data".to_owned(),
            ..Mount::default()
        }];
        let refused = world.engine.create(&request).await;
        let Err(EngineError::Terminal { reason: TerminalReason::Refused, message }) = refused else {
            panic!("{refused:?}");
        };
        assert!(message.contains("/no/such/directory"), "{message}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_labelled_and_made_once() {
    on_docker(async |world| {
        let name = world.name("net");
        let makers = (0..4).map(|_| world.engine.ensure_network(&name));
        for made in futures::future::join_all(makers).await {
            made.expect("the network is there");
        }
        let networks = bollard().await.list_networks(None).await.expect("a list");
        let ours: Vec<_> = networks.into_iter().filter(|network| network.name.as_ref() == Some(&name)).collect();
        assert_eq!(ours.len(), 1);
        let labels = ours[0].labels.clone().unwrap_or_default();
        assert_eq!(labels.get(label::MANAGED).map(String::as_str), Some("true"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_answer_to_the_alias() {
    on_docker(async |world| {
        let server = world.running("server", Process::Serves).await;
        let asker = world.running("asker", Process::Serves).await;
        let network = world.network("net").await;
        world.engine.ensure_attached(&server, &network, &["web".to_owned()]).await.expect("attached");
        let by_alias = words("/peer healthcheck 8080 web");
        eventually("the alias is answered", DEADLINE, async || {
            let asked = world.engine.exec(&asker, &by_alias, DEADLINE).await.expect("it runs");
            (asked.exit_code == 0).then_some(())
        })
        .await;
        world.engine.ensure_attached(&server, &network, &[]).await.expect("attached without the alias");
        let asked = world.engine.exec(&asker, &by_alias, DEADLINE).await.expect("it runs");
        assert_ne!(asked.exit_code, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_that_hangs_runs_out_of_time() {
    on_docker(async |world| {
        let id = world.running("a", Process::Serves).await;
        let hung = world.engine.exec(&id, &words("/peer sleep"), Duration::from_millis(300)).await;
        assert!(matches!(hung, Err(EngineError::MayHaveTakenEffect(_))), "{hung:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_that_hangs_is_not_begun_a_second_time_beside_itself() {
    on_docker(async |world| {
        let id = world.running("a", Process::Serves).await;
        let sleepers = async || {
            let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
            let command = |process: std::fs::DirEntry| std::fs::read(process.path().join("cmdline")).ok();
            let groups = |process: &std::fs::DirEntry| std::fs::read_to_string(process.path().join("cgroup"));
            let ours = processes.filter(|p| groups(p).is_ok_and(|groups| groups.contains(&id.0)));
            ours.filter_map(command).filter(|command| command == b"/peer\0sleep\0").count()
        };
        for _ in 0..3 {
            let hung = world.engine.exec(&id, &words("/peer sleep"), Duration::from_millis(300)).await;
            assert!(matches!(hung, Err(EngineError::MayHaveTakenEffect(_))), "{hung:?}");
            assert_eq!(sleepers().await, 1);
        }
        let other = world.engine.exec(&id, &words("/peer echo hello"), DEADLINE).await.expect("another command runs");
        assert_eq!(other.output.trim(), "hello");
        // Ended at last, it may be begun again.
        world.engine.stop(&id, Duration::ZERO).await.expect("it stops");
        world.engine.start(&id).await.expect("it starts");
        let again = world.engine.exec(&id, &words("/peer sleep"), Duration::from_millis(300)).await;
        assert!(matches!(again, Err(EngineError::MayHaveTakenEffect(_))), "{again:?}");
        assert_eq!(sleepers().await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_probe_reads_the_status_and_keeps_its_time() {
    on_docker(async |world| {
        let mut request = world.request("a", Process::Serves).await;
        let published = Port { container_port: PORT, host_port: Some(0), host_ip: None, protocol: None };
        request.spec.ports = vec![published];
        let id = world.engine.create(&request).await.expect("it is made");
        world.engine.start(&id).await.expect("it starts");
        let target = world.look(&id).await;
        let probe = async |path: &str| {
            let http = HttpProbe { path: path.to_owned(), port: PORT, scheme: None };
            let probe = Probe { http: Some(http), ..Probe::default() };
            world.probes.probe(&target, &probe, Duration::from_secs(1)).await
        };
        eventually("the server is up", DEADLINE, async || (probe("/").await == ProbeOutcome::Success).then_some(()))
            .await;
        // A redirect passes, and is not followed: where it leads would make the next look fail.
        assert_eq!(probe("/redirect").await, ProbeOutcome::Success);
        assert_eq!(probe("/healthz").await, ProbeOutcome::Success);
        assert!(matches!(probe("/nowhere").await, ProbeOutcome::Failure(why) if why.contains("404")));
        assert!(matches!(probe("/hang").await, ProbeOutcome::Failure(_)));
        probe("/fail").await;
        assert!(matches!(probe("/healthz").await, ProbeOutcome::Failure(why) if why.contains("503")));
        // Without an address of its own it is asked where its port is published, else nowhere.
        let http = HttpProbe { path: "/".to_owned(), port: PORT, scheme: None };
        let action = Probe { http: Some(http), ..Probe::default() };
        let mut elsewhere = target.clone();
        elsewhere.attachments.clear();
        let timeout = Duration::from_secs(2);
        assert_eq!(world.probes.probe(&elsewhere, &action, timeout).await, ProbeOutcome::Success);
        elsewhere.ports.clear();
        let outcome = world.probes.probe(&elsewhere, &action, timeout).await;
        assert!(matches!(outcome, ProbeOutcome::Unknown(_)), "{outcome:?}");
    })
    .await;
}

/// A server with a certificate that nobody signed but itself.
struct SelfSigned {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl SelfSigned {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (key, cert) = (dir.path().join("key"), dir.path().join("cert"));
        let subject = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=nobody";
        run(Command::new("openssl").args(words(subject)).arg("-keyout").arg(&key).arg("-out").arg(&cert));
        let port = own_port();
        let mut server = Command::new("openssl");
        server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]);
        server.arg("-key").arg(&key).arg("-cert").arg(&cert).stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: server.spawn().expect("openssl runs"), port, _dir: dir }
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().expect("the server is our child");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_probe_does_not_check_the_certificate() {
    on_docker(async |world| {
        let server = SelfSigned::start();
        let id = world.running("a", Process::Serves).await;
        let mut target = world.look(&id).await;
        target.attachments =
            vec![Attachment { network: "host".to_owned(), aliases: Vec::new(), ip: Some("127.0.0.1".to_owned()) }];
        let http = HttpProbe { path: "/".to_owned(), port: server.port, scheme: Some(HttpScheme::HTTPS) };
        let action = Probe { http: Some(http), ..Probe::default() };
        eventually("the probe passes", DEADLINE, async || {
            let outcome = world.probes.probe(&target, &action, Duration::from_secs(2)).await;
            (outcome == ProbeOutcome::Success).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_somebody_takes_off_its_network_is_told_of_with_its_labels() {
    on_docker(async |world| {
        let id = world.running("a", Process::Sleeps).await;
        let mut events = world.engine.events();
        assert_eq!(events.next().await, Some(EngineEvent::Connected));
        let request = NetworkDisconnectRequest { container: id.0.clone(), force: None };
        bollard().await.disconnect_network(&world.name("net"), request).await.expect("it leaves");
        let heard = tokio::time::timeout(DEADLINE, async {
            loop {
                match events.next().await.expect("the stream has no end") {
                    EngineEvent::Container { id: of, name, labels, action } if of == id && action == "disconnect" => {
                        return (name, labels);
                    }
                    // Other tests make events too.
                    EngineEvent::Container { .. } | EngineEvent::Connected | EngineEvent::Disconnected(_) => {}
                }
            }
        });
        let (name, labels) = heard.await.expect("it is told in time");
        assert_eq!(name, world.name("a"));
        assert!(world.labels().iter().all(|(key, value)| labels.get(key) == Some(value)), "{labels:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_listen_hear_the_same_until_the_last_of_them_goes() {
    on_docker(async |world| {
        let id = world.running("a", Process::Sleeps).await;
        let mut first = world.engine.events();
        assert_eq!(first.next().await, Some(EngineEvent::Connected));
        let mut second = world.engine.events();
        let at_once = second.next().now_or_never().expect("the connection is there");
        assert_eq!(at_once, Some(EngineEvent::Connected));
        world.engine.stop(&id, Duration::ZERO).await.expect("it stops");
        for events in [&mut first, &mut second] {
            heard(events, &id, "die").await;
        }
        drop(first);
        world.engine.start(&id).await.expect("it starts");
        heard(&mut second, &id, "start").await;
        drop(second);
        let mut third = world.engine.events();
        assert_eq!(third.next().await, Some(EngineEvent::Connected));
        world.engine.stop(&id, Duration::ZERO).await.expect("it stops");
        heard(&mut third, &id, "die").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engine_that_is_away_is_unreachable_and_comes_back() {
    let mut gate = Gate::before(docker_host());
    let engine = DockerEngine::at(&gate.host());
    let mut events = engine.events();
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    engine.list(None).await.expect("the gate is open");

    gate.set(Passage::Shut).await;
    let event = tokio::time::timeout(DEADLINE, async {
        loop {
            // Other tests make events too.
            match events.next().await.expect("the stream has no end") {
                EngineEvent::Container { .. } => {}
                event => return event,
            }
        }
    });
    assert!(matches!(event.await, Ok(EngineEvent::Disconnected(_))));
    assert!(matches!(engine.list(None).await, Err(EngineError::Unreachable(_))));
    assert!(matches!(engine.ensure_network("gaia-test-never").await, Err(EngineError::Unreachable(_))));

    gate.set(Passage::Open).await;
    let event = tokio::time::timeout(DEADLINE, events.next()).await;
    assert_eq!(event.expect("it connects again in time"), Some(EngineEvent::Connected));
    engine.list(None).await.expect("the gate is open again");
}

#[tokio::test]
async fn engine_that_was_never_there_says_so_once() {
    let engine = DockerEngine::at("unix:///nowhere/docker.sock");
    assert!(matches!(engine.inspect("a").await, Err(EngineError::Unreachable(_))));
    let mut events = engine.events();
    assert!(matches!(events.next().await, Some(EngineEvent::Disconnected(_))));
    let silence = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answer_leaves_open_what_happened() {
    on_docker(async |world| {
        let mut gate = Gate::before(docker_host());
        let engine = DockerEngine::at(&gate.host());
        let id = world.made("a", Process::Serves).await;
        engine.inspect(&id.0).await.expect("the gate is open").expect("the container is there");
        gate.set(Passage::LosesAnswers).await;
        assert!(matches!(engine.start(&id).await, Err(EngineError::MayHaveTakenEffect(_))));
        assert!(matches!(engine.inspect(&id.0).await, Err(EngineError::Unreachable(_))));
        world.wait_for(&id, "it had taken effect", |seen| seen.started_at.is_some()).await;
    })
    .await;
}

/// An image of noise that the registry has, and the engine no more.
fn publish(registry: &Registry) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(NOISE).collect();
    std::fs::write(dir.path().join("noise"), noise).expect("a temporary file");
    let image = format!("{}/noise:v1", registry.address);
    let tar = dir.path().join("noise.tar");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-cf").arg(&tar).arg("noise"));
    let docker = || {
        let mut command = Command::new("docker");
        command.args(["-H", docker_host()]);
        command
    };
    run(docker().arg("import").arg(&tar).arg(&image));
    run(docker().args(["push", &image]));
    run(docker().args(["rmi", &image]));
    image
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_from_a_registry_and_says_how_far_it_is() {
    let registry = Registry::start();
    let image = publish(&registry);
    let engine = DockerEngine::at(docker_host());
    assert_eq!(engine.image(&image).await, Ok(None));
    let told = Mutex::new(Vec::new());
    engine.pull(&image, &|progress| told.lock().expect("no panic").push(progress)).await.expect("it is pulled");
    assert!(engine.image(&image).await.expect("an answer").is_some());
    let last = told.into_inner().expect("no panic").pop().expect("it was told at least once");
    assert_eq!((last.layers_done, last.layers, last.bytes_done), (1, 1, last.bytes));
    assert!(last.bytes > NOISE as u64 / 2, "{last:?}");

    let absent = engine.pull(&format!("{}/nobody/nothing:v1", registry.address), &|_| ()).await;
    assert!(matches!(absent, Err(EngineError::Terminal { reason: TerminalReason::ImageNotFound, .. })), "{absent:?}");
    drop(registry);
    let away = engine.pull(&image.replace("v1", "v2"), &|_| ()).await;
    assert!(matches!(away, Err(EngineError::Unreachable(_))), "{away:?}");
    bollard().await.remove_image(&image, None::<RemoveImageOptions>, None).await.expect("it can be removed");
}

async fn heard(events: &mut BoxStream<'static, EngineEvent>, id: &ContainerId, what: &str) {
    let told = async {
        loop {
            match events.next().await.expect("the stream has no end") {
                EngineEvent::Container { id: of, action, .. } if of == *id && action == what => return,
                // Other tests make events too.
                EngineEvent::Container { .. } | EngineEvent::Connected | EngineEvent::Disconnected(_) => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, told).await.unwrap_or_else(|_| panic!("{what} is told in time"));
}
