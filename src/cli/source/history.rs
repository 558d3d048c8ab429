//! `gaia source history`: the revisions of a Source, and what one of them holds.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::{
        CliError, Outcome,
        print::{self, Format},
        session::{ServerArgs, Session},
        table,
    },
    revisions,
};
use crate::api::{
    source::Source,
    sourcerevision::{SourceRevision, SourceRevisionCause, unpack},
};

/// As git abbreviates them.
const SHORT_COMMIT: usize = 8;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The Source
    #[arg(default_value = "desired", value_name = "SOURCE")]
    name: String,
    /// Show the manifests of this revision, secrets included
    #[arg(long, value_name = "REVISION")]
    revision: Option<i64>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: HistoryArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let source: Source = session.get(None, &args.name).await?;
    let revisions = revisions(&session, &args.name).await?;
    let Some(number) = args.revision else {
        print::result(out, args.output, &print::list(&revisions), || render(&source, &revisions, Timestamp::now()))?;
        return Ok(0);
    };
    let Some(found) = revisions.iter().find(|revision| revision.spec.revision == number) else {
        return Err(CliError::Failed(format!("Source {} has no revision {number}", args.name)));
    };
    let manifests = unpack(&found.spec.manifests).map_err(CliError::Failed)?;
    let objects: Vec<Value> = manifests.into_iter().map(|manifest| manifest.object).collect();
    let documents = objects.iter().map(print::yaml).collect::<Result<Vec<_>, _>>()?;
    print::result(out, args.output, &print::list(&objects), || documents.join("---\n"))?;
    Ok(0)
}

fn render(source: &Source, revisions: &[SourceRevision], now: Timestamp) -> String {
    if revisions.is_empty() {
        return format!(
            "nothing of Source {} has been applied whole yet\n",
            source.metadata.name.as_deref().unwrap_or_default()
        );
    }
    let mut rows = vec![["REVISION", "SINCE", "OBJECTS", "CAUSE", "NOW"].map(str::to_owned).to_vec()];
    for revision in revisions {
        let spec = &revision.spec;
        let applied = source.status.as_ref().and_then(|status| status.revision) == Some(spec.revision);
        let pinned = source.spec.pin == Some(spec.revision);
        let now_is = [(applied, "applied"), (pinned, "pinned")];
        rows.push(vec![
            spec.revision.to_string(),
            print::age(spec.since.0, now),
            spec.objects.to_string(),
            told(&spec.cause),
            now_is.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect::<Vec<_>>().join(", "),
        ]);
    }
    table::align(rows)
}

/// The commit, or the first change.
fn told(cause: &SourceRevisionCause) -> String {
    if let Some(commit) = &cause.commit {
        let short = commit.get(..SHORT_COMMIT).unwrap_or(commit);
        return format!("{short} {}", cause.subject.as_deref().unwrap_or_default()).trim_end().to_owned();
    }
    match cause.changes.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (+{})", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revisions_are_listed_with_what_led_to_them() {
        let one = |revision: i64, minute: u32, cause: Value| -> SourceRevision {
            let since = format!("2026-11-20T10:{minute:02}:00Z");
            let spec = json!({"source": "desired", "revision": revision, "since": since, "digest": "d", "cause": cause,
                "objects": 2, "manifests": ""});
            serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": spec})).expect("a SourceRevision")
        };
        let source =
            json!({"metadata": {"name": "desired"}, "spec": {"directory": "/d", "pin": 2}, "status": {"revision": 2}});
        let source: Source = serde_json::from_value(source).expect("a Source");
        let commit =
            json!({"commit": "0123456789012345678901234567890123456789", "subject": "More memory", "changes": ["x"]});
        let revisions = [
            one(3, 20, commit),
            one(
                2,
                10,
                json!({"changes": ["changed Workload default/web (web.yaml:1)", "removed Workload default/db (db.yaml:1)"]}),
            ),
            one(1, 0, json!({})),
        ];
        let text = render(&source, &revisions, "2026-11-20T10:30:00Z".parse().expect("a time"));
        assert_eq!(
            text,
            "REVISION   SINCE   OBJECTS   CAUSE                                            NOW\n\
             3          10m     2         01234567 More memory\n\
             2          20m     2         changed Workload default/web (web.yaml:1) (+1)   applied, pinned\n\
             1          30m     2\n"
        );
        assert_eq!(render(&source, &[], Timestamp::now()), "nothing of Source desired has been applied whole yet\n");
    }
}
