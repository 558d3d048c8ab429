//! An image registry on the loopback: Debian's `docker-registry`. `./test` installs it.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::port::own_port;

const START_DEADLINE: Duration = Duration::from_secs(20);

pub struct Registry {
    /// `127.0.0.1:port`, the first part of its images' names.
    pub address: String,
    process: Child,
    _dir: TempDir,
}

impl Registry {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = own_port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("a temporary file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("the pull tests need a registry; install Debian's docker-registry: {error}");
        });
        let registry = Self { address, process, _dir: dir };
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen on {}", registry.address);
            // tidy: the registry tells nobody when it listens.
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().expect("the registry is our child");
    }
}
