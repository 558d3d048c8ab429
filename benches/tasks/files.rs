//! One artifact of 1 GiB: up into the program beside a socket that is copied into a file and synced, and down from it beside a file that
//! is copied into a socket and beside nginx; and what memory the program took for it at most.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    common::{Server, free_address, middle},
    gaia,
};

const SIZE: u64 = 1 << 30;
const CHUNK: usize = 256 * 1024;
const ROUNDS: usize = 3;
const NAME: &str = "model.bin";
const TASK: &str = "bench";

pub async fn measure() {
    let directory = tempfile::tempdir().expect("a directory to write in");
    let server = gaia(&directory.path().join("gaia"), None).await;
    let artifact = directory.path().join("gaia/results").join(TASK).join(NAME);
    let nginx = nginx(directory.path(), &directory.path().join("gaia/results")).await;
    if nginx.is_none() {
        println!("nginx is NOT installed, so nothing is compared with it: apt-get install -y nginx-light");
    }
    // The first is for the directories and the code.
    upload(server.address);
    let at_rest = server.memory();
    forget_peak(server.id());
    let (mut up, mut down, mut over_nginx) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mine, theirs) = (upload(server.address), plain_upload(&directory.path().join("plain")));
        println!("up   gaia {}  a socket into a synced file {}", rate(mine), rate(theirs));
        up.push(theirs.as_secs_f64() / mine.as_secs_f64());
        let path = format!("/api/v1/results/{TASK}/files/{NAME}");
        let (mine, theirs) = (download(server.address, &path), plain_download(&artifact));
        print!("down gaia {}  a file into a socket {}", rate(mine), rate(theirs));
        down.push(theirs.as_secs_f64() / mine.as_secs_f64());
        if let Some(nginx) = &nginx {
            let theirs = download(nginx.address, &format!("/{TASK}/{NAME}"));
            print!("  nginx {}", rate(theirs));
            over_nginx.push(theirs.as_secs_f64() / mine.as_secs_f64());
        }
        println!();
    }
    println!("up, gaia / plain: {:.2}; down, gaia / plain: {:.2}", middle(up), middle(down));
    if nginx.is_some() {
        println!("down, gaia / nginx: {:.2}", middle(over_nginx));
    }
    let peak = peak(server.id());
    println!("memory: {at_rest} KiB at rest, {peak} KiB at most: {} KiB more", peak.saturating_sub(at_rest));
}

fn rate(took: Duration) -> String {
    format!("{:>5.0} MiB/s", (SIZE >> 20) as f64 / took.as_secs_f64())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

fn send(stream: &mut TcpStream) {
    let chunk = vec![7; CHUNK];
    for _ in 0..SIZE / CHUNK as u64 {
        stream.write_all(&chunk).expect("the server reads");
    }
}

/// As workers upload: a form of one part.
fn upload(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let head = format!(
        "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{NAME}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = "\r\n--b0undary--\r\n";
    let length = (head.len() + tail.len()) as u64 + SIZE;
    let mut stream = connect(address);
    write!(
        stream,
        "POST /api/v1/results/{TASK}/files HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\
         content-type: multipart/form-data; boundary=b0undary\r\nconnection: close\r\n\r\n{head}"
    )
    .expect("the server reads");
    send(&mut stream);
    stream.write_all(tail.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    begun.elapsed()
}

/// The bytes alone, and one byte back when they are safe.
fn plain_upload(path: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut file = File::create(path).expect("a file");
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = stream.read(&mut chunk).expect("bytes");
                if read == 0 {
                    break;
                }
                file.write_all(&chunk[..read]).expect("written");
            }
            file.sync_all().expect("synced");
            stream.write_all(b"1").expect("told");
        });
        let begun = Instant::now();
        let mut stream = connect(address);
        send(&mut stream);
        stream.shutdown(Shutdown::Write).expect("ended");
        stream.read_exact(&mut [0]).expect("told");
        begun.elapsed()
    })
}

fn drain(mut stream: impl Read) {
    let (mut chunk, mut total) = (vec![0; CHUNK], 0);
    while total < SIZE {
        let read = stream.read(&mut chunk).expect("bytes");
        assert!(read > 0, "it ends after {total} bytes");
        total += read as u64;
    }
}

fn download(address: SocketAddr, path: &str) -> Duration {
    let begun = Instant::now();
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("the server reads");
    let mut stream = BufReader::with_capacity(CHUNK, stream);
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line).expect("a header");
    }
    drain(stream);
    begun.elapsed()
}

/// The kernel copies it.
fn plain_download(path: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a connection");
            io::copy(&mut File::open(path).expect("the artifact"), &mut stream).expect("copied");
        });
        let begun = Instant::now();
        drain(connect(address));
        begun.elapsed()
    })
}

async fn nginx(directory: &Path, root: &Path) -> Option<Server> {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].map(PathBuf::from);
    let program = program.into_iter().find(|program| program.exists())?;
    let (address, at, root) = (free_address(), directory.display(), root.display());
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {at}/{what}; "))
        .concat();
    let config = format!(
        "user root; daemon off; master_process off; pid {at}/nginx.pid; error_log stderr crit; events {{ worker_connections 64; }}
        http {{ access_log off; sendfile on; {paths} server {{ listen {address}; root {root}; }} }}"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, config).expect("the directory can be written in");
    let mut command = Command::new(program);
    command.arg("-p").arg(directory).arg("-c").arg(&file);
    Some(Server::start(command, address).await)
}

/// From here on the kernel counts the peak anew.
fn forget_peak(process: u32) {
    fs::write(format!("/proc/{process}/clear_refs"), "5").expect("Linux counts the peak anew");
}

/// Resident memory at most, in KiB.
fn peak(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
