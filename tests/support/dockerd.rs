//! A Docker engine for tests: the one at `DOCKER_HOST` or the usual socket if it answers, else a private one that lives
//! as long as the test process. Without either the tests fail and say so; they never skip themselves.

use std::{
    fs::File,
    io::Read,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

const USUAL_SOCKET: &str = "/var/run/docker.sock";
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Ends dockerd when its standard input does: when the test process is gone, however it went.
const KEEPER: &str = r#"
dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/docker.sock" \
    --bridge=none --iptables=false --ip-masq=false >"$1/log" 2>&1 &
daemon=$!
cat >/dev/null
kill "$daemon"
wait "$daemon"
rm -rf "$1"
"#;

/// A dockerd of our own. It is stopped and its directory removed when this is dropped or the process ends.
pub struct PrivateDockerd {
    keeper: Child,
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
    let dockerd = PrivateDockerd::start()?;
    let host = dockerd.host.clone();
    // Kept for the whole process: its end closes the pipe, and the keeper does the rest.
    std::mem::forget(dockerd);
    Ok(host)
}

impl PrivateDockerd {
    pub fn start() -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("gaia-dockerd-").tempdir().map_err(|error| error.to_string())?;
        // The keeper removes it, after dockerd has ended.
        let dir = dir.keep();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&dir).stdin(Stdio::piped());
        let keeper = keeper.spawn().map_err(|error| format!("sh: {error}"))?;
        let mut dockerd = Self { keeper, host: format!("unix://{}/docker.sock", dir.display()) };
        let deadline = Instant::now() + START_DEADLINE;
        while !answers(&dockerd.host) {
            let gone = dockerd.keeper.try_wait().is_ok_and(|status| status.is_some());
            if gone || Instant::now() > deadline {
                return Err(format!("the private dockerd did not come up: {}", tail(&dir.join("log"))));
            }
            // tidy: dockerd tells nobody when it listens.
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(dockerd)
    }
}

impl Drop for PrivateDockerd {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper is our child");
    }
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
