//! The connection to the server: kept up for ever, with a backoff. What was to be said over a connection that is gone is not said over
//! the next one: the agent begins anew with what is so then.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::{WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::{info, warn};

use super::{
    Settings,
    message::{self, Command},
};

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
const SEND_WITHIN: Duration = Duration::from_secs(10);
const PING_PERIOD: Duration = Duration::from_secs(5);
/// Nothing heard for so long, pongs included: the connection is none any more.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// Between attempts; it doubles up to the greatest. Shorter than the server waits for who lost its connection.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A task may bring the results of all that it depends on.
const LARGEST_MESSAGE: usize = 256 << 20;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the agent hears.
#[derive(Debug)]
pub enum Heard {
    /// A connection is there: the first thing to be said over it is REGISTER. Its number goes with everything that is said.
    Connected(u64),
    Command(Command),
    Lost,
    /// The first connection was refused, and the next would be.
    Refused(String),
}

/// To be said over the connection of this number.
#[derive(Debug)]
pub struct Say {
    pub connection: u64,
    pub text: String,
}

/// Connects until nobody listens any more, that is until the agent ends; what it has said until then is sent.
pub async fn run(settings: Arc<Settings>, heard: mpsc::Sender<Heard>, mut say: mpsc::Receiver<Say>) {
    let (mut pause, mut connection, mut told) = (FIRST_PAUSE, 0, false);
    loop {
        match connect(&settings).await {
            Ok(socket) => {
                connection += 1;
                (pause, told) = (FIRST_PAUSE, false);
                info!(server = settings.server, "connected");
                if heard.send(Heard::Connected(connection)).await.is_err() {
                    return;
                }
                let End::Lost { why, for_good } = talk(&settings, socket, connection, &heard, &mut say).await else {
                    return;
                };
                warn!(server = settings.server, why, "the connection is lost");
                if for_good && connection == 1 {
                    heard.send(Heard::Refused(why)).await.ok();
                    return;
                }
                if heard.send(Heard::Lost).await.is_err() {
                    return;
                }
            }
            Err(error) if connection == 0 && is_refusal(&error) => {
                heard.send(Heard::Refused(error.to_string())).await.ok();
                return;
            }
            // Told once, and not with every attempt.
            Err(error) if !told => {
                warn!(server = settings.server, %error, "cannot connect; trying on");
                told = true;
            }
            Err(_) => {}
        }
        // So that not all workers of a server come back at the same moment.
        let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = heard.closed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(settings: &Settings) -> Result<Socket, Error> {
    let url = format!("ws{}/ws/worker", settings.server.strip_prefix("http").unwrap_or(&settings.server));
    let mut request = url.into_client_request()?;
    if let Some(token) = &settings.token {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| Error::HttpFormat(error.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE));
    match timeout(CONNECTS_WITHIN, connect_async_with_config(request, Some(config), true)).await {
        Ok(connected) => connected.map(|(socket, _)| socket),
        Err(_) => Err(Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// The token is wrong, or there is no such endpoint.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Http(answer) if answer.status().is_client_error()) || matches!(error, Error::Url(_))
}

enum End {
    Lost {
        why: String,
        for_good: bool,
    },
    /// The agent has ended.
    Done,
}

async fn talk(
    settings: &Settings,
    mut socket: Socket,
    connection: u64,
    heard: &mpsc::Sender<Heard>,
    say: &mut mpsc::Receiver<Say>,
) -> End {
    let lost = |why: String| End::Lost { why, for_good: false };
    let mut ping = tokio::time::interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    let mut last = Instant::now();
    loop {
        // Each arm loses nothing when another one wins.
        let message = tokio::select! {
            biased;
            message = socket.next() => {
                last = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => {
                        if let Some(command) = message::command(&text, &settings.id)
                            && heard.send(Heard::Command(command)).await.is_err()
                        {
                            return End::Done;
                        }
                    }
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return End::Lost { why: frame.reason.to_string(), for_good: frame.code == CloseCode::Policy };
                    }
                    Some(Ok(Message::Close(None))) | None => return lost("the server closed it".to_owned()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return lost(error.to_string()),
                }
                continue;
            }
            _ = ping.tick() => {
                if last.elapsed() > SILENCE_LIMIT {
                    return lost("nothing is heard of the server".to_owned());
                }
                Message::Ping(Default::default())
            }
            said = say.recv() => match said {
                Some(said) if said.connection == connection => Message::Text(said.text.into()),
                Some(_) => continue,
                None => {
                    // The leave that was taken is on its way; a server that does not take the frame is gone itself.
                    timeout(Duration::from_secs(1), socket.close(None)).await.ok();
                    return End::Done;
                }
            },
        };
        match timeout(SEND_WITHIN, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(error.to_string()),
            Err(_) => return lost("the server does not read".to_owned()),
        }
    }
}
