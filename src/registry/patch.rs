//! Merge, JSON and strategic patches. Server-side apply is [`apply`](super::apply).

use std::collections::{HashMap, HashSet};

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use super::{
    ApiError, ApiResult, Kind, Patch, Reason, metadata, nesting,
    schema::{ListType, Node},
};

/// As upstream: a patch of a few lines must not grow an object without bound.
const MOST_OPERATIONS: usize = 10_000;
const MOST_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// What is taken out of a list, or put into it, moves all behind it. So many items are moved in a moment.
const MOST_SHIFTED_ITEMS: usize = 20_000_000;

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
            strategic(&mut object, patch, Some(&kind.root));
        }
        Patch::Json(patch) => {
            if patch.0.len() > MOST_OPERATIONS {
                let count = patch.0.len();
                return Err(too_large(format!(
                    "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {count}"
                )));
            }
            let (mut copied, mut shifted) = (0, 0);
            for operation in &patch.0 {
                check_growth(kind, &object, operation, &mut copied)?;
                check_shifts(&object, operation, &mut shifted)?;
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

/// A merge patch that knows how lists merge: sets are united, lists with keys merge item by item; directives remove. The order
/// that `$setElementOrder/…` wishes is not kept: none of these lists has one.
fn strategic(object: &mut Value, patch: &Value, node: Option<&Node>) {
    const REMOVED: &str = "$deleteFromPrimitiveList/";
    let (Value::Object(patch), true) = (patch, object.is_object()) else {
        *object = without_directives(patch);
        return;
    };
    let Some(map) = object.as_object_mut() else { return };
    if patch.get("$patch").is_some_and(|directive| directive == "replace") {
        map.clear();
    }
    for (name, wish) in patch {
        if let Some(list) = name.strip_prefix(REMOVED) {
            let gone = wish.as_array().map(Vec::as_slice).unwrap_or_default();
            let items = map.get_mut(list).and_then(Value::as_array_mut);
            let gone: HashSet<&Value> = gone.iter().collect();
            items.into_iter().for_each(|items| items.retain(|item| !gone.contains(item)));
        } else if name.starts_with('$') {
        } else if wish.is_null() || wish["$patch"] == "delete" {
            map.remove(name);
        } else {
            let below = node.and_then(|node| node.field(name));
            let there = map.entry(name.clone()).or_insert(Value::Null);
            match (there, wish) {
                (Value::Array(there), Value::Array(wish)) => merge_list(there, wish, below),
                (there, wish) => strategic(there, wish, below),
            }
        }
    }
}

fn merge_list(there: &mut Vec<Value>, wish: &[Value], node: Option<&Node>) {
    let replaces = |item: &Value| item["$patch"] == "replace" && item.as_object().is_some_and(|item| item.len() == 1);
    match node.map(|node| &node.list) {
        Some(ListType::Set) => {
            let known: HashSet<Value> = there.iter().cloned().collect();
            let mut added = HashSet::new();
            there.extend(wish.iter().filter(|item| !known.contains(item) && added.insert(*item)).cloned());
        }
        Some(ListType::Map(keys)) if !wish.iter().any(replaces) => {
            let identity = |item: &Value| -> Vec<Value> { keys.iter().map(|key| item[key].clone()).collect() };
            let mut items: Vec<Option<Value>> = there.drain(..).map(Some).collect();
            let mut places: HashMap<Vec<Value>, usize> = HashMap::new();
            for (at, item) in items.iter().flatten().enumerate() {
                // Of several the first one is meant.
                places.entry(identity(item)).or_insert(at);
            }
            for item in wish {
                let identity = identity(item);
                let deletes = item["$patch"] == "delete";
                match places.get(&identity).copied() {
                    Some(at) if deletes => {
                        items[at] = None;
                        places.remove(&identity);
                    }
                    Some(at) => {
                        let below = node.and_then(|node| node.items.as_deref());
                        items[at].iter_mut().for_each(|there| strategic(there, item, below));
                    }
                    None if deletes => {}
                    None => {
                        places.insert(identity, items.len());
                        items.push(Some(without_directives(item)));
                    }
                }
            }
            there.extend(items.into_iter().flatten());
        }
        Some(ListType::Map(_) | ListType::Atomic) | None => {
            *there = wish.iter().filter(|item| !replaces(item)).map(without_directives).collect();
        }
    }
}

fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Object(map) => {
            let kept = map.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_directives(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_directives).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => patch.clone(),
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

fn check_shifts(object: &Value, operation: &PatchOperation, shifted: &mut usize) -> ApiResult<()> {
    let behind = |path: &Pointer| {
        let list = path.parent().and_then(|parent| object.pointer(parent.as_str())).and_then(Value::as_array);
        let at = path.back().and_then(|token| token.decoded().parse().ok());
        list.map_or(0, |list| list.len().saturating_sub(at.unwrap_or(list.len())))
    };
    *shifted += match operation {
        PatchOperation::Add(add) => behind(&add.path),
        PatchOperation::Remove(remove) => behind(&remove.path),
        PatchOperation::Copy(copy) => behind(&copy.path),
        PatchOperation::Move(moved) => behind(&moved.from) + behind(&moved.path),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    };
    if *shifted > MOST_SHIFTED_ITEMS {
        return Err(too_large(format!(
            "The allowed maximum of list items that a JSON patch moves is {MOST_SHIFTED_ITEMS}"
        )));
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
