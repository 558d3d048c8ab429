//! A process that outlived its container: its cgroup is named after a container that the engine does not have. And that engine:
//! one that answers, and has no containers.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

/// Begins as Docker's ids do.
pub const CONTAINER: &str = "0badc0de0badc0de0badc0de0badc0de0badc0de0badc0de0badc0de0badc0de";

pub struct Orphan {
    child: Child,
    cgroup: PathBuf,
}

impl Orphan {
    /// None: nobody may make cgroups here, which takes root and a host that allows it.
    pub fn new() -> Option<Self> {
        // One controller of v1, else v2.
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let cgroup = root.join(CONTAINER);
        fs::create_dir_all(&cgroup).ok()?;
        let child = Command::new("sleep").arg("600").spawn().ok()?;
        let orphan = Self { child, cgroup };
        fs::write(orphan.cgroup.join("cgroup.procs"), orphan.pid().to_string()).ok()?;
        let told = fs::read_to_string(format!("/proc/{}/cgroup", orphan.pid())).ok()?;
        told.contains(CONTAINER).then_some(orphan)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir(&self.cgroup).ok();
    }
}

/// Serves as long as the process runs.
pub fn engine_without_containers(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("a temporary directory");
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(connection));
        }
    });
}

fn answer(connection: UnixStream) {
    let mut requests = BufReader::new(connection.try_clone().expect("a second handle"));
    let mut connection = connection;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if requests.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let answer = match path {
            // Nothing ever happens: it stays open, and silent.
            path if path.contains("/events") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            path if path.contains("/version") => body("200 OK", r#"{"ApiVersion":"1.47","Version":"27.0.0"}"#),
            path if path.contains("/containers/json") => body("200 OK", "[]"),
            _ => body("404 Not Found", r#"{"message":"No such container"}"#),
        };
        if connection.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn body(status: &str, json: &str) -> String {
    let length = json.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}")
}
