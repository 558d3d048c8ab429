//! `scale`: how many replicas an object wishes and has, for every kind whose definition says where it keeps the numbers.

use axum::{
    body::Body,
    http::{Method, StatusCode},
    response::Response,
};
use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::{
    body, method_not_allowed,
    negotiate::{Accepted, Shape},
    reply,
    resources::Call,
    write,
};
use crate::registry::{ApiError, ApiResult, Cause, ObjectName, Patch, Reason, kinds::Scale};

/// Answers a request on `…/NAME/scale`.
pub async fn answer(
    call: &Call<'_>,
    scale: &Scale,
    method: &Method,
    name: &ObjectName,
    body: Body,
) -> ApiResult<Response> {
    let live = call.state.registry.get(call.kind, name).await?;
    let before = shown(scale, &live.object);
    let wish = match *method {
        Method::GET | Method::HEAD => return respond(call, &before),
        Method::PUT => {
            let bytes = body::read(body).await?;
            let options = write::write_options(call, "UpdateOptions")?;
            body::object(&body::media_type(call.headers), &bytes, options.field_validation)?.value
        }
        Method::PATCH => patched(call, before, body).await?,
        _ => return Err(method_not_allowed()),
    };
    let options = write::write_options(call, "UpdateOptions")?;
    let written = call.state.registry.patch(call.kind, name, wished(scale, name, &wish)?, &options).await?;
    respond(call, &shown(scale, &written.version.object))
}

async fn patched(call: &Call<'_>, mut object: Value, body: Body) -> ApiResult<Value> {
    let options = write::write_options(call, "PatchOptions")?;
    let media = body::media_type(call.headers);
    let (patch, _) = write::decode_patch(call, &media, body, options.field_validation).await?;
    match patch {
        Patch::Merge(patch) | Patch::Strategic(patch) | Patch::Apply(patch) => json_patch::merge(&mut object, &patch),
        Patch::Json(patch) => {
            // What copies would grow it without bound, and there is nothing in it to copy.
            let copies = |operation: &PatchOperation| matches!(operation, PatchOperation::Copy(_));
            let refused = patch.0.iter().any(copies) || json_patch::patch(&mut object, &patch).is_err();
            if refused {
                let message = "the server rejected our request due to an error in our request";
                return Err(ApiError::new(Reason::Invalid, message));
            }
        }
    }
    Ok(object)
}

/// What the object's own patch is. A revision that the client names is held to.
fn wished(scale: &Scale, name: &ObjectName, wish: &Value) -> ApiResult<Patch> {
    let replicas = wish["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: should be a non-negative integer");
        let whole = format!("Scale.autoscaling {:?} is invalid: spec.replicas: {message}", name.name);
        let cause = Cause { reason: "FieldValueInvalid", message, field: "spec.replicas".to_owned() };
        return Err(ApiError::new(Reason::Invalid, whole).with_cause(cause));
    }
    let mut patch = json!({});
    let mut at = &mut patch;
    for field in fields(&scale.spec_replicas) {
        at = &mut at[field];
    }
    *at = json!(replicas);
    for field in ["resourceVersion", "uid"] {
        if let Some(stated) = wish["metadata"][field].as_str().filter(|stated| !stated.is_empty()) {
            patch["metadata"][field] = json!(stated);
        }
    }
    Ok(Patch::Merge(patch))
}

fn shown(scale: &Scale, object: &Value) -> Value {
    let at = |path: &str| fields(path).try_fold(object, |value, field| value.get(field));
    let number = |path: &str| at(path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": number(&scale.status_replicas)});
    if let Some(selector) = scale.selector.as_deref().and_then(at) {
        status["selector"] = selector.clone();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&scale.spec_replicas)}, "status": status,
    })
}

/// The names of a path, `.spec.replicas`.
fn fields(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|field| !field.is_empty())
}

fn respond(call: &Call<'_>, scale: &Value) -> ApiResult<Response> {
    let plain = Accepted { shape: Shape::Object, ..call.form.accepted };
    reply::value(StatusCode::OK, plain, call.form.pretty, scale)
}
