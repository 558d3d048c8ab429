//! `gaia apply`: server-side apply of manifests. What a manifest states, its applier owns; what it leaves out is left alone.

use std::{io::Write, path::PathBuf};

use clap::Args;
use kube::{
    api::Patch,
    core::params::{GetParams, PatchParams},
};
use serde_json::Value;

use super::{
    CliError, FIELD_MANAGER, Outcome,
    catalogue::{Catalogue, Kind},
    error::{Refusal, while_},
    manifest::{self, Manifest},
    print,
    session::{ServerArgs, Session},
    target::check_name,
};

/// Manifests, and whose they are; shared by the commands that apply or would.
#[derive(Debug, Clone, Args)]
pub struct ManifestArgs {
    /// A file, a directory, or `-` for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Namespace of objects whose manifest names none
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    /// Take fields that somebody else owns
    #[arg(long)]
    force_conflicts: bool,
    /// Let the server check everything and keep nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: ApplyArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let manifests = manifest::read(&args.manifests.files)?;
    let catalogue = Catalogue::fetch(&session).await?;
    let mut failures = Vec::new();
    for manifest in &manifests {
        let applied = match Place::of(manifest, &catalogue, &args.manifests, args.force_conflicts) {
            Ok(place) => place.apply(&session, manifest, &args).await,
            Err(e) => Err(e),
        };
        match applied {
            Ok(line) => writeln!(out, "{line}")?,
            Err(e) => failures.push(e),
        }
    }
    print::failures(failures)
}

/// Where a manifest goes on the server.
pub struct Place<'a> {
    pub kind: &'a Kind,
    pub namespace: Option<String>,
    pub name: &'a str,
    force: bool,
    origin: String,
}

impl<'a> Place<'a> {
    pub fn of(
        manifest: &'a Manifest,
        catalogue: &'a Catalogue,
        args: &ManifestArgs,
        force: bool,
    ) -> Result<Self, CliError> {
        let (api_version, kind) = (manifest.api_version(), manifest.kind());
        let Some(kind) = catalogue.of_manifest(api_version, kind) else {
            let message = format!("{}: the server has no kind {kind} in {api_version}", manifest.place);
            return Err(CliError::Failed(message));
        };
        let namespace = print::namespace(&manifest.object).unwrap_or(&args.namespace).to_owned();
        check_name("an object", manifest.name())?;
        check_name("a namespace", &namespace)?;
        Ok(Self {
            kind,
            namespace: kind.namespaced.then_some(namespace),
            name: manifest.name(),
            force,
            origin: manifest.place.to_string(),
        })
    }

    /// `workload.gaia.dev/web`
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// The object as the server has it now.
    pub async fn live(&self, session: &Session) -> Result<Option<Value>, CliError> {
        let request = self.kind.request(self.namespace.as_deref()).get(self.name, &GetParams::default());
        let request = request.map_err(|e| CliError::Usage(format!("cannot ask for {}: {e}", self.label())))?;
        match session.ask(request).await {
            Ok(object) => Ok(Some(object)),
            // A namespace that does not exist is told by the apply itself, in better words.
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => Err(while_(format!("cannot get {}", self.label()))(refusal)),
        }
    }

    /// The object as it is after the apply, or with `dry_run` as it would be.
    pub async fn patched(&self, session: &Session, manifest: &Manifest, dry_run: bool) -> Result<Value, CliError> {
        let mut params = PatchParams::apply(FIELD_MANAGER).validation_strict();
        params.force = self.force;
        params.dry_run = dry_run;
        let requests = self.kind.request(self.namespace.as_deref());
        let request = requests.patch(self.name, &params, &Patch::Apply(&manifest.object));
        let request = request.map_err(|e| CliError::Usage(format!("cannot apply {}: {e}", self.label())))?;
        session.ask(request).await.map_err(|refusal| {
            let hint = match &refusal {
                Refusal::Status(status) if status.code == 409 => " (--force-conflicts takes the fields over)",
                Refusal::Status(_) | Refusal::Unreachable { .. } => "",
            };
            while_(format!("{}: cannot apply {}{hint}", self.origin, self.label()))(refusal)
        })
    }

    async fn apply(&self, session: &Session, manifest: &Manifest, args: &ApplyArgs) -> Result<String, CliError> {
        let before = self.live(session).await?;
        let after = self.patched(session, manifest, args.dry_run).await?;
        let verdict = match &before {
            None => "created",
            Some(before) if essence(before) == essence(&after) => "unchanged",
            Some(_) => "configured",
        };
        let dry = if args.dry_run { " (dry run)" } else { "" };
        Ok(format!("{} {verdict}{dry}", self.label()))
    }
}

/// The object without what changes by being written, and without what others observe.
fn essence(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_wished_counts_as_change() {
        let before = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"x": 1}, "status": {"y": 1}});
        let mut after = json!({"metadata": {"name": "a", "resourceVersion": "2"}, "spec": {"x": 1}});
        assert_eq!(essence(&before), essence(&after));
        after["spec"]["x"] = json!(2);
        assert_ne!(essence(&before), essence(&after));
    }
}
