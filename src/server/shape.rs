//! Objects and lists put into the form the client asked for. In the plain form stored bytes are passed on as they are.

use std::borrow::Cow;

use axum::{body::Bytes, http::StatusCode, response::Response};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    negotiate::{Accepted, Format, Shape},
    reply,
    table::{IncludeObject, Table, partial},
};
use crate::{
    registry::{ApiResult, Kind, List},
    store::Version,
};

/// How one request wants its objects.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub accepted: Accepted,
    pub pretty: bool,
    pub include: IncludeObject,
    pub now: Timestamp,
}

/// One object.
pub fn object(status: StatusCode, form: Form, kind: &Kind, version: &Version) -> ApiResult<Response> {
    match form.accepted {
        Accepted { format: Format::Json, shape: Shape::Object } if !form.pretty => {
            Ok(reply::bytes(status, "application/json", version.json.clone()))
        }
        Accepted { shape: Shape::Object, .. } => {
            reply::value(status, form.accepted, form.pretty, &version.object.peek())
        }
        Accepted { shape: Shape::Partial(v), .. } => {
            reply::value(status, form.accepted, form.pretty, &partial(&version.object.peek(), v))
        }
        Accepted { shape: Shape::Table(v), .. } => {
            let metadata = json!({"resourceVersion": version.revision.to_string()});
            let table = Table::new(kind, v, form.include);
            let table = table.of(metadata, [version.object.peek()].into_iter(), form.now, true);
            reply::value(status, form.accepted, form.pretty, &table)
        }
    }
}

/// A list.
pub fn list(form: Form, kind: &Kind, list: &List) -> ApiResult<Response> {
    let metadata = list_metadata(list);
    let objects = || list.items.iter().map(|version| version.object.peek());
    let document = |kind: &str, api_version: &str, items: Value| json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
    let value = match form.accepted {
        Accepted { format: Format::Json, shape: Shape::Object } if !form.pretty => {
            let body = list_bytes(kind, &metadata, list);
            return Ok(reply::bytes(StatusCode::OK, "application/json", body));
        }
        Accepted { shape: Shape::Object, .. } => {
            document(&kind.list_kind, &kind.api_version(), objects().map(Cow::into_owned).collect())
        }
        Accepted { shape: Shape::Partial(v), .. } => {
            let items = objects().map(|object| partial(&object, v)).collect();
            document("PartialObjectMetadataList", &format!("meta.k8s.io/{v}"), items)
        }
        Accepted { shape: Shape::Table(v), .. } => {
            Table::new(kind, v, form.include).of(metadata, objects(), form.now, true)
        }
    };
    reply::value(StatusCode::OK, form.accepted, form.pretty, &value)
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), list.revision.to_string().into());
    if let Some(token) = &list.continue_token {
        metadata.insert("continue".to_owned(), token.as_str().into());
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
}

/// The list's own few words around the objects' stored bytes.
fn list_bytes(kind: &Kind, metadata: &Value, list: &List) -> Bytes {
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        Value::from(kind.list_kind.as_str()),
        Value::from(kind.api_version()),
    );
    let length = list.items.iter().map(|version| version.json.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(head.len() + length + 2);
    out.extend_from_slice(head.as_bytes());
    for (i, version) in list.items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&version.json);
    }
    out.extend_from_slice(b"]}");
    out.into()
}
