//! Keeps what a Source has applied as SourceRevisions, and reads them again. Only the Source's own [`Syncer`](super::Syncer)
//! writes them.
//!
//! A revision is stored once everything in it has been applied, and before the Source's status names it: a crash in between is
//! followed by a pass that finds it there and takes its number.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use tracing::info;

use super::{
    history::{DEFAULT_LIMIT, Held, MOST_BYTES, changes, manifests, restored, surplus},
    load::LoadedFiles,
};
use crate::{
    api::{
        source::Source,
        sourcerevision::{SourceRevision, SourceRevisionCause, SourceRevisionSpec},
    },
    registry::{ApiResult, ObjectName, Reason},
    runtime::{objects::Objects, registry_objects::RegistryObjects},
};

/// The revisions of one Source.
pub struct Revisions<'a> {
    pub objects: RegistryObjects,
    pub source: &'a Source,
}

/// What became of a state that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Under this number.
    As(i64),
    /// And why not.
    Not(String),
}

impl Revisions<'_> {
    /// What was applied under this number. The inner error says why it cannot be had.
    pub async fn load(&self, revision: i64) -> ApiResult<Result<LoadedFiles, String>> {
        let found = self.objects.get::<SourceRevision>(&name(&self.name_of(revision))).await?;
        let Some(found) = found.filter(|found| self.is_ours(found)) else {
            return Ok(Err(format!("there is no revision {revision} of it")));
        };
        let kinds = self.objects.registry.kinds();
        Ok(restored(&found.spec, &kinds).map_err(|why| format!("revision {revision} cannot be had back: {why}")))
    }

    /// Keeps what has been applied, unless the last revision holds just that.
    pub async fn record(
        &self,
        loaded: &LoadedFiles,
        mut cause: SourceRevisionCause,
        now: Timestamp,
    ) -> ApiResult<Kept> {
        let named = self.named().await?;
        let digest = loaded.revision();
        let last = named.iter().filter(|known| self.is_ours(known)).max_by_key(|known| known.spec.revision);
        if let Some(last) = last.filter(|last| last.spec.digest == digest) {
            return Ok(Kept::As(last.spec.revision));
        }
        let Some(manifests) = manifests(&loaded.documents) else {
            return Ok(Kept::Not(format!("it is more than {MOST_BYTES} bytes, compressed")));
        };
        let before =
            last.and_then(|last| restored(&last.spec, &self.objects.registry.kinds()).ok()).unwrap_or_default();
        cause.changes = changes(&before.documents, &loaded.documents);
        // Those of a deleted namesake, which wait for the collector, have their numbers still.
        let taken = named.iter().map(|known| known.spec.revision).max().unwrap_or(0);
        let told = self.source.status.as_ref().and_then(|status| status.revision).unwrap_or(0);
        let revision = taken.max(told) + 1;
        let spec = SourceRevisionSpec {
            source: self.source.name_any(),
            revision,
            since: Time(now),
            digest,
            cause,
            objects: u32::try_from(loaded.documents.len()).unwrap_or(u32::MAX),
            manifests,
        };
        let mut object = SourceRevision::new(&self.name_of(revision), spec);
        object.metadata.owner_references = self.source.controller_owner_ref(&()).map(|owner| vec![owner]);
        match self.objects.create(object).await {
            Ok(_) => Ok(Kept::As(revision)),
            // A name that is too long, or what it says beside the manifests.
            Err(error) if matches!(error.reason, Reason::Invalid | Reason::RequestEntityTooLarge) => {
                Ok(Kept::Not(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the revisions that are too many.
    pub async fn tidy(&self) -> ApiResult<()> {
        let ours: Vec<_> =
            self.named().await?.iter().filter(|known| self.is_ours(known)).map(|r| Held::of(r)).collect();
        let spec = &self.source.spec;
        for surplus in surplus(&ours, spec.revision_history_limit.unwrap_or(DEFAULT_LIMIT), spec.pin) {
            self.objects.delete::<SourceRevision>(&name(&surplus)).await?;
            info!(source = %self.source.name_any(), revision = %surplus, "an old revision is no longer kept");
        }
        Ok(())
    }

    async fn named(&self) -> ApiResult<Vec<Arc<SourceRevision>>> {
        let source = self.source.name_any();
        let mut all = self.objects.list::<SourceRevision>(None).await?;
        all.retain(|revision| revision.spec.source == source);
        Ok(all)
    }

    fn is_ours(&self, revision: &SourceRevision) -> bool {
        let uid = self.source.meta().uid.as_ref();
        revision.owner_references().iter().any(|owner| Some(&owner.uid) == uid)
    }

    fn name_of(&self, revision: i64) -> String {
        format!("{}-{revision}", self.source.name_any())
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: None, name: name.to_owned() }
}
