//! `compose:` in the file of a Workload: the fields of the service stand in its place before anything is applied, so that
//! the object says what runs, and its hash changes when the Compose file does. Pure.
//!
//! What the Workload says beside `compose:` is laid over it, field by field. What its live service says of dependencies,
//! restarts and the grace at stopping goes into the Workload, as far as that leaves it open.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    files::{Listing, NO_HOST},
    load::{Document, LoadedFiles},
};
use crate::{
    api::{GROUP, source::FileError},
    compose::{self, Dependency, DependencyCondition, Problem, Project, Reader, Service},
};

const VARIANTS: [&str; 2] = ["live", "candidate"];

/// A Compose file that lies among the desired ones. It is read where a Workload names it, and is no object itself.
pub fn is_compose_file(document: &Value) -> bool {
    let has = |field: &str| document.get(field).is_some();
    document.get("services").is_some_and(Value::is_object) && !has("kind") && !has("apiVersion")
}

/// What a Workload's variant takes from where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    file: PathBuf,
    service: String,
    profile: Option<String>,
    project: Option<String>,
}

/// The files beside the directory, as far as they have been read. Notes what it is asked for.
struct Beside<'a> {
    listing: &'a Listing,
    asked: RefCell<BTreeSet<PathBuf>>,
}

impl Reader for Beside<'_> {
    fn read(&self, path: &Path) -> Result<Option<String>, String> {
        self.asked.borrow_mut().insert(path.to_owned());
        self.listing.beside.get(path).cloned().unwrap_or_else(|| Err("has not been read yet".to_owned()))
    }
}

/// Puts the services in place. A document whose service has faults is left out, and they are errors.
pub fn resolve(loaded: &mut LoadedFiles, listing: &Listing) {
    let beside = Beside { listing, asked: RefCell::default() };
    let mut projects: BTreeMap<(PathBuf, Option<String>), Result<Project<'_>, Vec<Problem>>> = BTreeMap::new();
    let workloads = by_service(&loaded.documents, listing);
    let (mut kept, mut errors) = (Vec::new(), Vec::new());
    for mut document in std::mem::take(&mut loaded.documents) {
        let mut faults = Vec::new();
        let mut beside_container = None;
        for variant in VARIANTS {
            let Some(reference) = reference(&document, variant, listing) else { continue };
            let key = (reference.file.clone(), reference.project.clone());
            let project = projects
                .entry(key)
                .or_insert_with(|| Project::read(&reference.file, reference.project.as_deref(), &beside));
            let found = match project {
                Ok(project) => project
                    .service(&reference.service, reference.profile.as_deref())
                    .map(|service| (project.name.clone(), service)),
                Err(problems) => Err(problems.clone()),
            };
            match found {
                Ok((project, service)) => {
                    put(&mut document, variant, &reference, &project, &service);
                    faults.extend(mounts_of_no_host(&document, variant));
                    beside_container.get_or_insert((reference, service));
                }
                Err(problems) => {
                    let field = format!("spec.{variant}.container.compose");
                    faults.extend(problems.iter().map(|problem| (field.clone(), problem.to_string())));
                }
            }
        }
        if let Some((reference, service)) = beside_container
            && let Err(fault) = fill(&mut document, &reference, service, &workloads)
        {
            faults.push(("spec".to_owned(), fault));
        }
        if faults.is_empty() {
            kept.push(document);
            continue;
        }
        errors.extend(faults.into_iter().map(|(field, message)| FileError {
            file: document.file.clone(),
            line: Some(document.lines.nearest(&field).unwrap_or(document.line)),
            message: format!("{}: {message}", document.id),
        }));
    }
    drop(projects);
    loaded.documents = kept;
    loaded.errors.extend(errors);
    loaded.beside = beside.asked.into_inner();
}

/// Which Workload a service is, by namespace, file and service.
type Workloads = BTreeMap<(Option<String>, PathBuf, String), String>;

fn by_service(documents: &[Document], listing: &Listing) -> Workloads {
    let mut found = Workloads::new();
    // Live counts before the candidate: that is the one which others mean by the service's name.
    for variant in VARIANTS {
        for document in documents {
            if let Some(reference) = reference(document, variant, listing) {
                let key = (document.id.namespace.clone(), reference.file, reference.service);
                found.entry(key).or_insert_with(|| document.id.name.clone());
            }
        }
    }
    found
}

/// `None`: the variant has none, or none that can be read; the schema says so then.
fn reference(document: &Document, variant: &str, listing: &Listing) -> Option<Reference> {
    if document.id.group != GROUP || document.id.kind != "Workload" {
        return None;
    }
    let compose = document.object.pointer(&format!("/spec/{variant}/container/compose"))?;
    let text = |field: &str| compose.get(field).and_then(Value::as_str).map(str::to_owned);
    let here = listing.directory.join(&document.file);
    Some(Reference {
        file: compose::resolve(here.parent().unwrap_or(&listing.directory), &text("file")?),
        service: text("service")?,
        profile: text("profile"),
        project: text("project"),
    })
}

fn put(document: &mut Document, variant: &str, reference: &Reference, project: &str, service: &Service) {
    let Some(container) = document.object.pointer_mut(&format!("/spec/{variant}/container")) else { return };
    let mut resolved = serde_json::to_value(&service.container).expect("a container spec is plain data");
    json_patch::merge(&mut resolved, container);
    resolved["compose"]["file"] = reference.file.display().to_string().into();
    resolved["compose"]["project"] = project.into();
    *container = resolved;
}

/// A container cannot mount what is only in a commit.
fn mounts_of_no_host(document: &Document, variant: &str) -> Option<(String, String)> {
    let mounts = document.object.pointer(&format!("/spec/{variant}/container/mounts"))?.as_array()?;
    let sources = mounts.iter().filter_map(|mount| mount.get("source")?.as_str());
    let found = sources.map(Path::new).find_map(|source| source.strip_prefix(NO_HOST).ok())?;
    // Without the names of the Source and of the repository.
    let inside: PathBuf = found.components().skip(2).collect();
    let message = format!(
        "it mounts {} of the git repository, which is not on this host: name an absolute path, or keep these files in a directory",
        if inside.as_os_str().is_empty() { Path::new(".") } else { &inside }.display()
    );
    Some((format!("spec.{variant}.container.compose"), message))
}

/// What the service says that is the Workload's to say, unless that says it.
fn fill(document: &mut Document, reference: &Reference, service: Service, workloads: &Workloads) -> Result<(), String> {
    let namespace = document.id.namespace.clone();
    let Some(spec) = document.object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    if let Some(restart) = service.restart {
        spec.entry("restartPolicy").or_insert_with(|| json!(restart));
    }
    if let Some(seconds) = service.stop_grace_seconds {
        spec.entry("stopGraceSeconds").or_insert_with(|| json!(seconds));
    }
    if spec.contains_key("dependsOn") || service.depends_on.is_empty() {
        return Ok(());
    }
    let mut depends_on = Vec::new();
    for dependency in service.depends_on {
        let Dependency { service, condition, required, field } = dependency;
        let key = (namespace.clone(), reference.file.clone(), service.clone());
        match workloads.get(&key) {
            Some(workload) => {
                let condition = match condition {
                    DependencyCondition::Started => "Started",
                    DependencyCondition::Healthy => "Healthy",
                };
                depends_on.push(json!({"workload": workload, "condition": condition}));
            }
            None if !required => {}
            None => {
                let file = reference.file.display();
                return Err(format!(
                    "{file}: {field}: no Workload runs the service {service} of this file: give it one, or state dependsOn"
                ));
            }
        }
    }
    spec.insert("dependsOn".to_owned(), depends_on.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gitops::{
            files::{File, Identity},
            load::load,
        },
        registry::Kinds,
    };

    /// Loads as the syncer does: what is asked for is read, until nothing new is.
    fn loaded(files: &[(&str, &str)], beside: &[(&str, &str)]) -> LoadedFiles {
        let kinds = Kinds::from_crds(&crate::api::crds()).expect("our own definitions are valid");
        let mut listing = Listing::empty(Identity("1:1".to_owned()), Path::new("/srv/desired"));
        listing.files =
            files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect();
        loop {
            let loaded = load(&listing, &kinds);
            let unread: Vec<_> = loaded.beside.iter().filter(|path| !listing.beside.contains_key(*path)).collect();
            if unread.is_empty() {
                return loaded;
            }
            for path in unread {
                let text =
                    beside.iter().find(|(known, _)| Path::new(known) == path).map(|(_, text)| (*text).to_owned());
                listing.beside.insert(path.clone(), Ok(text));
            }
        }
    }

    fn workload(name: &str, spec: &str) -> String {
        format!("apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n{spec}\n")
    }

    const COMPOSE: &str = "services:\n  core:\n    image: core:${TAG}\n    env_file: core.env\n    restart: \"no\"\n    stop_grace_period: 1m\n    depends_on: {db: {condition: service_healthy}}\n  db: {image: db}\n  idle: {image: idle, profiles: [spare]}\n";

    #[test]
    fn the_service_stands_in_place_of_its_name() {
        let core = workload(
            "gaia-core",
            "  live:\n    container:\n      compose: {file: ../stack/compose.yaml, service: core}\n      env: {MORE: more}\n  candidate:\n    container: {compose: {file: /srv/stack/compose.yaml, service: idle, profile: spare}}",
        );
        let db = workload("gaia-db", "  live: {container: {compose: {file: ../stack/compose.yaml, service: db}}}");
        let beside = [
            ("/srv/stack/compose.yaml", COMPOSE),
            ("/srv/stack/.env", "TAG=v1\n"),
            ("/srv/stack/core.env", "A=a\nMORE=less\n"),
        ];
        let loaded = loaded(&[("core.yaml", &core), ("db.yaml", &db)], &beside);
        assert_eq!(loaded.errors, []);
        let spec = &loaded.documents[0].object["spec"];
        let container = &spec["live"]["container"];
        assert_eq!(container["image"], "core:v1");
        assert_eq!(container["env"], json!({"A": "a", "MORE": "more"}), "what stands beside it is laid over it");
        assert_eq!(
            container["compose"],
            json!({"file": "/srv/stack/compose.yaml", "service": "core", "project": "stack"})
        );
        assert_eq!(spec["candidate"]["container"]["image"], "idle");
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(spec["stopGraceSeconds"], 60);
        assert_eq!(spec["dependsOn"], json!([{"workload": "gaia-db", "condition": "Healthy"}]));
        let asked: Vec<_> = loaded.beside.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            asked,
            ["/srv/stack/.env", "/srv/stack/compose.yaml", "/srv/stack/core.env"],
            "and they are watched"
        );
    }

    #[test]
    fn what_the_workload_states_is_its_own() {
        let core = workload(
            "core",
            "  restartPolicy: Always\n  stopGraceSeconds: 5\n  dependsOn: []\n  live: {container: {compose: {file: compose.yaml, service: core}, image: mine}}",
        );
        let beside = [
            ("/srv/desired/compose.yaml", COMPOSE),
            ("/srv/desired/.env", "TAG=v1\n"),
            ("/srv/desired/core.env", "A=a\n"),
        ];
        // The Compose file may lie among the desired files: it is no object.
        let loaded = loaded(&[("compose.yaml", COMPOSE), ("core.yaml", &core)], &beside);
        assert_eq!(loaded.errors, []);
        let spec = &loaded.documents[0].object["spec"];
        assert_eq!((&spec["restartPolicy"], &spec["stopGraceSeconds"]), (&json!("Always"), &json!(5)));
        assert_eq!((&spec["dependsOn"], &spec["live"]["container"]["image"]), (&json!([]), &json!("mine")));
    }

    #[test]
    fn what_is_only_in_a_commit_cannot_be_mounted() {
        let mut listing = Listing::empty(Identity("r".to_owned()), Path::new("/gaia.git/prod/hosts/gpu1"));
        let text = workload("web", "  live:\n    container: {compose: {file: ../c.yaml, service: web}}");
        listing.files = vec![File { path: "web.yaml".to_owned(), text }];
        let told = |volume: &str| {
            let mut listing = listing.clone();
            let compose = format!("services: {{web: {{image: i, volumes: ['{volume}']}}}}");
            listing.beside.insert(PathBuf::from("/gaia.git/prod/hosts/c.yaml"), Ok(Some(compose)));
            listing.beside.insert(PathBuf::from("/gaia.git/prod/hosts/.env"), Ok(None));
            let loaded = load(&listing, &Kinds::from_crds(&crate::api::crds()).expect("valid"));
            loaded.errors.iter().map(crate::gitops::status::describe).collect::<Vec<_>>()
        };
        assert_eq!(
            told("./etc:/etc/web"),
            [
                "web.yaml:6: Workload default/web: it mounts etc of the git repository, which is not on this host: name an absolute path, or keep these files in a directory"
            ]
        );
        assert_eq!(told("/srv/web:/srv"), [""; 0]);
    }

    #[test]
    fn faults_are_told_where_the_workload_names_the_file() {
        let line = "  live:\n    container: {compose: {file: c.yaml, service: SERVICE}}";
        let told = |service: &str, compose: &str| {
            let text = workload("web", &line.replace("SERVICE", service));
            let loaded = loaded(&[("web.yaml", &text)], &[("/srv/desired/c.yaml", compose)]);
            assert!(loaded.documents.is_empty(), "one with faults is not applied");
            loaded.errors.iter().map(crate::gitops::status::describe).collect::<Vec<_>>()
        };
        let file = "web.yaml:6: Workload default/web: /srv/desired/c.yaml";
        assert_eq!(
            told("web", "services: {web: {build: .}}"),
            [format!(
                "{file}:1: services.web.build: is not supported: gaia builds no images. Give `image` too, and build it with Compose"
            )]
        );
        assert_eq!(
            told("nope", "services: {web: {image: i}}"),
            [format!("{file}:1: services: there is no service nope; there are web")]
        );
        let lonely = told("web", "services: {web: {image: i, depends_on: [db]}, db: {image: i}}");
        assert_eq!(
            lonely,
            [
                "web.yaml:4: Workload default/web: /srv/desired/c.yaml: services.web.depends_on[0]: no Workload runs the service db of this file: give it one, or state dependsOn"
            ]
        );
        let text = workload("web", &line.replace("SERVICE", "web"));
        let missing = loaded(&[("web.yaml", &text)], &[]).errors;
        assert_eq!(missing[0].message, "Workload default/web: /srv/desired/c.yaml: there is no such file");
    }
}
