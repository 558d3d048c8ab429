//! `gaia history`: what a workload's containers were made from, and its promotions.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    super::{
        CliError, Outcome,
        print::{self, Format},
        session::{ServerArgs, Session},
        stack::services,
        table,
    },
    choose::Seen,
};
use crate::api::workload::{Variant, VariantState};

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The workload, `gaia-mcp` or `mcp`
    workload: String,
    /// Only of this variant: `live` or `candidate`
    #[arg(long, value_parser = super::variant, value_name = "VARIANT")]
    variant: Option<Variant>,
    /// Show the template of this revision
    #[arg(long, value_name = "REVISION", requires = "variant")]
    revision: Option<i64>,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: HistoryArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let seen = super::look(&session, &args.namespace, &args.workload).await?;
    if let (Some(variant), Some(revision)) = (args.variant, args.revision) {
        let Some(found) = seen.templates(variant).iter().find(|known| known.revision == revision) else {
            let (name, word) = (seen.workload.name_any(), variant.as_str());
            return Err(CliError::Failed(format!("the {word} variant of {name} has no revision {revision}")));
        };
        let template = Value::Object(found.container.clone());
        let text = print::yaml(&template)?;
        print::result(out, args.output, &template, || text)?;
        return Ok(0);
    }
    let objects: Vec<Value> =
        seen.history.iter().map(|h| json!(h)).chain(seen.promotions.iter().map(|p| json!(p))).collect();
    print::result(out, args.output, &print::list(&objects), || render(&seen, args.variant, Timestamp::now()))?;
    Ok(0)
}

/// Templates, the youngest first, then promotions.
fn render(seen: &Seen, only: Option<Variant>, now: Timestamp) -> String {
    let mut rows = vec![["VARIANT", "REVISION", "IMAGE", "SINCE", "CHANGED BY", "NOW"].map(str::to_owned).to_vec()];
    for variant in Variant::ALL.into_iter().filter(|variant| only.is_none_or(|only| only == *variant)) {
        for (place, known) in seen.templates(variant).iter().enumerate() {
            let adopted =
                || known.container.get("adopt").map(|adopt| format!("(adopts {})", table::text(&adopt["name"])));
            let image = known.container.get("image").map(table::text).filter(|image| !image.is_empty());
            rows.push(vec![
                variant.as_str().to_owned(),
                known.revision.to_string(),
                image.or_else(adopted).unwrap_or_default(),
                print::age(known.since.0, now),
                known.changed_by.clone().unwrap_or_default(),
                now_is(seen, variant, place == 0, &known.spec_hash),
            ]);
        }
    }
    if rows.len() == 1 {
        return format!("no template of {} is known yet\n", seen.workload.name_any());
    }
    let mut text = table::align(rows);
    if !seen.promotions.is_empty() {
        text.push('\n');
        text.push_str(&promotions(seen, now));
    }
    text
}

fn now_is(seen: &Seen, variant: Variant, present: bool, spec_hash: &str) -> String {
    let status = services::seen(&seen.workload, variant);
    let runs = status.state == VariantState::Running && status.spec_hash.as_deref() == Some(spec_hash);
    let answers = seen.workload.status.as_ref().and_then(|status| status.active) == Some(variant);
    let words = [(present, "template"), (runs, "runs"), (runs && answers, "answers")];
    words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect::<Vec<_>>().join(", ")
}

fn promotions(seen: &Seen, now: Timestamp) -> String {
    let mut sorted: Vec<_> = seen.promotions.iter().collect();
    sorted.sort_by_key(|promotion| std::cmp::Reverse(promotion.creation_timestamp().map(|at| at.0)));
    let header = ["PROMOTION", "TO", "PHASE", "AGE", "ERROR"].map(str::to_owned).to_vec();
    let rows = sorted.into_iter().map(|promotion| {
        let status = promotion.status.clone().unwrap_or_default();
        vec![
            promotion.name_any(),
            status.to.map(|to| to.as_str().to_owned()).unwrap_or_default(),
            format!("{:?}", status.phase),
            promotion.creation_timestamp().map(|at| print::age(at.0, now)).unwrap_or_default(),
            status.error.unwrap_or_default().replace('\n', " "),
        ]
    });
    table::align(std::iter::once(header).chain(rows).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_promotions_are_listed_the_youngest_first() {
        let at = |minute: u32| format!("2026-11-20T10:{minute:02}:00Z");
        let template = |revision: i64, minute: u32, by: &str, container: Value| {
            json!({"revision": revision, "since": at(minute), "changedBy": by, "specHash": format!("h{revision}"),
                "container": container})
        };
        let workload = json!({"metadata": {"name": "web"}, "spec": {},
            "status": {"active": "Live", "live": {"state": "Running", "health": "Healthy", "specHash": "h1"}}});
        let history = json!({"metadata": {"name": "web"}, "spec": {
            "live": [template(2, 20, "kubectl", json!({"image": "web:2"})), template(1, 10, "gitops", json!({"image": "web:1"}))],
            "candidate": [template(1, 10, "gitops", json!({"adopt": {"name": "by-hand"}}))]}});
        let promotion = |name: &str, minute: u32, phase: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": at(minute)}, "spec": {"workload": "web"},
                "status": {"phase": phase, "to": "Candidate"}})
        };
        let promotions = [promotion("web-a", 11, "RolledBack"), promotion("web-b", 12, "Completed")];
        let seen = Seen {
            workload: serde_json::from_value(workload).expect("a Workload"),
            history: Some(serde_json::from_value(history).expect("a WorkloadHistory")),
            promotions: promotions.map(|p| serde_json::from_value(p).expect("a Promotion")).into(),
        };
        let text = render(&seen, None, at(30).parse().expect("a time"));
        assert_eq!(
            text,
            "VARIANT     REVISION   IMAGE              SINCE   CHANGED BY   NOW\n\
             live        2          web:2              10m     kubectl      template\n\
             live        1          web:1              20m     gitops       runs, answers\n\
             candidate   1          (adopts by-hand)   20m     gitops       template\n\
             \n\
             PROMOTION   TO          PHASE        AGE   ERROR\n\
             web-b       candidate   Completed    18m\n\
             web-a       candidate   RolledBack   19m\n"
        );
        assert!(!render(&seen, Some(Variant::Live), Timestamp::now()).contains("adopts"));
    }
}
