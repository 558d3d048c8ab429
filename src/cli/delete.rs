//! `gaia delete`: asks for the end of objects and, unless told otherwise, waits until they are gone.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::{ArgAction, Args};
use futures::TryStreamExt;
use kube::core::{
    WatchEvent,
    params::{DeleteParams, GetParams, ListParams, WatchParams},
};
use serde_json::Value;

use super::{
    CliError, Outcome,
    catalogue::Catalogue,
    error::{Refusal, while_},
    get::{self, PickArgs},
    manifest, print,
    session::{ServerArgs, Session},
    target::{self, Target, check_name},
};

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// A kind and names, or `kind/name` …
    #[arg(required_unless_present = "files", conflicts_with = "files", value_name = "KIND NAME | KIND/NAME")]
    targets: Vec<String>,
    /// Delete what these manifests name
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Namespace of the objects
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Delete the objects of the kind that have these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Delete every object of the kind in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// Give up waiting after this long; the deletion goes on
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// An object that is not there is as good as deleted
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// One object that is to go.
struct Doomed {
    target: Target,
    namespace: Option<String>,
}

pub async fn run(args: DeleteArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let catalogue = Catalogue::fetch(&session).await?;
    let mut failures = Vec::new();
    let mut pending = Vec::new();
    for doomed in doomed(&args, &session, &catalogue).await? {
        match doomed.delete(&session).await {
            Ok(left) => {
                writeln!(out, "{} deleted", doomed.target)?;
                pending.extend(left.map(|uid| (doomed, uid)));
            }
            Err(refusal) if refusal.is_not_found() && args.ignore_not_found => {}
            Err(refusal) => failures.push(while_(format!("cannot delete {}", doomed.target))(refusal)),
        }
    }
    if args.wait {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(args.timeout);
        for (doomed, uid) in &pending {
            if let Err(e) = doomed.gone(&session, uid, deadline, args.timeout).await {
                failures.push(e);
            }
        }
    }
    print::failures(failures)
}

async fn doomed(args: &DeleteArgs, session: &Session, catalogue: &Catalogue) -> Result<Vec<Doomed>, CliError> {
    check_name("a namespace", &args.namespace)?;
    if !args.files.is_empty() {
        return manifested(args, catalogue);
    }
    let targets = target::parse(&args.targets, catalogue)?;
    let named = targets.iter().all(|t| t.name.is_some());
    if named == (args.all || args.selector.is_some()) {
        return Err(CliError::Usage("name the objects, or give a kind with --all or --selector".into()));
    }
    let mut doomed = Vec::new();
    for target in targets {
        let namespace = target.kind.namespaced.then(|| args.namespace.clone());
        if target.name.is_some() {
            doomed.push(Doomed { target, namespace });
            continue;
        }
        let pick = PickArgs { selector: args.selector.clone(), field_selector: None };
        for (kind, object) in get::fetch(session, &target, &pick, namespace.as_deref()).await? {
            let target = Target { kind, name: Some(print::name(&object).to_owned()) };
            doomed.push(Doomed { target, namespace: namespace.clone() });
        }
    }
    Ok(doomed)
}

/// Last first, so that what was made on top of something goes before it.
fn manifested(args: &DeleteArgs, catalogue: &Catalogue) -> Result<Vec<Doomed>, CliError> {
    let mut doomed = Vec::new();
    for manifest in manifest::read(&args.files)?.into_iter().rev() {
        let Some(kind) = catalogue.of_manifest(manifest.api_version(), manifest.kind()) else {
            let (kind, version) = (manifest.kind(), manifest.api_version());
            return Err(CliError::Failed(format!("{}: the server has no kind {kind} in {version}", manifest.place)));
        };
        check_name("an object", manifest.name())?;
        let namespace = print::namespace(&manifest.object).unwrap_or(&args.namespace);
        check_name("a namespace", namespace)?;
        doomed.push(Doomed {
            namespace: kind.namespaced.then(|| namespace.to_owned()),
            target: Target { kind: kind.clone(), name: Some(manifest.name().to_owned()) },
        });
    }
    Ok(doomed)
}

impl Doomed {
    fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    /// The uid if finalizers still hold the object, none if it is gone.
    async fn delete(&self, session: &Session) -> Result<Option<String>, Refusal> {
        let requests = self.target.kind.request(self.namespace.as_deref());
        let answer = session.ask(requests.delete(self.name(), &DeleteParams::background()).map_err(local)?).await?;
        let pending = answer["metadata"]["deletionTimestamp"].is_string();
        Ok(answer["metadata"]["uid"].as_str().filter(|_| pending).map(str::to_owned))
    }

    /// Waits for the end of the object that has this uid; another under the same name does not count.
    async fn gone(
        &self,
        session: &Session,
        uid: &str,
        deadline: tokio::time::Instant,
        seconds: u64,
    ) -> Result<(), CliError> {
        let waited = tokio::time::timeout_at(deadline, self.watch_end(session, uid)).await;
        match waited {
            Ok(result) => result.map_err(while_(format!("cannot watch the end of {}", self.target))),
            Err(_) => {
                let message = format!("{} is still being deleted after {seconds} s; it goes on", self.target);
                Err(CliError::Failed(message))
            }
        }
    }

    async fn watch_end(&self, session: &Session, uid: &str) -> Result<(), Refusal> {
        let requests = self.target.kind.request(self.namespace.as_deref());
        let only_this = format!("metadata.name={}", self.name());
        loop {
            // A fresh look, also whenever the watch ended: the end may have come in between.
            match session.ask(requests.get(self.name(), &GetParams::default()).map_err(local)?).await {
                Err(refusal) if refusal.is_not_found() => return Ok(()),
                Ok(object) if object["metadata"]["uid"] != uid => return Ok(()),
                Ok(_) => {}
                Err(refusal) => return Err(refusal),
            }
            let list = session.ask(requests.list(&ListParams::default().fields(&only_this)).map_err(local)?).await?;
            if list["items"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            let from = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let watch = requests.watch(&WatchParams::default().fields(&only_this), from).map_err(local)?;
            let mut events = session.watch_tables(watch).await?;
            while let Some(event) = events.try_next().await.map_err(|e| session.refused(e))? {
                match event {
                    WatchEvent::Deleted(Value::Object(_)) => return Ok(()),
                    WatchEvent::Error(_) => break,
                    WatchEvent::Deleted(_) | WatchEvent::Added(_) | WatchEvent::Modified(_) => {}
                    WatchEvent::Bookmark(_) => {}
                }
            }
        }
    }
}

/// A request that could not even be built.
fn local(error: kube::core::request::Error) -> Refusal {
    Refusal::Unreachable { server: "the server".into(), why: error.to_string() }
}
