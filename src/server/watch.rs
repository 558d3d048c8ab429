//! The Kubernetes watch: one JSON document a line, over HTTP.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::Response,
};
use futures::{Stream, stream};
use serde_json::{Value, json};

use super::{
    ServerState,
    feed::{Feed, From, Told, Wish},
    metrics::OpenWatch,
    negotiate::{Accepted, Format, Shape},
    query::{Params, invalid_option},
    reply,
    shape::Form,
    table::{Table, partial},
};
use crate::{
    registry::{ApiError, ApiResult, Kind, Reason, Selector},
    store::{ChangeKind, Object, Revision},
};

/// Marks an answer that goes on for long and must not be held back for compression.
#[derive(Debug, Clone, Copy)]
pub struct Streaming;

/// Upstream lets a watch without a timeout live for between half an hour and an hour, so that clients spread.
const SHORTEST_DEFAULT_SECONDS: u64 = 1800;
/// Nobody needs longer; also keeps the arithmetic of deadlines in range.
const LONGEST_SECONDS: u64 = 86_400;

/// Answers `?watch=true`.
pub async fn answer(
    state: &ServerState,
    kind: &Kind,
    namespace: Option<&str>,
    selector: Selector,
    params: &Params,
    form: Form,
) -> ApiResult<Response> {
    if form.accepted.format != Format::Json {
        return Err(ApiError::new(Reason::NotAcceptable, "a watch is written as application/json only"));
    }
    let wish = wish(params, selector)?;
    let feed = Feed::open(&state.registry, kind, namespace, wish, state.shutdown.clone()).await?;
    let lines = Lines::new(state, kind, form);
    let mut response = reply::bytes(
        StatusCode::OK,
        "application/json",
        Body::from_stream(stream_of(feed, lines, state.metrics.watching())),
    );
    response.extensions_mut().insert(Streaming);
    Ok(response)
}

fn wish(params: &Params, selector: Selector) -> ApiResult<Wish> {
    let version = params.filled("resourceVersion");
    let initial = params.get("sendInitialEvents").map(|_| params.flag("sendInitialEvents")).transpose()?;
    if initial.is_some() && params.get("resourceVersionMatch") != Some("NotOlderThan") {
        let why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(invalid_option("ListOptions", "resourceVersionMatch", ("FieldValueForbidden", why.to_owned())));
    }
    let from = match (initial, version) {
        (Some(true), _) | (None, None | Some("0")) => From::Everything,
        (Some(false), None | Some("0")) => From::Now,
        (_, Some(text)) => From::After(revision(text)?),
    };
    let seconds = params.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or_else(|| SHORTEST_DEFAULT_SECONDS + fastrand::u64(..SHORTEST_DEFAULT_SECONDS));
    Ok(Wish {
        from,
        selector,
        bookmarks: params.flag("allowWatchBookmarks")?,
        mark_initial_end: initial == Some(true),
        timeout: Some(Duration::from_secs(seconds.min(LONGEST_SECONDS))),
    })
}

/// A resourceVersion a client got from us.
pub fn revision(text: &str) -> ApiResult<Revision> {
    let invalid = |_| ApiError::new(Reason::BadRequest, format!("invalid resource version {text:?}"));
    text.parse().map(Revision).map_err(invalid)
}

fn stream_of(feed: Feed, lines: Lines, open: OpenWatch) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((feed, lines, open), |(mut feed, mut lines, open)| async move {
        let told = feed.next().await?;
        let mut out = Vec::new();
        for told in told {
            lines.write(&told, &mut out);
        }
        Some((Ok(Bytes::from(out)), (feed, lines, open)))
    })
}

/// The type of an event and its object, in the form of one transport's choice.
pub fn type_of(told: &Told) -> &'static str {
    match told {
        Told::Initial(_) | Told::Changed(ChangeKind::Created, _) => "ADDED",
        Told::Changed(ChangeKind::Updated, _) => "MODIFIED",
        Told::Changed(ChangeKind::Deleted, _) => "DELETED",
        Told::Bookmark { .. } => "BOOKMARK",
        Told::Failed(_) => "ERROR",
    }
}

/// `{"type":…,"object":…}` around bytes that are JSON already.
pub fn write_event(type_: &str, object: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(type_.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.push(b'}');
}

/// The object of a bookmark: nothing but where we are.
pub fn bookmark(kind: &str, api_version: &str, revision: Revision, initial_end: bool) -> Value {
    let mut object = json!({
        "kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": revision.to_string()},
    });
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    object
}

/// Writes events in the form the client asked for.
struct Lines {
    kind: String,
    api_version: String,
    form: Form,
    table: Option<Table>,
    first: bool,
    clock: std::sync::Arc<dyn crate::runtime::clock::Clock>,
}

impl Lines {
    fn new(state: &ServerState, kind: &Kind, form: Form) -> Self {
        let table = match form.accepted {
            Accepted { shape: Shape::Table(version), .. } => Some(Table::new(kind, version, form.include)),
            Accepted { shape: Shape::Object | Shape::Partial(_), .. } => None,
        };
        let (name, api_version) = match form.accepted.shape {
            Shape::Partial(version) => ("PartialObjectMetadata".to_owned(), format!("meta.k8s.io/{version}")),
            Shape::Object | Shape::Table(_) => (kind.kind.clone(), kind.api_version()),
        };
        Self { kind: name, api_version, form, table, first: true, clock: state.clock.clone() }
    }

    fn write(&mut self, told: &Told, out: &mut Vec<u8>) {
        let type_ = type_of(told);
        match told {
            Told::Initial(version) | Told::Changed(_, version) => match self.reshaped(&version.object) {
                None => write_event(type_, &version.json, out),
                Some(object) => write_event(type_, object.to_string().as_bytes(), out),
            },
            Told::Bookmark { revision, initial_end } => {
                let object = self.bookmark(*revision, *initial_end);
                write_event(type_, object.to_string().as_bytes(), out);
            }
            Told::Failed(error) => write_event(type_, error.to_status().to_string().as_bytes(), out),
        }
        out.push(b'\n');
    }

    /// None: as it is stored. Nothing is looked into then: a watch that tells a thousand objects would leave as many trees behind.
    fn reshaped(&mut self, object: &Object) -> Option<Value> {
        match (&self.table, self.form.accepted.shape) {
            (Some(table), _) => {
                let object = object.peek();
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let with_definitions = std::mem::take(&mut self.first);
                Some(table.of(metadata, [&*object].into_iter(), self.clock.now(), with_definitions))
            }
            (None, Shape::Partial(version)) => Some(partial(&object.peek(), version)),
            (None, Shape::Object | Shape::Table(_)) => None,
        }
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Value {
        let object = bookmark(&self.kind, &self.api_version, revision, initial_end);
        match &self.table {
            None => object,
            Some(table) => {
                let metadata = json!({"resourceVersion": revision.to_string()});
                let mut out = table.of(metadata, std::iter::empty::<&Value>(), self.clock.now(), false);
                out["rows"] = json!([{"cells": [], "object": partial(&object, "v1")}]);
                out
            }
        }
    }
}
