//! Merge, JSON and strategic patches. Server-side apply is [`apply`](super::apply).

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use super::{ApiError, ApiResult, Kind, Patch, Reason, metadata, nesting};

/// As upstream: a patch of a few lines must not grow an object without bound.
const MOST_OPERATIONS: usize = 10_000;
const MOST_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// The object as the patch wants it.
pub fn apply(kind: &Kind, mut object: Value, patch: &Patch) -> ApiResult<Value> {
    match patch {
        Patch::Merge(patch) => {
            must_be_object(patch)?;
            json_patch::merge(&mut object, patch);
        }
        Patch::Strategic(patch) => {
            if !kind.builtin {
                return Err(unsupported_strategic());
            }
            must_be_object(patch)?;
            let mut patch = patch.clone();
            drop_directives(&mut patch);
            json_patch::merge(&mut object, &patch);
        }
        Patch::Json(patch) => {
            if patch.0.len() > MOST_OPERATIONS {
                let count = patch.0.len();
                return Err(too_large(format!(
                    "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {count}"
                )));
            }
            let mut copied = 0;
            for operation in &patch.0 {
                check_growth(kind, &object, operation, &mut copied)?;
                apply_operation(&mut object, operation)?;
            }
        }
        Patch::Apply(_) => return Err(ApiError::internal("an apply is not a plain patch")),
    }
    Ok(object)
}

fn must_be_object(patch: &Value) -> ApiResult<()> {
    if patch.is_object() { Ok(()) } else { Err(ApiError::bad_request("the patch must be an object")) }
}

fn unsupported_strategic() -> ApiError {
    const MESSAGE: &str = "the body of the request was in an unknown format - accepted media types include: \
                           application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    ApiError::new(Reason::UnsupportedMediaType, MESSAGE)
}

/// `$setElementOrder/…`, `$patch`, `$retainKeys`: orders and deletions within lists, which for the kinds served are
/// replaced whole.
fn drop_directives(patch: &mut Value) {
    match patch {
        Value::Object(map) => {
            map.retain(|key, _| !key.starts_with('$'));
            map.values_mut().for_each(drop_directives);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_directives),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn too_large(message: String) -> ApiError {
    ApiError::new(Reason::RequestEntityTooLarge, message)
}

/// Copies double what is copied onto itself, and nest it: bounded before they are made, for even to drop what is too deep
/// would overflow the stack.
fn check_growth(kind: &Kind, object: &Value, operation: &PatchOperation, copied: &mut usize) -> ApiResult<()> {
    let (path, depth) = match operation {
        PatchOperation::Add(add) => (&add.path, nesting::depth(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, nesting::depth(&replace.value)),
        PatchOperation::Copy(json_patch::CopyOperation { from, path })
        | PatchOperation::Move(json_patch::MoveOperation { from, path }) => {
            let found = object.pointer(from.as_str()).unwrap_or(&Value::Null);
            *copied += found.to_string().len();
            (path, nesting::depth(found))
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if *copied > MOST_COPIED_BYTES {
        return Err(too_large(format!("The allowed maximum that a JSON patch copies is {MOST_COPIED_BYTES} bytes")));
    }
    if path.as_str().matches('/').count() + depth > nesting::MOST {
        let name = metadata::text(object, "name").unwrap_or_default();
        let field = path.as_str().split('/').skip(1).take(2).collect::<Vec<_>>().join(".");
        return Err(ApiError::invalid(kind, name, vec![nesting::too_deep(field)]));
    }
    Ok(())
}

/// As evanphx/json-patch, which upstream uses: a test of an absent path for null holds; kube's finalizer helper counts
/// on it.
fn apply_operation(object: &mut Value, operation: &PatchOperation) -> ApiResult<()> {
    if matches!(operation, PatchOperation::Test(test) if test.value.is_null() && is_absent(object, &test.path)) {
        return Ok(());
    }
    json_patch::patch(object, std::slice::from_ref(operation))
        .map_err(|_| ApiError::new(Reason::Invalid, "the server rejected our request due to an error in our request"))
}

fn is_absent(object: &Value, path: &Pointer) -> bool {
    object.pointer(path.as_str()).is_none()
}
