//! The one pipeline every write goes through: prune → default → server-owned metadata → managed fields → validate →
//! rules → put.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    ApiError, ApiResult, FieldValidation, Kind, ObjectName, Patch, Reason, Registry, Subresource, Taken, WriteOptions,
    Written, apply, builtin, definitions, events, fields::FieldError, metadata, nesting, patch, same, schema, size,
    status, store_error,
};
use crate::store::{Key, Revision, StoreError, Version};

/// Writes that do not insist on a revision start again when another writer comes between; more often than this and
/// the client is told.
const MAX_ATTEMPTS: usize = 16;

/// What an edit makes of the live object.
pub(super) struct Edited {
    pub object: Value,
    pub warnings: Vec<String>,
    /// What an apply took from others: it has seen to the managed fields. None: they are still to be recorded.
    pub recorded: Option<Vec<Taken>>,
}

impl Registry {
    pub async fn create(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        object: Value,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let written = self.create_object(kind, namespace, object, options).await?;
        self.settled(kind, written, options).await
    }

    async fn create_object(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        mut object: Value,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        identify(kind, &mut object)?;
        let namespace = agree_on_namespace(kind, namespace, &mut object)?;
        let warnings = conform(kind, &mut object, options.field_validation, &decoding_prefix(kind))?;
        let stored = self.stored(kind);
        if kind.view {
            object = events::to_stored(object);
            schema::apply_defaults(&mut object, &stored.root);
        }
        self.check_namespace(&stored, namespace.as_deref(), &object).await?;
        metadata::prepare_create(&stored, &mut object, self.clock.now(), &*self.ids)?;
        if let (true, Some(map)) = (kind.has_status, object.as_object_mut()) {
            map.remove("status");
        }
        builtin::complete(&stored, &mut object);
        // There is nobody yet to take anything from.
        apply::record_update(&stored, None, &mut object, options, self.clock.now());
        self.put_new(kind, &stored, namespace, object, options, warnings).await
    }

    /// The end of a create, shared with an apply that creates.
    async fn put_new(
        &self,
        kind: &Kind,
        stored: &Kind,
        namespace: Option<String>,
        object: Value,
        options: &WriteOptions,
        warnings: Vec<String>,
    ) -> ApiResult<Written> {
        self.check_not_terminating(stored)?;
        self.check(stored, &object, None)?;
        let name = metadata::text(&object, "name").unwrap_or_default().to_owned();
        size::check(kind, &name, &object, None, Subresource::Main)?;
        let key = Key::new(&stored.group, &stored.plural, namespace.as_deref(), &name);
        let version = if options.dry_run {
            if self.store.get(&key).await.map_err(|e| store_error(stored, &name, e))?.is_some() {
                return Err(ApiError::already_exists(kind, &name));
            }
            Arc::new(metadata::version(key, Revision(0), object))
        } else {
            self.store.create(key, object).await.map_err(|e| store_error(kind, &name, e))?
        };
        Ok(Written { version: events::shown(kind, version), created: true, warnings, taken: Vec::new() })
    }

    /// Replaces (PUT). Without `metadata.resourceVersion` the last writer wins, as upstream for our kinds.
    pub async fn update(
        &self,
        kind: &Kind,
        name: &ObjectName,
        mut object: Value,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        identify(kind, &mut object)?;
        let namespace = agree_on_namespace(kind, name.namespace.as_deref(), &mut object)?;
        let name = ObjectName { namespace, name: name.name.clone() };
        agree_on_name(&name.name, &mut object)?;
        let warnings = conform(kind, &mut object, options.field_validation, &decoding_prefix(kind))?;
        let object = if kind.view { events::to_stored(object) } else { object };
        let edit = |_: &Value| Ok(Edited { object: object.clone(), warnings: warnings.clone(), recorded: None });
        let written = self.change(kind, &name, options, edit).await?;
        self.settled(kind, written, options).await
    }

    /// Retries internally when another writer comes between, unless the patch itself names a resourceVersion.
    pub async fn patch(
        &self,
        kind: &Kind,
        name: &ObjectName,
        patch: Patch,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let written = match patch {
            Patch::Apply(config) => self.apply(kind, name, config, options).await?,
            plain => self.patch_object(kind, name, plain, options).await?,
        };
        self.settled(kind, written, options).await
    }

    async fn patch_object(
        &self,
        kind: &Kind,
        name: &ObjectName,
        patch: Patch,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        self.change(kind, name, options, |live| {
            let mut before = events::shown_object(kind, live);
            // What an older binary knew and stored is not the client's mistake.
            schema::prune(&mut before, &kind.root);
            let mut after = patch::apply(kind, before, &patch)?;
            identify(kind, &mut after)?;
            agree_on_namespace(kind, name.namespace.as_deref(), &mut after)?;
            agree_on_name(&name.name, &mut after)?;
            let warnings = conform(kind, &mut after, options.field_validation, "")?;
            let object = if kind.view { events::to_stored(after) } else { after };
            Ok(Edited { object, warnings, recorded: None })
        })
        .await
    }

    /// Server-side apply: creates what is not there.
    async fn apply(
        &self,
        kind: &Kind,
        name: &ObjectName,
        mut config: Value,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        identify(kind, &mut config)?;
        let namespace = agree_on_namespace(kind, name.namespace.as_deref(), &mut config)?;
        let name = ObjectName { namespace, name: name.name.clone() };
        agree_on_name(&name.name, &mut config)?;
        let warnings = prune(kind, &mut config, options.field_validation, "")?;
        let config = if kind.view { events::to_stored(config) } else { config };
        let stored = self.stored(kind);
        for _ in 0..MAX_ATTEMPTS {
            let edit = |live: &Value| {
                let (object, taken) = apply::apply(&stored, Some(live), config.clone(), options, self.clock.now())?;
                Ok(Edited { object, warnings: warnings.clone(), recorded: Some(taken) })
            };
            match self.change(kind, &name, options, edit).await {
                Err(error) if error.reason == Reason::NotFound && options.subresource == Subresource::Main => {}
                done => return done,
            }
            let object = self.apply_to_nothing(&stored, &name, &config, options).await?;
            match self.put_new(kind, &stored, name.namespace.clone(), object, options, warnings.clone()).await {
                Err(error) if error.reason == Reason::AlreadyExists => {}
                done => return done,
            }
        }
        Err(ApiError::modified(kind, &name.name))
    }

    async fn apply_to_nothing(
        &self,
        kind: &Kind,
        name: &ObjectName,
        config: &Value,
        options: &WriteOptions,
    ) -> ApiResult<Value> {
        if let Some(uid) = metadata::text(config, "uid") {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(kind, &name.name, why));
        }
        let now = self.clock.now();
        let (mut object, _) = apply::apply(kind, None, config.clone(), options, now)?;
        schema::prune_nulls(&mut object, &kind.root);
        schema::apply_defaults(&mut object, &kind.root);
        self.check_namespace(kind, name.namespace.as_deref(), &object).await?;
        metadata::prepare_create(kind, &mut object, now, &*self.ids)?;
        builtin::complete(kind, &mut object);
        Ok(object)
    }

    /// Reads, lets `edit` make the new object, and puts it; again when somebody else was faster. A body that names a
    /// revision is held to it by [`metadata::restore`], also the second time.
    pub(super) async fn change(
        &self,
        kind: &Kind,
        name: &ObjectName,
        options: &WriteOptions,
        edit: impl Fn(&Value) -> ApiResult<Edited>,
    ) -> ApiResult<Written> {
        let stored = self.stored(kind);
        for _ in 0..MAX_ATTEMPTS {
            let live = self.live(kind, name).await?;
            let Edited { object, warnings, recorded } = edit(&live.object)?;
            let (put, taken) = match status::is_alone(&stored, options.subresource) {
                true => match self.prepare_status(&stored, &live, object, options, recorded)? {
                    Some((object, taken)) => (self.put(&stored, &live, object, options).await, taken),
                    None => (Ok(live), Vec::new()),
                },
                false => {
                    let (object, taken) = self.prepare_update(&stored, &live.object, object, options, recorded)?;
                    (self.put_changed(&stored, &live, object, options).await, taken)
                }
            };
            match put {
                Ok(version) => {
                    return Ok(Written { version: events::shown(kind, version), created: false, warnings, taken });
                }
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(store_error(kind, &name.name, error)),
            }
        }
        Err(ApiError::modified(kind, &name.name))
    }

    /// Everything between the client's wish and the put.
    fn prepare_update(
        &self,
        kind: &Kind,
        live: &Value,
        object: Value,
        options: &WriteOptions,
        recorded: Option<Vec<Taken>>,
    ) -> ApiResult<(Value, Vec<Taken>)> {
        let mut object = split(kind, live, object, options.subresource, recorded.is_some());
        metadata::restore(kind, live, &mut object)?;
        schema::prune_nulls(&mut object, &kind.root);
        schema::apply_defaults(&mut object, &kind.root);
        builtin::complete(kind, &mut object);
        metadata::bump_generation(kind, live, &mut object);
        let taken = match recorded {
            Some(taken) => taken,
            None => apply::record_update(kind, Some(live), &mut object, options, self.clock.now()),
        };
        self.check(kind, &object, Some(live))?;
        let name = metadata::text(live, "name").unwrap_or_default();
        size::check(kind, name, &object, Some(live), options.subresource)?;
        Ok((object, taken))
    }

    /// Structure first; rules only on what has the right shape, as they may assume it.
    fn check(&self, kind: &Kind, object: &Value, old: Option<&Value>) -> ApiResult<()> {
        let name = metadata::text(object, "name").unwrap_or_default();
        let mut errors: Vec<FieldError> = metadata::validate(kind, object, old);
        errors.extend(schema::validate(object, &kind.root));
        if errors.is_empty() {
            errors = kind.rules.check(object, old, &kind.root);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(kind, name, errors));
        }
        if definitions::is(kind) { self.check_definition(kind, object, old) } else { Ok(()) }
    }

    /// An unchanged object is not put: its revision stays.
    pub(super) async fn put_changed(
        &self,
        kind: &Kind,
        live: &Arc<Version>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Version>, StoreError> {
        if same::same_but_times(&object, &live.object) {
            return Ok(Arc::clone(live));
        }
        self.put(kind, live, object, options).await
    }

    /// One that is being deleted goes with its last finalizer.
    async fn put(
        &self,
        kind: &Kind,
        live: &Arc<Version>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Version>, StoreError> {
        if options.dry_run {
            return Ok(Arc::new(metadata::version(live.key.clone(), live.revision, object)));
        }
        if metadata::is_deleting(&object) && !metadata::is_held(kind, &object) {
            return self.store.delete(live.key.clone(), live.revision).await;
        }
        self.store.update(live.key.clone(), object, live.revision).await
    }

    async fn check_namespace(&self, kind: &Kind, namespace: Option<&str>, object: &Value) -> ApiResult<()> {
        let Some(namespace) = namespace else { return Ok(()) };
        let namespaces = self.kinds().by_plural("", "v1", "namespaces");
        let namespaces = namespaces.ok_or_else(|| ApiError::internal("namespaces are not served"))?;
        let found = self.live(&namespaces, &ObjectName { namespace: None, name: namespace.to_owned() }).await?;
        if !metadata::is_deleting(&found.object) {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let name = metadata::text(object, "name").unwrap_or_default();
        Err(ApiError::forbidden(kind, name, why).with_cause(super::Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        }))
    }
}

/// The body must be an object of this kind; one that does not say is taken to be.
fn identify(kind: &Kind, object: &mut Value) -> ApiResult<()> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request("the body must be an object"));
    };
    let said = |map: &Map<String, Value>, field: &str| map.get(field).and_then(Value::as_str).map(str::to_owned);
    if let Some(said) = said(map, "kind").filter(|k| *k != kind.kind) {
        let message = format!("the kind in the data ({said}) does not match the expected kind ({})", kind.kind);
        return Err(ApiError::bad_request(message));
    }
    let expected = kind.api_version();
    if let Some(said) = said(map, "apiVersion").filter(|v| *v != expected) {
        let message =
            format!("the API version in the data ({said}) does not match the expected API version ({expected})");
        return Err(ApiError::bad_request(message));
    }
    map.insert("kind".to_owned(), json!(kind.kind));
    map.insert("apiVersion".to_owned(), json!(expected));
    if !map.get("metadata").is_none_or(|m| m.is_object() || m.is_null()) {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    if let Some(error) = nesting::check(object) {
        let name = metadata::text(object, "name").unwrap_or_default();
        return Err(ApiError::invalid(kind, name, vec![error]));
    }
    Ok(())
}

/// The namespace of the path and that of the body must be the same; either may be silent.
fn agree_on_namespace(kind: &Kind, path: Option<&str>, object: &mut Value) -> ApiResult<Option<String>> {
    let body = metadata::text(object, "namespace").map(str::to_owned);
    if !kind.namespaced {
        return match body {
            Some(_) => Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
            None => Ok(None),
        };
    }
    let namespace = match (path, body) {
        (Some(path), Some(body)) if path != body => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        (Some(path), _) => path.to_owned(),
        (None, Some(body)) => body,
        (None, None) => return Err(ApiError::bad_request("an empty namespace may not be set during creation")),
    };
    if let Some(metadata) = metadata::map_at(object, &["metadata"]) {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    Ok(Some(namespace))
}

fn agree_on_name(path: &str, object: &mut Value) -> ApiResult<()> {
    if let Some(body) = metadata::text(object, "name").filter(|n| *n != path) {
        let message = format!("the name of the object ({body}) does not match the name on the URL ({path})");
        return Err(ApiError::bad_request(message));
    }
    if let Some(metadata) = metadata::map_at(object, &["metadata"]) {
        metadata.insert("name".to_owned(), json!(path));
    }
    Ok(())
}

fn decoding_prefix(kind: &Kind) -> String {
    format!("{} in version {:?} cannot be handled as a {}: ", kind.kind, kind.version, kind.kind)
}

/// Prunes and defaults; answers the warnings.
fn conform(kind: &Kind, object: &mut Value, validation: FieldValidation, prefix: &str) -> ApiResult<Vec<String>> {
    let warnings = prune(kind, object, validation, prefix)?;
    schema::prune_nulls(object, &kind.root);
    schema::apply_defaults(object, &kind.root);
    Ok(warnings)
}

/// What the schema does not know goes; whether that is an error, a warning or nothing is the client's choice.
fn prune(kind: &Kind, object: &mut Value, validation: FieldValidation, prefix: &str) -> ApiResult<Vec<String>> {
    let unknown = schema::prune(object, &kind.root);
    let complaints: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            let listed = complaints.join(", ");
            Err(ApiError::bad_request(format!("{prefix}strict decoding error: {listed}")))
        }
        FieldValidation::Warn => Ok(complaints),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// The half that this endpoint may not change is the stored one.
fn split(kind: &Kind, live: &Value, mut object: Value, subresource: Subresource, recorded: bool) -> Value {
    let copy = |from: &Value, to: &mut Value, field: &str| {
        let Some(map) = to.as_object_mut() else { return };
        match from.get(field) {
            Some(value) => map.insert(field.to_owned(), value.clone()),
            None => map.remove(field),
        };
    };
    match subresource {
        Subresource::Main => {
            if kind.has_status {
                copy(live, &mut object, "status");
            }
            object
        }
        Subresource::Status => {
            let mut changed = live.clone();
            copy(&object, &mut changed, "status");
            for field in ["uid", "resourceVersion"] {
                copy(&object["metadata"], &mut changed["metadata"], field);
            }
            if recorded {
                copy(&object["metadata"], &mut changed["metadata"], "managedFields");
            }
            changed
        }
    }
}
