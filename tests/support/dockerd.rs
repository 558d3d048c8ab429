//! A Docker engine for tests: the one at `DOCKER_HOST` or the usual socket if it answers, else a private one that lives
//! as long as the test process. Without either the tests fail and say so; they never skip themselves.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

const USUAL_SOCKET: &str = "/var/run/docker.sock";
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Starts dockerd, does what its standard input says, and ends it when that ends: when the test process is gone, however it
/// went. `TERM` and `KILL` end dockerd, `start` brings it back; its containerd dies with it, and the next one must not take
/// a zombie's pid for a life. Bridges would outlive it, so its networks are removed.
const KEEPER: &str = r#"
start() {
    PATH="$1/bin:$PATH" dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/docker.sock" \
        --bridge=none --iptables=false --ip-masq=false --default-address-pool "base=$2,size=26" >>"$1/log" 2>&1 &
    daemon=$!
}
start "$1" "$2"
while read -r order; do
    case $order in
        start) start "$1" "$2" ;;
        *) kill -s "$order" "$daemon"; wait "$daemon"; rm -f "$1/pid" "$1/exec/containerd/containerd.pid" ;;
    esac
done
docker="docker -H unix://$1/docker.sock"
{ $docker ps -aq | xargs -r $docker rm -f; $docker network prune -f; } >/dev/null 2>&1
kill "$daemon"
wait "$daemon"
rm -rf "$1"
"#;

/// What Docker runs before a container that was given a GPU: NVIDIA's own puts the driver in. Where it is found, and only
/// there, Docker takes requests for GPUs.
const GPU_HOOK: &str = "nvidia-container-runtime-hook";

/// A dockerd of our own. It is stopped and its directory removed when this is dropped or the process ends.
pub struct PrivateDockerd {
    keeper: Child,
    dir: PathBuf,
    pub host: String,
}

/// `unix://…` of an engine that answers; the same one all through this process.
pub fn docker_host() -> &'static str {
    static HOST: OnceLock<Result<String, String>> = OnceLock::new();
    match HOST.get_or_init(find_or_start) {
        Ok(host) => host,
        Err(why) => panic!("these tests need Docker. Start one and set DOCKER_HOST, or install docker.io: {why}"),
    }
}

fn find_or_start() -> Result<String, String> {
    if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        return if answers(&host) { Ok(host) } else { Err(format!("DOCKER_HOST={host} does not answer")) };
    }
    let usual = format!("unix://{USUAL_SOCKET}");
    if Path::new(USUAL_SOCKET).exists() && answers(&usual) {
        return Ok(usual);
    }
    let dockerd = PrivateDockerd::start(false)?;
    let host = dockerd.host.clone();
    // Kept for the whole process: its end closes the pipe, and the keeper does the rest.
    std::mem::forget(dockerd);
    Ok(host)
}

impl PrivateDockerd {
    /// `with_gpus`: containers may ask for NVIDIA's devices, and get nothing by it but the environment variable.
    pub fn start(with_gpus: bool) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("gaia-dockerd-").tempdir().map_err(|error| error.to_string())?;
        // The keeper removes it, after dockerd has ended.
        let dir = dir.keep();
        if with_gpus {
            install_hook(&dir.join("bin")).map_err(|error| format!("{GPU_HOOK}: {error}"))?;
        }
        // Engines that start at the same moment would take the same range.
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let range = format!("10.{}.{b}.0/24", 128 | a);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&dir).arg(range).stdin(Stdio::piped());
        let keeper = keeper.spawn().map_err(|error| format!("sh: {error}"))?;
        let mut dockerd = Self { keeper, host: format!("unix://{}/docker.sock", dir.display()), dir };
        dockerd.wait_until_it_answers()?;
        Ok(dockerd)
    }

    /// By `TERM` or `KILL`. Answers when it is gone.
    pub fn stop(&mut self, signal: &str) {
        self.order(signal);
        let deadline = Instant::now() + START_DEADLINE;
        while self.dir.join("pid").exists() {
            assert!(Instant::now() < deadline, "dockerd did not end by {signal}: {}", tail(&self.dir.join("log")));
            // tidy: the keeper tells nobody when dockerd has ended.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// On the same data; answers when it does.
    pub fn start_again(&mut self) {
        self.order("start");
        self.wait_until_it_answers().expect("what started once starts again");
    }

    fn order(&mut self, order: &str) {
        let keeper = self.keeper.stdin.as_mut().expect("open until this is dropped");
        writeln!(keeper, "{order}").expect("the keeper reads");
    }

    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_DEADLINE;
        while !answers(&self.host) {
            let gone = self.keeper.try_wait().is_ok_and(|status| status.is_some());
            if gone || Instant::now() > deadline {
                return Err(format!("the private dockerd did not come up: {}", tail(&self.dir.join("log"))));
            }
            // tidy: dockerd tells nobody when it listens.
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for PrivateDockerd {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper is our child");
    }
}

fn install_hook(bin: &Path) -> std::io::Result<()> {
    fs::create_dir_all(bin)?;
    let hook = bin.join(GPU_HOOK);
    fs::write(&hook, "#!/bin/sh\ncat >/dev/null\n")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))
}

/// Whether somebody takes connections there and speaks Docker.
fn answers(host: &str) -> bool {
    if host.strip_prefix("unix://").is_some_and(|path| UnixStream::connect(path).is_err()) {
        return false;
    }
    let mut version = Command::new("docker");
    version.args(["-H", host, "version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

fn tail(path: &Path) -> String {
    let mut log = String::new();
    match File::open(path).and_then(|mut file| file.read_to_string(&mut log)) {
        Ok(_) => log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"),
        Err(error) => format!("{}: {error}", path.display()),
    }
}
