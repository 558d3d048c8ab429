//! Tables over `decide`, of handoffs that turn back: who may call them off until when, and how everything is put back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    decide::{Leaver, leaver, running},
    flight::{Flight, at, exec, signaling, stop},
    proof::Proof,
    runner::{Answer, StepKey},
};
use crate::api::handoff::{HandoffPhase, StepStage};

#[test]
fn a_wished_end_is_heard_until_the_proof() {
    type Change = fn(&mut Flight);
    let wishes: [(Change, &str); 4] = [
        (|f| f.handoff.spec.cancel = true, "Cancelled Cancelled: cancelled"),
        (
            |f| f.handoff.metadata.deletion_timestamp = Some(Time(at(1))),
            "Cancelled Deleted: cancelled: the handoff was deleted",
        ),
        (|f| f.seen.claim_ended = true, "Cancelled ClaimEnded: cancelled: the claim it was made for is over"),
        (|f| f.second = 200, "Failed DeadlineExceeded: not done within 120 s"),
    ];
    for (wish, expected) in wishes {
        let mut waiting = Flight::new(vec![stop()]);
        waiting.settle();
        wish(&mut waiting);
        waiting.settle();
        assert_eq!(waiting.end(), expected);

        let mut releasing = Flight::new(vec![exec("ask", |_| ()), stop()]).let_in();
        releasing.settle();
        wish(&mut releasing);
        assert_eq!(releasing.settle(), ["back Acquire 0"], "{expected}");
        assert_eq!(releasing.steps(), ["exec prime ask Failed"], "{expected}");
        releasing.answer(Ok(""));
        assert_eq!(releasing.end(), format!("{expected}; the old holder is back"));

        let mut proven = Flight::new(vec![stop()]).let_in();
        proven.settle();
        proven.answer(Ok(""));
        proven.free();
        wish(&mut proven);
        proven.settle();
        assert_eq!(proven.phase(), HandoffPhase::TransferringOwnership, "{expected}");
    }
}

/// What Docker has begun it ends: "the old holder is back" was said of one that was about to be stopped.
#[test]
fn a_stop_that_is_under_way_ends_before_the_old_holder_is_called_back() {
    let stopping = || {
        let mut flight = Flight::new(vec![stop()]).let_in();
        assert_eq!(flight.settle(), ["Release 0"]);
        flight.seen.answer = Some(Answer::UnderWay);
        flight.handoff.spec.cancel = true;
        assert_eq!(flight.settle(), Vec::<String>::new());
        assert_eq!(flight.steps(), ["stop default/prime Running"]);
        assert_eq!(running(&flight.handoff), Some(StepKey { back: false, stage: StepStage::Release, index: 0 }));
        flight
    };
    for (answer, outcome) in [(Ok(""), "Succeeded"), (Err("no answer within 20 s"), "Failed")] {
        let mut flight = stopping();
        assert_eq!(flight.answer(answer), ["back Acquire 0"]);
        assert_eq!(flight.steps(), [format!("stop default/prime {outcome}")]);
        flight.answer(Ok(""));
        assert_eq!(flight.end(), "Cancelled Cancelled: cancelled; the old holder is back");
    }
    let mut crashed = stopping();
    crashed.seen.answer = None;
    assert_eq!(crashed.settle(), ["Release 0"], "a fresh process cannot know whether the engine is still at it");
    let mut gone = stopping();
    gone.seen.from = None;
    gone.settle();
    assert_eq!(gone.steps(), ["stop default/prime Failed"]);
    assert!(gone.status().phase.is_terminal(), "nobody is left to be called back");
}

#[test]
fn nothing_is_put_back_when_nothing_was_done() {
    let mut flight = Flight::new(vec![]).let_in();
    flight.seen.from = None;
    flight.settle();
    assert_eq!(flight.phase(), HandoffPhase::WaitingCudaCleanup);
    flight.handoff.spec.cancel = true;
    assert_eq!(flight.settle(), Vec::<String>::new());
    assert_eq!(flight.end(), "Cancelled Cancelled: cancelled; nothing had been done");
}

#[test]
fn a_card_taken_out_of_its_hands_is_left() {
    let mut releasing = Flight::new(vec![stop()]).let_in();
    releasing.settle();
    releasing.card(|gpu| gpu.status.as_mut().expect("told").handoff = Some("default/other".into()));
    releasing.settle();
    assert_eq!(releasing.end(), "Failed LeaseLost: the card was taken out of this handoff's hands");

    let mut moved = Flight::new(vec![stop()]).let_in();
    moved.settle();
    moved.answer(Ok(""));
    moved.free();
    moved.grant(&["stranger"]);
    moved.settle();
    assert_eq!(moved.end(), "Failed LeaseLost: the lease went to somebody else");
}

#[test]
fn a_recipient_that_cannot_take_it_gives_it_back_with_proof() {
    let mut flight = signaling();
    assert_eq!(leaver(&flight.handoff, flight.seen.gpu.as_deref()), Leaver::Nobody);
    flight.seen.proof = Some(Proof::default());
    assert_eq!(flight.answer(Err("out of memory")), ["back Release 0"]);
    assert_eq!(leaver(&flight.handoff, flight.seen.gpu.as_deref()), Leaver::To);
    assert_eq!(flight.answer(Ok("")), Vec::<String>::new());
    assert!(!flight.status().rollback.expect("rolls back").return_lease, "a stop's answer is no proof");
    flight.later(1);
    flight.free();
    assert!(flight.status().rollback.expect("rolls back").return_lease);
    assert_eq!(leaver(&flight.handoff, flight.seen.gpu.as_deref()), Leaver::Nobody);
    assert_eq!(flight.later(100), Vec::<String>::new(), "the old holder does not start before it has the lease");
    flight.grant(&["prime"]);
    assert_eq!(flight.settle(), ["back Acquire 0"]);
    flight.answer(Ok(""));
    assert_eq!(flight.end(), "Failed RecipientFailed: exec study take failed: out of memory; the old holder is back");
    assert_eq!(flight.steps_back(), ["stop default/study Succeeded", "exec prime take Succeeded"]);
}

#[test]
fn who_calls_it_off_while_the_new_holder_starts_has_the_old_one_back_with_proof() {
    type Change = fn(&mut Flight);
    let wishes: [(Change, &str); 2] = [
        (|f| f.handoff.spec.cancel = true, "Cancelled Cancelled: cancelled"),
        (
            |f| f.handoff.metadata.deletion_timestamp = Some(Time(at(1))),
            "Cancelled Deleted: cancelled: the handoff was deleted",
        ),
    ];
    for (wish, expected) in wishes {
        let mut flight = signaling();
        flight.seen.answer = Some(Answer::UnderWay);
        flight.seen.proof = Some(Proof::default());
        wish(&mut flight);
        assert_eq!(flight.settle(), ["back Release 0"], "{expected}");
        assert_eq!(flight.steps(), ["stop default/prime Succeeded", "exec study take Failed"]);
        flight.answer(Ok(""));
        assert!(!flight.status().rollback.expect("rolls back").return_lease, "a stop's answer is no proof");
        flight.later(1);
        flight.free();
        assert!(flight.status().rollback.expect("rolls back").return_lease);
        flight.grant(&["prime"]);
        assert_eq!(flight.settle(), ["back Acquire 0"]);
        flight.answer(Ok(""));
        assert_eq!(flight.end(), format!("{expected}; the old holder is back"));
    }
}

/// The lease has moved in time, and a claim that is over leads to a handoff of its own.
#[test]
fn other_ends_are_not_heard_once_the_lease_has_moved() {
    for wish in [(|f| f.seen.claim_ended = true) as fn(&mut Flight), |f| f.second = 200] {
        let mut flight = signaling();
        wish(&mut flight);
        assert_eq!(flight.settle(), ["Acquire 0"]);
        assert_eq!(flight.status().rollback, None);
    }
}

/// Its claim may stand by then, and would only lead there again.
#[test]
fn who_has_taken_the_card_keeps_it() {
    let mut flight = signaling();
    assert_eq!(flight.answer(Ok("")), ["EnsureClaim"]);
    flight.handoff.spec.cancel = true;
    assert_eq!(flight.settle(), ["EnsureClaim"]);
    flight.seen.claim_stands = true;
    flight.settle();
    assert_eq!(flight.phase(), HandoffPhase::Completed);
}

#[test]
fn a_recipient_that_cannot_be_stopped_keeps_the_card() {
    let mut flight = signaling();
    flight.seen.proof = Some(Proof { blocker: Some("pid 9 is there".into()), ..Proof::default() });
    flight.answer(Err("out of memory"));
    flight.answer(Ok(""));
    for _ in 0..4 {
        flight.later(16);
    }
    assert_eq!(
        flight.end(),
        "Failed RecipientFailed: exec study take failed: out of memory; the new holder could not be stopped, and keeps \
         the card: pid 9 is there"
    );
    assert!(!flight.status().rollback.expect("rolls back").return_lease);
}

#[test]
fn a_recipient_that_is_deleted_fails() {
    let mut flight = signaling();
    flight.seen.to = None;
    flight.settle();
    assert_eq!(flight.status().error.as_deref(), Some("default/study is gone"));
}
