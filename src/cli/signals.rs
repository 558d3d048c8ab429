//! SIGTERM and SIGINT: the first asks for an orderly end, the second for an end.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::CliError;

/// Ready when the first of the two signals arrives. From then on a second one ends the process on the spot, which costs
/// nothing: what was acknowledged is durable.
pub fn first() -> Result<impl Future<Output = ()>, CliError> {
    first_and_then(|| ())
}

/// As [`first`]; `last` is done before a second signal ends the process.
pub fn first_and_then(last: impl FnOnce() + Send + 'static) -> Result<impl Future<Output = ()>, CliError> {
    let listen = |kind| signal(kind).map_err(CliError::file("cannot listen to signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        let name = next(&mut interrupt, &mut terminate).await;
        info!(signal = name, "asked to end");
        // Ends with the runtime, or ends the process.
        tokio::spawn(async move {
            let name = next(&mut interrupt, &mut terminate).await;
            warn!(signal = name, "asked again: ending at once");
            last();
            std::process::exit(130);
        });
    })
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    // Cancel-safe: a signal that is not taken here is taken by the next call.
    tokio::select! {
        biased;
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
