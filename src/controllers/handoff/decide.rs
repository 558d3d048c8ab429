//! The next steps of a handoff, from its status and what is seen. Pure. How the old holder gives is in [`super::give`], how the
//! new one takes in [`super::take`], and the way back in [`super::back`].
//!
//! A pass goes on from one transition to the next as long as what it saw says what follows, so that nothing waits for a write
//! that nobody has to see. It ends where something is to be done, for which the status must be stored first; before a second
//! phase, for each is told; where the way back begins; and where a step ended that nobody was asked to do, for what was seen
//! before is no proof of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{
    fit,
    observe::Observed,
    runner::{Answer, Job, StepKey},
};
use crate::{
    api::{
        condition::{self, ConditionStatus, READY},
        gpu::{Gpu, GpuStatus, HolderKind},
        handoff::{Handoff, HandoffPhase, HandoffReason, HandoffStatus, HandoffStep, StepOutcome, StepStage},
        workload::Variant,
    },
    controllers::gpu::{fit::Fit, leases},
    runtime::{
        events::Note,
        reconciler::{Finalizer, Plan, Requeue},
    },
};

#[derive(Debug, Clone)]
pub enum Action {
    Run {
        key: StepKey,
        job: Job,
    },
    /// The new holder's own right to the card, so that who should hold it is who does.
    EnsureClaim,
}

pub type HandoffPlan = Plan<HandoffStatus, Action>;

/// Who is to be seen leaving the card now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaver {
    Nobody,
    From,
    /// The new holder, on the way back.
    To,
}

pub fn leaver(handoff: &Handoff, gpu: Option<&Gpu>) -> Leaver {
    let Some(status) = &handoff.status else { return Leaver::Nobody };
    let releasing = matches!(status.phase, HandoffPhase::ReleasingGpu | HandoffPhase::WaitingCudaCleanup);
    match &status.rollback {
        None if releasing => Leaver::From,
        Some(rollback) if !rollback.return_lease && is_at_new(handoff, status, gpu) => Leaver::To,
        None | Some(_) => Leaver::Nobody,
    }
}

/// The step that the status says is running. On the way back that may be a stop of the way there, which is waited for.
pub fn running(handoff: &Handoff) -> Option<StepKey> {
    let status = handoff.status.as_ref()?;
    let open = |list: &[HandoffStep], back: bool| {
        let last = list.last().filter(|step| step.outcome == StepOutcome::Running)?;
        Some(StepKey { back, stage: last.stage, index: count(list, last.stage) - 1 })
    };
    open(&status.steps, false).or_else(|| open(&status.rollback.as_ref()?.steps, true))
}

/// When the last step by which somebody gives the card away ended, there or on the way back. None: it has not.
pub fn last_release(handoff: &Handoff) -> Option<Timestamp> {
    let status = handoff.status.as_ref()?;
    let list = status.rollback.as_ref().map_or(&status.steps, |rollback| &rollback.steps);
    let last = list.iter().rfind(|step| step.stage == StepStage::Release)?;
    last.finished_at.as_ref().map(|at| at.0)
}

pub(super) fn count(list: &[HandoffStep], stage: StepStage) -> usize {
    list.iter().filter(|step| step.stage == stage).count()
}

fn seen_status(gpu: Option<&Gpu>) -> Option<&GpuStatus> {
    gpu.and_then(|gpu| gpu.status.as_ref())
}

/// The gpu controller says that it is this one's turn.
pub fn is_let_in(handoff: &Handoff, gpu: Option<&Gpu>) -> bool {
    let named = seen_status(gpu).and_then(|status| status.handoff.as_ref());
    named.is_some_and(|named| *named == leases::full_name(handoff))
}

/// The lease has gone to `to`, or, when nobody is named, away.
pub(super) fn has_moved(status: &HandoffStatus, gpu: Option<&Gpu>) -> bool {
    seen_status(gpu).map_or(0, |gpu| gpu.fencing_token) > status.base_token.unwrap_or(i64::MAX)
}

fn is_at_new(handoff: &Handoff, status: &HandoffStatus, gpu: Option<&Gpu>) -> bool {
    let holds = handoff.spec.to.as_ref().is_some_and(|to| seen_status(gpu).is_some_and(|s| s.lease_of(to).is_some()));
    has_moved(status, gpu) && holds
}

/// Bounds a pass; no handoff has so many steps that need nobody to do anything.
const MOST_TURNS: usize = 64;

/// One pass in the making.
pub(super) struct Pass<'a> {
    pub handoff: &'a Handoff,
    pub seen: &'a Observed,
    pub now: Timestamp,
    pub status: HandoffStatus,
    /// Of the step that was running when the pass looked; the step that it closes has had it.
    pub answer: Option<Answer>,
    /// What follows is to be seen afresh.
    pub looks_again: bool,
    pub actions: Vec<Action>,
    pub notes: Vec<Note>,
    wake_at: Option<Timestamp>,
}

pub fn decide(handoff: &Handoff, seen: &Observed, now: Timestamp) -> HandoffPlan {
    let mut status = handoff.status.clone().unwrap_or_default();
    if status.phase.is_terminal() {
        return Plan { finalizer: Finalizer::Released, ..Plan::leave() };
    }
    status.observed_generation = handoff.metadata.generation;
    let answer = running(handoff).and(seen.answer.clone());
    let mut pass = Pass {
        handoff,
        seen,
        now,
        status,
        answer,
        looks_again: false,
        actions: Vec::new(),
        notes: Vec::new(),
        wake_at: None,
    };
    let mut entered = false;
    for _ in 0..MOST_TURNS {
        let (before, notes, actions) = (pass.status.clone(), pass.notes.len(), pass.actions.len());
        pass.turn();
        let enters = pass.status.phase != before.phase;
        if entered && enters {
            pass.status = before;
            pass.notes.truncate(notes);
            pass.actions.truncate(actions);
            break;
        }
        entered |= enters;
        pass.looks_again |= pass.status.rollback.is_some() != before.rollback.is_some();
        if pass.status == before || pass.looks_again || !pass.actions.is_empty() || pass.status.phase.is_terminal() {
            break;
        }
    }
    pass.finish()
}

impl Pass<'_> {
    fn turn(&mut self) {
        match self.status.phase {
            _ if self.status.rollback.is_some() => self.roll_back(),
            HandoffPhase::Initiated => self.initiated(),
            HandoffPhase::ReleasingGpu | HandoffPhase::WaitingCudaCleanup => self.releasing(),
            HandoffPhase::TransferringOwnership => self.transferring(),
            HandoffPhase::SignalingRecipient => self.signaling(),
            HandoffPhase::Completed | HandoffPhase::Failed | HandoffPhase::Cancelled => {
                unreachable!("a pass ends where the handoff does")
            }
        }
    }

    pub(super) fn gpu(&self) -> Option<&Gpu> {
        self.seen.gpu.as_deref()
    }

    /// When the step that was running was done: the pass comes later, and what was seen in between counts.
    pub(super) fn answered_at(&self) -> Timestamp {
        self.seen.answered_at.unwrap_or(self.now)
    }

    pub(super) fn is_let_in(&self) -> bool {
        is_let_in(self.handoff, self.gpu())
    }

    pub(super) fn is_at_new(&self) -> bool {
        is_at_new(self.handoff, &self.status, self.gpu())
    }

    fn initiated(&mut self) {
        let Some(gpu) = self.seen.gpu.clone() else {
            let message = format!("there is no Gpu {}", self.handoff.spec.gpu);
            return self.end(HandoffReason::NoSuchGpu, message);
        };
        if let Some((reason, why)) = self.wished_end() {
            return self.end(reason, why);
        }
        if let Some((reason, why)) = self.cannot_take(&gpu) {
            return self.end(reason, why);
        }
        if self.is_let_in() {
            if let Fit::DoesNotFit(why) = fit::judge(self.handoff, &gpu, self.seen.to.as_ref()) {
                return self.end(HandoffReason::InsufficientMemory, why);
            }
            let status = gpu.status.clone().unwrap_or_default();
            self.status.started_at = Some(MicroTime(self.now));
            self.status.base_token = Some(status.fencing_token);
            self.status.pids_before = status.processes.iter().map(|p| p.pid).collect();
            return self.enter(match self.handoff.spec.from {
                Some(_) => HandoffPhase::ReleasingGpu,
                None => HandoffPhase::TransferringOwnership,
            });
        }
        if let Some(other) = &self.seen.other_runs {
            let message = format!("Handoff already in progress: {other}");
            return self.end(HandoffReason::AnotherInProgress, message);
        }
        let Some(status) = gpu.status.as_ref().filter(|status| status.observed_generation.is_some()) else { return };
        if !leases::fits(status, self.handoff) {
            let holder = status.holder.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            let expected = self.handoff.spec.from.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            let message = format!("Cannot handoff - GPU owned by {holder}, expected {expected}");
            self.end(HandoffReason::WrongHolder, message);
        }
    }

    /// What a person asks for and is known to end badly is not begun.
    fn cannot_take(&self, gpu: &Gpu) -> Option<(HandoffReason, String)> {
        let to = self.handoff.spec.to.as_ref().filter(|_| !leases::has_cause(self.handoff))?;
        if to.kind == HolderKind::Workload {
            let spec = self.seen.to.as_ref().map(|party| &party.workload.spec);
            let found = spec.is_some_and(|spec| match to.variant {
                Variant::Live => spec.live.is_some(),
                Variant::Candidate => spec.candidate.is_some(),
            });
            if !found {
                return Some((HandoffReason::NoSuchWorkload, format!("there is no {to}")));
            }
        }
        let owner = gpu.spec.owner.as_ref().filter(|owner| !gpu.spec.lend && !owner.is_kin_of(to))?;
        Some((HandoffReason::NotLent, format!("{} is {owner}'s alone", self.handoff.spec.gpu)))
    }

    /// A person thinks better of it.
    pub(super) fn called_off(&self) -> Option<(HandoffReason, String)> {
        if self.handoff.spec.cancel {
            return Some((HandoffReason::Cancelled, "cancelled".to_owned()));
        }
        if self.handoff.metadata.deletion_timestamp.is_some() {
            return Some((HandoffReason::Deleted, "cancelled: the handoff was deleted".to_owned()));
        }
        None
    }

    /// Why it must not go on, before the card is proven free.
    pub(super) fn wished_end(&self) -> Option<(HandoffReason, String)> {
        if let Some(called_off) = self.called_off() {
            return Some(called_off);
        }
        if self.seen.claim_ended {
            return Some((HandoffReason::ClaimEnded, "cancelled: the claim it was made for is over".to_owned()));
        }
        let created = self.handoff.metadata.creation_timestamp.as_ref().map(|at| at.0);
        let begun = self.status.started_at.as_ref().map(|at| at.0).or(created)?;
        let seconds = self.handoff.spec.timeout_seconds;
        if self.now >= plus(begun, seconds) {
            return Some((HandoffReason::DeadlineExceeded, format!("not done within {seconds} s")));
        }
        None
    }

    /// Nothing but the grant is waited for here. A wish to end would race with it, so it is not heard: the lease may move in
    /// the instant in which the old holder is told to start again, and two would be on the card.
    fn transferring(&mut self) {
        if has_moved(&self.status, self.gpu()) {
            let holder = self.handoff.spec.to.as_ref();
            let lease = holder.and_then(|to| seen_status(self.gpu())?.lease_of(to)).cloned();
            if holder.is_some() && lease.is_none() {
                return self.end(HandoffReason::LeaseLost, "the lease went to somebody else".to_owned());
            }
            self.status.lease_id = lease.as_ref().map(|lease| lease.lease_id.clone());
            self.status.fencing_token = lease.as_ref().map(|lease| lease.fencing_token);
            return self.enter(HandoffPhase::SignalingRecipient);
        }
        if !self.is_let_in() {
            self.lost();
        }
    }

    pub(super) fn lost(&mut self) {
        self.end(HandoffReason::LeaseLost, "the card was taken out of this handoff's hands".to_owned());
    }

    pub(super) fn phase(&mut self, phase: HandoffPhase) {
        if self.status.phase != phase {
            self.enter(phase);
        }
    }

    pub(super) fn enter(&mut self, phase: HandoffPhase) {
        self.status.phase = phase;
        self.status.progress_pct = phase.progress_pct().unwrap_or(self.status.progress_pct);
        self.notes.push(Note::normal(HandoffReason::Progressing.into(), "None", format!("{phase:?}")));
        self.say(ConditionStatus::False, HandoffReason::Progressing, format!("{phase:?}"));
    }

    pub(super) fn end(&mut self, reason: HandoffReason, message: String) {
        self.status.phase = match reason {
            HandoffReason::Completed => HandoffPhase::Completed,
            reason if reason.is_wished() => HandoffPhase::Cancelled,
            _ => HandoffPhase::Failed,
        };
        self.status.completed_at = Some(MicroTime(self.now));
        if reason == HandoffReason::Completed {
            self.status.progress_pct = 100;
            self.notes.push(Note::normal(reason.into(), "None", message.clone()));
            return self.say(ConditionStatus::True, reason, message);
        }
        self.status.error.get_or_insert_with(|| message.clone());
        self.notes.push(Note::warning(reason.into(), "None", message.clone()));
        self.say(ConditionStatus::False, reason, message);
    }

    pub(super) fn say(&mut self, status: ConditionStatus, reason: HandoffReason, message: String) {
        let (generation, now) = (self.handoff.metadata.generation, Time(self.now));
        condition::set(&mut self.status.conditions, READY, status, reason.into(), message, generation, &now);
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Deadlines are looked at when they come; a second is the slowest look at one that is under way.
    fn finish(self) -> HandoffPlan {
        const SLOWEST: Duration = Duration::from_secs(1);
        let wait = self.wake_at.and_then(|at| Duration::try_from(at.duration_since(self.now)).ok());
        let requeue = Requeue::After(wait.map_or(SLOWEST, |wait| wait.min(SLOWEST)));
        let stages = if self.actions.is_empty() { Vec::new() } else { vec![self.actions] };
        Plan { status: Some(self.status), finalizer: Finalizer::Held, stages, events: self.notes, requeue }
    }
}

pub(super) fn open(name: String, stage: StepStage, now: Timestamp) -> HandoffStep {
    let started_at = Some(MicroTime(now));
    HandoffStep { name, stage, outcome: StepOutcome::Running, started_at, ..HandoffStep::default() }
}

pub(super) fn close(step: &mut HandoffStep, outcome: StepOutcome, message: impl Into<String>, now: Timestamp) {
    step.outcome = outcome;
    step.finished_at = Some(MicroTime(now));
    step.message = Some(message.into()).filter(|m: &String| !m.is_empty());
}

pub(super) fn plus(at: Timestamp, seconds: u32) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX)
}
