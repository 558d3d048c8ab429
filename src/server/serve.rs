//! A listener, the router, and an end in bounded time.

use std::{future::IntoFuture, io, net::SocketAddr, time::Duration};

use axum::{
    ServiceExt,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Answers, audit::Peer};

/// How long requests under way may take to end; watches end by themselves at once. Less than the whole stage of the shutdown
/// has, or nobody would be told.
const GRACE: Duration = Duration::from_millis(1500);

/// Serves HTTP/1.1 and, for clients that begin with its preface, HTTP/2, until `shutdown`; then for at most a few seconds
/// more.
pub async fn serve<L>(listener: L, service: impl Answers, shutdown: CancellationToken) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let stop = shutdown.clone();
    let server = axum::serve(listener, service.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let too_late = async {
        shutdown.cancelled().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        result = server.into_future() => result,
        () = too_late => {
            tracing::warn!(grace = ?GRACE, "connections were still open at the end");
            Ok(())
        }
    }
}
