//! What was handed to a worker that has not begun, when the cards for it are another's.

use futures::FutureExt;
use kube::{Resource, runtime::watcher::Event};
use rstest::rstest;
use serde_json::Value;

use super::*;
use crate::{
    adapters::bus::session::Session,
    api::{
        gpu::{Gpu, GpuSpec, GpuStatus},
        gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimSpec, GpuClaimStatus},
        task::MlocGpu,
        worker::WorkerGpu,
    },
};

const CARD: &str = "GPU-0";

fn card() -> Gpu {
    let mut card = Gpu::new("gpu0", GpuSpec { lend: true, ..GpuSpec::default() });
    card.status = Some(GpuStatus { uuid: Some(CARD.to_owned()), ..GpuStatus::default() });
    card
}

/// Of task `t`.
fn claim(phase: GpuClaimPhase) -> GpuClaim {
    let mut claim = GpuClaim::new("task-t", GpuClaimSpec::default());
    claim.metadata.namespace = Some("default".to_owned());
    let mut owner = task("t", "t");
    owner.metadata.uid = Some("u".to_owned());
    claim.metadata.owner_references = owner.controller_owner_ref(&()).map(|owner| vec![owner]);
    claim.status = Some(GpuClaimStatus { phase, gpus: vec!["gpu0".to_owned()], ..GpuClaimStatus::default() });
    claim
}

/// All that was said to a worker.
fn said(session: &mut Session) -> Vec<Value> {
    std::iter::from_fn(|| session.next().now_or_never().flatten())
        .map(|text| serde_json::from_str(&text).expect("JSON"))
        .collect()
}

#[rstest]
#[case::it_is_its_own(Some(GpuClaimPhase::Granted))]
#[case::it_went_to_another(Some(GpuClaimPhase::Expired))]
#[case::its_claim_was_deleted(None)]
#[tokio::test]
async fn who_has_not_begun_is_told_again_only_while_the_card_is_its_own(#[case] then: Option<GpuClaimPhase>) {
    let directory = tempfile::tempdir().expect("a directory");
    let bus = EmbeddedBus::new(Duration::from_secs(120));
    let mut session =
        Session::open(&bus, r#"{"type":"REGISTER","worker_id":"w1","payload":{"started_at":"x"}}"#).expect("it comes");
    let mut tasks = loop_with(directory.path(), bus).await;
    tasks.view.cards.take_card(Event::Apply(card()));
    let mut hand = worker("w1");
    let gpus = vec![WorkerGpu { uuid: Some(CARD.to_owned()), ..WorkerGpu::default() }];
    hand.status.as_mut().expect("it has one").hardware.as_mut().expect("it has some").gpus = gpus;
    tasks.dirty.extend(tasks.view.put_worker(&hand));
    let mut wanted = task("t", "t");
    wanted.spec.document.spec.resources.hardware.gpu = Some(MlocGpu { count: 1, ..MlocGpu::default() });
    tasks.view.cards.take_claim(Event::Apply(claim(GpuClaimPhase::Granted)));
    let key = put(&mut tasks, wanted).await;
    tasks.pass().await;
    let order = said(&mut session).pop().expect("it is told");
    assert_eq!((&order["task_id"], &order["gpus"]), (&json!("t"), &json!([CARD])));
    match then {
        Some(phase) => drop(tasks.view.cards.take_claim(Event::Apply(claim(phase)))),
        None => drop(tasks.view.cards.take_claim(Event::Delete(claim(GpuClaimPhase::Granted)))),
    }
    tasks.reminders.get_mut(&key).expect("it is waited for").at = Timestamp::UNIX_EPOCH;
    tasks.look().await;
    let status = stored(&tasks, "t").await.expect("it is there").status.clone().expect("it has one");
    let orders: Vec<Value> = said(&mut session).into_iter().filter(|said| said.get("task").is_some()).collect();
    if then == Some(GpuClaimPhase::Granted) {
        assert_eq!(status.phase, TaskPhase::Dispatched);
        assert_eq!(orders.iter().map(|order| &order["gpus"]).collect::<Vec<_>>(), [&json!([CARD])]);
        return;
    }
    assert_eq!((status.phase, status.assigned_worker, status.retries), (TaskPhase::Waiting, None, 0));
    assert!(orders.is_empty(), "it would run on whatever card: {orders:?}");
    tasks.look().await;
    let told = said(&mut session);
    assert!(told.iter().any(|said| said["type"] == "TASK_RELEASED"), "should it begin all the same: {told:?}");
    assert!(tasks.view.idle().is_empty(), "and nothing else goes there until that is known");
}
