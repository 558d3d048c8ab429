//! Tables over `decide`: a handoff as it is stored, what is seen, and what is written down next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    decide::decide,
    flight::{Flight, at, container, exec, holder, party, signaling, stop},
    observe::subject,
    proof::Proof,
    runner::Answer,
    steps::in_practice,
};
use crate::{
    adapters::containers::ContainerState,
    api::{
        gpu::{Gpu, GpuProcess, Measure},
        gpustep::ReleaseStep,
        handoff::{HandoffPhase, HandoffStatus, StepOutcome},
        label,
        workload::{CandidateSpec, Variant, VariantHealth, VariantState, VariantStatus, WorkloadStatus},
    },
    runtime::{
        events::EventType,
        reconciler::{Finalizer, Requeue},
    },
};

#[test]
fn goes_from_step_to_step() {
    let mut flight = Flight::new(vec![exec("ask", |_| ()), stop()]);
    flight.settle();
    assert_eq!(flight.phase(), HandoffPhase::Initiated, "until it is let in");
    let mut flight = flight.let_in();
    assert_eq!(flight.settle(), ["Release 0"]);
    assert_eq!((flight.phase(), flight.status().base_token), (HandoffPhase::ReleasingGpu, Some(7)));
    flight.answer(Ok("done"));
    assert_eq!(flight.phase(), HandoffPhase::WaitingCudaCleanup, "an answer is no proof");
    flight.free();
    assert_eq!(flight.phase(), HandoffPhase::TransferringOwnership, "the stop was not needed");
    assert_eq!(flight.later(500), Vec::<String>::new());
    assert_eq!(flight.phase(), HandoffPhase::TransferringOwnership, "until the lease has moved");
    flight.grant(&["study"]);
    assert_eq!(flight.settle(), ["Acquire 0"]);
    let status = flight.status();
    assert_eq!((status.lease_id.as_deref(), status.progress_pct), (Some("lease of study"), 80));
    assert_eq!(flight.answer(Ok("")), ["EnsureClaim"]);
    flight.seen.claim_stands = true;
    flight.settle();
    assert_eq!(flight.phase(), HandoffPhase::Completed);
    assert_eq!(flight.steps(), ["exec prime ask Succeeded", "exec study take Succeeded"]);
}

#[test]
fn an_outsider_has_nothing_to_do_and_its_memory_is_waited_for() {
    let mut flight = Flight::new(vec![]).let_in();
    flight.seen.from = None;
    assert_eq!(flight.settle(), Vec::<String>::new());
    assert_eq!(flight.phase(), HandoffPhase::WaitingCudaCleanup);
    flight.free();
    assert_eq!(flight.phase(), HandoffPhase::TransferringOwnership);
}

#[test]
fn a_handoff_that_has_ended_is_left_alone() {
    for phase in [HandoffPhase::Completed, HandoffPhase::Failed, HandoffPhase::Cancelled] {
        let mut flight = Flight::new(vec![stop()]).let_in();
        flight.handoff.status = Some(HandoffStatus { phase, ..HandoffStatus::default() });
        let plan = decide(&flight.handoff, &flight.seen, at(1));
        assert_eq!((plan.status, plan.finalizer, plan.stages.len()), (None, Finalizer::Released, 0), "{phase:?}");
    }
}

#[test]
fn what_was_free_before_the_step_is_no_proof_of_it() {
    let mut flight = Flight::new(vec![stop()]).let_in();
    flight.free();
    flight.later(1);
    flight.answer(Ok(""));
    assert_eq!(flight.phase(), HandoffPhase::WaitingCudaCleanup);
    flight.later(1);
    flight.free();
    assert_eq!(flight.phase(), HandoffPhase::TransferringOwnership);
}

#[test]
fn steps_are_tried_in_order() {
    // Release steps, onStuck, what each step comes to (None: the memory does not come free by it), and the steps then.
    let tell = || exec("tell", |step| step.verify = false);
    type Case = (&'static str, Vec<ReleaseStep>, Vec<Measure>, Vec<Option<&'static str>>, Vec<&'static str>);
    let cases: [Case; 5] = [
        ("no steps: a stop", vec![], vec![], vec![None], vec!["stop default/prime Succeeded"]),
        (
            "one that fails is followed by the next",
            vec![exec("a", |_| ()), exec("b", |_| ())],
            vec![],
            vec![Some("no"), None],
            vec!["exec prime a Failed", "exec prime b Succeeded"],
        ),
        (
            "one that is not verified is followed at once",
            vec![tell(), stop()],
            vec![],
            vec![None, None],
            vec!["exec prime tell Succeeded", "stop default/prime Succeeded"],
        ),
        (
            "onStuck comes after them",
            vec![exec("a", |_| ())],
            vec![Measure::Release, Measure::Stop, Measure::Kill],
            vec![None, None, None, None],
            vec![
                "exec prime a Succeeded",
                "exec prime a Succeeded",
                "stop default/prime Succeeded",
                "kill default/prime Succeeded",
            ],
        ),
        (
            "what only tells is not repeated, nor a stop",
            vec![tell(), stop()],
            vec![Measure::Release, Measure::Stop],
            vec![None, None],
            vec!["exec prime tell Succeeded", "stop default/prime Succeeded"],
        ),
    ];
    for (what, release, on_stuck, answers, expected) in cases {
        let mut flight = Flight::new(release).let_in();
        flight.card(|gpu| gpu.spec.on_stuck = on_stuck);
        flight.handoff.spec.timeout_seconds = 86_400;
        flight.settle();
        for answer in answers {
            flight.answer(answer.map_or(Ok(""), Err));
            // The memory of this one does not come free in its time; the next is tried.
            if flight.status().steps.last().is_none_or(|step| step.outcome != StepOutcome::Running) {
                flight.later(20);
            }
        }
        assert_eq!(flight.steps(), expected, "{what}");
        flight.later(31);
        let error = flight.status().error.unwrap_or_default();
        assert!(error.starts_with("GPU cleanup timeout - VRAM not released"), "{what}: {error}");
    }
}

#[test]
fn a_required_step_that_fails_ends_it() {
    let mut flight = Flight::new(vec![exec("ask", |step| step.required = true), stop()]).let_in();
    flight.settle();
    assert_eq!(flight.answer(Err("busy")), ["back Acquire 0"], "the old holder takes up again");
    flight.answer(Ok(""));
    assert_eq!(flight.end(), "Failed ReleaseFailed: exec prime ask failed: busy; the old holder is back");
    assert_eq!(flight.steps_back(), ["exec prime take Succeeded"]);
}

/// `live stop`, and then the card goes elsewhere: core, which was to be told first, is stopped too. What does not run may be on its
/// way up: the engine does the stop after the start.
#[test]
fn who_does_not_run_is_stopped_in_place_of_being_asked() {
    for state in [Some(ContainerState::Exited), Some(ContainerState::Created), None] {
        let mut flight = Flight::new(vec![exec("ask", |step| step.required = true)]).let_in();
        let from = flight.seen.from.as_mut().expect("prime");
        from.containers = state.map(|state| container("prime", state)).into_iter().collect();
        let done = in_practice(&from.workload.spec.gpu.as_ref().expect("its steps").release_steps[0], from);
        assert!(done.stop.is_some() && done.exec.is_none() && done.required && done.verify, "{done:?}");
        assert_eq!(flight.settle(), ["Release 0"]);
        flight.free();
        assert_eq!(flight.phase(), HandoffPhase::ReleasingGpu, "a free card is no proof that nothing comes up");
        flight.later(1);
        flight.answer(Ok("did not run"));
        flight.free();
        assert_eq!(flight.phase(), HandoffPhase::TransferringOwnership);
        assert_eq!(flight.steps(), ["exec prime ask Skipped"]);
    }
    let running = Flight::new(vec![exec("ask", |_| ())]).let_in().seen.from.expect("prime");
    let asked = in_practice(&exec("ask", |_| ()), &running);
    assert!(asked.exec.is_some() && asked.stop.is_none(), "{asked:?}");
}

#[test]
fn memory_that_does_not_come_free_ends_it_and_says_who_has_it() {
    let mut flight = Flight::new(vec![stop()]).let_in();
    flight.settle();
    flight.answer(Ok(""));
    flight.seen.proof = Some(Proof { blocker: Some("9000 MiB are still used".into()), ..Proof::default() });
    flight.later(25);
    flight.later(25);
    flight.answer(Err("it is gone"));
    assert_eq!(
        flight.end(),
        "Failed MemoryNotFreed: GPU cleanup timeout - VRAM not released: 9000 MiB are still used; the old holder is not \
         as it was: see the steps"
    );
}

#[test]
fn without_a_driver_nothing_is_proven() {
    let mut flight = Flight::new(vec![stop()]).let_in();
    flight.seen.proof = None;
    flight.settle();
    flight.answer(Ok(""));
    flight.later(61);
    flight.answer(Ok(""));
    assert!(flight.end().contains("no GPU driver answers, so nothing can be proven"), "{}", flight.end());
}

#[test]
fn is_refused_before_anything_is_done() {
    type Change = fn(&mut Flight);
    let cases: [(Change, &str); 8] = [
        (|f| f.seen.gpu = None, "Failed NoSuchGpu: there is no Gpu gpu0"),
        (
            |f| f.leases(&["study"]),
            "Failed WrongHolder: Cannot handoff - GPU owned by default/study, expected default/prime",
        ),
        (|f| f.leases(&[]), "Failed WrongHolder: Cannot handoff - GPU owned by nobody, expected default/prime"),
        (
            |f| f.seen.other_runs = Some("default/other".into()),
            "Failed AnotherInProgress: Handoff already in progress: default/other",
        ),
        (|f| f.seen.to = None, "Failed NoSuchWorkload: there is no default/study"),
        (
            |f| f.handoff.spec.to.as_mut().expect("to").variant = Variant::Candidate,
            "Failed NoSuchWorkload: there is no default/study (candidate)",
        ),
        (|f| f.card(|gpu| gpu.spec.lend = false), "Failed NotLent: gpu0 is default/prime's alone"),
        (|f| f.handoff.spec.cancel = true, "Cancelled Cancelled: cancelled"),
    ];
    for (change, expected) in cases {
        let mut flight = Flight::new(vec![stop()]);
        change(&mut flight);
        assert_eq!(flight.settle(), Vec::<String>::new(), "{expected}");
        assert_eq!(flight.end(), expected);
        assert!(flight.status().steps.is_empty(), "{expected}");
    }
}

#[test]
fn a_card_that_is_not_lent_may_go_to_its_owners_other_variant() {
    let mut flight = Flight::new(vec![stop()]).let_in();
    flight.card(|gpu| gpu.spec.lend = false);
    let mut to = party("prime", vec![]);
    Arc::make_mut(&mut to.workload).spec.candidate = Some(CandidateSpec::default());
    to.holder.variant = Variant::Candidate;
    flight.handoff.spec.to = Some(to.holder.clone());
    flight.seen.to = Some(to);
    assert_eq!(flight.settle(), ["Release 0"]);
}

#[test]
fn a_card_that_nobody_has_looked_at_yet_is_waited_for() {
    let mut flight = Flight::new(vec![stop()]);
    flight.leases(&[]);
    flight.card(|gpu| gpu.status.as_mut().expect("told").observed_generation = None);
    flight.settle();
    assert_eq!(flight.phase(), HandoffPhase::Initiated);
}

/// That the status is stored before something is done, and that each phase is told, is worth a write; nothing else is.
#[test]
fn a_pass_goes_on_as_far_as_it_sees() {
    let mut flight = Flight::new(vec![exec("tell", |step| step.verify = false), stop()]).let_in();
    assert_eq!(flight.once(), (HandoffPhase::ReleasingGpu, vec!["Release 0".to_owned()]));
    flight.seen.answer = Some(Answer::Done(Ok(String::new())));
    assert_eq!(flight.once(), (HandoffPhase::ReleasingGpu, vec!["Release 1".to_owned()]));
    flight.seen.answer = Some(Answer::Done(Ok(String::new())));
    flight.seen.answered_at = Some(at(0));
    let mut late = Flight { handoff: flight.handoff.clone(), seen: flight.seen.clone(), second: 1 };
    flight.seen.proof = Some(Proof { free_since: Some(at(0)), ..Proof::default() });
    assert_eq!(
        flight.once(),
        (HandoffPhase::TransferringOwnership, vec![]),
        "proven before the pass heard of the stop"
    );
    assert_eq!(late.once(), (HandoffPhase::WaitingCudaCleanup, vec![]));
    late.seen.answer = None;
    late.seen.proof = Some(Proof { free_since: Some(at(0)), ..Proof::default() });
    assert_eq!(late.once(), (HandoffPhase::TransferringOwnership, vec![]));
    flight.grant(&["study"]);
    assert_eq!(flight.once(), (HandoffPhase::SignalingRecipient, vec!["Acquire 0".to_owned()]));
    flight.seen.answer = Some(Answer::Done(Ok(String::new())));
    assert_eq!(flight.once(), (HandoffPhase::SignalingRecipient, vec!["EnsureClaim".to_owned()]));
    flight.seen.claim_stands = true;
    assert_eq!(flight.once(), (HandoffPhase::Completed, vec![]));
}

/// Found by the simulator (seed 519): at the very end of its time the step was looked at without a pause.
#[test]
fn a_step_that_the_runner_is_at_is_looked_at_without_haste() {
    let mut flight = signaling();
    flight.seen.answer = Some(Answer::UnderWay);
    for second in [9, 10, 11] {
        let plan = decide(&flight.handoff, &flight.seen, at(flight.second + second));
        assert_eq!(plan.requeue, Requeue::After(Duration::from_secs(1)), "{second}");
    }
}

#[test]
fn a_step_that_is_not_required_may_fail() {
    let mut flight = signaling();
    let to = flight.seen.to.as_mut().expect("a recipient");
    Arc::make_mut(&mut to.workload).spec.gpu.as_mut().expect("uses cards").acquire_steps[0].required = false;
    flight.seen.claim_stands = true;
    flight.answer(Err("no"));
    assert_eq!(flight.phase(), HandoffPhase::Completed);
}

#[test]
fn who_gets_it_from_a_person_gets_a_claim() {
    type Change = fn(&mut Flight);
    let cases: [(&str, Change, bool); 5] = [
        ("somebody", |_| (), true),
        ("the card is lent to nobody any more", |f| f.card(|gpu| gpu.spec.lend = false), false),
        ("the owner has it anyway", |f| f.card(|gpu| gpu.spec.owner = Some(holder("study"))), false),
        ("it has a claim", |f| f.seen.claim_stands = true, false),
        (
            "it follows from who should have it",
            |f| f.handoff.metadata.labels = Some(BTreeMap::from([(label::CAUSE.into(), "claim".into())])),
            false,
        ),
    ];
    for (what, change, expected) in cases {
        let mut flight = signaling();
        change(&mut flight);
        let done = flight.answer(Ok(""));
        assert_eq!(done == ["EnsureClaim"], expected, "{what}");
        assert_eq!(flight.phase() == HandoffPhase::Completed, !expected, "{what}");
    }
}

#[test]
fn starts_are_what_the_workload_controller_says_they_are() {
    let study = |wished: bool, health, state| {
        let mut to = party("study", vec![]);
        to.containers = vec![container("study", state)];
        let workload = Arc::make_mut(&mut to.workload);
        workload.spec.live.as_mut().expect("live").running = wished;
        workload.spec.gpu.as_mut().expect("uses cards").acquire_steps.clear();
        let live = VariantStatus {
            container_id: Some("study".into()),
            state: VariantState::Running,
            health,
            ..VariantStatus::default()
        };
        workload.status = Some(WorkloadStatus { live: Some(live), ..WorkloadStatus::default() });
        to
    };
    let (running, exited) = (ContainerState::Running, ContainerState::Exited);
    let healthy = VariantHealth::Healthy;
    let cases = [
        (study(true, healthy, running), 1, "Completed"),
        (study(true, VariantHealth::Starting, running), 299, "SignalingRecipient"),
        (study(true, healthy, exited), 299, "SignalingRecipient"),
        (study(true, VariantHealth::Starting, running), 301, "rolls back"),
        (study(false, healthy, exited), 1, "Completed"),
    ];
    for (to, after, expected) in cases {
        let mut flight = Flight::new(vec![stop()]).let_in();
        flight.settle();
        flight.answer(Ok(""));
        flight.free();
        flight.grant(&["study"]);
        flight.seen.claim_stands = true;
        flight.seen.to = Some(study(true, VariantHealth::Starting, running));
        flight.settle();
        flight.seen.to = Some(to);
        flight.later(after);
        let rolls_back = flight.status().rollback.is_some();
        let told = if rolls_back { "rolls back".to_owned() } else { format!("{:?}", flight.phase()) };
        assert_eq!(told, expected, "after {after} s");
    }
}

#[test]
fn a_crash_begins_the_step_again() {
    let mut flight = Flight::new(vec![stop()]).let_in();
    assert_eq!(flight.settle(), ["Release 0"]);
    assert_eq!(flight.settle(), ["Release 0"], "nobody is at it: a fresh process does not remember");
    flight.seen.answer = Some(Answer::UnderWay);
    assert_eq!(flight.settle(), Vec::<String>::new());
}

#[test]
fn steps_that_change_under_way_are_not_taken_for_others() {
    let mut flight = Flight::new(vec![exec("a", |_| ()), exec("b", |_| ())]).let_in();
    flight.settle();
    flight.answer(Err("no"));
    flight.seen.from = Some(party("prime", vec![]));
    flight.settle();
    assert_eq!(flight.steps()[1], "exec prime b Failed");
    assert_eq!(flight.phase(), HandoffPhase::WaitingCudaCleanup);
}

#[test]
fn an_end_is_an_event() {
    let mut flight = Flight::new(vec![stop()]);
    flight.seen.gpu = None;
    let plan = decide(&flight.handoff, &flight.seen, at(1));
    let events: Vec<_> = plan.events.iter().map(|note| (note.type_, note.reason)).collect();
    assert_eq!(events, [(EventType::Warning, "NoSuchGpu")]);
}

#[test]
fn what_a_holder_left_behind_is_its_own_also_when_its_workload_is_gone() {
    let mut flight = Flight::new(vec![stop()]).let_in();
    flight.settle();
    let mut gpu = Gpu::clone(flight.seen.gpu.as_ref().expect("seen"));
    let status = gpu.status.as_mut().expect("told");
    status.uuid = Some("GPU-0".to_owned());
    let process = |pid, name: &str| GpuProcess {
        pid,
        orphan: true,
        workload: Some(format!("default/{name}")),
        variant: Some(Variant::Live),
        ..GpuProcess::default()
    };
    status.processes = vec![process(7, "prime"), process(8, "another")];
    let subject = subject(&flight.handoff, &gpu, None, flight.seen.to.as_ref(), &[]).expect("something is waited for");
    assert_eq!(subject.from_pids, [7]);
}
