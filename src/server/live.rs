//! Change streams for browsers and scripts: `/ws/watch` and `/sse/watch`. The same feed as the Kubernetes watch, with
//! names in the query, and over all our kinds when none is named.
//!
//! Both resume: `resourceVersion` in the query, or the `Last-Event-ID` a browser sends by itself.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{
        FromRequestParts, Request,
        ws::{Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::{
    ServerState,
    feed::{Feed, From, Told, Wish, broken},
    metrics::OpenWatch,
    query::Params,
    watch::{Streaming, bookmark, revision, type_of, write_event},
};
use crate::{
    registry::{ApiError, ApiResult, Kind, Kinds, Reason, Selector, selector::Filtered},
    store::{Change, Prefix, Revision, StoreResult, Version, Watch},
};

/// All that may be asked. A filter that is spelled wrongly would otherwise let everything through.
const PARAMETERS: [&str; 8] = [
    "kind",
    "plural",
    "group",
    "namespace",
    "labelSelector",
    "fieldSelector",
    "resourceVersion",
    "allowWatchBookmarks",
];

/// A client that takes longer than this for one frame has gone without saying so.
const SEND_DEADLINE: Duration = Duration::from_secs(60);
const PING_PERIOD: Duration = Duration::from_secs(20);
/// Nothing heard for so long, pongs included: gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(65);

/// `/ws/watch`: text frames `{"type":…,"object":…}`.
///
/// A client that reads slowly slows nobody: its cursor stays behind, and once the log has moved past it the client
/// gets an ERROR frame and the connection is closed.
pub async fn websocket(state: &ServerState, params: &Params, request: Request) -> ApiResult<Response> {
    let (mut parts, _) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Err(ApiError::new(Reason::BadRequest, rejection.body_text())),
    };
    let bookmarks = params.flag("allowWatchBookmarks")?;
    let from = start(params.filled("resourceVersion"))?;
    let feed = open(state, params, from, bookmarks, false).await?;
    let open = state.metrics.watching();
    // The task ends with the feed: on shutdown, on silence, or when the client goes.
    Ok(upgrade.max_message_size(64 * 1024).on_upgrade(move |socket| pump(socket, feed, open)))
}

async fn pump(mut socket: WebSocket, mut feed: Feed, _open: OpenWatch) {
    let mut ping = tokio::time::interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    let mut heard = Instant::now();
    loop {
        // `recv` and the feed's `next` lose nothing when dropped.
        let frames = tokio::select! {
            biased;
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                // Pings are answered by axum; whatever else a client says only proves that it is there.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Binary(_))) => {
                    heard = Instant::now();
                    continue;
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_LIMIT {
                    return;
                }
                vec![Message::Ping(Default::default())]
            }
            told = feed.next() => match told {
                Some(told) => told.iter().map(|told| Message::Text(frame(told).into())).collect(),
                None => {
                    close(&mut socket).await;
                    return;
                }
            },
        };
        for frame in frames {
            match timeout(SEND_DEADLINE, socket.send(frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

async fn close(socket: &mut WebSocket) {
    let frame = axum::extract::ws::CloseFrame { code: close_code::AWAY, reason: "the watch is over".into() };
    // Best effort: a client that is gone, or does not take it, will notice the closed connection.
    if timeout(Duration::from_secs(1), socket.send(Message::Close(Some(frame)))).await.is_err() {
        tracing::debug!("a WebSocket client did not take the closing frame");
    }
}

/// `/sse/watch`: `event:` is the type, `id:` the resourceVersion to resume from.
pub async fn sse(state: &ServerState, params: &Params, headers: &HeaderMap) -> ApiResult<Response> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let from = start(last.or_else(|| params.filled("resourceVersion")))?;
    let feed = open(state, params, from, true, true).await?;
    let open = state.metrics.watching();
    let events = stream::unfold((feed, open), |(mut feed, open)| async move {
        let told = feed.next().await?;
        let events: Vec<Result<sse::Event, Infallible>> = told.iter().map(|told| Ok(event(told))).collect();
        Some((stream::iter(events), (feed, open)))
    });
    let mut response = Sse::new(events.flatten()).keep_alive(KeepAlive::new().interval(PING_PERIOD)).into_response();
    response.extensions_mut().insert(Streaming);
    Ok(response)
}

/// Objects there were at the start carry no id, for they come in the order of names: resuming after one of them would
/// skip others. The bookmark after them does; a bookmark is an id and nothing else, which a browser keeps to itself.
fn event(told: &Told) -> sse::Event {
    let event = sse::Event::default();
    match told {
        Told::Initial(_) => event.event(type_of(told)).data(frame(told)),
        Told::Changed(_, version) => event.event(type_of(told)).id(version.revision.to_string()).data(frame(told)),
        Told::Bookmark { revision, .. } => event.id(revision.to_string()),
        // The empty id makes the browser forget where it was, so that it begins afresh.
        Told::Failed(_) => event.event(type_of(told)).id("").data(frame(told)),
    }
}

fn frame(told: &Told) -> String {
    let mut out = Vec::new();
    match told {
        Told::Initial(version) | Told::Changed(_, version) => write_event(type_of(told), &version.json, &mut out),
        Told::Bookmark { revision, initial_end } => {
            let object = bookmark("Bookmark", "gaia.dev/v1alpha1", *revision, *initial_end);
            write_event(type_of(told), object.to_string().as_bytes(), &mut out);
        }
        Told::Failed(error) => write_event(type_of(told), error.to_status().to_string().as_bytes(), &mut out),
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn start(version: Option<&str>) -> ApiResult<From> {
    match version {
        None | Some("0") => Ok(From::Everything),
        Some(text) => revision(text).map(From::After),
    }
}

async fn open(
    state: &ServerState,
    params: &Params,
    from: From,
    bookmarks: bool,
    mark_initial_end: bool,
) -> ApiResult<Feed> {
    params.only(&PARAMETERS)?;
    let kinds = state.registry.kinds();
    let namespace = params.filled("namespace");
    let (labels, fields) = (params.filled("labelSelector"), params.filled("fieldSelector"));
    let mark_initial_end = mark_initial_end && from == From::Everything;
    let wish = |selector| Wish { from, selector, bookmarks, mark_initial_end, timeout: None };
    match named_kind(&kinds, params)? {
        Some(kind) => {
            let selector = Selector::parse(&kind, labels, fields)?;
            let namespace = namespace.filter(|_| kind.namespaced);
            Feed::open(&state.registry, &kind, namespace, wish(selector), state.shutdown.clone()).await
        }
        None => {
            let selector = common_selector(&kinds, labels, fields)?;
            everything(state, &kinds, namespace, wish(selector)).await
        }
    }
}

/// `kind=Workload`, or by plural, singular or short name; `group` tells namesakes apart. None: all our kinds.
fn named_kind(kinds: &Kinds, params: &Params) -> ApiResult<Option<Arc<Kind>>> {
    let Some(name) = params.filled("kind").or_else(|| params.filled("plural")) else { return Ok(None) };
    let group = params.get("group");
    let called = |kind: &Kind| {
        kind.kind.eq_ignore_ascii_case(name)
            || kind.plural.eq_ignore_ascii_case(name)
            || kind.singular.eq_ignore_ascii_case(name)
            || kind.short_names.iter().any(|short| short.eq_ignore_ascii_case(name))
    };
    kinds
        .iter()
        .filter(|kind| called(kind) && group.is_none_or(|group| kind.group == group))
        .min_by_key(|kind| kind.builtin)
        .cloned()
        .map(Some)
        .ok_or_else(|| ApiError::new(Reason::NotFound, format!("no kind is called {name:?}")))
}

fn ours(kinds: &Kinds) -> impl Iterator<Item = &Arc<Kind>> {
    kinds.iter().filter(|kind| !kind.builtin)
}

/// A selector that means the same for every kind of ours. Fields that only some kinds have are refused by the others.
fn common_selector(kinds: &Kinds, labels: Option<&str>, fields: Option<&str>) -> ApiResult<Selector> {
    let mut common = Selector::default();
    for kind in ours(kinds) {
        common = Selector::parse(kind, labels, fields)?;
    }
    Ok(common)
}

/// A feed over all our kinds.
async fn everything(state: &ServerState, kinds: &Kinds, namespace: Option<&str>, wish: Wish) -> ApiResult<Feed> {
    let scope = Scope {
        kinds: ours(kinds).map(|kind| (kind.group.clone(), kind.plural.clone())).collect(),
        namespace: namespace.map(str::to_owned),
    };
    let store = state.registry.store();
    let mut pending = VecDeque::new();
    let after = match wish.from {
        From::After(revision) => revision,
        From::Now => store.revision().await.map_err(broken)?,
        From::Everything => {
            let snapshot = store.list(&Prefix::all()).await.map_err(broken)?;
            let selected =
                |version: &Version| wish.selector.is_empty() || wish.selector.matches(&version.object.peek());
            let seen = |version: &Arc<Version>| scope.covers(version) && selected(version);
            pending.extend(snapshot.items.into_iter().filter(seen).map(Told::Initial));
            snapshot.revision
        }
    };
    let cursor = store.watch(Prefix::all(), after).await.map_err(broken);
    let cursor = cursor.map(|inner| Box::new(Scoped { inner, scope }) as Box<dyn Watch>);
    let selector = wish.selector.clone();
    let cursor = cursor.map(|cursor| -> Box<dyn Watch> {
        if selector.is_empty() { cursor } else { Box::new(Filtered::new(cursor, selector)) }
    });
    Feed::start(pending, cursor, after, &wish, state.shutdown.clone())
}

/// Which keys a feed over several kinds covers.
struct Scope {
    kinds: HashSet<(String, String)>,
    namespace: Option<String>,
}

impl Scope {
    fn covers(&self, version: &Version) -> bool {
        let mut parts = version.key.as_str().splitn(4, '/');
        let (Some(group), Some(plural), Some(namespace)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        self.kinds.contains(&(group.to_owned(), plural.to_owned()))
            && self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}

/// A cursor over everything that tells only what its scope covers.
struct Scoped {
    inner: Box<dyn Watch>,
    scope: Scope,
}

impl Watch for Scoped {
    fn next(&mut self) -> futures::future::BoxFuture<'_, StoreResult<Vec<Change>>> {
        Box::pin(async move {
            loop {
                // The only await: a dropped call has taken nothing from the inner cursor.
                let mut changes = self.inner.next().await?;
                changes.retain(|change| self.scope.covers(&change.version));
                if !changes.is_empty() {
                    return Ok(changes);
                }
            }
        })
    }

    fn position(&self) -> Revision {
        self.inner.position()
    }

    fn catch_up(&mut self) -> Revision {
        self.inner.catch_up()
    }
}
