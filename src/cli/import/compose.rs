//! `gaia import compose`: desired state for a whole stack. The Workloads name the Compose file and their service, so that
//! the file goes on saying what runs; `--resolved` writes out what it says now, for the API.
//!
//! What Compose runs already is compared, on this host's Docker: a container that is as its service says is taken over
//! without a restart.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Component, Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    api::{GROUP, VERSION, container::ComposeSource},
    app,
    cli::{CliError, Outcome, session::block_on},
    compose::{DependencyCondition, Problem, Project, Reader, Service},
};

const MAX_NAME: usize = 50;

#[derive(Debug, Args)]
#[command(after_help = "Variables are taken from .env beside the file, and from nowhere else.\n\
What differs between a service and the container that Compose runs for it is told on standard error.")]
pub struct ComposeArgs {
    /// The Compose file
    file: PathBuf,
    /// A file a Workload into this directory, instead of standard output
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Services of this profile too; may be given several times
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// The name of the project, whatever the file says
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// Namespace of the Workloads
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Write out what the file says now, instead of naming it
    #[arg(long)]
    resolved: bool,
    /// Do not ask Docker what runs already
    #[arg(long)]
    no_compare: bool,
}

struct Disk;

impl Reader for Disk {
    fn read(&self, path: &Path) -> Result<Option<String>, String> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

pub fn run(args: &ComposeArgs, out: &mut dyn Write) -> Outcome {
    let file = fs::canonicalize(&args.file).map_err(CliError::file(format!("cannot read {}", args.file.display())))?;
    let project = Project::read(&file, args.project.as_deref(), &Disk).map_err(failed)?;
    let services = chosen(&project, &args.profiles)?;
    let names = names(&services)?;
    let mut documents = Vec::new();
    for (service, read) in &services {
        documents.push((names[service].clone(), document(args, &project, service, read, &names)?));
    }
    match &args.output {
        None => {
            for (_, document) in &documents {
                write!(out, "---\n{}", yaml(document)?)?;
            }
        }
        Some(directory) => write_files(directory, &documents)?,
    }
    out.flush()?;
    for (service, read) in &services {
        if read.container.may_use_gpu() {
            eprintln!(
                "{service}: is given a card. For handoffs, name its Gpu in spec.gpu.members of {}",
                names[service]
            );
        }
    }
    if !args.no_compare {
        compare(&project, &services);
    }
    Ok(0)
}

fn failed(problems: Vec<Problem>) -> CliError {
    CliError::Failed(problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
}

/// As `docker compose up` would: those in no profile, and those in one that was asked for.
fn chosen(project: &Project<'_>, profiles: &[String]) -> Result<Vec<(String, Service)>, CliError> {
    let known = project.profiles();
    if let Some(unknown) = profiles.iter().find(|profile| !known.contains(profile)) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(CliError::Usage(format!("--profile {unknown}: there is no such profile; there are {known}")));
    }
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for service in project.services() {
        let its = project.profiles_of(service);
        if !its.is_empty() && !its.iter().any(|profile| profiles.contains(profile)) {
            continue;
        }
        match project.service(service, None) {
            Ok(read) => found.push((service.to_owned(), read)),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(failed(problems));
    }
    if found.is_empty() {
        return Err(CliError::Failed(format!("every service is in a profile: give one of {}", known.join(", "))));
    }
    Ok(found)
}

/// Names of Workloads are DNS labels; those of services need not be.
fn names(services: &[(String, Service)]) -> Result<BTreeMap<String, String>, CliError> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (service, _) in services {
        let name: String =
            service.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = name.trim_matches('-').to_owned();
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(CliError::Failed(format!(
                "{service}: gives no name of at most {MAX_NAME} characters to a Workload"
            )));
        }
        if let Some((other, _)) = names.iter().find(|(_, taken)| **taken == name) {
            return Err(CliError::Failed(format!("{service} and {other} would both be the Workload {name}")));
        }
        names.insert(service.clone(), name);
    }
    Ok(names)
}

fn document(
    args: &ComposeArgs,
    project: &Project<'_>,
    service: &str,
    read: &Service,
    names: &BTreeMap<String, String>,
) -> Result<Value, CliError> {
    let depends_on = depends_on(project, read, names)?;
    let mut metadata = json!({"name": names[service], "labels": {"app.kubernetes.io/part-of": project.name}});
    if let Some(namespace) = &args.namespace {
        metadata["namespace"] = namespace.clone().into();
    }
    let file = match &args.output {
        Some(directory) if !args.resolved => from(directory, &project.file)?,
        _ => project.file.clone(),
    };
    let source = ComposeSource {
        file: file.display().to_string(),
        service: service.to_owned(),
        profile: None,
        project: (args.project.is_some() || args.resolved).then(|| project.name.clone()),
    };
    let mut spec = json!({"live": {"container": {"compose": source}}});
    if args.resolved {
        let container = crate::api::container::ContainerSpec { compose: Some(source), ..read.container.clone() };
        spec["live"]["container"] = json!(container);
        if let Some(restart) = read.restart {
            spec["restartPolicy"] = json!(restart);
        }
        if let Some(seconds) = read.stop_grace_seconds {
            spec["stopGraceSeconds"] = json!(seconds);
        }
        if !depends_on.is_empty() {
            spec["dependsOn"] = depends_on.into();
        }
    }
    Ok(json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Workload", "metadata": metadata, "spec": spec}))
}

fn depends_on(project: &Project<'_>, read: &Service, names: &BTreeMap<String, String>) -> Result<Vec<Value>, CliError> {
    let mut found = Vec::new();
    for dependency in &read.depends_on {
        match names.get(&dependency.service) {
            Some(workload) => {
                let condition = match dependency.condition {
                    DependencyCondition::Started => "Started",
                    DependencyCondition::Healthy => "Healthy",
                };
                found.push(json!({"workload": workload, "condition": condition}));
            }
            None if !dependency.required => {}
            None => {
                let (file, field, service) = (project.file.display(), &dependency.field, &dependency.service);
                let message = format!("{file}: {field}: {service} is not among the services that are imported");
                return Err(CliError::Failed(message));
            }
        }
    }
    Ok(found)
}

fn yaml(document: &Value) -> Result<String, CliError> {
    serde_saphyr::to_string(document).map_err(|error| CliError::Failed(error.to_string()))
}

/// Nothing that is there is written over.
fn write_files(directory: &Path, documents: &[(String, Value)]) -> Result<(), CliError> {
    let cannot = |path: &Path| CliError::file(format!("cannot write {}", path.display()));
    fs::create_dir_all(directory).map_err(cannot(directory))?;
    for (name, document) in documents {
        let path = directory.join(format!("{name}.yaml"));
        let text = yaml(document)?;
        let mut file = fs::File::create_new(&path).map_err(cannot(&path))?;
        file.write_all(text.as_bytes()).map_err(cannot(&path))?;
    }
    Ok(())
}

/// `file` as seen from a file in `directory`.
fn from(directory: &Path, file: &Path) -> Result<PathBuf, CliError> {
    fs::create_dir_all(directory).map_err(CliError::file(format!("cannot write {}", directory.display())))?;
    let directory =
        fs::canonicalize(directory).map_err(CliError::file(format!("cannot read {}", directory.display())))?;
    let shared = directory.components().zip(file.components()).take_while(|(a, b)| a == b).count();
    let up = directory.components().skip(shared).map(|_| Component::ParentDir);
    Ok(up.chain(file.components().skip(shared)).collect())
}

/// Tells what would become of the containers that Compose runs. What cannot be asked is no failure: the files are written.
fn compare(project: &Project<'_>, services: &[(String, Service)]) {
    let specs = services.iter().map(|(service, read)| (service.clone(), read.container.clone())).collect();
    match block_on(async { Ok(app::compose::compare(&project.name, specs).await) }) {
        Ok(Ok(found)) => {
            for app::compose::Found { service, container, differences } in found {
                if differences.is_empty() {
                    eprintln!("{service}: {container} is as the file says: it is taken over without a restart");
                    continue;
                }
                eprintln!("{service}: {container} is not as the file says, and is left alone until it is:");
                differences.iter().for_each(|difference| eprintln!("  {difference}"));
            }
        }
        Ok(Err(error)) => eprintln!("Docker was not asked what runs already: {error}"),
        Err(error) => eprintln!("Docker was not asked what runs already: {}", error.report()),
    }
}
