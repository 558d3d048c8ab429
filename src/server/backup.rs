//! `GET /backup`: every object as of one revision, as a file that `gaia restore` takes. Behind the tokens like every read: it
//! holds secrets, as a list of them does.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::task::spawn_blocking;

use super::reply;
use crate::{registry::ApiError, store::EmbeddedStore};

pub const PATH: &str = "/backup";

/// The revision that the file is of.
const REVISION: HeaderName = HeaderName::from_static("resource-version");

/// A [`Guest`](super::Guest)'s routes: the backups of this store.
pub fn backup(store: Arc<EmbeddedStore>) -> Router {
    Router::new().route(PATH, get(answer)).with_state(store)
}

async fn answer(State(store): State<Arc<EmbeddedStore>>) -> Response {
    let made = spawn_blocking(move || store.backup()).await;
    match made {
        Ok(Ok(backup)) => {
            let name = format!("attachment; filename=\"gaia-{}.backup\"", backup.revision);
            let headers = [
                (header::CONTENT_TYPE, "application/vnd.sqlite3".to_owned()),
                (header::CONTENT_DISPOSITION, name),
                (REVISION, backup.revision.to_string()),
            ];
            (headers, backup.bytes).into_response()
        }
        Ok(Err(error)) => reply::error(&ApiError::internal(error.chain())),
        Err(panic) => reply::error(&ApiError::internal(panic)),
    }
}
