//! `/ws/watch` and `/sse/watch`.

use futures::SinkExt;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::*;

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// The server on a port of its own, for what cannot go without one.
async fn listening(server: &Server) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serving = serve(listener, server.router.clone(), server.state.shutdown.clone());
    tokio::spawn(async move { serving.await.expect("serving goes well") });
    address
}

async fn connect(address: std::net::SocketAddr, query: &str) -> Socket {
    let (socket, _) = timeout(PATIENCE, connect_async(format!("ws://{address}/ws/watch{query}")))
        .await
        .expect("in time")
        .expect("an upgrade");
    socket
}

/// The next text frame; none when the server closed.
async fn frame(socket: &mut Socket) -> Option<Value> {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("in time") {
            Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).expect("frames are JSON")),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

async fn brief(socket: &mut Socket) -> (String, String, String) {
    let frame = frame(socket).await.expect("a frame");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&frame["type"]), text(&frame["object"]["kind"]), text(&frame["object"]["metadata"]["name"]))
}

fn told(type_: &str, kind: &str, name: &str) -> (String, String, String) {
    (type_.to_owned(), kind.to_owned(), name.to_owned())
}

const SOURCES: &str = "/apis/gaia.dev/v1alpha1/sources";

fn source(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"directory": "/nowhere"}})
}

#[tokio::test]
async fn without_a_kind_all_of_ours_are_told() {
    let server = Server::new().await;
    server.workload("a").await;
    let mut socket = connect(listening(&server).await, "").await;
    assert_eq!(brief(&mut socket).await, told("ADDED", "Workload", "a"));
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    server.post(SOURCES, &source("s")).await.expect(201);
    assert_eq!(brief(&mut socket).await, told("ADDED", "Source", "s"));
    server.delete(&format!("{SOURCES}/s")).await.expect(200);
    assert_eq!(brief(&mut socket).await, told("DELETED", "Source", "s"));
}

#[tokio::test]
async fn kind_namespace_and_selectors_narrow_it() {
    let server = Server::new().await;
    let address = listening(&server).await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let mut by_kind = connect(address, "?kind=Source").await;
    let mut by_short_name = connect(address, "?kind=src").await;
    let mut by_namespace = connect(address, "?namespace=default").await;
    let mut by_label = connect(address, "?kind=workloads&labelSelector=tier%3Dfront").await;
    let mut by_field = connect(address, "?fieldSelector=metadata.name%3Db").await;
    server.post("/apis/gaia.dev/v1alpha1/namespaces/other/workloads", &workload("elsewhere")).await.expect(201);
    server.workload("a").await;
    let mut b = workload("b");
    b["metadata"]["labels"] = json!({"tier": "front"});
    server.post(WORKLOADS, &b).await.expect(201);
    server.post(SOURCES, &source("s")).await.expect(201);
    assert_eq!(brief(&mut by_kind).await, told("ADDED", "Source", "s"));
    assert_eq!(brief(&mut by_short_name).await, told("ADDED", "Source", "s"));
    assert_eq!(brief(&mut by_namespace).await, told("ADDED", "Workload", "a"));
    assert_eq!(brief(&mut by_label).await, told("ADDED", "Workload", "b"));
    assert_eq!(brief(&mut by_field).await, told("ADDED", "Workload", "b"));
}

#[tokio::test]
async fn it_resumes_where_it_was() {
    let server = Server::new().await;
    let address = listening(&server).await;
    let seen = version_of(&server.workload("a").await);
    server.workload("b").await;
    let mut socket = connect(address, &format!("?kind=Workload&resourceVersion={seen}")).await;
    assert_eq!(brief(&mut socket).await, told("ADDED", "Workload", "b"));
    let query = format!("?resourceVersion={seen}&allowWatchBookmarks=true");
    assert_eq!(brief(&mut connect(address, &query).await).await, told("ADDED", "Workload", "b"));
}

#[tokio::test]
async fn who_lost_the_log_is_told_and_let_go() {
    let server = Server::with(Options { log_capacity: 4, ..Options::default() }, Auth::open()).await;
    let first = version_of(&server.workload("a").await);
    for name in ["b", "c", "d", "e", "f", "g"] {
        server.workload(name).await;
    }
    let mut socket = connect(listening(&server).await, &format!("?resourceVersion={first}")).await;
    let error = frame(&mut socket).await.expect("a last frame");
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(frame(&mut socket).await, None);
}

/// The slow one's cursor falls behind and expires; the quick one and the writers notice nothing.
#[tokio::test]
async fn a_slow_client_only_hurts_itself() {
    let server = Server::with(Options { log_capacity: 64, ..Options::default() }, Auth::open()).await;
    let address = listening(&server).await;
    let mut slow = connect(address, "?kind=Workload").await;
    let mut quick = connect(address, "?kind=Workload").await;
    server.workload("a").await;
    assert_eq!(brief(&mut slow).await, told("ADDED", "Workload", "a"));
    assert_eq!(brief(&mut quick).await, told("ADDED", "Workload", "a"));
    let path = format!("{WORKLOADS}/a");
    // More than the buffers of the connection hold, for whom does not read.
    for i in 0..400 {
        let padding = json!({"metadata": {"annotations": {"n": format!("{i}"), "padding": "x".repeat(100_000)}}});
        server.merge(&path, &padding).await.expect(200);
        assert_eq!(brief(&mut quick).await, told("MODIFIED", "Workload", "a"), "change {i}");
    }
    let mut last = None;
    while let Some(next) = frame(&mut slow).await {
        last = Some(next);
    }
    let last = last.expect("something was told");
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn pings_are_answered_and_shutdown_closes() {
    let server = Server::new().await;
    let mut socket = connect(listening(&server).await, "").await;
    socket.send(Message::Ping("hello".into())).await.expect("sent");
    let pong = timeout(PATIENCE, socket.next()).await.expect("in time").expect("a frame").expect("readable");
    assert_eq!(pong, Message::Pong("hello".into()));
    server.state.shutdown.cancel();
    assert_eq!(frame(&mut socket).await, None);
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_before_the_upgrade() {
    let server = Server::new().await;
    server.get("/ws/watch").await.expect(400);
    server.get("/sse/watch?kind=Nothing").await.expect(404);
    server.get("/sse/watch?fieldSelector=spec.nothing%3Dx").await.expect(400);
    server.get("/sse/watch?resourceVersion=abc").await.expect(400);
    server.get("/sse/watch?kind=Workload&label=a%3Db").await.expect(400);
}

/// One server-sent event: event, id, data.
async fn sent(lines: &mut Lines) -> (String, Option<String>, Option<Value>) {
    let (mut event, mut id, mut data) = (String::new(), None, None);
    loop {
        let line = lines.line().await.expect("the stream has not ended");
        if line.is_empty() {
            return (event, id, data);
        }
        match line.split_once(':').map(|(field, value)| (field, value.trim())) {
            Some(("event", value)) => value.clone_into(&mut event),
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("data", value)) => data = Some(serde_json::from_str(value).expect("data is JSON")),
            _ => {}
        }
    }
}

#[tokio::test]
async fn events_are_sent_with_the_id_to_resume_from() {
    let server = Server::new().await;
    let a = server.workload("a").await;
    let mut lines = server.watch("/sse/watch").await;
    let (event, id, data) = sent(&mut lines).await;
    assert_eq!((event.as_str(), id, data), ("ADDED", None, Some(json!({"type": "ADDED", "object": a}))));
    let (event, id, data) = sent(&mut lines).await;
    let revision = version_of(&server.get(WORKLOADS).await.expect(200));
    assert_eq!((event.as_str(), id.as_deref(), data), ("", Some(revision.as_str()), None));
    let b = server.workload("b").await;
    let (event, id, _) = sent(&mut lines).await;
    assert_eq!((event.as_str(), id), ("ADDED", Some(version_of(&b))));
    let c = server.workload("c").await;
    let headers = [("last-event-id", version_of(&b))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let response = server.call(request(Method::GET, "/sse/watch?resourceVersion=1", &headers, "")).await;
    let mut resumed = Lines { stream: response.into_body().into_data_stream().boxed(), buffer: Vec::new() };
    assert_eq!(sent(&mut resumed).await.2, Some(json!({"type": "ADDED", "object": c})));
}

#[tokio::test]
async fn a_browser_that_lost_the_log_begins_afresh() {
    let server = Server::with(Options { log_capacity: 4, ..Options::default() }, Auth::open()).await;
    let first = version_of(&server.workload("a").await);
    for name in ["b", "c", "d", "e", "f", "g"] {
        server.workload(name).await;
    }
    let mut lines = server.watch(&format!("/sse/watch?resourceVersion={first}")).await;
    let (event, id, data) = sent(&mut lines).await;
    assert_eq!((event.as_str(), id.as_deref()), ("ERROR", Some("")));
    assert_eq!(data.expect("a Status")["object"]["code"], 410);
}
