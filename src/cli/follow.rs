//! Waiting with open eyes: a watch is followed until it shows an end. Who waits may give up, by a limit of time or by
//! Ctrl-C; what was begun goes on, since it is the server that does it.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use kube::runtime::watcher;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, error::chain};

/// A server that is restarted is back long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// The exit code of who was interrupted: neither done nor failed, as shells say it.
pub const INTERRUPTED: u8 = 130;

/// Why the following ended.
#[derive(Debug, PartialEq)]
pub enum End<T> {
    Came(T),
    TimedOut,
    Interrupted,
}

/// Hands every piece of news to `look` until that answers. A watch that breaks begins anew by itself; only a server that
/// stays away is an error.
pub async fn follow<N, T>(
    news: &mut (impl Stream<Item = watcher::Result<N>> + Unpin),
    limit: Option<Duration>,
    mut look: impl FnMut(N) -> Result<Option<T>, CliError>,
) -> Result<End<T>, CliError> {
    let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::file("cannot listen to signals"))?;
    let mut silent_since: Option<Instant> = None;
    loop {
        // A watch keeps its place when `next` is dropped, a signal that is not taken is taken by the next call, and the
        // third only waits.
        let next = tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(End::Interrupted),
            () = until(deadline) => return Ok(End::TimedOut),
            next = news.next() => next,
        };
        match next {
            Some(Ok(news)) => {
                if silent_since.take().is_some() {
                    eprintln!("# the server is back");
                }
                if let Some(end) = look(news)? {
                    return Ok(End::Came(end));
                }
            }
            Some(Err(error)) => {
                let since = *silent_since.get_or_insert_with(|| {
                    eprintln!("# the server does not answer, trying again: {}", chain(&error));
                    Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    let seconds = PATIENCE.as_secs();
                    return Err(CliError::Failed(format!(
                        "the server has not answered for {seconds} s: {}",
                        chain(&error)
                    )));
                }
            }
            None => return Err(CliError::Failed("the watch ended".to_owned())),
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn error() -> watcher::Error {
        watcher::Error::NoResourceVersion
    }

    #[tokio::test]
    async fn goes_on_after_errors_until_the_end_is_seen() {
        let mut news = stream::iter([Ok(1), Err(error()), Ok(2), Ok(3)]);
        let end = follow(&mut news, None, |n| Ok((n == 2).then_some("two"))).await.expect("followed");
        assert_eq!(end, End::Came("two"));
        assert_eq!(news.next().await.expect("more").expect("news"), 3, "what comes later is left in the watch");
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_in_time() {
        let mut news = stream::pending::<watcher::Result<()>>();
        let end = follow::<_, ()>(&mut news, Some(Duration::from_secs(5)), |()| Ok(None)).await.expect("followed");
        assert_eq!(end, End::TimedOut);
    }
}
