//! Tables over what is said of a card's health, of orphans, of the age of a reading, and of two objects for one card.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    decide::{HEARTBEAT, Observed, decide},
    health::{HEALTHY, ORPHANED},
    tests::{after, at, by_index, card, gpu, no_answer, process, ready, showing, status},
};
use crate::{
    adapters::gpus::GpuDevice as Card,
    api::gpu::{Gpu, XidSeen},
    runtime::events::EventType,
};

/// `False Xid`; nothing when it is not said.
fn said(gpu: &Gpu, type_: &str) -> String {
    let conditions = gpu.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|c| c.type_ == type_).map(|c| format!("{} {}", c.status, c.reason)).collect()
}

/// Reasons of warnings, and of the rest in brackets.
fn told(gpu: &Gpu, observed: &Observed) -> String {
    let one = |note: crate::runtime::events::Note| match note.type_ {
        EventType::Warning => note.reason.to_owned(),
        EventType::Normal => format!("({})", note.reason),
    };
    decide(gpu, observed, at(9)).events.into_iter().map(one).collect::<Vec<_>>().join(" ")
}

fn with_xid(code: Option<u64>) -> Observed {
    showing(vec![Card { last_xid: code, ..card(0) }])
}

fn known() -> Gpu {
    after(&gpu(by_index(0)), &showing(vec![card(0)]), 0)
}

#[test]
fn a_fault_of_the_card_makes_it_unhealthy_and_one_of_a_program_is_only_told() {
    assert_eq!(said(&known(), HEALTHY), "True NoFault");
    for (code, healthy) in [(13, "True NoFault"), (31, "True NoFault"), (48, "False Xid"), (79, "False Xid")] {
        let faulty = after(&known(), &with_xid(Some(code)), 5);
        assert_eq!(said(&faulty, HEALTHY), healthy, "{code}");
        assert_eq!(faulty.status.as_ref().unwrap().last_xid, Some(XidSeen { code, at: Time(at(5)) }));
        assert_eq!(told(&known(), &with_xid(Some(code))), "Xid", "once");
        assert_eq!(told(&faulty, &with_xid(Some(code))), "", "and not again: {code}");
    }
}

#[test]
fn a_fault_stays_in_the_record_and_counts_until_gaia_is_started_again() {
    let faulty = after(&known(), &with_xid(Some(79)), 5);
    let restarted = after(&faulty, &with_xid(None), 10);
    assert_eq!(said(&restarted, HEALTHY), "True NoFault");
    assert_eq!(told(&faulty, &with_xid(None)), "(NoFault)");
    assert_eq!(restarted.status.unwrap().last_xid, Some(XidSeen { code: 79, at: Time(at(5)) }));
    assert_eq!(told(&faulty, &with_xid(Some(119))), "Xid", "another one");
    let stumbled = after(&faulty, &with_xid(Some(45)), 10);
    assert_eq!(said(&stumbled, HEALTHY), "False Xid", "programs stumble over a broken card");
}

#[test]
fn a_card_that_was_there_is_lost_and_one_that_never_was_is_not_known() {
    let never = after(&gpu(by_index(0)), &showing(vec![]), 0);
    assert_eq!(said(&never, HEALTHY), "Unknown DeviceNotFound");
    let mut gone = known();
    for second in [5, 10, 15] {
        gone = after(&gone, &showing(vec![]), second);
        assert_eq!(said(&gone, HEALTHY), "False DeviceLost", "also at {second}");
    }
    // Whoever means another card now has not lost it.
    let mut other = gone.clone();
    other.spec.device = by_index(3);
    other.metadata.generation = Some(2);
    assert_eq!(said(&after(&other, &showing(vec![card(0)]), 20), HEALTHY), "Unknown DeviceNotFound");

    assert_eq!(told(&gone, &showing(vec![card(0)])), "(NoFault) (Free)");
    assert_eq!(said(&after(&gone, &no_answer(), 20), HEALTHY), "Unknown DriverUnavailable");
}

#[test]
fn a_process_whose_container_is_gone_is_an_orphan_of_whoever_it_was() {
    let removed = Observed { users: Ok(vec![]), ..showing(vec![card(0)]) };
    let left = after(&known(), &removed, 5);
    let [orphan] = left.status.as_ref().unwrap().processes.as_slice() else { panic!("one process") };
    assert!(orphan.orphan);
    assert_eq!((orphan.workload.as_deref(), orphan.container.as_deref()), (Some("default/llm"), Some("llm")));
    assert_eq!(said(&left, ORPHANED), "True OrphanProcesses");
    assert_eq!(told(&known(), &removed), "OrphanProcesses");
    assert_eq!(told(&left, &removed), "", "once");
    let another = Card { processes: Some(vec![process(7, "llm"), process(8, "llm")]), ..card(0) };
    assert_eq!(told(&left, &Observed { users: Ok(vec![]), ..showing(vec![another]) }), "OrphanProcesses");

    let over = showing(vec![Card { processes: Some(vec![]), ..card(0) }]);
    assert_eq!(told(&left, &over), "(OrphanProcesses)");
    assert_eq!(said(&after(&left, &over, 10), ORPHANED), "");
    // Without an answer nothing is known of it, which is not that it is over.
    assert_eq!(told(&left, &no_answer()), "DriverUnavailable");
    assert_eq!(said(&after(&left, &no_answer(), 10), ORPHANED), "");
    let away = Observed { users: Err("away".to_owned()), ..showing(vec![card(0)]) };
    assert_eq!(said(&after(&left, &away, 10), ORPHANED), "True OrphanProcesses");
    assert_eq!(said(&after(&known(), &away, 10), ORPHANED), "", "an engine that is away makes no orphan");
}

#[test]
fn a_reading_without_news_is_written_now_and_then_to_tell_its_age() {
    let read_at = |second: i64| -> Option<Timestamp> {
        let plan = decide(&known(), &showing(vec![card(0)]), at(second));
        status(&plan).observed_at.as_ref().map(|at| at.0)
    };
    let heartbeat = HEARTBEAT.as_secs();
    assert_eq!(read_at(heartbeat - 1), Some(at(0)));
    assert_eq!(read_at(heartbeat), Some(at(heartbeat)));
}

#[test]
fn the_second_object_of_a_card_says_so_and_shows_it_all_the_same() {
    let second = Observed { twin: Some("gpu0".to_owned()), ..showing(vec![card(0)]) };
    let plan = decide(&gpu(by_index(0)), &second, at(0));
    assert_eq!(ready(&plan), "False SameDevice");
    assert_eq!(status(&plan).index, Some(0));
    assert_eq!(plan.events.iter().map(|note| note.reason).collect::<Vec<_>>(), ["SameDevice"]);
    let known = after(&gpu(by_index(0)), &second, 0);
    assert_eq!(told(&known, &showing(vec![card(0)])), "(Free)", "it stands for the card now");
}
