use std::path::PathBuf;

use rstest::rstest;

use super::*;
use crate::api::task::TaskSpec;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn task() -> Task {
    let mut task = Task::new("t", TaskSpec { max_retries: 1, ..TaskSpec::default() });
    task.metadata.uid = Some("u".to_owned());
    task.metadata.generation = Some(1);
    task
}

fn with(status: TaskStatus) -> Task {
    Task { status: Some(status), ..task() }
}

/// With worker w1, its first attempt.
fn running() -> Task {
    with(dispatched(&task(), "w1", Some("i1"), at(0)))
}

/// With worker w1 once more, after it failed there.
fn second_attempt() -> Task {
    let failed = failed(&running(), Some("w1"), None, "boom", &Backoff::default(), at(1)).expect("it was its to say");
    with(dispatched(&with(failed), "w1", Some("i1"), at(20)))
}

fn posted() -> Posted {
    Posted {
        path: PathBuf::from("/r/t/responses.json"),
        size_bytes: 3,
        worker: Some("w1".to_owned()),
        received_at: None,
    }
}

#[test]
fn a_task_waits_for_what_it_depends_on_and_fails_with_it() {
    let mut task = task();
    task.spec.depends_on = vec!["a".to_owned(), "b".to_owned()];
    let become_of = |upstream: [Upstream; 2]| match next(&task, &upstream, at(0)) {
        Next::Become(status) => {
            let message = told(&status).map(|(_, message)| message.to_owned());
            (status.phase, status.error, message)
        }
        other => panic!("{other:?}"),
    };
    let (phase, error, message) = become_of([Upstream::Done, Upstream::Unknown]);
    assert_eq!((phase, error), (TaskPhase::Pending, None));
    assert_eq!(message.as_deref(), Some("waits for b; there is no task b"));
    let (phase, error, _) = become_of([Upstream::Failed, Upstream::Going]);
    assert_eq!((phase, error.as_deref()), (TaskPhase::Failed, Some("Dependency a failed")));
    assert_eq!(next(&task, &[Upstream::Done, Upstream::Done], at(0)), Next::Seek);
}

#[test]
fn what_is_suspended_or_cancelled_seeks_nobody() {
    let mut suspended = task();
    suspended.spec.suspend = true;
    assert!(matches!(next(&suspended, &[], at(0)), Next::Become(status) if status.phase == TaskPhase::Waiting));
    suspended.spec.cancel = true;
    assert!(matches!(next(&suspended, &[], at(0)), Next::Become(status) if status.phase == TaskPhase::Cancelled));
}

#[test]
fn a_failure_waits_its_time_and_is_final_in_the_end() {
    let backoff = Backoff::default();
    let once = failed(&running(), Some("w1"), None, "boom", &backoff, at(1)).expect("it was its to say");
    assert_eq!((once.phase, once.retries, once.last_failed_worker.as_deref()), (TaskPhase::Waiting, 1, Some("w1")));
    let again = once.next_retry_at.clone().expect("a time").0;
    assert!(again > at(9) && again <= at(11), "{again}");
    assert_eq!(next(&with(once.clone()), &[], at(5)), Next::Stay);
    assert_eq!(next(&with(once), &[], at(11)), Next::Seek);
    let mut second = second_attempt();
    second.status = started(&second, "w1", at(21));
    let twice = failed(&second, Some("w1"), None, "boom", &backoff, at(22)).expect("it was its to say");
    assert_eq!((twice.phase, twice.retries, twice.attempts), (TaskPhase::Failed, 2, 2));
}

#[rstest]
#[case::its_worker(running(), Some("w1"), None, true)]
#[case::another(running(), Some("w2"), None, false)]
#[case::this_dispatch(running(), Some("w1"), Some("2027-01-15T08:00:00.000000+00:00"), true)]
#[case::another_dispatch(running(), Some("w1"), Some("2027-01-15T07:00:00.000000+00:00"), false)]
#[case::a_repeated_word_of_the_attempt_before(second_attempt(), Some("w1"), None, false)]
#[case::nobody_has_it(task(), Some("w1"), None, false)]
fn only_its_worker_can_fail_it(
    #[case] task: Task,
    #[case] worker: Option<&str>,
    #[case] dispatch: Option<&str>,
    #[case] counts: bool,
) {
    assert_eq!(failed(&task, worker, dispatch, "boom", &Backoff::default(), at(1)).is_some(), counts);
}

#[test]
fn a_worker_that_was_taken_for_lost_may_still_succeed() {
    let lost = with(lost(&running(), "gone", at(1)).expect("it had it"));
    assert_eq!(lost.phase(), TaskPhase::Waiting);
    let done = succeeded(&lost, Some("w1"), None, at(2)).expect("it counts");
    assert_eq!((done.phase, done.assigned_worker.as_deref()), (TaskPhase::Done, Some("w1")));
    assert_eq!(succeeded(&lost, Some("w2"), None, at(2)), None);
    let elsewhere = with(dispatched(&lost, "w2", None, at(3)));
    assert_eq!(succeeded(&elsewhere, Some("w1"), None, at(4)), None);
    assert!(succeeded(&with(done), Some("w1"), None, at(5)).is_none(), "it ends once");
}

#[test]
fn a_result_ends_a_task_and_is_recorded_once() {
    let done = delivered(&running(), &posted(), at(1)).expect("it counts");
    assert_eq!((done.phase, done.result.as_ref().map(|result| result.size_bytes)), (TaskPhase::Done, Some(3)));
    assert_eq!(delivered(&with(done), &posted(), at(2)), None);
    let said = succeeded(&running(), Some("w1"), None, at(1)).expect("it counts");
    let both = delivered(&with(said), &posted(), at(2)).expect("the result comes after the word");
    assert_eq!((both.phase, both.result.is_some()), (TaskPhase::Done, true));
    let cancelled = with(cancelled(&running(), at(1)));
    assert_eq!(delivered(&cancelled, &posted(), at(2)), None);
}

#[test]
fn why_a_task_waits_is_written_once() {
    let none: Result<Vec<String>, String> = Err("there is no worker".to_owned());
    let waits = with(unserved(&task(), &none, at(0)));
    assert!(is_told(&waits, &none) && !is_told(&waits, &Ok(vec![])) && !is_told(&task(), &none));
    let busy = with(unserved(&waits, &Ok([1, 2, 3, 4, 5, 6].map(|n| format!("w{n}")).to_vec()), at(1)));
    assert!(is_told(&busy, &Ok(vec!["w9".to_owned()])));
    let told = told(busy.status.as_ref().expect("a status")).map(|(_, message)| message);
    assert_eq!(told, Some("w1, w2, w3, w4 and 2 more can do it, and are busy"));
    assert_eq!(busy.status.expect("a status").error.as_deref(), Some(NO_WORKER));
}

#[test]
fn a_start_is_told_once_and_by_its_worker() {
    let begun = started(&running(), "w1", at(1)).expect("it was its to say");
    assert!(begun.started_at.is_some());
    assert_eq!(started(&with(begun), "w1", at(2)), None);
    assert_eq!(started(&running(), "w2", at(1)), None);
}

#[test]
fn a_wish_to_try_again_is_heeded_once_and_only_after_a_failure() {
    let wish = |task: &mut Task, at: &str| {
        let annotations = task.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::RETRY_AT.to_owned(), at.to_owned());
    };
    let mut dead = with(invalid(&running(), "boom", at(1)));
    assert!(!is_asked_again(&dead));
    wish(&mut dead, "1");
    assert!(is_asked_again(&dead));
    let status = retried(&dead, at(2));
    assert_eq!(
        (status.phase, status.retries, &status.error, &status.finished_at),
        (TaskPhase::Pending, 0, &None, &None)
    );
    assert_eq!((&status.assigned_worker, &status.handled_retry), (&None, &Some("1".to_owned())));
    dead.status = Some(status);
    dead.status = Some(invalid(&dead, "boom", at(3)));
    assert!(!is_asked_again(&dead), "it was heeded");
    let mut early = running();
    wish(&mut early, "1");
    assert!(!is_asked_again(&early));
    early.status = Some(invalid(&early, "boom", at(1)));
    assert!(!is_asked_again(&early), "it was asked for before the failure");
}

#[test]
fn what_failed_with_another_comes_back_with_it() {
    let mut task = task();
    task.spec.depends_on = vec!["a".to_owned()];
    let Next::Become(status) = next(&task, &[Upstream::Failed], at(0)) else { panic!("it fails") };
    task.status = Some(*status);
    for upstream in [Upstream::Failed, Upstream::Unknown] {
        assert_eq!(next(&task, &[upstream], at(1)), Next::Stay);
    }
    let Next::Become(status) = next(&task, &[Upstream::Going], at(1)) else { panic!("it waits again") };
    assert_eq!((status.phase, &status.error, &status.finished_at), (TaskPhase::Pending, &None, &None));
    assert_eq!(next(&task, &[Upstream::Done], at(1)), Next::Seek);
    task.status = Some(invalid(&task, "boom", at(1)));
    assert_eq!(next(&task, &[Upstream::Done], at(1)), Next::Stay, "it failed by itself");
}

/// It was stored in an attempt that failed all the same, for nobody answered; another worker has the task now.
#[test]
fn a_result_of_another_worker_than_the_task_is_with_is_none() {
    let failed = failed(&running(), Some("w1"), None, "boom", &Backoff::default(), at(1)).expect("it was its to say");
    assert!(delivered(&with(failed.clone()), &posted(), at(2)).is_some(), "nobody else has it");
    let elsewhere = with(dispatched(&with(failed), "w2", Some("i2"), at(20)));
    assert_eq!(delivered(&elsewhere, &posted(), at(21)), None);
    let anonymous = Posted { worker: None, ..posted() };
    assert!(delivered(&elsewhere, &anonymous, at(21)).is_some(), "who does not say who it is, is believed");
}
