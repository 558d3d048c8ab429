//! CustomResourceDefinitions that clients bring: checked when they are written, served from then on, and gone once their
//! objects are. Our own come with the binary: nobody else may change what they say.
//!
//! Settling a definition looks at it as it is stored now and makes what is served match. It takes no other input, so that
//! a start after a crash does what the write would have done.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tracing::warn;

use super::{
    ApiError, ApiResult, Kind, ListOptions, ObjectName, Reason, Registry, Subresource, WriteOptions, Written, builtin,
    kinds::{Added, from_crd},
    metadata, names,
    write::Edited,
};
use crate::store::{Revision, Version};

/// Holds a definition until the objects of its kind are gone. Clients delete it and *then* wait for it to be gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const SELF: &str = "gaia";

/// Is this the kind of definitions?
pub fn is(kind: &Kind) -> bool {
    kind.is(builtin::EXTENSIONS, "CustomResourceDefinition")
}

/// What a definition has from its first write on.
pub fn complete(object: &mut Value) {
    if metadata::is_deleting(object) || metadata::finalizers(object).contains(&FINALIZER) {
        return;
    }
    let finalizers: Vec<String> =
        metadata::finalizers(object).into_iter().chain([FINALIZER]).map(str::to_owned).collect();
    if let Some(metadata) = metadata::map_at(object, &["metadata"]) {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
}

/// What is said of a definition in its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Reason and message of why its names are refused.
    names: Option<(&'static str, String)>,
    /// Why it cannot be served for another cause.
    refused: Option<String>,
    terminating: bool,
}

impl Standing {
    pub fn served() -> Self {
        Self { names: None, refused: None, terminating: false }
    }

    /// Type, status, reason, message.
    fn conditions(&self) -> Vec<(&'static str, bool, &'static str, &str)> {
        let names = match &self.names {
            None => ("NamesAccepted", true, "NoConflicts", "no conflicts found"),
            Some((reason, message)) => ("NamesAccepted", false, *reason, message.as_str()),
        };
        let established = match &self.refused {
            Some(why) => ("Established", false, "NotServed", why.as_str()),
            None if self.names.is_some() => ("Established", false, "NotAccepted", "not all names are accepted"),
            None => ("Established", true, "InitialNamesAccepted", "the initial names have been accepted"),
        };
        let mut out = vec![names, established];
        if self.terminating {
            let message = "CustomResource deletion is in progress";
            out.push(("Terminating", true, "InstanceDeletionInProgress", message));
        }
        out
    }

    /// The status of a definition, given the one it has: a condition that does not turn keeps its time.
    fn status(&self, definition: &Value, now: &Value) -> Value {
        let before = definition["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let conditions = self.conditions().into_iter().map(|(type_, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let same = before.iter().find(|c| c["type"] == type_ && c["status"] == status);
            let since = same.map_or(now, |c| &c["lastTransitionTime"]);
            json!({"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
        });
        let conditions: Vec<Value> = conditions.collect();
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let stored: Vec<&Value> = versions.filter(|v| v["storage"] == true).map(|v| &v["name"]).collect();
        let accepted =
            if self.names.is_none() { definition["spec"]["names"].clone() } else { json!({"kind": "", "plural": ""}) };
        json!({"acceptedNames": accepted, "storedVersions": stored, "conditions": conditions})
    }
}

impl Registry {
    /// Whether a definition may be stored. One of ours only as it is in this binary.
    pub(super) fn check_definition(&self, kind: &Kind, object: &Value, live: Option<&Value>) -> ApiResult<()> {
        if live.is_some_and(|live| live["spec"] == object["spec"]) {
            return Ok(());
        }
        let name = metadata::text(object, "name").unwrap_or_default();
        let invalid = |why: String| {
            let message = format!("{} {name:?} is invalid: {why}", kind.qualified_kind());
            ApiError::new(Reason::Invalid, message)
        };
        let crd = parse(object).map_err(&invalid)?;
        let kinds = self.kinds();
        if let Some(own) = kinds.crds().iter().find(|own| own.metadata.name.as_deref() == Some(name)) {
            let why = "this kind is part of gaia: its definition comes with the binary";
            return if own.spec == crd.spec { Ok(()) } else { Err(ApiError::forbidden(kind, name, why)) };
        }
        let expected = format!("{}.{}", crd.spec.names.plural, crd.spec.group);
        if name != expected {
            return Err(invalid(format!(
                "metadata.name: Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group"
            )));
        }
        check_group(&crd.spec.group, kinds.iter()).map_err(&invalid)?;
        if let Some(before) = live {
            check_immutable(&before["spec"], &object["spec"]).map_err(&invalid)?;
        }
        from_crd(&crd).map(|_| ()).map_err(&invalid)
    }

    /// New objects of a kind that is going would keep it.
    pub(super) fn check_not_terminating(&self, kind: &Kind) -> ApiResult<()> {
        let kinds = self.kinds();
        if kind.added && kinds.added(&kind.qualified_plural()).is_none_or(|added| added.terminating) {
            let message = "create not allowed while custom resource definition is terminating";
            return Err(ApiError::new(Reason::MethodNotAllowed, message));
        }
        Ok(())
    }

    /// The end of every write: when it was one of a definition, what is served follows before the client is answered.
    pub(super) async fn settled(&self, kind: &Kind, written: Written, options: &WriteOptions) -> ApiResult<Written> {
        if !is(kind) || options.dry_run {
            return Ok(written);
        }
        let name = ObjectName::of(&written.version.object);
        self.settle_definition(&name.name).await?;
        match self.live(kind, &name).await {
            Ok(version) => Ok(Written { version, ..written }),
            // Its last finalizer went with this write.
            Err(error) if error.reason == Reason::NotFound => Ok(written),
            Err(error) => Err(error),
        }
    }

    /// All of them, at the start. One that cannot be served is told in its status and keeps nobody from starting.
    pub(super) async fn settle_all_definitions(&self) -> ApiResult<()> {
        let kind = self.definitions()?;
        let mut found = self.list(&kind, None, &ListOptions::default()).await?.items;
        // Who came first has the names.
        found.sort_by_key(|version| metadata::text(&version.object, "creationTimestamp").map(str::to_owned));
        for version in found {
            self.settle_one(&kind, &ObjectName::of(&version.object).name).await?;
        }
        Ok(())
    }

    pub(super) async fn settle_definition(&self, name: &str) -> ApiResult<()> {
        let kind = self.definitions()?;
        if self.settle_one(&kind, name).await? {
            // Its names are free for whoever wanted them.
            self.settle_all_definitions().await?;
        }
        Ok(())
    }

    fn definitions(&self) -> ApiResult<Arc<Kind>> {
        self.builtin(builtin::EXTENSIONS, "CustomResourceDefinition")
    }

    /// True when a kind is no longer served.
    async fn settle_one(&self, kind: &Kind, name: &str) -> ApiResult<bool> {
        if self.kinds().defines(name) {
            return Ok(false);
        }
        // Read first: a definition made after this is not what is found missing.
        let seen = self.store.revision().await.map_err(|e| super::store_error(kind, name, e))?;
        let live = match self.live(kind, &ObjectName { namespace: None, name: name.to_owned() }).await {
            Ok(live) => live,
            Err(error) if error.reason == Reason::NotFound => return Ok(self.withdraw(name, seen)),
            Err(error) => return Err(error),
        };
        let standing = self.admit(name, &live);
        if let Some(why) = &standing.refused {
            warn!(definition = name, why, "a definition cannot be served");
        }
        self.write_conditions(kind, name, &standing).await?;
        Ok(false)
    }

    /// Serves what `live` defines, if that can be.
    fn admit(&self, name: &str, live: &Version) -> Standing {
        let terminating = metadata::is_deleting(&live.object);
        let uid = metadata::text(&live.object, "uid").unwrap_or_default();
        let generation = live.object["metadata"]["generation"].as_i64().unwrap_or(0);
        let kinds = self.kinds();
        // Compiling takes its time: not again for what was read already.
        let known = kinds.added(name).filter(|added| added.uid == uid);
        let ready =
            known.filter(|added| added.generation == generation || terminating).map(|added| Arc::clone(&added.kind));
        let kind = match ready.map_or_else(|| read(&live.object), Ok) {
            Ok(kind) => kind,
            Err(why) => return Standing { names: None, refused: Some(why), terminating },
        };
        let names = conflict(&kind, kinds.iter().filter(|other| other.qualified_plural() != name));
        if names.is_none() || known.is_some() {
            let added = Added { kind, uid: uid.to_owned(), generation, revision: live.revision, terminating };
            self.replace_kinds(|kinds| {
                let newer = kinds.added(name).is_none_or(|there| there.revision < live.revision);
                newer.then(|| kinds.with(name, Some(added.clone())))
            });
        }
        Standing { names, refused: None, terminating }
    }

    /// What is served under this name was read from a definition that is gone since.
    fn withdraw(&self, name: &str, seen: Revision) -> bool {
        self.replace_kinds(|kinds| {
            let stale = kinds.added(name).is_some_and(|there| there.revision <= seen);
            stale.then(|| kinds.with(name, None))
        })
    }

    pub(super) async fn write_conditions(&self, kind: &Kind, name: &str, standing: &Standing) -> ApiResult<()> {
        let now = metadata::timestamp(self.clock.now());
        let options = WriteOptions {
            field_manager: SELF.to_owned(),
            subresource: Subresource::Status,
            ..WriteOptions::default()
        };
        let edit = |live: &Value| {
            let mut object = live.clone();
            object["status"] = standing.status(live, &now);
            Ok(Edited { object, warnings: Vec::new(), recorded: None })
        };
        match self.change(kind, &ObjectName { namespace: None, name: name.to_owned() }, &options, edit).await {
            // Somebody removed it meanwhile, and sees to the rest.
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            done => done.map(|_| ()),
        }
    }
}

fn parse(object: &Value) -> Result<CustomResourceDefinition, String> {
    serde_json::from_value(object.clone()).map_err(|error| format!("spec: {error}"))
}

fn read(object: &Value) -> Result<Arc<Kind>, String> {
    let kind = from_crd(&parse(object)?)?;
    Ok(Arc::new(Kind { added: true, ..kind }))
}

/// A group of ours that is built in is not to be had, nor one that is no domain.
fn check_group<'k>(group: &str, kinds: impl Iterator<Item = &'k Arc<Kind>>) -> Result<(), String> {
    let built_in: BTreeSet<&str> = kinds.filter(|kind| kind.builtin).map(|kind| &*kind.group).collect();
    let invalid = |why: &str| Err(format!("spec.group: Invalid value: {group:?}: {why}"));
    if !group.contains('.') {
        return invalid("should be a domain with at least one dot");
    }
    if let Some(error) = names::subdomain_errors(group).first() {
        return invalid(error);
    }
    if built_in.contains(group) { invalid("the group is built in") } else { Ok(()) }
}

fn check_immutable(before: &Value, after: &Value) -> Result<(), String> {
    for path in ["/group", "/scope", "/names/plural", "/names/kind"] {
        if before.pointer(path) != after.pointer(path) {
            let value = after.pointer(path).cloned().unwrap_or_default();
            return Err(format!("spec{}: Invalid value: {value}: field is immutable", path.replace('/', ".")));
        }
    }
    Ok(())
}

/// Reason and message when a name of `kind` is another's of its group.
fn conflict<'k>(kind: &Kind, others: impl Iterator<Item = &'k Arc<Kind>>) -> Option<(&'static str, String)> {
    let others: Vec<&Arc<Kind>> = others.filter(|other| other.group == kind.group).collect();
    let resources: BTreeSet<&str> = others
        .iter()
        .flat_map(|other| [&other.plural, &other.singular].into_iter().chain(&other.short_names))
        .map(String::as_str)
        .collect();
    let kinds: BTreeSet<&str> = others.iter().flat_map(|other| [&*other.kind, &*other.list_kind]).collect();
    let used = |name: &str| format!("{name:?} is already in use");
    let short = kind.short_names.iter().find(|name| resources.contains(name.as_str()));
    if resources.contains(&*kind.plural) {
        Some(("PluralConflict", used(&kind.plural)))
    } else if resources.contains(&*kind.singular) {
        Some(("SingularConflict", used(&kind.singular)))
    } else if let Some(short) = short {
        Some(("ShortNamesConflict", used(short)))
    } else if kinds.contains(&*kind.kind) {
        Some(("KindConflict", used(&kind.kind)))
    } else if kinds.contains(&*kind.list_kind) {
        Some(("ListKindConflict", used(&kind.list_kind)))
    } else {
        None
    }
}
