//! What is in the files: parsed, interpolated, with what services inherit, under the names that Compose gives.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{
    Problem, Reader, dotenv, extend,
    field::{Field, Problems, scalar},
    interpolate::{self, Variables},
    resolve,
    service::{self, Service},
};
use crate::yaml::{Lines, parse};

/// A Compose file, and what stands beside it.
pub struct Project<'r> {
    pub file: PathBuf,
    /// As Compose calls it: it stands before the names of networks, volumes and containers.
    pub name: String,
    pub(super) directory: PathBuf,
    pub(super) variables: Variables,
    pub(super) reader: &'r dyn Reader,
    services: Map<String, Value>,
    networks: Value,
    volumes: Value,
    lines: Lines,
}

impl<'r> Project<'r> {
    /// `project`: its name, whatever the file says.
    pub fn read(file: &Path, project: Option<&str>, reader: &'r dyn Reader) -> Result<Self, Vec<Problem>> {
        let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
        let variables = variables(&directory.join(".env"), reader).map_err(|problem| vec![problem])?;
        let (document, lines) = document(file, reader).map_err(|problem| vec![problem])?;
        let problems = Problems::default();
        let document = interpolate::value(document, &variables, &problems);
        let part = |name: &str| document.get(name).cloned().unwrap_or_default();
        let mut read = Self {
            name: project.map(str::to_owned).unwrap_or_else(|| name(&document, &variables, &directory)),
            file: file.to_owned(),
            directory,
            variables,
            reader,
            services: Map::new(),
            networks: part("networks"),
            volumes: part("volumes"),
            lines,
        };
        top_level(&Field { value: &document, path: String::new(), problems: &problems });
        let services = part("services").as_object().cloned().unwrap_or_default();
        for service in services.keys() {
            let mut files = extend::Files::new(&read, &problems);
            let value = files.with_inherited(&read.file, &services, service);
            read.services.insert(service.clone(), value);
        }
        if read.name.is_empty() {
            problems.add("name", "the project has no name: give `name`, or COMPOSE_PROJECT_NAME in .env");
        }
        let problems = read.complaints(problems);
        if problems.is_empty() { Ok(read) } else { Err(problems) }
    }

    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// The profiles a service is in; of none: it always belongs to the stack.
    pub fn profiles_of(&self, service: &str) -> Vec<String> {
        let listed = self.services.get(service).and_then(|service| service.get("profiles"));
        listed.and_then(Value::as_array).into_iter().flatten().filter_map(scalar).collect()
    }

    /// Every profile that a service names.
    pub fn profiles(&self) -> Vec<String> {
        let mut all: Vec<_> = self.services().flat_map(|service| self.profiles_of(service)).collect();
        all.sort();
        all.dedup();
        all
    }

    /// One service in our words. `profile`: it must be in that one, or in none.
    pub fn service(&self, name: &str, profile: Option<&str>) -> Result<Service, Vec<Problem>> {
        let problems = Problems::default();
        let found = self.services.get(name).map(|value| {
            self.check_profile(name, profile, &problems);
            let field = Field { value, path: format!("services.{name}"), problems: &problems };
            service::read(self, name, &field)
        });
        if found.is_none() {
            let known: Vec<_> = self.services().collect();
            problems.add("services", format!("there is no service {name}; there are {}", known.join(", ")));
        }
        let problems = self.complaints(problems);
        match found {
            Some(service) if problems.is_empty() => Ok(service),
            _ => Err(problems),
        }
    }

    fn check_profile(&self, service: &str, profile: Option<&str>, problems: &Problems) {
        let Some(profile) = profile else { return };
        let (its, all) = (self.profiles_of(service), self.profiles());
        let path = format!("services.{service}.profiles");
        if !all.iter().any(|known| known == profile) {
            let known = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            problems.add(path, format!("there is no profile {profile}; there are {known}"));
        } else if !its.is_empty() && !its.iter().any(|known| known == profile) {
            problems.add(path, format!("{service} is not in the profile {profile}, but in {}", its.join(", ")));
        }
    }

    /// A network or volume of the top level. `None`: it is not declared.
    pub(super) fn declared<'a>(&'a self, part: Part, key: &str, problems: &'a Problems) -> Option<Field<'a>> {
        let (all, name) = match part {
            Part::Networks => (&self.networks, "networks"),
            Part::Volumes => (&self.volumes, "volumes"),
        };
        let value = all.get(key)?;
        Some(Field { value, path: format!("{name}.{key}"), problems })
    }

    fn complaints(&self, problems: Problems) -> Vec<Problem> {
        let problem = |(field, message): (String, String)| Problem {
            file: self.file.clone(),
            line: self.lines.nearest(&field),
            field,
            message,
        };
        problems.take().into_iter().map(problem).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Networks,
    Volumes,
}

/// One file as it stands there.
pub(super) fn document(file: &Path, reader: &dyn Reader) -> Result<(Value, Lines), Problem> {
    let problem = |line, message: String| Problem { file: file.to_owned(), line, field: String::new(), message };
    let text = match reader.read(file) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(problem(None, "there is no such file".to_owned())),
        Err(why) => return Err(problem(None, why)),
    };
    let mut documents = parse(&text).map_err(|error| problem(error.line, error.message))?;
    match (documents.pop(), documents.is_empty()) {
        (Some(only), true) if only.value.is_object() => Ok((only.value, only.lines)),
        (Some(only), true) => Err(problem(Some(only.line), "a Compose file is a mapping with services".to_owned())),
        (Some(second), false) => {
            Err(problem(Some(second.line), "a Compose file is one document, here are more".to_owned()))
        }
        (None, _) => Err(problem(None, "is empty".to_owned())),
    }
}

fn variables(file: &Path, reader: &dyn Reader) -> Result<Variables, Problem> {
    let problem = |line, message: String| Problem { file: file.to_owned(), line, field: String::new(), message };
    match reader.read(file) {
        Ok(None) => Ok(Variables::new()),
        Ok(Some(text)) => {
            let found = dotenv::parse(&text, &Variables::new());
            found.map(|found| found.into_iter().collect()).map_err(|fault| problem(Some(fault.line), fault.message))
        }
        Err(why) => Err(problem(None, why)),
    }
}

/// Who comes first is Compose's own order.
fn name(document: &Value, variables: &Variables, directory: &Path) -> String {
    let said = variables.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned();
    let said = said.or_else(|| document.get("name").and_then(scalar).filter(|name| !name.is_empty()));
    said.unwrap_or_else(|| {
        let last =
            resolve(directory, ".").file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let kept: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        kept.trim_start_matches(['-', '_']).to_owned()
    })
}

fn top_level(document: &Field<'_>) {
    for (key, field) in document.entries() {
        match key {
            "version" | "name" => drop(field.text()),
            "services" => {
                if field.value.as_object().is_none_or(Map::is_empty) {
                    field.complain("must be a mapping of at least one service");
                }
                field
                    .value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(_, service)| !service.is_object())
                    .for_each(|(name, _)| field.problems.add(format!("services.{name}"), "must be a mapping"));
            }
            // What services use of them is looked at there.
            "networks" | "volumes" | "secrets" | "configs" => {
                if !field.is_null() && !field.value.is_object() {
                    field.complain("must be a mapping");
                }
            }
            "include" => field.complain("is not supported: name the other file where its services are wanted"),
            _ => field.unknown(),
        }
    }
    if document.value.get("services").is_none() {
        document.problems.add("services", "is missing: a Compose file is a mapping with services");
    }
}
