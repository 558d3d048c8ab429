//! What a rollback goes back to. Pure.

use kube::ResourceExt;

use super::super::CliError;
use crate::api::{
    promotion::{Promotion, PromotionPhase},
    workload::{Variant, Workload},
    workloadhistory::{WorkloadHistory, WorkloadRevision},
};

pub struct Seen {
    pub workload: Workload,
    /// None: none has been written yet.
    pub history: Option<WorkloadHistory>,
    /// Of this workload.
    pub promotions: Vec<Promotion>,
}

impl Seen {
    /// Templates of a variant, the present one first.
    pub fn templates(&self, variant: Variant) -> &[WorkloadRevision] {
        self.history.as_ref().map(|history| history.spec.of(variant).as_slice()).unwrap_or_default()
    }
}

#[derive(Debug, PartialEq)]
pub enum Undo {
    /// Who answered before it answers again.
    Promotion {
        name: String,
        to: Variant,
    },
    Template {
        variant: Variant,
        present: Box<WorkloadRevision>,
        wanted: Box<WorkloadRevision>,
    },
}

/// What was asked for by name, else whatever was last.
pub fn undo(seen: &Seen, variant: Option<Variant>, to: Option<i64>) -> Result<Undo, CliError> {
    match (variant, to) {
        (None, None) => last(seen),
        (Some(variant), to) => template(seen, variant, to),
        (None, Some(_)) => {
            let answers = seen.workload.status.as_ref().and_then(|status| status.active);
            template(seen, answers.unwrap_or(seen.workload.spec.active), to)
        }
    }
}

fn last(seen: &Seen) -> Result<Undo, CliError> {
    let changed = Variant::ALL
        .into_iter()
        .filter_map(|variant| match seen.templates(variant) {
            [present, _, ..] => Some((present.since.0, variant)),
            [] | [_] => None,
        })
        .max();
    let promoted = seen.promotions.iter().filter_map(|promotion| promoted(&seen.workload, promotion)).max();
    match (promoted, changed) {
        (Some((at, name, to)), changed) if changed.is_none_or(|(since, _)| at >= since) => {
            Ok(Undo::Promotion { name, to })
        }
        (_, Some((_, variant))) => template(seen, variant, None),
        (_, None) => Err(CliError::Failed(format!(
            "there is nothing to go back to: no promotion of {} was completed that still stands, and no template of it has \
             an earlier revision",
            seen.workload.name_any()
        ))),
    }
}

/// When a promotion that still stands was completed, its name, and who answered before.
fn promoted(workload: &Workload, promotion: &Promotion) -> Option<(jiff::Timestamp, String, Variant)> {
    let status = promotion.status.as_ref().filter(|status| status.phase == PromotionPhase::Completed)?;
    let before = status.before?.active;
    let stands = status.to == Some(workload.spec.active) && before != workload.spec.active;
    stands.then_some((status.completed_at.as_ref()?.0, promotion.name_any(), before))
}

fn template(seen: &Seen, variant: Variant, to: Option<i64>) -> Result<Undo, CliError> {
    let (name, word) = (seen.workload.name_any(), variant.as_str());
    let [present, former @ ..] = seen.templates(variant) else {
        return Err(CliError::Failed(format!("no template of the {word} variant of {name} is known")));
    };
    let wanted = match to {
        None => former.first(),
        Some(to) if to == present.revision => {
            return Err(CliError::Failed(format!(
                "revision {to} is the present template of the {word} variant of {name}"
            )));
        }
        Some(to) => former.iter().find(|known| known.revision == to),
    };
    let Some(wanted) = wanted else {
        let known: Vec<String> = former.iter().map(|known| known.revision.to_string()).collect();
        let there_is = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        let which = to.map_or_else(|| "earlier revision".to_owned(), |to| format!("revision {to}"));
        return Err(CliError::Failed(format!("the {word} variant of {name} has no {which} to go back to: {there_is}")));
    };
    Ok(Undo::Template { variant, present: Box::new(present.clone()), wanted: Box::new(wanted.clone()) })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn at(minute: u32) -> String {
        format!("2026-11-20T10:{minute:02}:00Z")
    }

    fn revision(revision: i64, minute: u32) -> Value {
        json!({"revision": revision, "since": at(minute), "specHash": revision.to_string(), "container": {}})
    }

    /// Live has revisions since minutes 10 and 20, the candidate one since minute 10.
    fn seen(active: &str, promotions: &[(&str, &str, &str, u32)]) -> Seen {
        let workload = json!({"metadata": {"name": "web"}, "spec": {"active": active}});
        let history = json!({"metadata": {"name": "web"}, "spec": {
            "live": [revision(2, 20), revision(1, 10)], "candidate": [revision(1, 10)]}});
        let promotion = |(name, phase, to, minute): &(&str, &str, &str, u32)| {
            let before = if *to == "Live" { "Candidate" } else { "Live" };
            let before = json!({"active": before, "liveRunning": true, "candidateRunning": true});
            let status = json!({"phase": phase, "to": to, "completedAt": at(*minute), "before": before});
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"workload": "web"}, "status": status}))
                .expect("a Promotion")
        };
        Seen {
            workload: serde_json::from_value(workload).expect("a Workload"),
            history: Some(serde_json::from_value(history).expect("a WorkloadHistory")),
            promotions: promotions.iter().map(promotion).collect(),
        }
    }

    /// `up -> live`, or `live 2 -> 1`.
    fn told(undo: Result<Undo, CliError>) -> Result<String, String> {
        match undo.map_err(|error| error.report())? {
            Undo::Promotion { name, to } => Ok(format!("{name} -> {}", to.as_str())),
            Undo::Template { variant, present, wanted } => {
                Ok(format!("{} {} -> {}", variant.as_str(), present.revision, wanted.revision))
            }
        }
    }

    #[rstest]
    #[case::only_a_template("Live", &[], "live 2 -> 1")]
    #[case::a_promotion_after_it("Candidate", &[("up", "Completed", "Candidate", 30)], "up -> live")]
    #[case::a_promotion_before_it("Candidate", &[("up", "Completed", "Candidate", 15)], "live 2 -> 1")]
    #[case::one_that_failed("Live", &[("up", "RolledBack", "Candidate", 30)], "live 2 -> 1")]
    #[case::one_that_was_undone("Live", &[("up", "Completed", "Candidate", 30), ("down", "Completed", "Live", 40)],
        "down -> candidate")]
    #[case::one_that_no_longer_stands("Live", &[("up", "Completed", "Candidate", 30)], "live 2 -> 1")]
    fn what_was_last_is_undone(
        #[case] active: &str,
        #[case] promotions: &[(&str, &str, &str, u32)],
        #[case] expected: &str,
    ) {
        assert_eq!(told(undo(&seen(active, promotions), None, None)), Ok(expected.to_owned()));
    }

    #[rstest]
    #[case::by_variant(Some(Variant::Live), None, "live 2 -> 1")]
    #[case::by_number(None, Some(1), "live 2 -> 1")]
    #[case::by_both(Some(Variant::Live), Some(1), "live 2 -> 1")]
    fn a_template_is_had_back_whatever_was_promoted(
        #[case] variant: Option<Variant>,
        #[case] to: Option<i64>,
        #[case] expected: &str,
    ) {
        let mut seen = seen("Candidate", &[("up", "Completed", "Candidate", 30)]);
        // The candidate does not answer yet, say.
        seen.workload.status.get_or_insert_default().active = Some(Variant::Live);
        assert_eq!(told(undo(&seen, variant, to)), Ok(expected.to_owned()));
    }

    #[rstest]
    #[case::the_present_one(Some(Variant::Live), Some(2), "present template")]
    #[case::an_unknown_one(Some(Variant::Live), Some(7), "no revision 7 to go back to: it has 1")]
    #[case::none_at_all(Some(Variant::Candidate), None, "no earlier revision to go back to: it has none")]
    fn what_cannot_be_is_told(#[case] variant: Option<Variant>, #[case] to: Option<i64>, #[case] why: &str) {
        let told = told(undo(&seen("Live", &[]), variant, to)).expect_err("it cannot be");
        assert!(told.contains(why), "{told}");
    }

    #[test]
    fn without_any_history_there_is_nothing() {
        let empty = Seen { history: None, ..seen("Live", &[]) };
        assert!(told(undo(&empty, None, None)).expect_err("nothing").contains("nothing to go back to"));
        assert!(told(undo(&empty, None, Some(1))).expect_err("nothing").contains("no template"));
    }
}
