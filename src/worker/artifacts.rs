//! Files that an attempt leaves to be uploaded: those in its directory for them, and those that the document names.

use std::{
    collections::BTreeSet,
    io,
    path::{Component, Path},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tokio::fs;

use super::{
    executors::{Failure, Job},
    logs::Stream,
};
use crate::adapters::results::RESPONSES;

/// MLOC's documents name what is kept anyway as well.
const KEPT_ANYWAY: [&str; 2] = [RESPONSES, "logs"];
/// How archives end that the next stage may ask for as `final_…_archive_url`.
const ARCHIVES: [&str; 4] = [".tar.gz", ".tgz", ".tar", ".zip"];
const IN_A_URL: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The paths in `spec.output.artifacts`, below the working directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named(Vec<String>);

impl Named {
    /// Or the path of what is wrong.
    pub fn of(spec: &Value) -> Result<Self, Failure> {
        let listed = match spec.pointer("/output/artifacts") {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(listed)) => listed,
            Some(_) => return Err(wrong("spec.output.artifacts", "must be a list of paths")),
        };
        let (mut named, mut names) = (Vec::new(), BTreeSet::new());
        for (n, one) in listed.iter().enumerate() {
            let at = format!("spec.output.artifacts[{n}]");
            let path = one.as_str().ok_or_else(|| wrong(&at, "must be a path"))?;
            if KEPT_ANYWAY.contains(&path) {
                continue;
            }
            let parts: Vec<Component> = Path::new(path).components().collect();
            if parts.is_empty() || !parts.iter().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                return Err(wrong(&at, "must be a path below the working directory"));
            }
            let name = name(path);
            if name == RESPONSES {
                return Err(wrong(&at, "the result itself is called so"));
            }
            if !names.insert(name.to_owned()) {
                return Err(wrong(&at, &format!("another one is called {name} as well")));
            }
            named.push(path.to_owned());
        }
        Ok(Self(named))
    }

    /// Moves them into `artifacts`. Each must be there, a plain file, and no link may lead out of `work`.
    pub async fn collect(&self, work: &Path, artifacts: &Path) -> Result<(), Failure> {
        let unusable = |path: &str, why: &str| Failure::Failed(format!("spec.output.artifacts: {path}: {why}"));
        if self.0.is_empty() {
            return Ok(());
        }
        for directory in [work, artifacts] {
            still_there(directory).await?;
        }
        let root = fs::canonicalize(work).await.map_err(|error| unusable(".", &error.to_string()))?;
        for path in &self.0 {
            let real = fs::canonicalize(work.join(path)).await.map_err(|error| unusable(path, &error.to_string()))?;
            if !real.starts_with(&root) {
                return Err(unusable(path, "a link leads out of the working directory"));
            }
            let found = fs::metadata(&real).await.map_err(|error| unusable(path, &error.to_string()))?;
            if !found.is_file() {
                return Err(unusable(path, "is no plain file; put what is to be kept of a directory into an archive"));
            }
            let target = artifacts.join(name(path));
            if fs::try_exists(&target).await.unwrap_or(true) {
                return Err(unusable(path, "a file of this name is among the artifacts already"));
            }
            fs::rename(&real, &target).await.map_err(|error| unusable(path, &error.to_string()))?;
        }
        Ok(())
    }
}

/// A task can put a link in the place of its directory. What that leads to is the worker's to read, not the task's: a container sees
/// nothing else of the host.
async fn still_there(directory: &Path) -> Result<(), Failure> {
    let found = fs::symlink_metadata(directory).await;
    if found.is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    Err(Failure::Failed(format!("the task's directory {name:?} is none any more")))
}

fn name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

fn wrong(at: &str, why: &str) -> Failure {
    Failure::Failed(format!("{at}: {why}"))
}

/// What the result says of the files that are uploaded: `artifacts`, and for an archive `final_x.zip` the `final_x_archive` and
/// `final_x_archive_url` that later stages refer to. What is not uploaded is told in the log.
pub async fn told(job: &Job) -> Result<Map<String, Value>, Failure> {
    let unreadable = |error: io::Error| Failure::Failed(format!("cannot read the artifacts: {error}"));
    still_there(&job.artifacts).await?;
    let mut entries = fs::read_dir(&job.artifacts).await.map_err(unreadable)?;
    let (mut told, mut all) = (Map::new(), Vec::new());
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Of a link this is the link's own.
        let metadata = entry.metadata().await.map_err(unreadable)?;
        if !metadata.is_file() {
            job.log.line(Stream::Worker, &format!("{name} is not uploaded: it is no plain file"));
            continue;
        }
        let url = format!("{}/{}", job.files_url, utf8_percent_encode(&name, &IN_A_URL));
        if let Some(stem) = archive(&name) {
            told.insert(format!("{stem}_archive"), json!(name));
            told.insert(format!("{stem}_archive_url"), json!(url));
        }
        all.push((name.clone(), json!({"name": name, "bytes": metadata.len(), "url": url})));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    told.insert("artifacts".to_owned(), all.into_iter().map(|(_, value)| value).collect());
    Ok(told)
}

/// `final_model` of `final_model.tar.gz`.
fn archive(name: &str) -> Option<&str> {
    let stem = ARCHIVES.iter().find_map(|ending| name.strip_suffix(ending))?;
    (stem.starts_with("final_") && stem.len() > "final_".len()).then_some(stem)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(json!("a"), "spec.output.artifacts: must be a list")]
    #[case(json!(["a", 1]), "spec.output.artifacts[1]: must be a path")]
    #[case(json!(["/etc/passwd"]), "spec.output.artifacts[0]: must be a path below")]
    #[case(json!(["a/../../b"]), "spec.output.artifacts[0]: must be a path below")]
    #[case(json!([""]), "spec.output.artifacts[0]: must be a path below")]
    #[case(json!(["a/x", "b/x"]), "spec.output.artifacts[1]: another one is called x")]
    #[case(json!(["out/responses.json"]), "spec.output.artifacts[0]: the result itself")]
    fn a_wrong_list_is_told_with_its_place(#[case] listed: Value, #[case] told: &str) {
        let Err(Failure::Failed(why)) = Named::of(&json!({"output": {"artifacts": listed}})) else { panic!("taken") };
        assert!(why.starts_with(told), "{why}");
    }

    #[tokio::test]
    async fn what_is_named_is_moved_and_no_link_leads_out() {
        let parent = tempfile::tempdir().expect("a directory");
        let (work, artifacts) = (parent.path().join("work"), parent.path().join("artifacts"));
        std::fs::create_dir_all(work.join("out")).expect("made");
        std::fs::create_dir(&artifacts).expect("made");
        std::fs::write(work.join("out/a"), "x").expect("written");
        std::fs::write(parent.path().join("secret"), "x").expect("written");
        std::os::unix::fs::symlink("../secret", work.join("link")).expect("made");
        let named = |paths: Value| Named::of(&json!({"output": {"artifacts": paths}})).expect("a good list");
        named(json!(["./out/a", "logs", "responses.json"])).collect(&work, &artifacts).await.expect("collected");
        assert!(artifacts.join("a").is_file() && !work.join("out/a").exists());
        for (paths, told) in
            [(json!(["link"]), "leads out"), (json!(["out"]), "no plain file"), (json!(["b"]), "No such")]
        {
            let Err(Failure::Failed(why)) = named(paths).collect(&work, &artifacts).await else { panic!("taken") };
            assert!(why.contains(told), "{why}");
        }
    }

    #[tokio::test]
    async fn a_link_in_the_place_of_a_directory_is_not_followed() {
        let parent = tempfile::tempdir().expect("a directory");
        let (secrets, work, artifacts) =
            (parent.path().join("secrets"), parent.path().join("work"), parent.path().join("artifacts"));
        std::fs::create_dir(&secrets).expect("made");
        std::fs::write(secrets.join("key"), "x").expect("written");
        let named = Named::of(&json!({"output": {"artifacts": ["key"]}})).expect("a good list");
        std::os::unix::fs::symlink("secrets", &work).expect("made");
        std::fs::create_dir(&artifacts).expect("made");
        let Err(Failure::Failed(why)) = named.collect(&work, &artifacts).await else { panic!("taken") };
        assert_eq!(why, "the task's directory \"work\" is none any more");
        assert!(secrets.join("key").exists());
        std::fs::remove_file(&work).expect("removed");
        std::fs::create_dir(&work).expect("made");
        std::fs::write(work.join("key"), "y").expect("written");
        std::fs::remove_dir(&artifacts).expect("removed");
        std::os::unix::fs::symlink("secrets", &artifacts).expect("made");
        assert!(named.collect(&work, &artifacts).await.is_err());
        assert_eq!(std::fs::read(secrets.join("key")).ok(), Some(b"x".to_vec()));
    }

    #[rstest]
    #[case("final_model.tar.gz", Some("final_model"))]
    #[case("final_lora.zip", Some("final_lora"))]
    #[case("final_.zip", None)]
    #[case("model.zip", None)]
    #[case("final_model.bin", None)]
    fn archives_of_stages_are_known_by_their_names(#[case] name: &str, #[case] stem: Option<&str>) {
        assert_eq!(archive(name), stem);
    }
}
