//! The end of what no file names any longer.

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::{
    super::{
        apply::{is_ours, kind_of, name_of, uid_of},
        diff::{Plan, Prune},
        files::Listing,
        load::ObjectId,
        origin::Origin,
    },
    Syncer,
};
use crate::{
    api::source::{FileError, InventoryEntry, Source, SourceReason},
    registry::{ApiError, ApiResult, DeleteOptions, Deleted, Reason},
    runtime::events::Note,
};

/// Before anything is deleted the files rest so long: a save that truncates first, or that comes in pieces over a network,
/// is over by then, or has changed a file meanwhile.
const QUIET: Duration = Duration::from_millis(500);

/// What no file names and is still there.
#[derive(Debug, Default)]
pub struct Surplus {
    pub left: Vec<InventoryEntry>,
    /// On their way out.
    pub pending: usize,
}

enum Left {
    Nothing,
    Kept,
    Pending,
}

fn prune_error(entry: &InventoryEntry, error: &ApiError) -> FileError {
    let (file, line) = entry.file.rsplit_once(':').unwrap_or((&entry.file, ""));
    let message = format!("{} was here and cannot be deleted: {error}", ObjectId::of(entry));
    FileError { file: file.to_owned(), line: line.parse().ok(), message }
}

impl Syncer {
    /// What no file names: deletes it if that may be, and answers what is left of it. None: the files changed meanwhile.
    pub(super) async fn surplus(
        &mut self,
        source: &Source,
        changing: Option<&Listing>,
        plan: &Plan,
        errors: &mut Vec<FileError>,
    ) -> Option<Surplus> {
        if plan.surplus.is_empty() {
            return Some(Surplus::default());
        }
        let delete = plan.prune == Prune::Yes && errors.is_empty();
        if delete
            && let Some(listing) = changing
            && !self.rests(source, listing).await
        {
            return None;
        }
        let mut surplus = Surplus::default();
        let others = match self.others(source).await {
            Ok(others) => others,
            Err(error) => {
                errors.extend(plan.surplus.iter().map(|entry| prune_error(entry, &error)));
                return Some(Surplus { left: plan.surplus.clone(), ..surplus });
            }
        };
        for entry in &plan.surplus {
            if others.keep(&ObjectId::of(entry)) {
                info!(object = %ObjectId::of(entry), "no longer ours: another Source keeps it");
                continue;
            }
            match self.leave(source, entry, delete).await {
                Ok(Left::Nothing) => {}
                Ok(Left::Kept) => surplus.left.push(entry.clone()),
                Ok(Left::Pending) => {
                    surplus.pending += 1;
                    surplus.left.push(entry.clone());
                }
                Err(error) => {
                    surplus.left.push(entry.clone());
                    errors.push(prune_error(entry, &error));
                }
            }
        }
        Some(surplus)
    }

    /// Nothing is written there for a while, and it still says the same.
    async fn rests(&mut self, source: &Source, listing: &Listing) -> bool {
        // A commit is whole.
        if listing.git.is_some() {
            return true;
        }
        // Cancel-safe: a notification that is not taken here is the next pass's.
        tokio::select! {
            biased;
            () = self.files_changed() => return false,
            () = sleep(QUIET) => {}
        }
        let interval = Duration::from_secs(u64::from(source.spec.interval_seconds.max(1)));
        self.read(&Origin::of(source, interval)).await.0 == *listing
    }

    async fn leave(&self, source: &Source, entry: &InventoryEntry, delete: bool) -> ApiResult<Left> {
        let id = ObjectId::of(entry);
        let registry = &self.gitops.registry;
        // A kind that is gone took its objects along.
        let Some(kind) = kind_of(registry, &id, None) else { return Ok(Left::Nothing) };
        let object = match registry.get(&kind, &name_of(&id)).await {
            Ok(version) => version.object.clone(),
            Err(error) if error.reason == Reason::NotFound => return Ok(Left::Nothing),
            Err(error) => return Err(error),
        };
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(Left::Pending);
        }
        if !is_ours(&object, entry) {
            info!(object = %id, "no longer ours: it was made anew by somebody else, and stays");
            return Ok(Left::Nothing);
        }
        if !delete {
            return Ok(Left::Kept);
        }
        let options = DeleteOptions { uid: uid_of(&object), ..DeleteOptions::default() };
        let deleted = registry.delete(&kind, &name_of(&id), &options).await;
        let left = match deleted {
            Ok(Deleted::Gone(_)) => Left::Nothing,
            Ok(Deleted::Pending(_)) => Left::Pending,
            Err(error) if error.reason == Reason::NotFound => return Ok(Left::Nothing),
            Err(error) => return Err(error),
        };
        info!(object = %id, was = %entry.file, "deleted, no file names it any longer");
        let message = format!("{id} is deleted: it was in {}, and no file names it any longer", entry.file);
        self.tell(source, Note::normal(SourceReason::Pruning.as_str(), "Delete", message));
        Ok(left)
    }
}
