//! Compose files: what a service comes to in our words, a [`ContainerSpec`] and what its Workload should say beside it.
//!
//! Pure: files come through a [`Reader`], so that who asks can also watch them. Nothing is dropped in silence: a field that
//! would change how a container behaves, and that we cannot honour, is a [`Problem`] with its path and line. Fields that
//! only tell Compose what to do (`version`, `attach`, `develop`, `x-…`) change nothing here either.
//!
//! Variables come from `.env` beside the file, and from nowhere else: what the environment of a service happens to hold
//! must not decide what runs. One that is not set and has no default is a problem; Compose warns and goes on without it.
//!
//! | file | question |
//! |---|---|
//! | [`project`] | what is in the files: parsed, interpolated, `extends` followed, names given |
//! | [`interpolate`], [`dotenv`] | what `${A:-b}` stands for |
//! | [`extend`] | what a service inherits |
//! | [`service`] | field by field into our words |
//! | [`deploy`], [`health`], [`network`], [`port`], [`volume`] | the larger fields |
//! | [`field`], [`units`], [`words`] | how a value is read, and complained about |
//!
//! The types of the crates that read Compose files (compose_spec, docker-compose-types) stand on the archived serde_yaml,
//! and forget where a value stood; the fields are read from the parsed text instead.

mod deploy;
mod dotenv;
mod extend;
mod field;
mod health;
mod interpolate;
mod network;
mod port;
mod project;
#[cfg(test)]
mod schema_tests;
mod service;
#[cfg(test)]
mod tests;
mod units;
mod volume;
mod words;

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

pub use self::{
    project::Project,
    service::{Dependency, DependencyCondition, Service},
};

/// How files are read: the Compose file, `.env`, what `env_file` and `extends` name.
pub trait Reader {
    /// `None`: there is no such file. `Err`: why it cannot be read.
    fn read(&self, path: &Path) -> Result<Option<String>, String>;
}

/// Something that keeps a service from being what its file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    pub file: PathBuf,
    pub line: Option<u32>,
    /// `services.core.build`; empty when it is about the whole file.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// `path` as seen from `directory`, without `.` and `..`: by its text alone, as Compose does, for the file need not be there.
pub fn resolve(directory: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    clean
}
