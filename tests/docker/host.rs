//! A host under gaia: the binary on a real engine with a folder of files, and what Docker says of its containers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    program::{Program, Server, gaia},
    support::{dockerd, eventually, fixture},
};

const DEADLINE: Duration = Duration::from_secs(90);

pub struct Host {
    pub server: Server,
    pub image: String,
    engine: String,
    dir: TempDir,
    /// Further flags of `gaia serve`.
    flags: Vec<String>,
    /// Tells this test's containers from others'.
    suffix: String,
}

/// What Docker says of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub running: bool,
    /// On the host; 0 when it does not run.
    pub pid: u64,
    pub started_at: String,
    pub restart_policy: String,
    pub env: Vec<String>,
    pub aliases: Vec<String>,
}

impl Host {
    pub async fn new() -> Self {
        // Starting an engine and importing the image block.
        let (engine, image) = tokio::task::spawn_blocking(|| {
            let engine = dockerd::docker_host();
            (engine.to_owned(), fixture::image(engine))
        })
        .await
        .expect("an engine and an image");
        Self::on(&engine, &image, Vec::new(), &[])
    }

    /// On this engine, with these files from the start.
    pub fn on(engine: &str, image: &str, flags: Vec<String>, files: &[(String, String)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let desired = dir.path().join("desired");
        fs::create_dir(&desired).expect("a temporary directory");
        for (name, text) in files {
            fs::write(desired.join(name), text).expect("a temporary directory");
        }
        let suffix = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        let server = start(engine, dir.path(), &flags);
        Self { server, image: image.to_owned(), engine: engine.to_owned(), dir, flags, suffix }
    }

    pub fn name(&self, base: &str) -> String {
        format!("{base}-{}", self.suffix)
    }

    /// As an editor saves: another file, renamed into place.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join("desired").join(path);
        fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a temporary directory");
        let half = path.with_extension("swp");
        fs::write(&half, text).expect("a temporary file");
        fs::rename(half, path).expect("same directory");
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.dir.path().join("desired").join(path)).expect("it is there");
    }

    /// A file that is not desired state.
    pub fn scratch(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("a temporary file");
        path.to_str().expect("UTF-8").to_owned()
    }

    pub fn docker(&self, args: &[&str]) -> String {
        let output = Command::new("docker").args(["-H", &self.engine]).args(args).output().expect("docker runs");
        succeeded(output, &format!("docker {args:?}"))
    }

    pub fn engine(&self) -> &str {
        &self.engine
    }

    pub fn desired(&self) -> PathBuf {
        self.dir.path().join("desired")
    }

    /// What it complains of.
    pub fn kubectl_fails(&self, args: &[&str]) -> String {
        let output = self.kubectl_command(args).output().expect("kubectl runs; ./test installs it");
        assert!(!output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        let mut kubectl = self.kubectl_command(args);
        succeeded(kubectl.output().expect("kubectl runs; ./test installs it"), &format!("kubectl {args:?}"))
    }

    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--server").arg(&self.server.url).arg("--cache-dir").arg(self.dir.path().join("cache"));
        kubectl.env("KUBECONFIG", self.dir.path().join("no-kubeconfig")).args(args);
        kubectl
    }

    pub fn inspect(&self, name: &str) -> Option<Seen> {
        let output = Command::new("docker").args(["-H", &self.engine, "inspect", "--type=container", name]).output();
        let output = output.expect("docker runs");
        if !output.status.success() {
            return None;
        }
        let inspected: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        Some(seen(&inspected[0]))
    }

    /// Waits until the container is as wanted.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        eventually(&format!("{name} {what}"), DEADLINE, async || self.inspect(name).filter(|seen| wanted(seen))).await
    }

    pub async fn running(&self, name: &str) -> Seen {
        self.until(name, "runs", |seen| seen.running).await
    }

    /// Waits for another container in the place of this one.
    pub async fn replaced(&self, old: &Seen) -> Seen {
        self.until(&old.name, "is another container", |seen| seen.running && seen.id != old.id).await
    }

    pub async fn gone(&self, name: &str) {
        let gone = async || self.inspect(name).is_none().then_some(());
        eventually(&format!("{name} is gone"), DEADLINE, gone).await;
    }

    /// Containers of this workload, whatever they are called.
    pub fn count_of(&self, workload: &str) -> usize {
        let filter = format!("label=gaia.dev/workload=default/{workload}");
        self.docker(&["ps", "-a", "-q", "--filter", &filter]).lines().count()
    }

    /// Asks gaia until the answer is as wanted.
    pub async fn until_says(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let ask = async || {
            let output = self.server.gaia(args);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success() && wanted(&said)).then_some(said)
        };
        eventually(&format!("gaia {args:?} says so"), DEADLINE, ask).await
    }

    /// kill -9, so long from now; returns when gaia is gone.
    pub fn kill_after(&mut self, delay: Duration) {
        let pause = format!("sleep {}; kill -9 \"$0\"", delay.as_secs_f64());
        let killed = Command::new("sh").args(["-c", &pause, &self.server.program.id().to_string()]).status();
        assert!(killed.expect("sh runs").success(), "gaia was killed");
        assert!(!self.server.program.wait().success());
    }

    /// Another process on the same data and files, in place of one that is gone.
    pub fn restart(&mut self) {
        self.server = start(&self.engine, self.dir.path(), &self.flags);
    }

    /// Ends gaia in order.
    pub fn terminate(&mut self) {
        let begun = Instant::now();
        self.server.program.signal("TERM");
        let status = self.server.program.wait();
        assert!(status.success(), "{status:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
    }
}

impl Drop for Host {
    /// Takes this test's containers away; gaia goes first, or it would bring them back.
    fn drop(&mut self) {
        self.server.program.kill();
        let listed = Command::new("docker")
            .args(["-H", &self.engine, "ps", "-a", "--format", "{{.Names}}", "--filter"])
            .arg(format!("name={}", self.suffix))
            .output();
        let Ok(listed) = listed else { return };
        for name in String::from_utf8_lossy(&listed.stdout).lines() {
            Command::new("docker").args(["-H", &self.engine, "rm", "-f", name]).output().ok();
        }
    }
}

fn start(engine: &str, dir: &Path, flags: &[String]) -> Server {
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "docker"]).env("GAIA_LOG_LEVEL", "info");
    command.arg("--data-dir").arg(dir.join("data")).arg("--desired").arg(dir.join("desired"));
    command.args(flags).env("DOCKER_HOST", engine);
    Server::of(Program::start(&mut command))
}

fn succeeded(output: Output, what: &str) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn seen(inspected: &Value) -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let networks = inspected["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let id = text(&inspected["Id"]);
    let mut aliases: Vec<String> = networks.values().flat_map(|network| texts(&network["Aliases"])).collect();
    // Docker adds the short id.
    aliases.retain(|alias| !id.starts_with(alias.as_str()));
    Seen {
        name: text(&inspected["Name"]).trim_start_matches('/').to_owned(),
        running: inspected["State"]["Running"] == true,
        pid: inspected["State"]["Pid"].as_u64().unwrap_or_default(),
        started_at: text(&inspected["State"]["StartedAt"]),
        restart_policy: text(&inspected["HostConfig"]["RestartPolicy"]["Name"]),
        env: texts(&inspected["Config"]["Env"]),
        aliases,
        id,
    }
}
