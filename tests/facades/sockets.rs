//! `/ws/notifications`: what is told, to whom, and what happens to those who do not listen.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::world::{DEADLINE, World};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn connect(world: &World, query: &str) -> Socket {
    let url = format!("{}/ws/notifications{query}", world.url.replacen("http", "ws", 1));
    connect_async(url).await.expect("a WebSocket").0
}

pub async fn next(socket: &mut Socket) -> Value {
    loop {
        match timeout(DEADLINE, socket.next()).await.expect("told in time").expect("open").expect("no error") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) => {}
            other => panic!("not a notification: {other:?}"),
        }
    }
}

const ORACLE: &str = r#"{"fallback_model":"groq","original_role":"prime"}"#;

#[tokio::test]
async fn an_oracle_is_told_whatever_the_client_has_said() {
    let world = World::bare().await;
    let mut socket = connect(&world, "").await;
    socket.send(Message::Binary(vec![0, 255].into())).await.expect("sent");
    socket.send(Message::Text("ping".into())).await.expect("sent");
    let told = world.done("/notify/oracle-fallback", ORACLE).await;
    assert_eq!(told, json!({"success": true, "message": "Notification received"}));
    let frame = next(&mut socket).await;
    assert_eq!(frame["notification_type"], "oracle_fallback");
    assert_eq!(frame["title"], "Cloud Inference Active");
    assert_eq!(frame["message"], "Using groq for prime");
    assert_eq!((&frame["data"]["fallback_model"], &frame["data"]["reason"]), (&json!("groq"), &json!("")));
    assert_eq!(frame["notification_id"].as_str().map(str::len), Some(36));
}

#[tokio::test]
async fn a_handoff_is_told_with_the_change_of_holder() {
    let world = World::gaia().await;
    let mut socket = connect(&world, "").await;
    let done = world.done("/handoff/prime-to-study", "").await;
    let mut told = Vec::new();
    while !(told.contains(&"handoff_completed".to_owned()) && told.contains(&"gpu_acquired".to_owned())) {
        let frame = next(&mut socket).await;
        let type_ = frame["notification_type"].as_str().expect("a type").to_owned();
        if type_.starts_with("handoff") {
            assert_eq!(frame["data"]["handoff_id"], done["handoff_id"]);
        }
        // Health of services is told between.
        if type_.starts_with("handoff") || type_.starts_with("gpu") {
            told.push(type_);
        }
    }
    told.sort();
    assert_eq!(told, ["gpu_acquired", "gpu_released", "handoff_completed", "handoff_started"]);
}

#[tokio::test]
async fn the_last_ones_are_replayed_to_who_asks() {
    let world = World::bare().await;
    for model in ["one", "two", "three"] {
        world.done("/notify/oracle-fallback", &ORACLE.replace("groq", model)).await;
    }
    let mut socket = connect(&world, "?replay=2").await;
    assert_eq!(next(&mut socket).await["data"]["fallback_model"], "two");
    assert_eq!(next(&mut socket).await["data"]["fallback_model"], "three");
    let mut fresh = connect(&world, "").await;
    world.done("/notify/oracle-fallback", &ORACLE.replace("groq", "four")).await;
    assert_eq!(next(&mut fresh).await["data"]["fallback_model"], "four");
}

/// Section 10, 8; section 8, 12.
#[tokio::test]
async fn a_client_that_does_not_read_delays_nobody() {
    let world = World::bare().await;
    // Shakes hands, and never reads again.
    let mut stalled = TcpStream::connect(world.url.trim_start_matches("http://")).await.expect("a connection");
    let hello = "GET /ws/notifications HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stalled.write_all(hello.as_bytes()).await.expect("sent");
    let mut reader = connect(&world, "").await;
    world.listening(2).await;
    let large = ORACLE.replace("groq", &"x".repeat(200_000));
    for _ in 0..50 {
        world.done("/notify/oracle-fallback", &large).await;
        assert_eq!(next(&mut reader).await["notification_type"], "oracle_fallback");
    }
    // It is let go, and what it was sent is kept for it no longer.
    world.listening(1).await;
    world.done("/notify/oracle-fallback", ORACLE).await;
    assert_eq!(next(&mut reader).await["data"]["fallback_model"], "groq");
}
