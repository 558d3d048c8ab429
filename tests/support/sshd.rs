//! OpenSSH's own server on loopback: keys of its own, one user, no passwords. It ends with its owner.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::port::own_port;

const PROGRAM: &str = "/usr/sbin/sshd";

pub struct SshServer {
    directory: PathBuf,
    child: Child,
    port: u16,
}

impl SshServer {
    /// In an empty directory. Whoever has [`client_key`](Self::client_key) may come in as the present user.
    pub fn start(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("can be made");
        for key in ["host", "client", "stranger"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(directory, key)]);
        }
        fs::copy(directory.join("client.pub"), directory.join("authorized")).expect("can be copied");
        let port = own_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n",
            path(directory, "host"),
            path(directory, "authorized"),
        );
        fs::write(directory.join("config"), config).expect("can be written");
        if run("id", &["-u"]) == "0" {
            // Where it locks itself in before anybody is known; a packaged one makes it at boot.
            fs::create_dir_all("/run/sshd").expect("can be made");
        }
        let log = fs::File::create(directory.join("log")).expect("can be made");
        let mut command = Command::new(PROGRAM);
        command.args(["-D", "-e", "-f", &path(directory, "config")]).stdin(Stdio::null()).stderr(log);
        let mut server = Self { directory: directory.to_owned(), child: command.spawn().expect("sshd runs"), port };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().expect("it can be asked");
            let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(20), "no sshd: {ended:?} {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Of a repository of this host.
    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", run("id", &["-un"]), self.port, repository.display())
    }

    pub fn client_key(&self) -> PathBuf {
        self.directory.join("client")
    }

    /// A key that nobody has let in.
    pub fn strange_key(&self) -> PathBuf {
        self.directory.join("stranger")
    }

    /// What a client that knows this server has noted; `right`: else it has noted another key.
    pub fn known_hosts(&self, right: bool) -> PathBuf {
        let key = fs::read_to_string(self.directory.join(if right { "host.pub" } else { "stranger.pub" }));
        let file = self.directory.join(if right { "known" } else { "known-wrong" });
        let line = format!("[127.0.0.1]:{} {}", self.port, key.expect("it was made"));
        fs::write(&file, line).expect("can be written");
        file
    }
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("it is installed");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

impl Drop for SshServer {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
