//! Handoffs on GAIA's wire: asked for, waited for, read, cancelled. What a handoff does is the handoff controller's.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderName, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Gaia, Turn,
    body::Fields,
    names::{NOBODY, wire},
    reply::{Answer, Refusal, json, stamp, with_header},
    routes::Asked,
    transfer::{Direction, Order, failure},
};
use crate::{
    api::handoff::{Handoff, HandoffPhase, HandoffType},
    registry::ObjectName,
    runtime::objects::Objects,
};

/// The whole of it, where the caller does not say: stopping and starting a model takes minutes.
pub const DEFAULT_SECONDS: i64 = 300;
/// How much later than its own deadline a handoff may be at its end, rollback included.
const MARGIN: Duration = Duration::from_secs(600);
/// How long a cancel waits for the end.
const CANCELLED_WITHIN: Duration = Duration::from_secs(60);
/// Who starts a handoff with this reason gives up after ten seconds and polls: `promote_pipeline.sh`.
const POLLING_REASON: &str = "promotion_pipeline";

const TYPES: [(&str, HandoffType); 4] = [
    ("prime_to_study", HandoffType::PrimeToStudy),
    ("study_to_prime", HandoffType::StudyToPrime),
    ("live_to_candidate", HandoffType::LiveToCandidate),
    ("candidate_to_live", HandoffType::CandidateToLive),
];

pub fn type_words() -> [&'static str; 4] {
    TYPES.map(|(word, _)| word)
}

/// As of GAIA 0.3; the last three keys are those of its later versions.
#[derive(Debug, Clone, Serialize)]
pub struct HandoffView {
    handoff_id: String,
    handoff_type: &'static str,
    phase: &'static str,
    started_at: Option<String>,
    completed_at: Option<String>,
    source: String,
    destination: String,
    error: Option<String>,
    progress_pct: u32,
    ok: bool,
    state: &'static str,
    elapsed_s: f64,
}

pub fn id_of(handoff: &Handoff) -> String {
    handoff.metadata.uid.clone().unwrap_or_default()
}

pub fn phase_of(handoff: &Handoff) -> HandoffPhase {
    handoff.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

pub fn type_name(handoff: &Handoff) -> &'static str {
    match handoff.spec.type_ {
        HandoffType::Transfer => "transfer",
        HandoffType::PrimeToStudy => "prime_to_study",
        HandoffType::StudyToPrime => "study_to_prime",
        HandoffType::LiveToCandidate => "live_to_candidate",
        HandoffType::CandidateToLive => "candidate_to_live",
    }
}

pub fn phase_name(phase: HandoffPhase) -> &'static str {
    match phase {
        HandoffPhase::Initiated => "initiated",
        HandoffPhase::ReleasingGpu => "releasing_gpu",
        HandoffPhase::WaitingCudaCleanup => "waiting_cuda_cleanup",
        HandoffPhase::TransferringOwnership => "transferring_ownership",
        HandoffPhase::SignalingRecipient => "signaling_recipient",
        HandoffPhase::Completed => "completed",
        HandoffPhase::Failed => "failed",
        HandoffPhase::Cancelled => "cancelled",
    }
}

pub fn source(handoff: &Handoff) -> String {
    handoff.spec.from.as_ref().map_or_else(|| NOBODY.to_owned(), wire)
}

pub fn destination(handoff: &Handoff) -> String {
    handoff.spec.to.as_ref().map_or_else(|| NOBODY.to_owned(), wire)
}

pub fn view(handoff: &Handoff, now: jiff::Timestamp) -> HandoffView {
    let status = handoff.status.clone().unwrap_or_default();
    let created = handoff.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let started = status.started_at.as_ref().map(|time| time.0).or(created);
    let ended = status.completed_at.as_ref().map_or(now, |time| time.0);
    let elapsed = started.map_or(0.0, |at| ended.duration_since(at).as_secs_f64());
    let trains = destination(handoff).starts_with("gaia-study");
    HandoffView {
        handoff_id: id_of(handoff),
        handoff_type: type_name(handoff),
        phase: phase_name(status.phase),
        started_at: started.map(stamp),
        completed_at: status.completed_at.as_ref().map(|time| stamp(time.0)),
        source: source(handoff),
        destination: destination(handoff),
        error: status.error,
        progress_pct: status.progress_pct,
        ok: !matches!(status.phase, HandoffPhase::Failed | HandoffPhase::Cancelled),
        state: match status.phase {
            HandoffPhase::Completed if trains => "meditation",
            HandoffPhase::Completed => "awake",
            HandoffPhase::Failed | HandoffPhase::Cancelled => phase_name(status.phase),
            HandoffPhase::Initiated
            | HandoffPhase::ReleasingGpu
            | HandoffPhase::WaitingCudaCleanup
            | HandoffPhase::TransferringOwnership
            | HandoffPhase::SignalingRecipient => "transitioning",
        },
        elapsed_s: (elapsed * 1000.0).round() / 1000.0,
    }
}

/// Starts one and waits for its end, or only starts it where the caller asks for that.
pub async fn start(gaia: &Gaia, direction: Direction, asked: &Asked) -> Answer {
    let mut fields = Fields::optional(&asked.body)?;
    let stated = fields.one_of("handoff_type", &TYPES);
    let reason = fields.text("reason").unwrap_or_default();
    let seconds = fields.integer("timeout_seconds");
    fields.done()?;
    let polls = stated.is_none() && reason == POLLING_REASON;
    let order = Order { direction, reason, timeout_seconds: seconds.unwrap_or(DEFAULT_SECONDS).clamp(1, 86_400) };
    let handoff = gaia.order(&order).await?;
    if polls || wants_no_wait(asked) {
        return Ok(accepted(gaia, &handoff));
    }
    finished(gaia, &handoff).await
}

/// `Prefer: respond-async` or `?wait=false`.
pub fn wants_no_wait(asked: &Asked) -> bool {
    let preferences = asked.headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    let prefers = preferences.flat_map(|value| value.split(',')).any(|word| word.trim() == "respond-async");
    prefers || asked.query("wait").is_some_and(|wait| matches!(wait.as_str(), "false" | "0" | "no" | "off"))
}

pub fn accepted(gaia: &Gaia, handoff: &Handoff) -> axum::response::Response {
    let response = json(StatusCode::ACCEPTED, &view(handoff, gaia.clock.now()));
    let response = with_header(response, header::LOCATION, &location(handoff));
    with_header(response, HeaderName::from_static("preference-applied"), "respond-async")
}

pub fn location(handoff: &Handoff) -> String {
    format!("/handoff/{}/status", id_of(handoff))
}

/// Waits for the end. A caller who goes away stops nothing; should we end before, the next process carries on, and the
/// caller is told where to ask.
async fn finished(gaia: &Gaia, handoff: &Handoff) -> Answer {
    let limit = Duration::from_secs(handoff.spec.timeout_seconds.into()) + MARGIN;
    let handoff = match gaia.ended(handoff, Instant::now() + limit).await? {
        (handoff, Turn::Changed) => handoff,
        (handoff, Turn::TooLate | Turn::Ending) => return Ok(accepted(gaia, &handoff)),
    };
    if phase_of(&handoff) == HandoffPhase::Completed {
        let response = json(StatusCode::OK, &view(&handoff, gaia.clock.now()));
        return Ok(with_header(response, header::LOCATION, &location(&handoff)));
    }
    let gpu = gaia.card().await?;
    let other = match &gpu {
        Some(gpu) => gaia.running_handoff(gpu).await?.map(|other| id_of(&other)),
        None => None,
    };
    let detail = failure(&handoff, gpu.as_ref(), other.as_deref());
    let error = handoff.status.as_ref().and_then(|status| status.error.clone());
    Err(Refusal::failed(detail).with("handoff_id", id_of(&handoff)).with("error", error))
}

impl Gaia {
    /// The handoff at its end ([`Turn::Changed`]), or as it was when the wait ended.
    pub(super) async fn ended(&self, handoff: &Handoff, deadline: Instant) -> Result<(Arc<Handoff>, Turn), Refusal> {
        let name = ObjectName {
            namespace: handoff.metadata.namespace.clone(),
            name: handoff.metadata.name.clone().unwrap_or_default(),
        };
        let mut changes = self.changes();
        loop {
            let now = self.objects.get::<Handoff>(&name).await?;
            let now = now.ok_or_else(|| Refusal::failed(format!("Handoff {} was deleted", id_of(handoff))))?;
            if phase_of(&now).is_terminal() {
                return Ok((now, Turn::Changed));
            }
            match self.turn(&mut changes, deadline).await {
                Turn::Changed => {}
                turn @ (Turn::TooLate | Turn::Ending) => return Ok((now, turn)),
            }
        }
    }

    async fn handoff(&self, id: &str) -> Result<Arc<Handoff>, Refusal> {
        let all = self.objects.list::<Handoff>(None).await?;
        let found = all.into_iter().find(|handoff| handoff.metadata.uid.as_deref() == Some(id));
        found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("Handoff {id} not found")))
    }
}

pub async fn status(gaia: &Gaia, asked: &Asked) -> Answer {
    let handoff = gaia.handoff(&asked.name).await?;
    Ok(json(StatusCode::OK, &view(&handoff, gaia.clock.now())))
}

/// Stops it and puts everything back. Waits for that to be done, as a rule.
pub async fn cancel(gaia: &Gaia, asked: &Asked) -> Answer {
    let handoff = gaia.handoff(&asked.name).await?;
    let phase = phase_of(&handoff);
    if phase.is_terminal() && phase != HandoffPhase::Cancelled {
        let text = format!("Handoff {} is already {}", asked.name, phase_name(phase));
        return Err(Refusal::new(StatusCode::CONFLICT, text));
    }
    let name = ObjectName {
        namespace: handoff.metadata.namespace.clone(),
        name: handoff.metadata.name.clone().unwrap_or_default(),
    };
    gaia.patch::<Handoff>(&name, json!({"spec": {"cancel": true}})).await?;
    if wants_no_wait(asked) {
        return Ok(accepted(gaia, &handoff));
    }
    match gaia.ended(&handoff, Instant::now() + CANCELLED_WITHIN).await? {
        (handoff, Turn::Changed) => Ok(json(StatusCode::OK, &view(&handoff, gaia.clock.now()))),
        (handoff, Turn::TooLate | Turn::Ending) => Ok(accepted(gaia, &handoff)),
    }
}

/// `/gpu/handoff {"target": "study"|"core"}`: the two handoffs by where they lead. Being there already is success.
pub async fn to_target(gaia: &Gaia, asked: &Asked) -> Answer {
    const TARGETS: [(&str, Direction); 5] = [
        ("study", Direction::PRIME_TO_STUDY),
        ("gaia-study", Direction::PRIME_TO_STUDY),
        ("core", Direction::STUDY_TO_PRIME),
        ("gaia-core", Direction::STUDY_TO_PRIME),
        ("prime", Direction::STUDY_TO_PRIME),
    ];
    let mut fields = Fields::required(&asked.body)?;
    let direction = fields.required_one_of("target", &TARGETS);
    let reason = fields.text("reason").unwrap_or_default();
    let seconds = fields.integer("timeout_seconds").unwrap_or(DEFAULT_SECONDS).clamp(1, 86_400);
    fields.done()?;
    let direction = direction.ok_or_else(|| Refusal::failed("a target that is no fault is missing"))?;
    let gpu = gaia.needed_card().await?;
    let owner = gpu.owner();
    if owner == direction.to.wire() {
        return super::reply::ok(&json!({"ok": true, "success": true, "owner": owner, "message": "Already own GPU"}));
    }
    let handoff = gaia.order(&Order { direction, reason, timeout_seconds: seconds }).await?;
    if wants_no_wait(asked) { Ok(accepted(gaia, &handoff)) } else { finished(gaia, &handoff).await }
}
