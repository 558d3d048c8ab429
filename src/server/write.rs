//! Requests that change something: their bodies and parameters turned into calls of the registry.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{
    audit::Created,
    body::{self, Decoded},
    query::{Params, invalid_option},
    reply,
    resources::{Call, listed},
    shape, stated,
    watch::revision,
};
use crate::registry::{
    ApiError, ApiResult, DeleteOptions, Deleted, FieldValidation, Kind, List, ObjectName, Patch, Propagation, Reason,
    WriteOptions, Written,
};

/// What a field manager's name may have, upstream.
const MANAGER_LIMIT: usize = 128;

pub async fn create(call: &Call<'_>, body: Body) -> ApiResult<Response> {
    let options = write_options(call, "CreateOptions")?;
    let (object, warnings) = object_of(call, body, options.field_validation).await?;
    let written = call.state.registry.create(call.kind, call.namespace, object, &options).await?;
    let mut response = answer(call, StatusCode::CREATED, &written, warnings).await?;
    if let Some(name) = written.version.object["metadata"]["name"].as_str() {
        response.extensions_mut().insert(Created(name.to_owned()));
    }
    Ok(response)
}

pub async fn replace(call: &Call<'_>, name: &ObjectName, body: Body) -> ApiResult<Response> {
    let options = write_options(call, "UpdateOptions")?;
    let (object, warnings) = object_of(call, body, options.field_validation).await?;
    let written = call.state.registry.update(call.kind, name, object, &options).await?;
    answer(call, StatusCode::OK, &written, warnings).await
}

pub async fn patch(call: &Call<'_>, name: &ObjectName, body: Body) -> ApiResult<Response> {
    let media = body::media_type(call.headers);
    let apply = media == "application/apply-patch+yaml";
    let mut options = write_options(call, "PatchOptions")?;
    if apply && call.params.filled("fieldManager").is_none() {
        let why = "Required value: is required for apply patch".to_owned();
        return Err(invalid_option("PatchOptions", "fieldManager", ("FieldValueRequired", why)));
    }
    if !apply && call.params.get("force").is_some() {
        let why = "Forbidden: may not be specified for non-apply patch".to_owned();
        return Err(invalid_option("PatchOptions", "force", ("FieldValueForbidden", why)));
    }
    options.force = apply && call.params.flag("force")?;
    let (patch, warnings) = decode_patch(call, &media, body, options.field_validation).await?;
    let written = call.state.registry.patch(call.kind, name, patch, &options).await?;
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(call, status, &written, warnings).await
}

pub async fn decode_patch(
    call: &Call<'_>,
    media: &str,
    body: Body,
    validation: FieldValidation,
) -> ApiResult<(Patch, Vec<String>)> {
    const OURS: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    let bytes = body::read(body).await?;
    let object = |decoded: Decoded| {
        if decoded.value.is_object() {
            Ok(decoded)
        } else {
            Err(ApiError::new(Reason::BadRequest, "the patch must be an object"))
        }
    };
    match media {
        "application/merge-patch+json" => {
            let Decoded { value, warnings } = object(body::json(&bytes, validation)?)?;
            Ok((Patch::Merge(value), warnings))
        }
        "application/json-patch+json" => {
            let Decoded { value, warnings } = body::json(&bytes, validation)?;
            let unreadable = |error| ApiError::new(Reason::BadRequest, format!("error decoding patch: {error}"));
            Ok((Patch::Json(serde_json::from_value(value).map_err(unreadable)?), warnings))
        }
        "application/apply-patch+yaml" => {
            let Decoded { value, warnings } = object(body::yaml(&bytes, validation)?)?;
            Ok((Patch::Apply(value), warnings))
        }
        "application/strategic-merge-patch+json" if call.kind.builtin => {
            let Decoded { value, warnings } = object(body::json(&bytes, validation)?)?;
            Ok((Patch::Strategic(value), warnings))
        }
        _ if call.kind.builtin => Err(body::unsupported(&format!("{OURS}, application/strategic-merge-patch+json"))),
        _ => Err(body::unsupported(OURS)),
    }
}

pub async fn delete(call: &Call<'_>, name: &ObjectName, body: Body) -> ApiResult<Response> {
    let options = delete_options(call.params, call.headers, body).await?;
    let deleted = call.state.registry.delete(call.kind, name, &options).await?;
    let (Deleted::Pending(version) | Deleted::Gone(version)) = &deleted;
    let warning = stated::of_delete(&call.state.registry, call.kind, &version.object).await;
    let response = match &deleted {
        Deleted::Pending(version) => shape::object(StatusCode::OK, call.form, call.kind, version)?,
        Deleted::Gone(version) => {
            let details = json!({
                "name": name.name, "group": call.kind.group, "kind": call.kind.plural,
                "uid": version.object["metadata"]["uid"],
            });
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            reply::json(StatusCode::OK, &status)
        }
    };
    Ok(reply::with_warnings(response, warning.as_slice()))
}

/// One after the other; what somebody else removed meanwhile is as good as removed. Answers a list of what was there.
pub async fn delete_collection(call: &Call<'_>, body: Body) -> ApiResult<Response> {
    let options = delete_options(call.params, call.headers, body).await?;
    let found = listed(call).await?;
    let mut items = Vec::new();
    for version in &found.items {
        let text = |field: &str| version.object["metadata"][field].as_str().map(str::to_owned);
        let Some(name) = text("name") else { continue };
        let name = ObjectName { namespace: text("namespace"), name };
        match call.state.registry.delete(call.kind, &name, &options).await {
            Ok(Deleted::Gone(version) | Deleted::Pending(version)) => items.push(version),
            Err(error) if error.reason == Reason::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    shape::list(call.form, call.kind, &List { items, ..found })
}

async fn object_of(call: &Call<'_>, body: Body, validation: FieldValidation) -> ApiResult<(Value, Vec<String>)> {
    let bytes = body::read(body).await?;
    let Decoded { value, warnings } = body::object(&body::media_type(call.headers), &bytes, validation)?;
    Ok((value, warnings))
}

async fn answer(
    call: &Call<'_>,
    status: StatusCode,
    written: &Written,
    mut warnings: Vec<String>,
) -> ApiResult<Response> {
    warnings.extend(written.warnings.iter().cloned());
    warnings.extend(stated::of_write(&call.state.registry, call.kind, written).await);
    let response = shape::object(status, call.form, call.kind, &written.version)?;
    Ok(reply::with_warnings(response, &warnings))
}

pub fn write_options(call: &Call<'_>, options: &str) -> ApiResult<WriteOptions> {
    Ok(WriteOptions {
        field_manager: field_manager(call.params, call.headers, options)?,
        dry_run: call.params.dry_run(options)?,
        field_validation: call.params.field_validation(options, unsaid_validation(call.kind))?,
        force: false,
        subresource: call.subresource,
    })
}

/// Upstream only warns a client that does not say. On our kinds a field that we do not know is a mistake: `kubectl patch`
/// and curl, which say nothing, must not be told that all is well. Of the built-in kinds we know a part, and clients send
/// the rest in good faith; and whoever brings a kind of their own expects upstream's ways.
pub fn unsaid_validation(kind: &Kind) -> FieldValidation {
    if kind.builtin || kind.added { FieldValidation::Warn } else { FieldValidation::Strict }
}

/// The one the client names, or the first word of its User-Agent.
fn field_manager(params: &Params, headers: &HeaderMap, options: &str) -> ApiResult<String> {
    if let Some(name) = params.filled("fieldManager") {
        if name.len() > MANAGER_LIMIT || name.chars().any(char::is_control) {
            let why = format!("Invalid value: {name:?}: must be printable and at most {MANAGER_LIMIT} bytes");
            return Err(invalid_option(options, "fieldManager", ("FieldValueInvalid", why)));
        }
        return Ok(name.to_owned());
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let name: String = agent.split('/').next().unwrap_or_default().chars().take(MANAGER_LIMIT).collect();
    Ok(if name.is_empty() { "unknown".to_owned() } else { name })
}

/// From the body when there is one, else from the query; the body wins.
async fn delete_options(params: &Params, headers: &HeaderMap, body: Body) -> ApiResult<DeleteOptions> {
    let bytes = body::read(body).await?;
    let given = if bytes.is_empty() {
        json!({})
    } else {
        body::object(&body::media_type(headers), &bytes, FieldValidation::Ignore)?.value
    };
    let text = |field: &str| given[field].as_str().filter(|text| !text.is_empty());
    let orphan = match given["orphanDependents"].as_bool() {
        Some(orphan) => Some(orphan),
        None => params.filled("orphanDependents").map(|_| params.flag("orphanDependents")).transpose()?,
    };
    let propagation = match (text("propagationPolicy").or_else(|| params.filled("propagationPolicy")), orphan) {
        (Some("Foreground"), _) => Propagation::Foreground,
        (Some("Orphan"), _) | (None, Some(true)) => Propagation::Orphan,
        (Some("Background"), _) | (None, Some(false) | None) => Propagation::Background,
        (Some(other), _) => {
            let supported = "\"Foreground\", \"Background\", \"Orphan\"";
            let why = format!("Unsupported value: {other:?}: supported values: {supported}");
            return Err(invalid_option("DeleteOptions", "propagationPolicy", ("FieldValueNotSupported", why)));
        }
    };
    let dry_run = match given["dryRun"].as_array().map(Vec::as_slice) {
        None | Some([]) => params.dry_run("DeleteOptions")?,
        Some(values) if values.iter().all(|value| value == "All") => true,
        Some(_) => {
            let why = "Unsupported value: supported values: \"All\"".to_owned();
            return Err(invalid_option("DeleteOptions", "dryRun", ("FieldValueNotSupported", why)));
        }
    };
    let preconditions = &given["preconditions"];
    Ok(DeleteOptions {
        dry_run,
        propagation,
        uid: preconditions["uid"].as_str().map(str::to_owned),
        resource_version: preconditions["resourceVersion"].as_str().map(revision).transpose()?,
    })
}
