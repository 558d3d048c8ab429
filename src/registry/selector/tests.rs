use rstest::rstest;
use serde_json::json;

use super::*;
use crate::registry::tests::kinds;

fn workload(labels: Option<&str>, fields: Option<&str>) -> ApiResult<Selector> {
    let kind = kinds().by_kind("gaia.dev", "v1alpha1", "Workload").expect("served");
    Selector::parse(&kind, labels, fields)
}

#[rstest]
#[case("", true)]
#[case("app=web", true)]
#[case("app==web", true)]
#[case("app=other", false)]
#[case("app!=other", true)]
#[case("absent!=x", true)]
#[case("app", true)]
#[case("absent", false)]
#[case("!absent", true)]
#[case("! app", false)]
#[case("app in (web, db)", true)]
#[case("app in (db)", false)]
#[case("app notin (db,cache)", true)]
#[case("tier>2", true)]
#[case("tier<2", false)]
#[case("gaia.dev/x=y", true)]
#[case("app in (web,db),tier=3,!absent", true)]
#[case("app=web,tier=4", false)]
fn labels_select(#[case] selector: &str, #[case] expected: bool) {
    let object = json!({"metadata": {"labels": {"app": "web", "tier": "3", "gaia.dev/x": "y"}}});
    assert_eq!(workload(Some(selector), None).expect("readable").matches(&object), expected);
}

#[rstest]
#[case("metadata.name=a", true)]
#[case("metadata.name!=a", false)]
#[case("metadata.namespace==ns,metadata.name=a", true)]
#[case("spec.active=Live", true)]
#[case("spec.active=", false)]
fn fields_select(#[case] selector: &str, #[case] expected: bool) {
    let object = json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": {"active": "Live"}});
    assert_eq!(workload(None, Some(selector)).expect("readable").matches(&object), expected);
}

#[rstest]
#[case(Some("a b"), None, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt")]
#[case(Some("a in x"), None, "unable to parse requirement: found 'x', expected: '('")]
#[case(None, Some("spec.live=x"), "field label not supported: spec.live")]
#[case(None, Some("name"), "invalid selector: 'name'; can't understand 'name'")]
fn refuses(#[case] labels: Option<&str>, #[case] fields: Option<&str>, #[case] message: &str) {
    let error = workload(labels, fields).expect_err("not a selector");
    assert_eq!((error.code(), error.message.as_str()), (400, message));
}

#[test]
fn events_are_selected_by_what_they_are_about() {
    let kinds = kinds();
    let core = kinds.by_kind("", "v1", "Event").expect("served");
    let view = kinds.by_kind("events.k8s.io", "v1", "Event").expect("served");
    let object = json!({
        "involvedObject": {"kind": "Workload", "apiVersion": "gaia.dev/v1alpha1"}, "reason": "Started", "type": "Normal",
        "reportingComponent": "gaia",
    });
    let text = "involvedObject.apiVersion=gaia.dev/v1alpha1,reason=Started,type!=Warning,source=gaia";
    assert!(Selector::parse(&core, None, Some(text)).expect("readable").matches(&object));
    assert!(Selector::parse(&view, None, Some("regarding.kind=Workload")).is_ok());
    assert!(Selector::parse(&view, None, Some("involvedObject.kind=Workload")).is_err());
}

#[test]
fn escapes_stand_for_themselves() {
    let object = json!({"metadata": {"name": "a,b=c\\"}});
    assert!(workload(None, Some(r"metadata.name=a\,b\=c\\")).expect("readable").matches(&object));
}
