//! A server on a port of its own, and kubectl with a home of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use gaia::{
    api::{source::Source, workload::Workload},
    registry::{Kinds, RandomIds, Registry},
    runtime::clock::SystemClock,
    server::{AlwaysReady, Auth, ServerMetrics, ServerState, router, serve},
    store::{EmbeddedStore, MemoryEngine, Options},
};
use kube::{Api, Client, CustomResourceExt};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than any command takes, even when every core is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The oldest kubectl that knows every command and option these tests use; older ones do the daily work only.
pub const MODERN: u32 = 27;

/// A server, and a directory in which kubectl finds its configuration and keeps its caches.
pub struct Cluster {
    pub home: TempDir,
    pub client: Client,
    /// `127.0.0.1:PORT`
    pub address: String,
    kubectl: PathBuf,
    shutdown: CancellationToken,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// What it printed, once it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What it complained of, once it failed.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, Some(0), "it succeeded: {}", self.stdout);
        self.stderr
    }
}

/// Every kubectl there is, oldest first: those beside each other with their minor version in the name, else the one on
/// the PATH. `GAIA_TEST_KUBECTL` names another one to be used instead.
pub fn kubectls() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("GAIA_TEST_KUBECTL") {
        return vec![PathBuf::from(path)];
    }
    let numbered: Vec<PathBuf> = (27..=40)
        .map(|minor| PathBuf::from(format!("/usr/lib/google-cloud-sdk/bin/kubectl.1.{minor}")))
        .filter(|path| path.is_file())
        .collect();
    if !numbered.is_empty() {
        return numbered;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .filter(|path| path.is_file())
        .take(1)
        .collect();
    assert!(!found.is_empty(), "there is no kubectl: run ./test, which installs it");
    found
}

impl Cluster {
    /// With the newest kubectl. None, and a word about it, when that one is too old for more than the daily work.
    pub async fn modern() -> Option<Self> {
        let newest = kubectls().pop().expect("kubectls() is not empty");
        let cluster = Self::with(&newest).await;
        let minor = cluster.minor().await;
        if minor < MODERN {
            println!("not tested: {} is 1.{minor}, and this needs 1.{MODERN}", newest.display());
            return None;
        }
        Some(cluster)
    }

    /// kubectl's own minor version.
    pub async fn minor(&self) -> u32 {
        let version = self.run("version --client -o json").await.ok();
        let version: serde_json::Value = serde_json::from_str(&version).expect("the version is JSON");
        let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
        minor.trim_end_matches('+').parse().expect("a number")
    }

    pub async fn with(kubectl: &Path) -> Self {
        let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("an empty store opens");
        let kinds = Kinds::from_crds(&[Workload::crd(), Source::crd()]).expect("our own kinds are structural");
        let clock = Arc::new(SystemClock);
        let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("it opens");
        let shutdown = CancellationToken::new();
        let (collecting, stop) = (Arc::clone(&registry), shutdown.clone());
        tokio::spawn(async move { collecting.run_collector(stop).await });
        let mut exposition = prometheus_client::registry::Registry::default();
        let metrics = ServerMetrics::register(&mut exposition);
        let router = router(ServerState {
            registry,
            shutdown: shutdown.clone(),
            auth: Auth::open(),
            audit: gaia::server::Audit::default(),
            readiness: Arc::new(AlwaysReady),
            clock,
            metrics,
            exposition: Arc::new(exposition),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let client = Client::new(router.clone(), "default");
        let serving = serve(listener, router, shutdown.clone());
        tokio::spawn(async move { serving.await.expect("serving goes well") });
        let home = TempDir::new().expect("a temporary directory");
        fs::write(home.path().join("config"), kubeconfig(&address)).expect("written");
        Self { home, client, address, kubectl: kubectl.to_owned(), shutdown }
    }

    /// For who needs no kubectl.
    pub async fn new() -> Self {
        Self::with(Path::new("kubectl")).await
    }

    pub fn workloads(&self) -> Api<Workload> {
        Api::default_namespaced(self.client.clone())
    }

    /// A file of this name in the home directory.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("a readable path").to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg(format!("--kubeconfig={}", self.home.path().join("config").display()))
            .arg(format!("--cache-dir={}", self.home.path().join("cache").display()))
            .args(arguments)
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command line to its end. Words are split at blanks: none of ours holds any.
    pub async fn run(&self, line: &str) -> Output {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.run_words(&arguments).await
    }

    pub async fn run_words(&self, arguments: &[&str]) -> Output {
        self.finish(&mut self.command(arguments), arguments).await
    }

    pub async fn run_with(&self, variable: (&str, &str), line: &str) -> Output {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.finish(self.command(&arguments).env(variable.0, variable.1), &arguments).await
    }

    async fn finish(&self, command: &mut Command, arguments: &[&str]) -> Output {
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {arguments:?} does not end")).expect("kubectl starts");
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command that goes on.
    pub fn start(&self, line: &str) -> Running {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let mut child = self.command(&arguments).stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let stdout = child.stdout.take().expect("its output is piped");
        Running { child, lines: BufReader::new(stdout).lines() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A command that goes on. It is killed when dropped.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next line that holds `text`.
    pub async fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{text:?} is not printed")).expect("the output can be read");
            let line = line.unwrap_or_else(|| panic!("it ended before it printed {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for its end, which must be a success.
    pub async fn succeeds(mut self) {
        let status =
            timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it can be waited for");
        assert!(status.success(), "{status}");
    }
}

fn kubeconfig(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: gaia\n\
         clusters: [{{name: gaia, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: gaia, user: {{}}}}]\n\
         contexts: [{{name: gaia, context: {{cluster: gaia, user: gaia, namespace: default}}}}]\n"
    )
}

/// A Workload's manifest.
pub fn manifest(name: &str) -> String {
    format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\nspec:\n  suspend: false\n  live:\n    \
         container:\n      image: busybox\n"
    )
}
