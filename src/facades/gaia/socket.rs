//! `/ws/notifications`: one text frame a notification. What a client says is read and means nothing; one that does not read
//! is let go, and delays nobody.

use std::time::Duration;

use axum::{
    extract::{
        FromRequestParts, Request,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Gaia,
    hub::Frame,
    reply::{Answer, Refusal},
};

/// A client that takes longer for one frame does not read.
const SEND_WITHIN: Duration = Duration::from_secs(10);
const PING_PERIOD: Duration = Duration::from_secs(20);
/// Nothing heard for so long, pongs included: gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(65);
const LARGEST_MESSAGE: usize = 64 * 1024;

/// Upgrades the connection. `?replay=N` begins with the last N there were, at most a hundred.
pub async fn upgrade(gaia: &Gaia, replay: usize, request: Request) -> Answer {
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, rejection.body_text())),
    };
    let (hub, stop) = (gaia.hub.clone(), gaia.shutdown.clone());
    let answer: Response = upgrade.max_message_size(LARGEST_MESSAGE).on_upgrade(move |socket| async move {
        let (before, after) = hub.listen(replay);
        pump(socket, before, after, stop).await;
    });
    Ok(answer.into_response())
}

async fn pump(mut socket: WebSocket, before: Vec<Frame>, mut after: Receiver<Frame>, stop: CancellationToken) {
    for frame in before {
        if !send(&mut socket, Message::Text(frame.as_ref().into())).await {
            return;
        }
    }
    let mut ping = tokio::time::interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    let mut heard = Instant::now();
    loop {
        // Each arm loses nothing when another one wins.
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => return close(&mut socket, close_code::AWAY, "orchestrator is shutting down").await,
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Binary(_))) => {
                    heard = Instant::now();
                    continue;
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_LIMIT {
                    return;
                }
                Message::Ping(Default::default())
            }
            frame = after.recv() => match frame {
                Ok(frame) => Message::Text(frame.as_ref().into()),
                Err(RecvError::Lagged(_)) => return close(&mut socket, close_code::AGAIN, "notifications were missed").await,
                Err(RecvError::Closed) => return close(&mut socket, close_code::AWAY, "no more notifications").await,
            },
        };
        if !send(&mut socket, message).await {
            return;
        }
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SEND_WITHIN, socket.send(message)).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // Best effort: who does not read will notice the closed connection.
    if timeout(Duration::from_secs(1), socket.send(frame)).await.is_err() {
        tracing::debug!("a notification client did not take the closing frame");
    }
}
