//! Runs the program and reads what it says. Every wait is for a line or a state, with a deadline.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    str,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// `gaia` with an environment that nothing on this machine can change.
pub fn gaia() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaia"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs `gaia` with these arguments to its end.
pub fn run(args: &[&str]) -> Output {
    gaia().args(args).output().expect("the binary runs")
}

/// What it printed, given that it succeeded.
pub fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).expect("output is UTF-8")
}

/// What it complained about, given that it ended with this code.
pub fn complaint(output: &Output, code: i32) -> &str {
    let text = str::from_utf8(&output.stderr).expect("output is UTF-8");
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// A `gaia` that goes on, read line by line. Killed when dropped.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let lines = lines(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// The next line that `wanted` accepts; the ones before it are passed over.
    pub fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("no line {what:?} in time, but: {seen:#?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without a line {what:?}, after: {seen:#?}"),
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and its end.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args([format!("-{name}"), pid]).status().expect("kill runs");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// How it ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                // Its stdout closes when it ends.
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("our child"),
                Err(RecvTimeoutError::Timeout) => panic!("the program did not end in time"),
            }
        }
    }

    /// How it ended, and what it left on stderr.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.wait();
        let mut stderr = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        (status, stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(10_000);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// `gaia serve` on simulated containers and a port of its own.
pub struct Server {
    pub program: Program,
    pub url: String,
}

impl Server {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, args: &[&str]) -> Self {
        let mut command = gaia();
        command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated"]).env("GAIA_LOG_LEVEL", "warn");
        command.arg("--data-dir").arg(data).args(args);
        Self::of(Program::start(&mut command))
    }

    /// Of a program that says where it listens.
    pub fn of(program: Program) -> Self {
        let line = program.line("gaia listens on", |line| line.starts_with("gaia listens on "));
        let url = line.split_whitespace().nth(3).expect("an URL").to_owned();
        Self { program, url }
    }

    /// A client command against this server.
    pub fn gaia(&self, args: &[&str]) -> Output {
        gaia().args(args).env("GAIA_SERVER", &self.url).output().expect("the binary runs")
    }

    /// What the command prints, given that it succeeds.
    pub fn says(&self, args: &[&str]) -> String {
        stdout(&self.gaia(args)).to_owned()
    }

    /// As [`says`](Self::says), with a text on its standard input.
    pub fn told(&self, args: &[&str], input: &str) -> Output {
        let mut command = gaia();
        command.args(args).env("GAIA_SERVER", &self.url);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads its input");
        child.wait_with_output().expect("our child")
    }

    pub fn apply(&self, manifest: &str) -> String {
        stdout(&self.told(&["apply", "-f", "-"], manifest)).to_owned()
    }

    /// A client command that goes on.
    pub fn follow(&self, args: &[&str]) -> Program {
        Program::start(gaia().args(args).env("GAIA_SERVER", &self.url))
    }

    /// A plain GET; the code and the body of the answer.
    pub fn http(&self, path: &str, headers: &str) -> (u16, String) {
        self.request(&format!("GET {path} HTTP/1.1\r\n{headers}"), "")
    }

    /// A plain request with a body.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n");
        self.request(&head, body)
    }

    /// With every line of its head but the last ones.
    pub fn request(&self, head: &str, body: &str) -> (u16, String) {
        let authority = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(authority).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        write!(stream, "{head}Host: {authority}\r\nConnection: close\r\n\r\n{body}").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in time");
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP answer");
        (code, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// Ends it with SIGTERM; how it ended, what it said, how long it took.
    pub fn terminate(self) -> (ExitStatus, String, Duration) {
        let begun = Instant::now();
        self.program.signal("TERM");
        let (status, stderr) = self.program.end();
        (status, stderr, begun.elapsed())
    }
}

/// The code of the answer to a JSON body; none when the server is gone.
pub fn try_send(url: &str, method: &str, path: &str, body: &str) -> Option<u16> {
    let authority = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(authority).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
