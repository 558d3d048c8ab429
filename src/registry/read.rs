//! Reading: get, list with pages pinned to one snapshot, watch.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{ApiError, ApiResult, Kind, List, ListOptions, ObjectName, Reason, Registry, events, store_error};
use crate::store::{Key, Prefix, Revision, Snapshot, Version, Watch};

/// Snapshots kept for later pages; the oldest goes first, and its list answers 410.
const MAX_SNAPSHOTS: usize = 32;

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
                       new list without the continue parameter.";

/// Lists whose first page was given out and that have more.
#[derive(Default)]
pub struct Pages(Mutex<VecDeque<(Prefix, Snapshot)>>);

impl Pages {
    fn keep(&self, prefix: &Prefix, snapshot: &Snapshot) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(p, s)| p == prefix && s.revision == snapshot.revision) {
            return;
        }
        if kept.len() == MAX_SNAPSHOTS {
            kept.pop_front();
        }
        kept.push_back((prefix.clone(), snapshot.clone()));
    }

    fn find(&self, prefix: &Prefix, revision: Revision) -> Option<Snapshot> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(p, s)| p == prefix && s.revision == revision).map(|(_, s)| s.clone())
    }
}

/// What a continue token says: which snapshot, and after which key.
#[derive(Serialize, Deserialize)]
struct Token {
    rv: Revision,
    start: String,
}

impl Token {
    fn encode(&self) -> ApiResult<String> {
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).map_err(ApiError::internal)?))
    }

    fn decode(text: &str) -> ApiResult<Self> {
        let invalid = |e: &dyn std::fmt::Display| ApiError::bad_request(format!("continue key is not valid: {e}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| invalid(&e))?;
        serde_json::from_slice(&bytes).map_err(|e| invalid(&e))
    }
}

impl Registry {
    pub async fn get(&self, kind: &Kind, name: &ObjectName) -> ApiResult<Arc<Version>> {
        Ok(events::shown(kind, self.live(kind, name).await?))
    }

    /// The stored form.
    pub(super) async fn live(&self, kind: &Kind, name: &ObjectName) -> ApiResult<Arc<Version>> {
        let stored = self.stored(kind);
        let key = Key::new(&stored.group, &stored.plural, name.namespace.as_deref(), &name.name);
        let found = self.store.get(&key).await.map_err(|e| store_error(kind, &name.name, e))?;
        found.ok_or_else(|| ApiError::not_found(kind, &name.name))
    }

    fn prefix(&self, kind: &Kind, namespace: Option<&str>) -> Prefix {
        let stored = self.stored(kind);
        match namespace {
            Some(namespace) => Prefix::namespace(&stored.group, &stored.plural, namespace),
            None => Prefix::kind(&stored.group, &stored.plural),
        }
    }

    /// `namespace: None` lists all namespaces (or a cluster-scoped kind).
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, options: &ListOptions) -> ApiResult<List> {
        let prefix = self.prefix(kind, namespace);
        let token = options.continue_token.as_deref().filter(|t| !t.is_empty()).map(Token::decode).transpose()?;
        let snapshot = match &token {
            Some(token) => self.pages.find(&prefix, token.rv).ok_or_else(|| ApiError::new(Reason::Expired, EXPIRED))?,
            None => self.store.list(&prefix).await.map_err(|e| store_error(kind, "", e))?,
        };
        let start = token.as_ref().map(|t| &*t.start);
        let behind = snapshot.items.iter().filter(|v| start.is_none_or(|s| v.key.as_str() > s));
        let mut left = behind.map(|v| events::shown(kind, Arc::clone(v)));
        let mut left =
            left.by_ref().filter(|v| options.selector.is_empty() || options.selector.matches(&v.object.peek()));
        let Some(limit) = options.limit.filter(|&limit| limit > 0) else {
            return Ok(List {
                revision: snapshot.revision,
                items: left.collect(),
                continue_token: None,
                remaining: None,
            });
        };
        let items: Vec<Arc<Version>> = left.by_ref().take(limit).collect();
        let more = left.count();
        let (continue_token, remaining) = match items.last() {
            Some(last) if more > 0 => {
                self.pages.keep(&prefix, &snapshot);
                let token = Token { rv: snapshot.revision, start: last.key.as_str().to_owned() };
                // Upstream does not count what a selector would have to look at.
                (Some(token.encode()?), options.selector.is_empty().then_some(more))
            }
            _ => (None, None),
        };
        Ok(List { revision: snapshot.revision, items, continue_token, remaining })
    }

    /// A raw cursor of the kind: selectors are applied by [`selector::Filtered`](super::selector::Filtered), bookmarks
    /// are the server's.
    pub async fn watch(&self, kind: &Kind, namespace: Option<&str>, from: Revision) -> ApiResult<Box<dyn Watch>> {
        let prefix = self.prefix(kind, namespace);
        let watch = self.store.watch(prefix, from).await.map_err(|e| store_error(kind, "", e))?;
        let view = if kind.view { self.kinds().by_plural(&kind.group, &kind.version, &kind.plural) } else { None };
        Ok(match view {
            Some(view) => Box::new(events::Translated::new(watch, view)),
            None => watch,
        })
    }
}
