//! Who is asked and who is not: addresses in URLs, behind names, and behind the registry's redirects.

use std::{collections::HashMap, net::IpAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;

const METADATA: &str = "169.254.169.254";

/// Names that mean what a test says; all others are unknown.
struct Names(HashMap<&'static str, Vec<&'static str>>);

impl Lookup for Names {
    fn lookup(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let address = |text: &&str| SocketAddr::new(text.parse::<IpAddr>().expect("an address"), 0);
        let found = self.0.get(name).map(|texts| texts.iter().map(address).collect());
        let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"));
        futures::future::ready(found).boxed()
    }
}

fn targets(trusted: &str) -> Targets {
    let names = [
        ("good.test", vec!["127.0.0.1"]),
        ("bad.test", vec![METADATA]),
        ("six.test", vec!["fe80::1", "::ffff:169.254.169.254", "fd00:ec2::254"]),
        // Whoever is asked must be the second.
        ("both.test", vec![METADATA, "127.0.0.1"]),
    ];
    Targets::resolving(trusted, Arc::new(Names(names.into()))).expect("a client")
}

fn get(url: &str) -> Request {
    let (uri, headers) = addressed(&url.parse().expect("a URL")).expect("a URI");
    Request { method: Method::GET, uri, headers, body: None, timeout: Duration::from_secs(10), most_bytes: 1000 }
}

/// Gives this head to everybody who comes, and an empty body; the port.
async fn peer(head: &'static str) -> u16 {
    listening(head).await.0
}

/// As [`peer`], and what everybody says.
async fn listening(head: &'static str) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            if let Ok(length @ 1..) = stream.read(&mut read).await {
                tell.send(String::from_utf8_lossy(&read[..length]).to_lowercase()).ok();
                stream.write_all(head.as_bytes()).await.ok();
            }
        }
    });
    (port, heard)
}

#[tokio::test]
async fn a_name_that_leads_to_a_metadata_address_leads_nowhere() {
    let port = peer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let targets = targets("registry.test");
    for name in ["good.test", "both.test"] {
        let answer = targets.send(get(&format!("http://{name}:{port}/"))).await;
        assert_eq!(answer.map(|answer| answer.status), Ok(200), "{name}");
    }
    for name in ["bad.test", "six.test"] {
        let fault = targets.send(get(&format!("http://{name}:{port}/"))).await.expect_err("nobody is there");
        assert!(fault.to_string().contains("leads to no address that droplets may have"), "{fault}");
        // The registry may be anywhere; another name beside it may not.
        let fault = targets.ask_registry(get(&format!("http://{name}:{port}/"))).await.expect_err("nobody is there");
        assert!(fault.to_string().contains("leads to no address that droplets may have"), "{fault}");
    }
    let fault = targets.send(get("http://none.test/")).await.expect_err("nobody has this name");
    assert!(matches!(&fault, Fault::Broken(why) if why.contains("no such name")), "{fault}");
}

#[tokio::test]
async fn answers_that_find_no_room_are_told_so() {
    let body = "x".repeat(1536 * 1024);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let large = format!("http://127.0.0.1:{}/", peer(head.leak()).await);
    let small = peer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let targets = Targets { rooms: Rooms::of(3), ..targets("registry.test") };
    let wide = |timeout| Request { timeout, most_bytes: 2 * 1024 * 1024, ..get(&large) };
    let first = targets.send(wide(Duration::from_secs(10))).await.expect("an answer");
    let fault = targets.send(wide(Duration::from_millis(300))).await.expect_err("one and two are three");
    assert!(
        matches!(&fault, Fault::Timeout(why) if why.contains("no room for its answer: others hold 3 MiB")),
        "{fault}"
    );
    let answer = targets.send(get(&format!("http://127.0.0.1:{small}/"))).await;
    assert_eq!(answer.map(|answer| answer.status), Ok(200), "small ones need none");
    drop(first);
    assert_eq!(targets.send(wide(Duration::from_secs(10))).await.map(|answer| answer.body.len()), Ok(body.len()));
}

#[tokio::test]
async fn the_registry_may_be_where_nobody_else_may() {
    let lookup = Arc::new(Names([("registry.test", vec![METADATA]), ("other.test", vec![METADATA])].into()));
    let careful = Careful { trusted: "registry.test".into(), lookup };
    let found =
        async |name: &str| careful.clone().call(name.parse().expect("a name")).await.map(|found| found.count()).ok();
    assert_eq!((found("registry.test").await, found("other.test").await), (Some(1), None));
    let url = "http://169.254.169.254:8000/droplets".parse().expect("a URL");
    assert_eq!((fine(&url, METADATA).is_ok(), fine(&url, "registry.test").is_ok()), (true, false));
}

#[tokio::test]
async fn the_registrys_redirects_are_followed_but_not_to_metadata() {
    let there = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\nlocation: http://169.254.169.254/latest\r\n\r\n";
    let port = peer(there).await;
    let fault = targets("127.0.0.1").ask_registry(get(&format!("http://127.0.0.1:{port}/"))).await;
    let fault = fault.expect_err("not there").to_string();
    assert!(fault.contains("169.254.169.254:80: this address is not for droplets"), "{fault}");
    let round = "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\nlocation: /again\r\n\r\n";
    let port = peer(round).await;
    let fault = targets("127.0.0.1").ask_registry(get(&format!("http://127.0.0.1:{port}/"))).await;
    let fault = fault.expect_err("it has an end").to_string();
    assert!(fault.contains("more than 5 redirects"), "{fault}");
    let answer = targets("127.0.0.1").send(get(&format!("http://127.0.0.1:{port}/"))).await;
    assert_eq!(answer.map(|answer| answer.status), Ok(302), "a droplet's redirect is its answer");
}

#[tokio::test]
async fn the_registrys_password_is_for_the_registry_alone() {
    let (other, mut heard_by_other) =
        listening("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let there = format!(
        "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\nlocation: http://127.0.0.1:{other}/\r\n\r\n"
    );
    let (registry, mut heard) = listening(there.leak()).await;
    let answer = targets("127.0.0.1").ask_registry(get(&format!("http://us:p%40ss@127.0.0.1:{registry}/"))).await;
    assert_eq!(answer.map(|answer| answer.status), Ok(200));
    // base64 of us:p@ss, in lower case as all that was heard.
    let said = heard.recv().await.expect("it was asked");
    assert!(said.contains("authorization: basic dxm6cebzcw=="), "{said}");
    let said = heard_by_other.recv().await.expect("it was asked");
    assert!(!said.contains("authorization"), "{said}");
}
