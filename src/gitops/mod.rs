//! Files in: every [`Source`](crate::api::source::Source) names a directory or a git repository, and the objects its files state are kept as they state it.
//!
//! What a file states, the file owns (server-side apply as manager `gitops`): a change by anyone else is set back, with a
//! warning that names file and line. What files leave out stays with whoever writes it. What files no longer name is
//! deleted, under these rules:
//!
//! * Absence counts only when everything was read and everything is valid: one broken file stops all deleting, not the
//!   applying of the others.
//! * A directory that cannot be read says nothing. An empty one is believed only if it is the very directory (device and
//!   inode) that had files before; otherwise it may be an unmounted disk, and any file in it, even one with only a
//!   comment, says that it is meant.
//! * Only objects of the inventory that still carry our fields are deleted, and none that another Source keeps.
//! * Every state that was applied without any error is kept as a SourceRevision. While `spec.pin` names one, its objects are
//!   applied in the place of what the files say; the rules are the same.
//! * Deleting the Source itself leaves its objects alone. To remove them, remove their files first.
//!
//! | file | question |
//! |---|---|
//! | [`files`] | what is in a directory, and when does it change |
//! | [`git`] | the same for a repository: which commit is it now, what does it say |
//! | [`origin`] | where files come from, and what a pass takes from there |
//! | [`load`] | which objects, and what is wrong |
//! | [`compose`] | what a Workload takes from a Compose file |
//! | [`others`] | which of them are another Source's |
//! | [`diff`] | what to apply, what to delete |
//! | [`apply`] | one document into the registry |
//! | [`history`] | what a new state changed, which former ones are kept, what going back to one means |
//! | [`revisions`] | former states into the registry, and out of it |
//! | [`sync`] | one pass |
//! | [`standing`] | what need not be read or applied again |
//! | [`status`] | what a pass says |
//! | [`watch`] | who changed our objects |
//! | [`run`] | when to pass |

pub mod apply;
mod compose;
pub mod diff;
pub mod files;
pub mod git;
pub mod history;
pub mod load;
mod origin;
pub mod others;
mod revisions;
pub mod run;
mod standing;
pub mod status;
pub mod sync;
pub mod watch;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::Path};

use serde_json::json;

pub use self::{
    apply::apply_documents,
    load::LoadedFiles,
    run::spawn,
    sync::{Gitops, Next, Syncer},
};
use crate::registry::{ApiError, ApiResult, Kinds, ObjectName, Patch, Reason, Registry, WriteOptions};

/// The Source that `gaia serve --desired DIR` keeps.
pub const DESIRED: &str = "desired";

/// Reads a directory once, for `gaia plan`: the same rules as the live syncer.
pub fn load_directory(directory: &Path, kinds: &Kinds) -> LoadedFiles {
    let mut also = BTreeSet::new();
    let (listing, mut loaded) = loop {
        let listing = files::real::read_once(directory, &also);
        let loaded = load::load(&listing, kinds);
        if loaded.beside.is_subset(&also) {
            break (listing, loaded);
        }
        also.extend(loaded.beside);
    };
    if let Err(why) = listing.root {
        let message = format!("{} {why}", directory.display());
        loaded.errors.push(crate::api::source::FileError { file: ".".to_owned(), line: None, message });
    }
    loaded
}

/// Makes the Source `desired` point at `directory`. Its other fields stay as they are.
pub async fn ensure_desired(registry: &Registry, directory: &Path) -> ApiResult<()> {
    let directory = std::path::absolute(directory)
        .map_err(|error| ApiError::new(Reason::BadRequest, format!("{}: {error}", directory.display())))?;
    let kind = registry
        .kinds()
        .by_kind(crate::api::GROUP, crate::api::VERSION, "Source")
        .ok_or_else(|| ApiError::new(Reason::NotFound, "the kind Source is not served"))?;
    let object = json!({
        "apiVersion": format!("{}/{}", crate::api::GROUP, crate::api::VERSION), "kind": "Source",
        "metadata": {"name": DESIRED}, "spec": {"directory": directory},
    });
    let options = WriteOptions { field_manager: "gaia".to_owned(), force: true, ..WriteOptions::default() };
    let name = ObjectName { namespace: None, name: DESIRED.to_owned() };
    // It can be of one of them only, and an apply takes nothing away that others stated.
    if registry.get(&kind, &name).await.is_ok_and(|source| source.object.pointer("/spec/git").is_some()) {
        let instead = json!({"spec": {"git": null, "directory": object["spec"]["directory"]}});
        registry.patch(&kind, &name, Patch::Merge(instead), &options).await?;
    }
    registry.patch(&kind, &name, Patch::Apply(object), &options).await.map(|_| ())
}
