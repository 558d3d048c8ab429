//! What a process remembers of the last pass over a Source, so that nothing is read or applied again that stands as it did. A new
//! process knows nothing, and does all of it once.

use std::sync::Arc;

use serde_json::Value;

use super::{
    apply::{kind_of, name_of},
    files::Listing,
    load::{Document, LoadedFiles, load},
    watch::is_left_alone,
};
use crate::{
    registry::{Kind, Kinds, Registry},
    store::Version,
};

/// What the files said last.
pub struct LastRead {
    listing: Listing,
    kinds: Arc<Kinds>,
    loaded: LoadedFiles,
}

impl LastRead {
    /// What `listing` says. Most passes are not for the files, and find them as they were. What is known of the repository is
    /// compared too: it changes seldom, and reading once more is harmless.
    pub fn load(last: &mut Option<Self>, listing: &Listing, kinds: Arc<Kinds>) -> LoadedFiles {
        if let Some(last) = last.as_ref().filter(|last| last.listing == *listing && last.kinds.is_same(&kinds)) {
            return last.loaded.clone();
        }
        let loaded = load(listing, &kinds);
        *last = Some(Self { listing: listing.clone(), kinds, loaded: loaded.clone() });
        loaded
    }
}

/// What this process applied last.
#[derive(Debug, Clone)]
pub struct Remembered {
    pub wish: Value,
    pub kind: Arc<Kind>,
    /// What came of it, or what others have made of it since without touching what counts.
    pub version: Arc<Version>,
}

impl Remembered {
    /// Would applying `document` change nothing? It is the very same, and the object has been left as it was then.
    pub async fn stands(&mut self, registry: &Registry, document: &Document) -> bool {
        if self.wish != document.object {
            return false;
        }
        let kind = kind_of(registry, &document.id, Some(&document.version));
        let Some(kind) = kind.filter(|kind| Arc::ptr_eq(kind, &self.kind)) else { return false };
        let Ok(now) = registry.get(&kind, &name_of(&document.id)).await else { return false };
        let same = now.revision == self.version.revision || is_left_alone(&self.version.object, &now.object);
        if same {
            self.version = now;
        }
        same
    }
}
