//! A git repository that people push to, behind git's own HTTP server on loopback.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/git/server.py");

/// `hosts.git` with a branch `main`, served until dropped; and somebody's clone of it.
pub struct GitServer {
    directory: PathBuf,
    child: Child,
    port: u16,
}

impl GitServer {
    /// In an empty directory. `credentials`: `user:password` that it asks for.
    pub fn start(directory: &Path, credentials: Option<&str>) -> Self {
        fs::create_dir_all(directory).expect("can be made");
        let mut command = Command::new("python3");
        command.arg(SERVER).arg(directory).args(credentials).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says its port");
        let server = Self { directory: directory.to_owned(), child, port: line.trim().parse().expect("a port") };
        server.run(directory, &["init", "-q", "--bare", "-b", "main", "hosts.git"]);
        server.run(&server.repository(), &["config", "receive.denyDeleteCurrent", "ignore"]);
        server.run(directory, &["clone", "-q", "hosts.git", "clone"]);
        for (key, value) in [("user.name", "Ann"), ("user.email", "ann@example.org"), ("commit.gpgsign", "false")] {
            server.git(&["config", key, value]);
        }
        server.git(&["checkout", "-q", "-B", "main"]);
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hosts.git", self.port)
    }

    /// The bare repository.
    pub fn repository(&self) -> PathBuf {
        self.directory.join("hosts.git")
    }

    /// The clone that people edit.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.join("clone").join(path)
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the clone")).expect("can be made");
        fs::write(path, text).expect("can be written");
    }

    /// Commits everything and pushes it; answers the commit.
    pub fn push(&self, subject: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", subject]);
        self.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// A git command in the clone; what it says.
    pub fn git(&self, args: &[&str]) -> String {
        self.run(&self.directory.join("clone"), args)
    }

    fn run(&self, directory: &Path, args: &[&str]) -> String {
        let mut command = Command::new("git");
        // Nothing of whoever runs the tests counts.
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.current_dir(directory).args(args).output().expect("git runs");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// No request is answered until [`answer`](Self::answer).
    pub fn hang(&self) {
        fs::write(self.directory.join("hang"), "").expect("can be written");
    }

    pub fn answer(&self) {
        fs::remove_file(self.directory.join("hang")).expect("was there");
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
