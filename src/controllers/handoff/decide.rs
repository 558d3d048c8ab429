//! The next step of a handoff, from its status and what is seen. Pure. A pass makes one transition; writing it down wakes the
//! next.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::ResourceExt;

use super::{
    observe::{Observed, Party},
    runner::{Answer, Job, StepKey},
    steps,
};
use crate::{
    adapters::containers::ContainerState,
    api::{
        condition::{self, ConditionStatus, READY},
        gpu::Gpu,
        gpustep::{AcquireStep, ReleaseStep},
        handoff::{
            Handoff, HandoffPhase, HandoffProof, HandoffReason, HandoffStatus, HandoffStep, Rollback, StepOutcome,
            StepStage,
        },
        workload::{Variant, VariantHealth, VariantState},
    },
    controllers::gpu::leases,
    runtime::{
        events::Note,
        reconciler::{Finalizer, Plan, Requeue},
    },
};

#[derive(Debug, Clone)]
pub enum Action {
    Run { key: StepKey, job: Job },
    EnsureClaim,
}

/// What `error` begins with when somebody wished the end.
const CANCELLED: &str = "cancelled";

type HandoffPlan = Plan<HandoffStatus, Action>;

/// The step that the status says is running.
pub fn running(handoff: &Handoff) -> Option<StepKey> {
    let status = handoff.status.as_ref()?;
    let back = status.rollback.is_some();
    let list = status.rollback.as_ref().map_or(&status.steps, |rollback| &rollback.steps);
    let last = list.last().filter(|step| step.outcome == StepOutcome::Running)?;
    Some(StepKey { back, stage: last.stage, index: count(list, last.stage) - 1 })
}

fn count(list: &[HandoffStep], stage: StepStage) -> usize {
    list.iter().filter(|step| step.stage == stage).count()
}

/// One pass in the making.
struct Pass<'a> {
    handoff: &'a Handoff,
    seen: &'a Observed,
    now: Timestamp,
    status: HandoffStatus,
    actions: Vec<Action>,
    notes: Vec<Note>,
    wake_at: Option<Timestamp>,
}

pub fn decide(handoff: &Handoff, seen: &Observed, now: Timestamp) -> HandoffPlan {
    let mut status = handoff.status.clone().unwrap_or_default();
    if status.phase.is_terminal() {
        return Plan { finalizer: Finalizer::Released, ..Plan::leave() };
    }
    status.observed_generation = handoff.metadata.generation;
    let mut pass = Pass { handoff, seen, now, status, actions: Vec::new(), notes: Vec::new(), wake_at: None };
    match pass.status.phase {
        _ if pass.status.rollback.is_some() => pass.roll_back(),
        HandoffPhase::Initiated => pass.initiated(),
        HandoffPhase::ReleasingGpu | HandoffPhase::WaitingCudaCleanup => pass.releasing(),
        HandoffPhase::TransferringOwnership => pass.transferring(),
        HandoffPhase::SignalingRecipient => pass.signaling(),
        HandoffPhase::Completed | HandoffPhase::Failed | HandoffPhase::Cancelled => {
            unreachable!("ends were left above")
        }
    }
    pass.finish()
}

impl Pass<'_> {
    fn gpu(&self) -> Option<&Gpu> {
        self.seen.gpu.as_deref()
    }

    fn token(&self) -> i64 {
        self.gpu().and_then(|gpu| gpu.status.as_ref()).map_or(0, |status| status.fencing_token)
    }

    fn is_let_in(&self) -> bool {
        let named = self.gpu().and_then(|gpu| gpu.status.as_ref()?.handoff.clone());
        named.as_deref() == Some(&leases::full_name(self.handoff))
    }

    /// The lease has gone to `to`, or, when nobody is named, away.
    fn has_moved(&self) -> bool {
        self.token() > self.status.base_token.unwrap_or(i64::MAX)
    }

    fn initiated(&mut self) {
        let Some(gpu) = self.seen.gpu.clone() else {
            let message = format!("there is no Gpu {}", self.handoff.spec.gpu);
            return self.end(HandoffPhase::Failed, HandoffReason::NoSuchGpu, message);
        };
        if let Some((reason, why)) = self.wished_end() {
            let phase = if why.starts_with(CANCELLED) { HandoffPhase::Cancelled } else { HandoffPhase::Failed };
            return self.end(phase, reason, why);
        }
        if self.is_let_in() {
            self.status.started_at = Some(MicroTime(self.now));
            self.status.base_token = Some(self.token());
            let processes = gpu.status.iter().flat_map(|s| &s.processes);
            self.status.pids_before = processes.map(|p| p.pid).collect();
            return self.enter(match self.handoff.spec.from {
                Some(_) => HandoffPhase::ReleasingGpu,
                None => HandoffPhase::TransferringOwnership,
            });
        }
        if let Some(other) = &self.seen.other_runs {
            let message = format!("Handoff already in progress: {other}");
            return self.end(HandoffPhase::Failed, HandoffReason::AnotherInProgress, message);
        }
        let Some(status) = gpu.status.as_ref().filter(|status| status.observed_generation.is_some()) else { return };
        if !leases::fits(status, self.handoff.spec.from.as_ref()) {
            let holder = status.holder.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            let expected = self.handoff.spec.from.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            let message = format!("Cannot handoff - GPU owned by {holder}, expected {expected}");
            self.end(HandoffPhase::Failed, HandoffReason::WrongHolder, message);
        }
    }

    /// Why it must not go on, before the lease has moved.
    fn wished_end(&self) -> Option<(HandoffReason, String)> {
        if self.handoff.spec.cancel {
            return Some((HandoffReason::Cancelled, CANCELLED.to_owned()));
        }
        if self.handoff.metadata.deletion_timestamp.is_some() {
            return Some((HandoffReason::Deleted, format!("{CANCELLED}: the handoff was deleted")));
        }
        let created = self.handoff.metadata.creation_timestamp.as_ref().map(|at| at.0);
        let begun = self.status.started_at.as_ref().map(|at| at.0).or(created)?;
        let seconds = self.handoff.spec.timeout_seconds;
        if self.now >= plus(begun, seconds) {
            return Some((HandoffReason::DeadlineExceeded, format!("not done within {seconds} s")));
        }
        None
    }

    fn releasing(&mut self) {
        if !self.is_let_in() {
            let message = "the card was taken out of this handoff's hands".to_owned();
            return self.end(HandoffPhase::Failed, HandoffReason::LeaseLost, message);
        }
        if let Some((reason, why)) = self.wished_end() {
            return self.begin_rollback(reason, &why);
        }
        let on_stuck = self.gpu().map(|gpu| gpu.spec.on_stuck.clone()).unwrap_or_default();
        let plan = steps::release_plan(self.seen.from.as_ref(), &on_stuck);
        let mut list = std::mem::take(&mut self.status.steps);
        let ended = self.step_of_release(&mut list, &plan, self.seen.from.as_ref(), false);
        self.status.steps = list;
        match ended {
            Release::UnderWay => {}
            Release::Proven => {
                self.take_curve();
                self.tell_proof();
                self.enter(HandoffPhase::TransferringOwnership);
            }
            Release::Failed(why) => self.begin_rollback(HandoffReason::ReleaseFailed, &why),
            Release::NotFreed(why) => {
                let why = format!("GPU cleanup timeout - VRAM not released: {why}");
                self.begin_rollback(HandoffReason::MemoryNotFreed, &why);
            }
        }
    }

    fn take_curve(&mut self) {
        if let Some(proof) = &self.seen.proof {
            self.status.memory_curve = proof.curve.clone();
            self.status.pids_after = proof.pids.clone();
        }
    }

    fn tell_proof(&mut self) {
        let by_engine = self.seen.proof.as_ref().is_some_and(|proof| proof.by_engine);
        self.status.proof = Some(if by_engine { HandoffProof::EngineOnly } else { HandoffProof::Measured });
        if by_engine {
            let message = "unproven: no driver was asked, the engine says that the old holder's containers do not run";
            self.notes.push(Note::warning(HandoffReason::Unproven.into(), "None", message));
        }
    }

    /// Goes through `plan` until the card is proven free; with `back`, until the list is done.
    fn step_of_release(
        &mut self,
        list: &mut Vec<HandoffStep>,
        plan: &[ReleaseStep],
        party: Option<&Party>,
        back: bool,
    ) -> Release {
        let done = count(list, StepStage::Release);
        let proven_since = self.seen.proof.as_ref().and_then(|proof| proof.free_since);
        if let Some(step) = list.last_mut().filter(|step| step.outcome == StepOutcome::Running) {
            let (index, declared) = (done - 1, plan.get(done - 1));
            let (Some(declared), Some(party)) = (declared, party) else {
                close(step, StepOutcome::Failed, "the workload is gone, or has other steps now", self.now);
                return Release::UnderWay;
            };
            match self.seen.answer.clone() {
                None => {
                    let key = StepKey { back, stage: StepStage::Release, index };
                    let job = Job::Release(Box::new(declared.clone()), Box::new(party.clone()));
                    self.actions.push(Action::Run { key, job });
                }
                // The runner holds to the step's own time-out.
                Some(Answer::UnderWay) => {}
                Some(Answer::Done(Ok(message))) => close(step, StepOutcome::Succeeded, message, self.now),
                Some(Answer::Done(Err(why))) => {
                    close(step, StepOutcome::Failed, &why, self.now);
                    if declared.required {
                        return Release::Failed(format!("{} failed: {why}", step.name));
                    }
                }
            }
            return Release::UnderWay;
        }
        let last = list.last().filter(|step| step.stage == StepStage::Release);
        let since = last.and_then(|step| step.finished_at.as_ref()).or(self.status.started_at.as_ref()).map(|at| at.0);
        let verified = plan.iter().take(done).any(|step| step.verify) || plan.is_empty();
        if verified && !back && proven_since.is_some_and(|at| since.is_none_or(|since| at >= since)) {
            return Release::Proven;
        }
        if let (Some(last), Some(declared), Some(since), false) =
            (last, done.checked_sub(1).and_then(|i| plan.get(i)), since, back)
            && declared.verify
            && last.outcome == StepOutcome::Succeeded
        {
            let until = plus(since, declared.timeout_seconds);
            if self.now < until {
                self.phase(HandoffPhase::WaitingCudaCleanup);
                self.wake(until);
                return Release::UnderWay;
            }
        }
        if let (Some(next), Some(party)) = (plan.get(done), party) {
            list.push(open(steps::release_name(next, party), StepStage::Release, self.now));
            return Release::UnderWay;
        }
        if back {
            return Release::Proven;
        }
        self.phase(HandoffPhase::WaitingCudaCleanup);
        let timeout = self.gpu().map_or(0, |gpu| gpu.spec.cleanup.timeout_seconds);
        let until = plus(since.unwrap_or(self.now), timeout);
        if self.now < until {
            self.wake(until);
            return Release::UnderWay;
        }
        let blocker = self.seen.proof.as_ref().and_then(|proof| proof.blocker.clone());
        Release::NotFreed(blocker.unwrap_or_else(|| "no GPU driver answers, so nothing can be proven".to_owned()))
    }

    fn transferring(&mut self) {
        if self.has_moved() {
            let holder = self.handoff.spec.to.as_ref();
            let status = self.gpu().and_then(|gpu| gpu.status.as_ref());
            let lease = holder.and_then(|to| status.and_then(|s| s.lease_of(to))).cloned();
            if holder.is_some() && lease.is_none() {
                let message = "the lease went to somebody else".to_owned();
                return self.end(HandoffPhase::Failed, HandoffReason::LeaseLost, message);
            }
            self.status.lease_id = lease.as_ref().map(|lease| lease.lease_id.clone());
            self.status.fencing_token = lease.as_ref().map(|lease| lease.fencing_token);
            return self.enter(HandoffPhase::SignalingRecipient);
        }
        if !self.is_let_in() {
            let message = "the card was taken out of this handoff's hands".to_owned();
            self.end(HandoffPhase::Failed, HandoffReason::LeaseLost, message);
        }
        // A wish to end that comes now races with the grant: it is heard by the gpu controller's compare-and-swap losing to
        // the phase, or not at all. So it is not heard here.
    }

    fn signaling(&mut self) {
        let plan = steps::acquire_plan(self.seen.to.as_ref());
        let mut list = std::mem::take(&mut self.status.steps);
        let ended = self.step_of_acquire(&mut list, &plan, self.seen.to.as_ref(), false);
        self.status.steps = list;
        match ended {
            Acquire::UnderWay => {}
            Acquire::Failed(why) => self.begin_rollback(HandoffReason::RecipientFailed, &why),
            Acquire::Done if self.needs_claim() => self.actions.push(Action::EnsureClaim),
            Acquire::Done => {
                let to = self.handoff.spec.to.as_ref().map_or("nobody".to_owned(), ToString::to_string);
                let message = format!("{} is held by {to}", self.handoff.spec.gpu);
                self.end(HandoffPhase::Completed, HandoffReason::Completed, message);
            }
        }
    }

    /// Who should hold the card must be who does: the declared owner, or somebody with a claim.
    fn needs_claim(&self) -> bool {
        let owner = self.gpu().and_then(|gpu| gpu.spec.owner.as_ref());
        let automatic = self.handoff.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(leases::CLAIM));
        let made_by_wish =
            self.gpu().is_some_and(|gpu| self.handoff.name_any().starts_with(&format!("{}-", gpu.name_any())))
                && self.handoff.spec.type_ == crate::api::handoff::HandoffType::Transfer;
        let to = self.handoff.spec.to.as_ref();
        to.is_some() && owner != to && !automatic && !made_by_wish && !self.seen.claim_stands
    }

    fn step_of_acquire(
        &mut self,
        list: &mut Vec<HandoffStep>,
        plan: &[AcquireStep],
        party: Option<&Party>,
        back: bool,
    ) -> Acquire {
        let done = count(list, StepStage::Acquire);
        if let Some(step) =
            list.last_mut().filter(|s| s.outcome == StepOutcome::Running && s.stage == StepStage::Acquire)
        {
            let (Some(declared), Some(party)) = (plan.get(done - 1), party) else {
                close(step, StepOutcome::Failed, "the workload is gone, or has other steps now", self.now);
                return Acquire::UnderWay;
            };
            let until = plus(step.started_at.as_ref().map_or(self.now, |at| at.0), declared.timeout_seconds);
            let answer = match declared.start {
                Some(_) => started(party, self.now >= until, declared.timeout_seconds),
                None => self.seen.answer.clone(),
            };
            match answer {
                None => {
                    let key = StepKey { back, stage: StepStage::Acquire, index: done - 1 };
                    let job = Job::Acquire(Box::new(declared.clone()), Box::new(party.clone()));
                    self.actions.push(Action::Run { key, job });
                }
                Some(Answer::UnderWay) => {
                    self.wake_at = Some(self.wake_at.map_or(until, |at| at.min(until)));
                }
                Some(Answer::Done(Ok(message))) => close(step, StepOutcome::Succeeded, message, self.now),
                Some(Answer::Done(Err(why))) => {
                    close(step, StepOutcome::Failed, &why, self.now);
                    if declared.required && !back {
                        return Acquire::Failed(format!("{} failed: {why}", step.name));
                    }
                }
            }
            return Acquire::UnderWay;
        }
        match (plan.get(done), party) {
            (Some(next), Some(party)) => {
                list.push(open(steps::acquire_name(next, party), StepStage::Acquire, self.now));
                Acquire::UnderWay
            }
            _ => Acquire::Done,
        }
    }

    fn begin_rollback(&mut self, reason: HandoffReason, why: &str) {
        if let Some(step) = self.status.steps.last_mut().filter(|step| step.outcome == StepOutcome::Running) {
            close(step, StepOutcome::Failed, "given up", self.now);
        }
        self.take_curve();
        self.status.error = Some(why.to_owned());
        self.status.rollback = Some(Rollback::default());
        self.notes.push(Note::warning(reason.into(), HandoffReason::RollingBack.into(), why));
        self.say(ConditionStatus::False, HandoffReason::RollingBack, format!("{why}; the old holder is put back"));
    }

    /// The new holder lets go, if it has the lease; the lease goes back; the old holder takes up again.
    fn roll_back(&mut self) {
        let Some(mut rollback) = self.status.rollback.clone() else { return };
        let to = self.handoff.spec.to.as_ref();
        let status = self.gpu().and_then(|gpu| gpu.status.as_ref());
        let at_new = self.has_moved() && to.is_some_and(|to| status.is_some_and(|s| s.lease_of(to).is_some()));
        if at_new && !rollback.return_lease {
            let plan = steps::withdraw_plan(self.seen.to.as_ref());
            let ended = self.step_of_release(&mut rollback.steps, &plan, self.seen.to.as_ref(), true);
            let failed = rollback.steps.last().is_some_and(|step| step.outcome == StepOutcome::Failed);
            match ended {
                Release::UnderWay => {}
                // It may still use the card: two holders would be worse than the wrong one.
                Release::Proven | Release::Failed(_) | Release::NotFreed(_) if failed => {
                    rollback.outcome = StepOutcome::Failed;
                    rollback.message = Some("the new holder could not be stopped, and keeps the card".to_owned());
                    self.status.rollback = Some(rollback);
                    let why = self.status.error.clone().unwrap_or_default();
                    return self.end(HandoffPhase::Failed, HandoffReason::RecipientFailed, why);
                }
                Release::Proven | Release::Failed(_) | Release::NotFreed(_) => rollback.return_lease = true,
            }
        } else if !at_new || rollback.return_lease && !self.is_let_in() {
            let touched = !self.status.steps.is_empty();
            let plan = if touched { steps::acquire_plan(self.seen.from.as_ref()) } else { Vec::new() };
            let ended = self.step_of_acquire(&mut rollback.steps, &plan, self.seen.from.as_ref(), true);
            if !matches!(ended, Acquire::UnderWay) {
                let failed = rollback.steps.iter().any(|step| step.outcome == StepOutcome::Failed);
                rollback.outcome = match (failed, touched) {
                    (true, _) => StepOutcome::Failed,
                    (false, true) => StepOutcome::Succeeded,
                    (false, false) => StepOutcome::Skipped,
                };
                rollback.message = Some(match rollback.outcome {
                    StepOutcome::Skipped => "nothing had been done".to_owned(),
                    StepOutcome::Failed => "the old holder is not as it was: see the steps".to_owned(),
                    StepOutcome::Running | StepOutcome::Succeeded => "the old holder is back".to_owned(),
                });
                self.status.rollback = Some(rollback);
                let why = self.status.error.clone().unwrap_or_default();
                let cancelled = why.starts_with(CANCELLED);
                let phase = if cancelled { HandoffPhase::Cancelled } else { HandoffPhase::Failed };
                let reason = if cancelled { HandoffReason::Cancelled } else { HandoffReason::ReleaseFailed };
                return self.end(phase, reason, why);
            }
        }
        self.status.rollback = Some(rollback);
    }

    fn phase(&mut self, phase: HandoffPhase) {
        if self.status.phase != phase {
            self.enter(phase);
        }
    }

    fn enter(&mut self, phase: HandoffPhase) {
        self.status.phase = phase;
        self.status.progress_pct = phase.progress_pct().unwrap_or(self.status.progress_pct);
        self.notes.push(Note::normal(HandoffReason::Progressing.into(), "None", format!("{phase:?}")));
        self.say(ConditionStatus::False, HandoffReason::Progressing, format!("{phase:?}"));
    }

    fn end(&mut self, phase: HandoffPhase, reason: HandoffReason, message: String) {
        self.status.phase = phase;
        self.status.completed_at = Some(MicroTime(self.now));
        let completed = phase == HandoffPhase::Completed;
        if completed {
            self.status.progress_pct = 100;
        } else {
            self.status.error.get_or_insert_with(|| message.clone());
        }
        let ready = if completed { ConditionStatus::True } else { ConditionStatus::False };
        self.notes.push(match completed {
            true => Note::normal(reason.into(), "None", message.clone()),
            false => Note::warning(reason.into(), "None", message.clone()),
        });
        self.say(ready, reason, message);
    }

    fn say(&mut self, status: ConditionStatus, reason: HandoffReason, message: String) {
        let (generation, now) = (self.handoff.metadata.generation, Time(self.now));
        condition::set(&mut self.status.conditions, READY, status, reason.into(), message, generation, &now);
    }

    fn wake(&mut self, at: Timestamp) {
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

enum Release {
    UnderWay,
    Proven,
    Failed(String),
    NotFreed(String),
}

enum Acquire {
    UnderWay,
    Done,
    Failed(String),
}

/// The workload controller starts what may run; this only reads how far it is.
fn started(party: &Party, late: bool, seconds: u32) -> Option<Answer> {
    let spec = &party.workload.spec;
    let status = party.workload.status.as_ref();
    let (wished, told) = match party.holder.variant {
        Variant::Live => (spec.live.as_ref().is_some_and(|v| v.running), status.and_then(|s| s.live.as_ref())),
        Variant::Candidate => {
            (spec.candidate.as_ref().is_some_and(|v| v.running), status.and_then(|s| s.candidate.as_ref()))
        }
    };
    if !wished {
        return Some(Answer::Done(Ok("it is not to run".to_owned())));
    }
    let running = party
        .containers
        .iter()
        .any(|c| c.state == ContainerState::Running && told.and_then(|t| t.container_id.as_ref()) == Some(&c.id.0));
    let ready = told.is_some_and(|t| t.state == VariantState::Running && t.health == VariantHealth::Healthy);
    Some(match (running && ready, late) {
        (true, _) => Answer::Done(Ok("runs and is healthy".to_owned())),
        (false, true) => Answer::Done(Err(format!("does not run and answer within {seconds} s"))),
        (false, false) => Answer::UnderWay,
    })
}

fn open(name: String, stage: StepStage, now: Timestamp) -> HandoffStep {
    let started_at = Some(MicroTime(now));
    HandoffStep { name, stage, outcome: StepOutcome::Running, started_at, ..HandoffStep::default() }
}

fn close(step: &mut HandoffStep, outcome: StepOutcome, message: impl Into<String>, now: Timestamp) {
    step.outcome = outcome;
    step.finished_at = Some(MicroTime(now));
    step.message = Some(message.into()).filter(|m: &String| !m.is_empty());
}

fn plus(at: Timestamp, seconds: u32) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX)
}
