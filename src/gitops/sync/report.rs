//! What a pass says: its end as status, events and log lines that agree, and on the way whatever somebody had changed.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde_json::Value;
use tracing::{info, warn};

use super::{
    super::{
        apply::Applied,
        git::{Failure, Known},
        load::Document,
        status::{Outcome, add_git, describe, status},
    },
    Syncer,
};
use crate::{
    api::source::{FETCHED, Source, SourceReason, SourceStatus},
    registry::ApiResult,
    runtime::events::Note,
};

impl Syncer {
    /// An unchanged wish that had to be written again was undone by somebody.
    pub(super) fn tell_drift(&mut self, document: &Document, applied: &Applied) {
        let known = self.applied.get(&document.id).is_some_and(|last| last.wish == document.object);
        let place = document.place();
        let note = if !applied.taken.is_empty() {
            let fields = applied.taken.join(", ");
            Note::warning(
                SourceReason::FieldsReverted.as_str(),
                "Apply",
                format!("{place} states these fields, they were set back: {fields}"),
            )
        } else if known && applied.changed {
            let message = format!("{place} states fields that somebody removed, they were set back");
            Note::warning(SourceReason::FieldsReverted.as_str(), "Apply", message)
        } else if known && applied.written.created {
            let message = format!("{place} states this object, which was deleted: it was made again");
            Note::warning(SourceReason::ObjectRestored.as_str(), "Apply", message)
        } else {
            return;
        };
        self.has_set_back |= known;
        warn!(object = %document.id, %place, message = %note.message, "somebody changed what a file states");
        self.gitops.recorder.record(&reference(&applied.written.version.object), note);
    }

    /// The one place where a pass ends: status, events and log agree.
    pub(super) async fn report(&self, source: &Source, outcome: Outcome) -> ApiResult<()> {
        let before = source.status.clone().unwrap_or_default();
        let followed = matches!(&outcome, Outcome::Read(read) if read.pinned.is_none());
        let now = self.gitops.clock.now();
        let mut after = status(&before, outcome, source.metadata.generation, now);
        if !source.spec.suspend {
            add_git(&mut after, self.git.as_ref(), followed, now);
        }
        after.handled_request.clone_from(&self.request);
        if after == before {
            return Ok(());
        }
        let source = self.write(source, after.clone()).await?;
        if let Some(Known { failure: Some(Failure { reason, message }), .. }) = &self.git
            && !before.conditions.iter().any(|condition| condition.type_ == FETCHED && condition.message == *message)
        {
            warn!(source = %self.name, %message, "the repository cannot be fetched");
            self.tell(&source, Note::warning(reason.as_str(), "Fetch", message.clone()));
        }
        for error in after.errors.iter().filter(|error| !before.errors.contains(error)) {
            let error = describe(error);
            warn!(source = %self.name, %error, "desired files");
            let reason = ready_reason(&after);
            self.tell(&source, Note::warning(reason.as_str(), "Read", error));
        }
        if after.applied_revision != before.applied_revision {
            let (objects, files) = (after.objects, after.files);
            info!(source = %self.name, objects, files, revision = ?after.applied_revision, "desired files applied");
            let ready = after.conditions.iter().find(|condition| condition.type_ == crate::api::condition::READY);
            let message = ready.map(|ready| ready.message.clone()).unwrap_or_default();
            self.tell(&source, Note::normal(SourceReason::Applied.as_str(), "Apply", message));
        } else if after.errors.is_empty() && !before.errors.is_empty() {
            info!(source = %self.name, "desired files are in order again");
        }
        Ok(())
    }

    pub(super) fn tell(&self, source: &Source, note: Note) {
        self.gitops.recorder.record(&source.object_ref(&()), note);
    }
}

fn ready_reason(status: &SourceStatus) -> SourceReason {
    let all = [SourceReason::DirectoryUnreadable, SourceReason::PathNotFound, SourceReason::ApplyFailed];
    let ready = status.conditions.iter().find(|condition| condition.type_ == crate::api::condition::READY);
    all.into_iter()
        .find(|reason| ready.is_some_and(|c| c.reason == reason.as_str()))
        .unwrap_or(SourceReason::InvalidFiles)
}

/// What an event is about.
fn reference(object: &Value) -> ObjectReference {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    ObjectReference {
        api_version: text("/apiVersion"),
        kind: text("/kind"),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        uid: text("/metadata/uid"),
        ..ObjectReference::default()
    }
}
