//! Documents about the kinds that are served: made once for each set of kinds, and kept as the bytes that are sent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{openapi, reply};
use crate::registry::Kinds;

/// One document, and the hash that tells it from another.
#[derive(Debug)]
pub struct Document {
    pub bytes: Bytes,
    pub hash: String,
}

/// What was made of the kinds served last. As many documents as these kinds have: what nobody serves is not kept.
#[derive(Default)]
pub struct Shelf(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    kinds: Kinds,
    documents: HashMap<String, Arc<Document>>,
}

impl Shelf {
    /// The document of this name, made now if it has not been made of these kinds yet. None: it cannot be made.
    pub fn get<B: Into<Bytes>>(
        &self,
        kinds: &Kinds,
        name: &str,
        make: impl FnOnce() -> Option<B>,
    ) -> Option<Arc<Document>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = kept.documents.get(name).filter(|_| kept.kinds.is_same(kinds)) {
            return Some(Arc::clone(document));
        }
        drop(kept);
        let bytes: Bytes = make()?.into();
        let document = Arc::new(Document { hash: openapi::hash(&bytes), bytes });
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.kinds.is_same(kinds) {
            *kept = Kept { kinds: kinds.clone(), documents: HashMap::new() };
        }
        kept.documents.insert(name.to_owned(), Arc::clone(&document));
        Some(document)
    }
}

impl Document {
    /// The document, or 304 for a client that has it.
    pub fn answer(&self, media: &'static str, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let held = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let same = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == etag;
        let mut response = if held.flat_map(|tags| tags.split(',')).any(|tag| same(tag.trim())) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            reply::bytes(StatusCode::OK, media, self.bytes.clone())
        };
        if let Ok(etag) = HeaderValue::try_from(etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}
