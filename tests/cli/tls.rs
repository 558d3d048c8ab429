//! https: what our own commands, kubectl and a browser's WebSocket make of it, and what a bad certificate or a bad client does.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Output,
    time::Duration,
};

use crate::{
    certificates::Certificates,
    program::{DEADLINE, Program, Server, complaint, gaia, run, stdout},
};

const TOKEN: &str = "0123";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// With a token, and this certificate.
fn start(data: &Path, made: &Certificates) -> Server {
    let tokens = data.join("tokens");
    fs::write(&tokens, TOKEN).expect("written");
    let files = [made.file("server.pem"), made.file("server.key")];
    let [certificate, key] = [text(&files[0]), text(&files[1])];
    Server::start_with(
        &data.join("data"),
        &["--tls-cert-file", certificate, "--tls-key-file", key, "--token-file", text(&tokens)],
    )
}

/// Of a server whose certificate has this authority.
fn says(server: &Server, authority: &Path, args: &[&str]) -> Output {
    let mut command = gaia();
    command.args(args).env("GAIA_SERVER", &server.url).env("GAIA_TOKEN", TOKEN);
    command.env("GAIA_CERTIFICATE_AUTHORITY", authority).output().expect("the binary runs")
}

#[test]
fn our_commands_and_kubectl_speak_it_and_trust_nobody_else() {
    let (data, made) = (tempfile::tempdir().expect("a directory"), Certificates::make());
    let server = start(data.path(), &made);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    let ca = made.file("ca.pem");
    assert!(stdout(&says(&server, &ca, &["get", "namespaces"])).contains("default"));

    let stranger = Certificates::make();
    let refused = says(&server, &stranger.file("ca.pem"), &["get", "namespaces"]);
    assert!(complaint(&refused, 1).contains("certificate"), "{}", complaint(&refused, 1));
    let of_the_host =
        gaia().args(["get", "namespaces", "--server", &server.url, "--token", TOKEN]).output().expect("runs");
    complaint(&of_the_host, 1);
    let careless = ["get", "namespaces", "--server", &server.url, "--token", TOKEN, "--insecure-skip-tls-verify"];
    assert!(stdout(&run(&careless)).contains("default"));
    let no_pem = says(&server, &made.file("names"), &["get", "namespaces"]);
    assert!(complaint(&no_pem, 2).contains("holds no certificate in PEM"), "{}", complaint(&no_pem, 2));

    let kubeconfig = data.path().join("kubeconfig");
    stdout(&says(&server, &ca, &["kubeconfig", "-o", text(&kubeconfig)]));
    let mut kubectl = std::process::Command::new("kubectl");
    kubectl.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", data.path());
    let listed = kubectl.args(["get", "namespaces", "--kubeconfig", text(&kubeconfig)]).output().expect("kubectl runs");
    assert!(stdout(&listed).contains("default"), "with its token, which it sends over https only");
}

#[test]
fn a_watch_follows_over_it() {
    let (data, made) = (tempfile::tempdir().expect("a directory"), Certificates::make());
    let server = start(data.path(), &made);
    let ca = made.file("ca.pem");
    let mut watch = gaia();
    watch.args(["watch", "namespaces"]).env("GAIA_SERVER", &server.url).env("GAIA_TOKEN", TOKEN);
    let watch = Program::start(watch.env("GAIA_CERTIFICATE_AUTHORITY", &ca));
    watch.line("what is there", |line| line.contains("default"));
    let manifest = data.path().join("team.yaml");
    fs::write(&manifest, "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n").expect("written");
    stdout(&says(&server, &ca, &["apply", "-f", text(&manifest)]));
    watch.line("the new one", |line| line.contains("team"));
    let (status, _, took) = server.terminate();
    assert!(status.success() && took < Duration::from_secs(10), "with a watch open: {took:?}");
}

#[test]
fn who_does_not_shake_hands_delays_nobody() {
    let (data, made) = (tempfile::tempdir().expect("a directory"), Certificates::make());
    let server = start(data.path(), &made);
    let authority = server.url.trim_start_matches("https://");
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(authority).expect("it listens")).collect();
    let mut plain = TcpStream::connect(authority).expect("it listens");
    plain.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    plain.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).expect("it is told, and closed");
    assert!(!answer.starts_with(b"HTTP/"), "nothing is answered in the clear");
    assert!(stdout(&says(&server, &made.file("ca.pem"), &["get", "namespaces"])).contains("default"));
    drop(silent);
}

#[test]
fn what_is_no_certificate_is_told_before_the_data_is_touched() {
    let (directory, made) = (tempfile::tempdir().expect("a directory"), Certificates::make());
    let data = directory.path().join("data");
    let serve = |certificate: &Path, key: &Path| {
        let args = ["--tls-cert-file", text(certificate), "--tls-key-file", text(key)];
        let mut command = gaia();
        command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir", text(&data)]);
        let output = command.args(args).output().expect("the binary runs");
        complaint(&output, 1).to_owned()
    };
    let (certificate, key) = (made.file("server.pem"), made.file("server.key"));
    let absent = serve(Path::new("/nowhere.pem"), &key);
    assert!(absent.contains("cannot read /nowhere.pem"), "{absent}");
    let no_certificate = serve(&key, &key);
    assert!(no_certificate.contains("holds no certificate in PEM"), "{no_certificate}");
    let no_key = serve(&certificate, &certificate);
    assert!(no_key.contains("holds no private key in PEM"), "{no_key}");
    let of_another = serve(&certificate, &made.file("client.key"));
    assert!(of_another.contains("does not fit the certificate"), "{of_another}");
    assert!(!data.exists());
}

#[test]
fn a_renewed_certificate_is_taken_and_half_of_one_is_not() {
    let (made, renewed) = (Certificates::make(), Certificates::make());
    let (certificate, key) = (made.file("server.pem"), made.file("server.key"));
    let held = gaia::server::Certificates::open(certificate.clone(), key.clone()).expect("a good pair");
    assert!(!held.refresh().expect("nothing new"));
    fs::copy(renewed.file("server.pem"), &certificate).expect("copied");
    assert!(held.refresh().is_err(), "its key is still to come");
    fs::copy(renewed.file("server.key"), &key).expect("copied");
    assert!(held.refresh().expect("a good pair"));
    assert!(!held.refresh().expect("nothing new"));
    fs::remove_file(&key).expect("it was there");
    assert!(held.refresh().is_err());
}
