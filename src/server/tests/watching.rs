//! The watch: no gap, no duplicate, and every end in the form clients know.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::store::Prefix;

fn added(name: &str) -> (String, String) {
    ("ADDED".to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_from_nowhere_begins_with_what_there_is() {
    let server = Server::new().await;
    let a = server.workload("a").await;
    for start in ["", "&resourceVersion=", "&resourceVersion=0"] {
        let mut watch = server.watch(&format!("{WORKLOADS}?watch=true{start}")).await;
        assert_eq!(watch.event().await, json!({"type": "ADDED", "object": a}), "{start:?}");
    }
}

/// A thousand objects of 1.5 KB are some 20 MB as trees, which stay.
#[tokio::test]
async fn who_is_told_objects_as_they_are_leaves_no_trees_behind() {
    let disk = MemoryEngine::default();
    let before = Server::on(disk.clone(), Options::default(), Auth::open()).await;
    before.workload("a").await;
    before.merge(&format!("{WORKLOADS}/a"), &json!({"metadata": {"labels": {"tier": "front"}}})).await.expect(200);
    drop(before);
    let server = Server::on(disk, Options::default(), Auth::open()).await;
    for query in ["", "&labelSelector=tier%3Dfront", "&resourceVersion=0"] {
        assert_eq!(server.watch(&format!("{WORKLOADS}?watch=true{query}")).await.brief().await, added("a"));
    }
    for accept in ["application/json", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io"] {
        assert_eq!(server.get_as(&format!("{WORKLOADS}/a"), accept).await.status, StatusCode::OK);
        assert_eq!(server.get_as(WORKLOADS, accept).await.status, StatusCode::OK);
    }
    let stored = server.state.registry.store().list(&Prefix::all()).await.expect("a list");
    let workloads = stored.items.iter().filter(|version| version.object.peek()["kind"] == "Workload");
    assert_eq!(workloads.map(|version| version.object.made().is_some()).collect::<Vec<_>>(), [false]);
}

#[tokio::test]
async fn a_watch_from_a_revision_tells_what_came_after() {
    let server = Server::new().await;
    let a = server.workload("a").await;
    server.merge(&format!("{WORKLOADS}/a"), &json!({"spec": {"suspend": true}})).await.expect(200);
    server.workload("b").await;
    server.delete(&format!("{WORKLOADS}/a")).await.expect(200);
    let mut watch = server.watch(&format!("{WORKLOADS}?watch=1&resourceVersion={}", version_of(&a))).await;
    assert_eq!(watch.brief().await, ("MODIFIED".to_owned(), "a".to_owned()));
    assert_eq!(watch.brief().await, added("b"));
    let deleted = watch.event().await;
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["spec"]["suspend"], true);
    let list = server.get(WORKLOADS).await.expect(200);
    assert_eq!(version_of(&deleted["object"]), version_of(&list), "DELETED carries the deletion's revision");
}

#[tokio::test]
async fn selectors_turn_entering_and_leaving_into_added_and_deleted() {
    let server = Server::new().await;
    server.workload("a").await;
    let from = version_of(&server.get(WORKLOADS).await.expect(200));
    let path = format!("{WORKLOADS}?watch=true&labelSelector=tier%3Dfront&resourceVersion={from}");
    let mut watch = server.watch(&path).await;
    let a = format!("{WORKLOADS}/a");
    server.merge(&a, &json!({"spec": {"suspend": true}})).await.expect(200);
    server.merge(&a, &json!({"metadata": {"labels": {"tier": "front"}}})).await.expect(200);
    assert_eq!(watch.brief().await, added("a"));
    server.merge(&a, &json!({"metadata": {"labels": {"tier": "back"}}})).await.expect(200);
    assert_eq!(watch.brief().await, ("DELETED".to_owned(), "a".to_owned()));
}

#[tokio::test]
async fn a_single_object_can_be_watched_by_its_path() {
    let server = Server::new().await;
    server.workload("a").await;
    server.workload("b").await;
    let mut watch = server.watch(&format!("{WORKLOADS}/b?watch=true")).await;
    assert_eq!(watch.brief().await, added("b"));
}

#[tokio::test]
async fn a_streaming_list_says_where_it_ends() {
    let server = Server::new().await;
    server.workload("a").await;
    for version in ["", "&resourceVersion=0", "&resourceVersion=1"] {
        let path = format!(
            "{WORKLOADS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true{version}"
        );
        let mut watch = server.watch(&path).await;
        assert_eq!(watch.brief().await, added("a"), "{version:?}");
        let end = watch.event().await;
        assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("Workload")));
        assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(version_of(&end["object"]), version_of(&server.get(WORKLOADS).await.expect(200)));
    }
    let path = format!("{WORKLOADS}?watch=true&sendInitialEvents=true");
    server.get(&path).await.expect(422);
}

#[tokio::test]
async fn a_watch_that_may_not_begin_with_what_there_is_begins_now() {
    let server = Server::new().await;
    server.workload("a").await;
    let path = format!("{WORKLOADS}?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
    let mut watch = server.watch(&path).await;
    server.workload("b").await;
    assert_eq!(watch.brief().await, added("b"));
}

/// kube-rs never recovers from a 410 to the request itself.
#[tokio::test]
async fn a_revision_that_is_gone_is_told_in_the_stream() {
    let server = Server::with(Options { log_capacity: 4, ..Options::default() }, Auth::open()).await;
    let first = version_of(&server.workload("a").await);
    for name in ["b", "c", "d", "e", "f", "g"] {
        server.workload(name).await;
    }
    let mut watch = server.watch(&format!("{WORKLOADS}?watch=true&resourceVersion={first}")).await;
    let event = watch.event().await;
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert_eq!(watch.line().await, None);
}

#[tokio::test]
async fn whoever_comes_from_the_future_lists_anew() {
    let server = Server::new().await;
    let mut watch = server.watch(&format!("{WORKLOADS}?watch=true&resourceVersion=99999999")).await;
    let event = watch.event().await;
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(watch.line().await, None);
    server.get(&format!("{WORKLOADS}?resourceVersion=99999999")).await.expect(504);
    server.get(&format!("{WORKLOADS}?watch=true&resourceVersion=abc")).await.expect(400);
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout_with_a_bookmark_for_the_next() {
    let server = Server::new().await;
    let from = version_of(&server.workload("a").await);
    // What the watch does not cover moves its bookmark all the same.
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let path = format!("{WORKLOADS}?watch=true&resourceVersion={from}&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut watch = server.watch(&path).await;
    let bookmark = watch.event().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(version_of(&bookmark["object"]), version_of(&server.get(WORKLOADS).await.expect(200)));
    assert_eq!(watch.line().await, None);
    let mut silent = server.watch(&format!("{WORKLOADS}?watch=true&resourceVersion={from}&timeoutSeconds=1")).await;
    assert_eq!(silent.line().await, None);
}

#[tokio::test]
async fn a_quiet_watch_gets_bookmarks_now_and_then() {
    let server = Server::new().await;
    let from = version_of(&server.workload("a").await);
    let path = format!("{WORKLOADS}?watch=true&resourceVersion={from}&allowWatchBookmarks=true");
    let response = server.call(request(Method::GET, &path, &[], "")).await;
    let mut stream = response.into_body().into_data_stream();
    tokio::time::pause();
    for _ in 0..2 {
        let before = Instant::now();
        let line = stream.next().await.expect("the watch goes on").expect("it can be read");
        assert!(String::from_utf8_lossy(&line).contains("\"BOOKMARK\""));
        let waited = before.elapsed().as_secs();
        assert!((50..70).contains(&waited), "after {waited} s");
    }
}

#[tokio::test]
async fn shutdown_ends_watches_at_once() {
    let server = Server::new().await;
    let from = version_of(&server.workload("a").await);
    let mut watch = server.watch(&format!("{WORKLOADS}?watch=true&resourceVersion={from}")).await;
    server.state.shutdown.cancel();
    assert_eq!(watch.line().await, None);
}

#[tokio::test]
async fn watches_are_json_and_can_be_reduced_to_metadata() {
    let server = Server::new().await;
    server.workload("a").await;
    let path = format!("{WORKLOADS}?watch=true");
    assert_eq!(server.get_as(&path, "application/yaml").await.expect(406)["reason"], "NotAcceptable");
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut watch = server.watch_as(&path, partial).await;
    let event = watch.event().await;
    assert_eq!((&event["object"]["kind"], event["object"].get("spec")), (&json!("PartialObjectMetadata"), None));
}

#[tokio::test]
async fn both_forms_of_an_event_are_watched() {
    let server = Server::new().await;
    let mut watch = server.watch("/apis/events.k8s.io/v1/events?watch=true").await;
    let event = json!({
        "kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "reason": "Started", "message": "m",
        "involvedObject": {"kind": "Workload", "name": "web", "namespace": "default"},
    });
    server.post("/api/v1/namespaces/default/events", &event).await.expect(201);
    let seen = watch.event().await;
    assert_eq!((&seen["object"]["apiVersion"], &seen["object"]["note"]), (&json!("events.k8s.io/v1"), &json!("m")));
}

#[tokio::test]
async fn serving_ends_in_bounded_time_with_watches_open() {
    let server = Server::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shutdown = server.state.shutdown.clone();
    let serving = tokio::spawn(serve(listener, server.router.clone(), shutdown.clone()));
    let mut watching = tokio::net::TcpStream::connect(address).await.expect("connected");
    let head = format!("GET {WORKLOADS}?watch=true HTTP/1.1\r\nhost: gaia\r\n\r\n");
    watching.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = [0; 15];
    timeout(PATIENCE, watching.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut silent = tokio::net::TcpStream::connect(address).await.expect("connected");
    silent.write_all(b"GET /version HTTP/1.1\r\n").await.expect("half a request is sent");
    shutdown.cancel();
    timeout(PATIENCE, serving).await.expect("within the grace").expect("no panic").expect("no error");
}

/// HTTP/2 without TLS, for clients that begin with its preface.
#[tokio::test]
async fn http2_is_spoken_to_who_speaks_it() {
    let server = Server::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serving = serve(listener, server.router.clone(), server.state.shutdown.clone());
    tokio::spawn(async move { serving.await.expect("serving goes well") });
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("the preface is sent");
    stream.write_all(&empty_settings).await.expect("settings are sent");
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("in time").expect("a frame");
    assert_eq!(head[3], 4, "the first frame is of the server's settings");
}
