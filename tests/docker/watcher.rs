//! A WebSocket client of `/ws/watch`.

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::program::Server;

const DEADLINE: Duration = Duration::from_secs(60);

pub struct Watcher {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// One frame: `{type, object}`.
pub struct Frame {
    pub kind: String,
    pub name: String,
    pub object: Value,
}

impl Frame {
    pub fn ready(&self) -> bool {
        let conditions = self.object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let current = self.object["status"]["observedGeneration"] == self.object["metadata"]["generation"];
        current && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    }

    pub fn container(&self) -> Option<&str> {
        self.object["status"]["live"]["containerId"].as_str()
    }
}

impl Watcher {
    pub async fn connect(server: &Server, query: &str) -> Self {
        let url = format!("{}/ws/watch?{query}", server.url.replacen("http", "ws", 1));
        let (socket, _) = connect_async(url).await.expect("the WebSocket opens");
        Self { socket }
    }

    /// Reads frames up to the first that `wanted` accepts.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let search = async {
            loop {
                let message = self.socket.next().await.expect("the socket stays open").expect("a frame");
                let Ok(text) = message.into_text() else { continue };
                let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
                let object = frame["object"].clone();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let frame = Frame { kind: text(&frame["type"]), name: text(&object["metadata"]["name"]), object };
                if wanted(&frame) {
                    return frame;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, search).await;
        found.unwrap_or_else(|_| panic!("the watcher did not see in time: {what}"))
    }
}
