//! `/ws/worker`: workers that are connected to us, where MLOC's go by Redis. Text frames, each one message as on Redis; the first is
//! REGISTER. To the worker go its tasks, and `TASK_RELEASED` for attempts that nobody waits for any more.
//!
//! A worker that says nothing for [`SILENCE_LIMIT`], pongs included, or does not read, loses the connection; it comes back by itself.
//! Close codes: 1008 for what will never be right, 1013 for what may be later, 1001 when this process ends.

use std::time::Duration;

use axum::{
    extract::{
        FromRequestParts, Request,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{StatusCode, header},
};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Mloc;
use crate::{
    adapters::bus::session::{Session, TaskLog, Unwanted},
    facades::reply::{Answer, Refusal},
};

/// Results go over HTTP: what is said here is short.
const LARGEST_MESSAGE: usize = 1 << 20;
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// For the first message.
const REGISTERS_WITHIN: Duration = Duration::from_secs(10);
const PING_PERIOD: Duration = Duration::from_secs(5);
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// The protocol has room for 123 bytes.
const LONGEST_REASON: usize = 123;

pub async fn upgrade(mloc: &Mloc, request: Request) -> Answer {
    // Only browsers send it, and a page has no business here, whoever has it open.
    if request.headers().contains_key(header::ORIGIN) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "workers are no web pages"));
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, rejection.body_text())),
    };
    let mloc = mloc.clone();
    let upgrade = upgrade.max_message_size(LARGEST_MESSAGE).max_frame_size(LARGEST_MESSAGE);
    Ok(upgrade.on_upgrade(async move |mut socket| {
        let (code, reason) = serve(&mloc, &mut socket).await;
        close(&mut socket, code, &reason).await;
    }))
}

/// A connection to its end; answers how to close it.
async fn serve(mloc: &Mloc, socket: &mut WebSocket) -> (u16, String) {
    let first = match timeout(REGISTERS_WITHIN, first_text(socket)).await {
        Ok(Some(text)) => text,
        Ok(None) => return (close_code::NORMAL, String::new()),
        Err(_) => return (close_code::POLICY, "the first message must be REGISTER, and come soon".to_owned()),
    };
    let mut session = match Session::open(&mloc.sockets, &first) {
        Ok(session) => session,
        Err(unwanted) => return refused(&unwanted),
    };
    info!(worker = session.worker(), "a worker is connected");
    let end = talk(mloc, socket, &mut session).await;
    info!(worker = session.worker(), why = end.1, "a worker is not connected any more");
    end
}

async fn first_text(socket: &mut WebSocket) -> Option<String> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Binary(_) | Message::Close(_)) | Err(_) => return None,
        }
    }
}

async fn talk(mloc: &Mloc, socket: &mut WebSocket, session: &mut Session) -> (u16, String) {
    let mut ping = tokio::time::interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    let mut heard = Instant::now();
    loop {
        // Each arm loses nothing when another one wins.
        let message = tokio::select! {
            biased;
            () = mloc.shutdown.cancelled() => return (close_code::AWAY, "the orchestrator is shutting down".to_owned()),
            message = socket.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => match session.hear(&text) {
                        Ok(None) => {}
                        Ok(Some(log)) => keep(mloc, &log).await,
                        Err(unwanted) => return refused(&unwanted),
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Binary(_))) => return (close_code::UNSUPPORTED, "messages are text".to_owned()),
                    Some(Ok(Message::Close(_))) => return (close_code::NORMAL, "it said goodbye".to_owned()),
                    Some(Err(error)) => return (close_code::PROTOCOL, error.to_string()),
                    None => return (close_code::NORMAL, "the connection broke".to_owned()),
                }
                continue;
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_LIMIT {
                    return (close_code::AGAIN, "nothing was heard of the worker".to_owned());
                }
                Message::Ping(Default::default())
            }
            message = session.next() => match message {
                Some(text) => Message::Text(text.into()),
                None => return (close_code::AGAIN, "the worker has another connection, or does not read".to_owned()),
            },
        };
        match timeout(SEND_WITHIN, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return (close_code::PROTOCOL, error.to_string()),
            Err(_) => return (close_code::AGAIN, "the worker does not read".to_owned()),
        }
    }
}

/// Appends to the log of a task that is there, and stays. One that is deleted goes with its directory: what is printed after that
/// must not make it anew, and what is printed meanwhile goes as well.
async fn keep(mloc: &Mloc, log: &TaskLog) {
    if !is_kept(mloc, &log.task).await {
        return;
    }
    if let Err(error) = mloc.files.append_log(log).await {
        warn!(task = log.task, %error, "what a task printed cannot be kept");
    }
    if !is_kept(mloc, &log.task).await
        && let Err(error) = mloc.files.remove(&log.task).await
    {
        warn!(task = log.task, %error, "what a task printed that is deleted cannot be removed");
    }
}

async fn is_kept(mloc: &Mloc, task: &str) -> bool {
    // The store is this process's own; one that fails says nothing about the task.
    mloc.task(task).await.map_or(true, |task| task.is_some_and(|task| task.metadata.deletion_timestamp.is_none()))
}

fn refused(unwanted: &Unwanted) -> (u16, String) {
    match unwanted {
        Unwanted::Wrong(why) => (close_code::POLICY, why.clone()),
        Unwanted::Later(why) => (close_code::AGAIN, (*why).to_owned()),
    }
}

async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    let end = (0..=reason.len().min(LONGEST_REASON)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    let frame = Message::Close(Some(CloseFrame { code, reason: reason[..end].into() }));
    // Best effort: who does not read will notice the closed connection.
    if timeout(Duration::from_secs(1), socket.send(frame)).await.is_err() {
        tracing::debug!("a worker did not take the closing frame");
    }
}
