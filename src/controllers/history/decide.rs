//! Which templates are kept. Pure.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use crate::{
    api::{
        container::ContainerSpec,
        workload::{Variant, Workload, WorkloadStatus},
        workloadhistory::{WorkloadHistory, WorkloadHistorySpec, WorkloadRevision},
    },
    controllers::workload::status::to_second,
    runtime::reconciler::{Plan, Requeue},
};

/// Former templates that are kept of each variant, beside the present one: as a Deployment does.
const DEFAULT_LIMIT: u32 = 10;
/// Of all templates of a Workload together, as JSON; of each variant the oldest go first. An object has room for half as much more,
/// so that the present two find a place even when they alone are larger.
const MOST_BYTES: usize = 1 << 20;
/// Until what is left of a deleted namesake is collected.
const COLLECTED: Duration = Duration::from_secs(2);

/// None: there is no history yet.
pub type Observed = Option<Arc<WorkloadHistory>>;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Create(Box<WorkloadHistory>),
    Update(Box<WorkloadHistory>),
}

pub fn decide(workload: &Workload, history: Option<&WorkloadHistory>, now: Timestamp) -> Plan<WorkloadStatus, Action> {
    if workload.metadata.deletion_timestamp.is_some() {
        return Plan::leave();
    }
    let of_another = |history: &WorkloadHistory| {
        !history.owner_references().iter().any(|o| Some(&o.uid) == workload.meta().uid.as_ref())
    };
    if history.is_some_and(of_another) {
        return Plan { requeue: Requeue::After(COLLECTED), ..Plan::leave() };
    }
    let before = history.map(|history| history.spec.clone()).unwrap_or_default();
    let after = kept(workload, before.clone(), now);
    if history.is_some() && after == before {
        return Plan::leave();
    }
    let action = match history {
        Some(history) => Action::Update(Box::new(WorkloadHistory { spec: after, ..history.clone() })),
        None => Action::Create(Box::new(new(workload, after))),
    };
    Plan { stages: vec![vec![action]], ..Plan::leave() }
}

fn new(workload: &Workload, spec: WorkloadHistorySpec) -> WorkloadHistory {
    let mut history = WorkloadHistory::new(&workload.name_any(), spec);
    history.metadata.namespace = workload.namespace();
    history.metadata.owner_references = workload.controller_owner_ref(&()).map(|owner| vec![owner]);
    history
}

/// A variant that is no longer in the spec keeps its history.
fn kept(workload: &Workload, mut history: WorkloadHistorySpec, now: Timestamp) -> WorkloadHistorySpec {
    let former = workload.spec.revision_history_limit.unwrap_or(DEFAULT_LIMIT) as usize;
    for variant in Variant::ALL {
        let list = history.of_mut(variant);
        if let Some(container) = template(workload, variant) {
            record(list, container, changed_by(workload, variant), now);
        }
        list.truncate(former + 1);
    }
    while bytes(&history) > MOST_BYTES {
        let longest = Variant::ALL.into_iter().max_by_key(|variant| history.of_mut(*variant).len());
        let Some(list) = longest.map(|variant| history.of_mut(variant)).filter(|list| list.len() > 1) else { break };
        list.pop();
    }
    history
}

fn bytes(history: &WorkloadHistorySpec) -> usize {
    let all = history.live.iter().chain(&history.candidate);
    all.map(|revision| Value::Object(revision.container.clone()).to_string().len()).sum()
}

fn record(list: &mut Vec<WorkloadRevision>, container: &ContainerSpec, changed_by: Option<String>, now: Timestamp) {
    let spec_hash = container.hash();
    if list.first().is_some_and(|present| present.spec_hash == spec_hash) {
        return;
    }
    let Ok(Value::Object(template)) = serde_json::to_value(container) else {
        unreachable!("a container spec is an object of plain data")
    };
    let revision = list.iter().map(|known| known.revision).max().unwrap_or(0) + 1;
    // One that swings between two templates must not push all others out.
    list.retain(|known| known.spec_hash != spec_hash);
    list.insert(0, WorkloadRevision { revision, since: to_second(now), changed_by, spec_hash, container: template });
}

fn template(workload: &Workload, variant: Variant) -> Option<&ContainerSpec> {
    match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    }
}

/// Whoever owns fields of the template and wrote last.
fn changed_by(workload: &Workload, variant: Variant) -> Option<String> {
    let path = format!("/f:spec/f:{}/f:container", variant.as_str());
    let managers = workload.metadata.managed_fields.iter().flatten();
    let owners = managers.filter(|entry| entry.fields_v1.as_ref().is_some_and(|f| f.0.pointer(&path).is_some()));
    owners.max_by_key(|entry| entry.time.as_ref().map(|time: &Time| time.0)).and_then(|entry| entry.manager.clone())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
    }

    fn workload(live: &str, candidate: Option<&str>) -> Workload {
        let mut spec = json!({"live": {"container": {"image": live}}});
        if let Some(image) = candidate {
            spec["candidate"] = json!({"container": {"image": image}});
        }
        let metadata = json!({"name": "web", "namespace": "default", "uid": "u1"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Workload")
    }

    /// The history after these live images, one after the other, a second apart.
    fn after(images: &[&str], limit: Option<u32>) -> Option<WorkloadHistory> {
        let mut history = None;
        for (second, image) in (0..).zip(images) {
            let mut workload = workload(image, None);
            workload.spec.revision_history_limit = limit;
            history = next(&workload, history, second);
        }
        history
    }

    fn next(workload: &Workload, history: Option<WorkloadHistory>, second: i64) -> Option<WorkloadHistory> {
        match decide(workload, history.as_ref(), at(second)).stages.concat().as_slice() {
            [] => history,
            [Action::Create(new) | Action::Update(new)] => Some(WorkloadHistory::clone(new)),
            more => panic!("one write a pass: {more:?}"),
        }
    }

    /// `3=c 2=b 1=a`
    fn told(list: &[WorkloadRevision]) -> String {
        let one = |r: &WorkloadRevision| format!("{}={}", r.revision, r.container["image"].as_str().expect("an image"));
        list.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[rstest]
    #[case::the_first(&["a"], None, "1=a")]
    #[case::a_change(&["a", "b"], None, "2=b 1=a")]
    #[case::no_change(&["a", "a", "a"], None, "1=a")]
    #[case::one_that_comes_back(&["a", "b", "a"], None, "3=a 2=b")]
    #[case::one_that_swings(&["x", "a", "b", "a", "b", "a"], None, "6=a 5=b 1=x")]
    #[case::beyond_the_limit(&["a", "b", "c", "d"], Some(2), "4=d 3=c 2=b")]
    #[case::none_is_kept(&["a", "b"], Some(0), "2=b")]
    fn keeps_each_template_once_the_present_one_first(
        #[case] images: &[&str],
        #[case] limit: Option<u32>,
        #[case] expected: &str,
    ) {
        assert_eq!(told(&after(images, limit).expect("a history").spec.live), expected);
    }

    #[test]
    fn ten_former_ones_are_kept_unless_told_otherwise() {
        let images: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        assert_eq!(after(&images, None).expect("a history").spec.live.len(), 11);
    }

    #[test]
    fn large_templates_push_out_the_oldest_and_never_the_present_one() {
        let images: Vec<String> = ('a'..='f').map(|letter| letter.to_string().repeat(300_000)).collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let history = after(&images, None).expect("a history");
        let kept: Vec<i64> = history.spec.live.iter().map(|revision| revision.revision).collect();
        assert_eq!(kept, [6, 5, 4], "three of 300 kB are less than a MiB, four are more");

        let mut huge = workload(&"x".repeat(600_000), Some(&"y".repeat(600_000)));
        huge.spec.revision_history_limit = Some(5);
        let both = next(&huge, Some(history), 9).expect("a history");
        assert_eq!((both.spec.live.len(), both.spec.candidate.len()), (1, 1), "what is in force is always there");
    }

    #[test]
    fn the_variants_are_counted_apart_and_one_that_is_gone_is_remembered() {
        let both = next(&workload("a", Some("x")), None, 0);
        let changed = next(&workload("a", Some("y")), both, 1);
        let gone = next(&workload("b", None), changed, 2).expect("a history");
        assert_eq!((told(&gone.spec.live), told(&gone.spec.candidate)), ("2=b 1=a".into(), "2=y 1=x".into()));
        assert_eq!(gone.spec.live[0].since, Time(at(2)));
    }

    #[test]
    fn whether_it_runs_or_answers_is_no_template() {
        let known = next(&workload("a", Some("x")), None, 0);
        let mut other = workload("a", Some("x"));
        other.spec.active = Variant::Candidate;
        other.spec.live.as_mut().expect("live").running = false;
        other.spec.suspend = Some(true);
        assert_eq!(next(&other, known.clone(), 1), known);
    }

    #[test]
    fn it_belongs_to_its_workload_and_goes_with_it() {
        let history = after(&["a"], None).expect("a history");
        assert_eq!((history.name_any().as_str(), history.namespace().as_deref()), ("web", Some("default")));
        assert_eq!(history.owner_references()[0].uid, "u1");

        let mut leaving = workload("b", None);
        leaving.metadata.deletion_timestamp = Some(Time(at(0)));
        assert_eq!(decide(&leaving, Some(&history), at(1)), Plan::leave());

        let mut namesake = workload("b", None);
        namesake.metadata.uid = Some("u2".to_owned());
        let plan = decide(&namesake, Some(&history), at(1));
        assert_eq!((plan.acts(), plan.requeue), (false, Requeue::After(COLLECTED)));
    }

    #[test]
    fn who_wrote_the_template_last_is_told() {
        let mut web = workload("a", None);
        let entry = |manager: &str, second: i64, fields: Value| json!({"manager": manager, "operation": "Update", "time": at(second).to_string(), "fieldsV1": fields});
        let container = json!({"f:spec": {"f:live": {"f:container": {"f:image": {}}}}});
        let entries = json!([
            entry("gitops", 1, container.clone()),
            entry("kubectl", 2, container),
            entry("gaia-cli", 3, json!({"f:spec": {"f:live": {"f:running": {}}}})),
        ]);
        web.metadata.managed_fields = serde_json::from_value(entries).expect("managed fields");
        let history = next(&web, None, 4).expect("a history");
        assert_eq!(history.spec.live[0].changed_by.as_deref(), Some("kubectl"));
    }
}
