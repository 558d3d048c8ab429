//! `gaia diff`: what an apply would change, as a unified diff. Exit codes as diff(1): 0 nothing, 1 something, 2 failed.

use std::io::Write;

use clap::Args;
use serde_json::Value;
use similar::TextDiff;

use super::{
    CliError, Outcome,
    apply::{ManifestArgs, Place},
    catalogue::Catalogue,
    manifest, print,
    session::{ServerArgs, Session},
};

/// The exit code when differences were found.
const DIFFERENT: u8 = 1;

#[derive(Debug, Args)]
pub struct DiffArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: DiffArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let manifests = manifest::read(&args.manifests.files)?;
    let catalogue = Catalogue::fetch(&session).await?;
    let mut failures = Vec::new();
    let mut code = 0;
    for manifest in &manifests {
        let difference = async {
            // What differs is asked, not whose it is: the apply itself tells of a conflict, and the server of a file.
            let place = Place::of(manifest, &catalogue, &args.manifests, true)?;
            let before = place.live(&session).await?;
            let after = place.patched(&session, manifest, true).await?;
            unified(&place.label(), before.as_ref(), &after)
        };
        match difference.await {
            Ok(text) if text.is_empty() => {}
            Ok(text) => {
                code = DIFFERENT;
                out.write_all(text.as_bytes())?;
            }
            Err(e) => failures.push(e),
        }
    }
    print::failures(failures).map(|_| code)
}

/// Empty when both say the same.
fn unified(label: &str, before: Option<&Value>, after: &Value) -> Result<String, CliError> {
    let old = before.map_or_else(|| Ok(String::new()), |before| print::yaml(&comparable(before)))?;
    let new = print::yaml(&comparable(after))?;
    let diff = TextDiff::from_lines(&old, &new);
    let (from, to) = (format!("{label} (now)"), format!("{label} (applied)"));
    Ok(diff.unified_diff().context_radius(3).header(&from, &to).to_string())
}

/// Without who owns what, and without what a dry run makes up.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "uid", "creationTimestamp"] {
            metadata.remove(field);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn same_is_empty_and_a_change_shows_both_lines() {
        let before = json!({"metadata": {"name": "web", "resourceVersion": "1"}, "spec": {"active": "live"}});
        assert_eq!(unified("wl/web", Some(&before), &before).expect("YAML"), "");
        let mut after = before.clone();
        after["spec"]["active"] = json!("candidate");
        let text = unified("wl/web", Some(&before), &after).expect("YAML");
        assert!(text.contains("--- wl/web (now)\n+++ wl/web (applied)\n"), "{text}");
        assert!(text.contains("-  active: live\n+  active: candidate\n"), "{text}");
    }

    #[test]
    fn a_new_object_is_all_plus() {
        let text = unified("wl/web", None, &json!({"kind": "Workload"})).expect("YAML");
        assert!(text.ends_with("+kind: Workload\n"), "{text}");
    }
}
