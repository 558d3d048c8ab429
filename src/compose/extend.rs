//! `extends`: what a service inherits from another, of the same file or a different one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    Project,
    field::{Problems, scalar},
    interpolate, project, resolve,
};

/// A list stands in place of the other's, for in parts it means something else.
const WHOLE: [&str; 3] = ["command", "entrypoint", "test"];
/// May be a mapping or a list of `key=value`; the two are one.
const PAIRS: [&str; 3] = ["environment", "labels", "sysctls"];
/// May be a list of names or a mapping by name.
const NAMES: [&str; 2] = ["depends_on", "networks"];

/// Follows `extends` for one service, and remembers the way.
pub(super) struct Files<'a> {
    project: &'a Project<'a>,
    problems: &'a Problems,
    /// Services of other files, by file.
    others: BTreeMap<PathBuf, Map<String, Value>>,
    way: Vec<(PathBuf, String)>,
}

impl<'a> Files<'a> {
    pub fn new(project: &'a Project<'_>, problems: &'a Problems) -> Self {
        Self { project, problems, others: BTreeMap::new(), way: Vec::new() }
    }

    /// The service of `file` with everything it inherits. Complaints go to the service that was asked for first.
    pub fn with_inherited(&mut self, file: &Path, services: &Map<String, Value>, name: &str) -> Value {
        let first = self.way.first().map_or_else(|| name.to_owned(), |(_, first)| first.clone());
        let path = format!("services.{first}.extends");
        let step = (file.to_owned(), name.to_owned());
        if self.way.contains(&step) {
            self.problems.add(path, format!("{name} extends itself"));
            return Value::Null;
        }
        let Some(own) = services.get(name) else {
            self.problems.add(path, format!("there is no service {name} in {}", file.display()));
            return Value::Null;
        };
        let mut own = own.clone();
        let Some(extends) = own.as_object_mut().and_then(|own| own.remove("extends")) else { return own };
        self.way.push(step);
        let base = self.base(file, services, &extends, &path);
        self.way.pop();
        merge("", base, own)
    }

    fn base(&mut self, file: &Path, services: &Map<String, Value>, extends: &Value, path: &str) -> Value {
        let (name, other) = match extends {
            Value::String(name) => (Some(name.clone()), None),
            extends => (extends.get("service").and_then(scalar), extends.get("file").and_then(scalar)),
        };
        let Some(name) = name else {
            self.problems.add(path, "must name a service");
            return Value::Null;
        };
        let Some(other) = other else { return self.with_inherited(file, services, &name) };
        let directory = file.parent().unwrap_or(Path::new("/"));
        let other = resolve(directory, &other);
        if !self.others.contains_key(&other) {
            let services = self.services_of(&other, path);
            self.others.insert(other.clone(), services);
        }
        let services = self.others[&other].clone();
        let mut base = self.with_inherited(&other, &services, &name);
        settle_paths(&mut base, other.parent().unwrap_or(Path::new("/")));
        base
    }

    fn services_of(&self, file: &Path, path: &str) -> Map<String, Value> {
        let document = match project::document(file, self.project.reader) {
            Ok((document, _)) => document,
            Err(problem) => {
                self.problems.add(path, problem.to_string());
                return Map::new();
            }
        };
        let theirs = Problems::default();
        let document = interpolate::value(document, &self.project.variables, &theirs);
        for (field, message) in theirs.take() {
            self.problems.add(path, format!("{}: {field}: {message}", file.display()));
        }
        document.get("services").and_then(Value::as_object).cloned().unwrap_or_default()
    }
}

/// Paths relative to `directory` are so no longer: the file that inherits them may be elsewhere.
fn settle_paths(service: &mut Value, directory: &Path) {
    let settle = |path: &mut String| {
        if path.starts_with('.') {
            *path = resolve(directory, path).display().to_string();
        }
    };
    let whole = |value: &mut Value| {
        if let Value::String(path) = value
            && !path.starts_with('/')
        {
            *path = resolve(directory, path).display().to_string();
        }
    };
    match service.get_mut("env_file") {
        Some(Value::Array(files)) => files.iter_mut().for_each(|file| match file {
            Value::Object(long) => long.get_mut("path").into_iter().for_each(whole),
            short => whole(short),
        }),
        Some(file) => whole(file),
        None => {}
    }
    for volume in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        match volume {
            Value::String(short) => settle(short),
            long => {
                if let Some(Value::String(source)) = long.get_mut("source") {
                    settle(source);
                }
            }
        }
    }
}

/// What `own` says over what `base` says. `key`: the field that both are values of.
fn merge(key: &str, base: Value, own: Value) -> Value {
    let (base, own) = match key {
        key if PAIRS.contains(&key) => (by_key(base), by_key(own)),
        key if NAMES.contains(&key) => (by_name(base), by_name(own)),
        _ => (base, own),
    };
    match (base, own) {
        (base, Value::Null) => base,
        (Value::Object(mut base), Value::Object(own)) => {
            for (key, value) in own {
                let below = base.remove(&key).unwrap_or_default();
                base.insert(key.clone(), merge(&key, below, value));
            }
            Value::Object(base)
        }
        (Value::Array(base), Value::Array(own)) if !WHOLE.contains(&key) => {
            let replaced = |item: &Value| key == "volumes" && own.iter().any(|own| target(own) == target(item));
            let mut items: Vec<Value> =
                base.into_iter().filter(|item| !replaced(item) && !own.contains(item)).collect();
            items.extend(own);
            Value::Array(items)
        }
        (_, own) => own,
    }
}

/// Where in the container a volume is.
fn target(volume: &Value) -> Option<String> {
    match volume {
        Value::String(short) => short.split(':').nth(1).or(Some(short)).map(str::to_owned),
        long => long.get("target").and_then(scalar),
    }
}

fn by_key(value: Value) -> Value {
    let Value::Array(items) = value else { return value };
    let pair = |item: Value| {
        let text = scalar(&item)?;
        Some(match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Value::from(value)),
            None => (text, Value::Null),
        })
    };
    Value::Object(items.into_iter().filter_map(pair).collect())
}

fn by_name(value: Value) -> Value {
    let Value::Array(items) = value else { return value };
    Value::Object(items.iter().filter_map(scalar).map(|name| (name, Value::Null)).collect())
}
