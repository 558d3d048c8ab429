//! Is this text an MLOC document, and can every field that is read here be read: contract sections 3.1 and 3.2, with their
//! words. Where MLOC answered 500, or sent something that ends a worker, the answer is a sentence that names the field.

use serde_json::{Map, Value, json};

use super::{Refused, amounts};

/// In the order in which they are looked for.
const REQUIRED: [&str; 7] = [
    "apiVersion",
    "kind",
    "metadata.name",
    "spec.taskType",
    "spec.resources.replicas",
    "spec.resources.hardware.cpu",
    "spec.resources.hardware.memory",
];
/// More of either nobody means.
const MOST: u64 = 1024;

/// The one YAML document of a text, as JSON. Of keys that are given twice the last counts, as in MLOC.
pub fn parse(text: &str) -> Result<Value, Refused> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| Refused::new(format!("Invalid YAML: {}", error.without_snippet())))?;
    match <[Value; 1]>::try_from(documents) {
        Ok([document]) => Ok(document),
        Err(none) if none.is_empty() => Ok(Value::Null),
        Err(several) => Err(Refused::new(format!(
            "Invalid YAML: expected a single document in the stream\nbut found {} documents",
            several.len()
        ))),
    }
}

/// Every field that must be there is, null or not.
pub fn check(document: &Value) -> Result<(), Refused> {
    if let Some(path) = REQUIRED.iter().find(|path| at(document, path).is_none()) {
        return Err(Refused::new(format!("Missing required field: {path}")));
    }
    let gpu = at(document, "spec.resources.hardware.gpu").filter(|gpu| is_something(gpu));
    for key in ["count", "type"] {
        if gpu.is_some_and(|gpu| gpu.get(key).is_none()) {
            return Err(Refused::new(format!("Missing spec.resources.hardware.gpu.{key}")));
        }
    }
    Ok(())
}

/// What Python takes for true.
pub fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// The value of a path through maps.
pub fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, key| value.as_object()?.get(key))
}

/// One step's document with the fields that are read here in one form: names are texts, counts whole numbers, and what is null
/// is not there. Everything else stays as it was written. The error names the field.
pub fn normal(mut document: Value) -> Result<Value, Refused> {
    let root = document.as_object_mut().ok_or_else(|| must_be("the document", "a map"))?;
    for key in ["apiVersion", "kind"] {
        name(root, key, key)?;
    }
    name(map(root, "metadata", "metadata")?, "name", "metadata.name")?;
    let spec = map(root, "spec", "spec")?;
    name(spec, "taskType", "spec.taskType")?;
    parallel(spec)?;
    let resources = map(spec, "resources", "spec.resources")?;
    count(resources, "replicas", "spec.resources.replicas", 1)?;
    let hardware = map(resources, "hardware", "spec.resources.hardware")?;
    let what = "an amount of cores such as 8, 1.5 or 500m";
    amount(hardware, "cpu", "spec.resources.hardware.cpu", what, amounts::millicores)?;
    let what = "an amount of memory such as 16Gi or 64GB";
    amount(hardware, "memory", "spec.resources.hardware.memory", what, amounts::bytes)?;
    gpu(hardware)?;
    Ok(document)
}

fn parallel(spec: &mut Map<String, Value>) -> Result<(), Refused> {
    if spec.get("parallel").is_none_or(|parallel| !is_something(parallel)) {
        spec.remove("parallel");
        return Ok(());
    }
    let parallel = map(spec, "parallel", "spec.parallel")?;
    match parallel.get("enabled") {
        Some(Value::Null) => drop(parallel.remove("enabled")),
        Some(Value::Bool(_)) | None => {}
        Some(_) => return Err(must_be("spec.parallel.enabled", "true or false")),
    }
    count(parallel, "max_shards", "spec.parallel.max_shards", 1)
}

fn gpu(hardware: &mut Map<String, Value>) -> Result<(), Refused> {
    if hardware.get("gpu").is_none_or(|gpu| !is_something(gpu)) {
        hardware.remove("gpu");
        return Ok(());
    }
    let gpu = map(hardware, "gpu", "spec.resources.hardware.gpu")?;
    count(gpu, "count", "spec.resources.hardware.gpu.count", 0)?;
    if gpu.get("type").is_some_and(Value::is_null) {
        gpu.remove("type");
    } else if gpu.contains_key("type") {
        name(gpu, "type", "spec.resources.hardware.gpu.type")?;
    }
    let what = "an amount of memory such as 80Gi";
    amount(gpu, "memory", "spec.resources.hardware.gpu.memory", what, amounts::bytes)
}

fn map<'m>(parent: &'m mut Map<String, Value>, key: &str, path: &str) -> Result<&'m mut Map<String, Value>, Refused> {
    parent.get_mut(key).and_then(Value::as_object_mut).ok_or_else(|| must_be(path, "a map"))
}

/// A text that is not empty; numbers are taken for what they look like.
fn name(parent: &mut Map<String, Value>, key: &str, path: &str) -> Result<(), Refused> {
    let text = match parent.get(key) {
        Some(Value::String(text)) if !text.is_empty() => return Ok(()),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(bool)) => bool.to_string(),
        _ => return Err(must_be(path, "a text that is not empty")),
    };
    parent.insert(key.to_owned(), Value::String(text));
    Ok(())
}

fn count(parent: &mut Map<String, Value>, key: &str, path: &str, least: u64) -> Result<(), Refused> {
    let number = match parent.get(key) {
        None => return Ok(()),
        Some(Value::Null) => {
            parent.remove(key);
            return Ok(());
        }
        Some(Value::Number(number)) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    let wanted = || must_be(path, &format!("a whole number from {least} to {MOST}"));
    let number = number.filter(|number| (least..=MOST).contains(number)).ok_or_else(wanted)?;
    parent.insert(key.to_owned(), json!(number));
    Ok(())
}

fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0 && number <= MOST as f64).then_some(number as u64)
}

fn amount(
    parent: &mut Map<String, Value>,
    key: &str,
    path: &str,
    what: &str,
    read: fn(&Value) -> Option<u64>,
) -> Result<(), Refused> {
    match parent.get(key) {
        None => return Ok(()),
        Some(Value::Null) => drop(parent.remove(key)),
        Some(value) if read(value).is_none() => return Err(must_be(path, what)),
        // Schemas know whole numbers and texts.
        Some(Value::Number(number)) if number.as_i64().and_then(|n| i32::try_from(n).ok()).is_none() => {
            let text = Value::String(number.to_string());
            parent.insert(key.to_owned(), text);
        }
        Some(_) => {}
    }
    Ok(())
}

fn must_be(path: &str, what: &str) -> Refused {
    Refused::new(format!("{path} must be {what}"))
}

#[cfg(test)]
mod tests;
