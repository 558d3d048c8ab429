//! `state.json` of GAIA's own orchestrator. What it says is taken over once, as claims; from then on the file mirrors the
//! objects for those who read it. Nothing that was in it is lost: unknown keys stay, and the file as it was is kept inside.

use std::{
    convert::Infallible,
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Gaia, Turn,
    claims::{PICKUP_SECONDS, Wish},
    containers, gpu,
    handoff::{self, phase_of},
    names::{Owner, REQUESTERS},
    reply::{Refusal, stamp},
};
use crate::{
    api::{gpuclaim::Preemption, handoff::Handoff, source::Source},
    runtime::objects::Objects,
};

/// Many objects change at once; the file is written when they have come to rest.
const QUIET: Duration = Duration::from_millis(200);
const HISTORY: usize = 100;
/// What is ours in the file.
const OURS: &str = "gaia";

pub struct Legacy {
    pub gaia: Gaia,
    pub file: PathBuf,
}

type Document = Map<String, Value>;

impl Legacy {
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut kept = self.read().await;
        if !kept.contains_key(OURS) {
            let before = kept.clone();
            end_active(&mut kept, self.gaia.clock.now());
            kept.insert(OURS.to_owned(), json!({"imported": before, "imported_at": null}));
        }
        let sources = self.gaia.objects.watch::<Source>().map(|_| ()).boxed();
        let mut changes = futures::stream::select(self.gaia.changes(), sources).boxed();
        let mut written = Document::new();
        while !stop.is_cancelled() {
            if kept[OURS]["imported_at"].is_null() && self.is_ready().await {
                self.import(kept[OURS]["imported"].as_object().unwrap_or(&Document::new())).await;
                kept[OURS]["imported_at"] = json!(stamp(self.gaia.clock.now()));
            }
            match self.document(&kept).await {
                Ok(document) if document != written => {
                    self.write(&document).await;
                    written = document;
                }
                Ok(_) => {}
                Err(refusal) => warn!(detail = %refusal.detail, "the state file is not up to date"),
            }
            // A year is as good as for ever: only a change or the end goes on.
            let forever = Instant::now() + Duration::from_secs(365 * 24 * 3600);
            if self.gaia.turn(&mut changes, forever).await == Turn::Ending {
                break;
            }
            while self.gaia.turn(&mut changes, Instant::now() + QUIET).await == Turn::Changed {}
        }
        stop.cancelled().await;
        Ok(())
    }

    /// Whom the file names can be found: there is a card, and every Source has said what its files declare. At a first start
    /// neither is so, and a holder would be taken for a stranger.
    async fn is_ready(&self) -> bool {
        let sources = self.gaia.objects.list::<Source>(None).await;
        let read = |source: &Arc<Source>| {
            source.spec.suspend || source.status.as_ref().is_some_and(|status| !status.conditions.is_empty())
        };
        sources.is_ok_and(|sources| sources.iter().all(read)) && matches!(self.gaia.card().await, Ok(Some(_)))
    }

    /// What is in the file; what is no JSON object is set aside.
    async fn read(&self) -> Document {
        let text = match tokio::fs::read(&self.file).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Document::new(),
            Err(error) => {
                warn!(file = %self.file.display(), %error, "the state file cannot be read");
                return Document::new();
            }
        };
        match serde_json::from_slice(&text) {
            Ok(document) => document,
            Err(error) => {
                let aside = self.file.with_extension("json.bak");
                let saved = tokio::fs::write(&aside, &text).await;
                warn!(file = %self.file.display(), %error, saved = saved.is_ok(), "the state file is not JSON; kept as .bak");
                Document::new()
            }
        }
    }

    /// Who had the card and who waited for it, as far as we know them, ask for it again.
    async fn import(&self, document: &Document) {
        let state = &document.get("gpu").cloned().unwrap_or_default();
        let reason = state["reason"].as_str().unwrap_or("imported from state.json");
        let holder = known(&state["owner"]).into_iter().map(|owner| (owner, reason, false));
        let waiting = state["queue"].as_array().into_iter().flatten().filter_map(known);
        let waiting = waiting.map(|owner| (owner, "queued in state.json", true));
        for (owner, reason, must_be_fetched) in holder.chain(waiting) {
            match self.claim(owner, reason, must_be_fetched).await {
                Ok(()) => info!(owner = owner.wire(), "taken over from the state file"),
                Err(refusal) => {
                    warn!(owner = owner.wire(), detail = %refusal.detail, "not taken over from the state file");
                }
            }
        }
    }

    async fn claim(&self, owner: Owner, reason: &str, must_be_fetched: bool) -> Result<(), Refusal> {
        let card = self.gaia.needed_card().await?;
        let holder = self.gaia.holder(owner).await?;
        if card.spec.owner.as_ref() == Some(&holder) {
            // It comes to the card by itself.
            return Ok(());
        }
        let wish = Wish {
            gpu: card.metadata.name.clone().unwrap_or_default(),
            holder,
            reason: reason.to_owned(),
            // Who had the card goes before who waited for it, whichever claim is seen first.
            priority: i64::from(!must_be_fetched),
            timeout_seconds: None,
            preemption: Preemption::Never,
            ttl_seconds: must_be_fetched.then_some(PICKUP_SECONDS),
        };
        self.gaia.queue_once(&wish).await.map(|_| ())
    }

    /// The file as it should be now.
    async fn document(&self, kept: &Document) -> Result<Document, Refusal> {
        let now = self.gaia.clock.now();
        let card = self.gaia.card().await?;
        let mut handoffs = self.gaia.objects.list::<Handoff>(None).await?;
        handoffs.sort_by_key(|handoff| handoff.metadata.creation_timestamp.clone().map(|time| time.0));
        let active = handoffs.iter().find(|handoff| !phase_of(handoff).is_terminal());
        let mut document = kept.clone();
        let ended: Vec<Value> = handoffs
            .iter()
            .filter(|handoff| phase_of(handoff).is_terminal())
            .map(|handoff| json!(handoff::view(handoff, now)))
            .collect();
        laid_over(&mut document, "gpu", json!(gpu::view(card.as_ref())));
        laid_over(&mut document, "containers", json!(containers::known(&self.gaia).await?));
        // Without its running clock: the file shall not change while nothing does.
        document.insert(
            "active_handoff".to_owned(),
            active.map_or(Value::Null, |active| still(json!(handoff::view(active, now)))),
        );
        document.insert("handoff_history".to_owned(), history(kept.get("handoff_history"), ended));
        Ok(document)
    }

    async fn write(&self, document: &Document) {
        let mut document = document.clone();
        document.insert("last_updated".to_owned(), json!(stamp(self.gaia.clock.now())));
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || replace(&file, &document)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(file = %self.file.display(), %error, "the state file cannot be written"),
            Err(error) => warn!(%error, "the state file was not written"),
        }
    }
}

fn known(owner: &Value) -> Option<Owner> {
    REQUESTERS.iter().find(|(word, _)| owner == word).map(|(_, owner)| *owner)
}

/// What we know, over what others wrote there: keys that are none of ours stay, services of ours or not.
fn laid_over(document: &mut Document, key: &str, ours: Value) {
    let mut under = document.remove(key).unwrap_or_default();
    merge(&mut under, ours);
    document.insert(key.to_owned(), under);
}

fn merge(under: &mut Value, ours: Value) {
    match (under, ours) {
        (Value::Object(under), Value::Object(ours)) => {
            for (key, value) in ours {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, ours) => *under = ours,
    }
}

/// A handoff that was under way when GAIA's own service ended will never end by itself: it has failed.
fn end_active(document: &mut Document, now: Timestamp) {
    let Some(Value::Object(mut active)) = document.insert("active_handoff".to_owned(), Value::Null) else { return };
    let phase = active.get("phase").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !["completed", "failed", "cancelled"].contains(&phase.as_str()) {
        let error = format!(
            "Handoff was in phase '{phase}' when orchestrator restarted. Marked FAILED during startup reconciliation."
        );
        active.insert("phase".to_owned(), json!("failed"));
        active.insert("error".to_owned(), json!(error));
        active.insert("completed_at".to_owned(), json!(stamp(now)));
    }
    let history = document.entry("handoff_history").or_insert_with(|| json!([]));
    if let Value::Array(history) = history {
        history.push(Value::Object(active));
    }
}

fn still(mut view: Value) -> Value {
    if let Some(view) = view.as_object_mut() {
        view.remove("elapsed_s");
    }
    view
}

/// Those of before us, then ours; the last hundred.
fn history(before: Option<&Value>, ours: Vec<Value>) -> Value {
    let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
    let others = before.into_iter().filter(|old| ours.iter().all(|own| own["handoff_id"] != old["handoff_id"]));
    let mut all: Vec<Value> = others.chain(ours.iter().cloned()).collect();
    let skipped = all.len().saturating_sub(HISTORY);
    all.drain(..skipped);
    Value::Array(all)
}

/// Readers see the old file or the new one, and nobody writes it by mistake.
fn replace(file: &Path, document: &Document) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer_pretty(&mut fresh, document)?;
    fresh.flush()?;
    fresh.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
    fresh.as_file().sync_all()?;
    fresh.persist(file).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}
