//! Settings of the GAIA orchestrator, as its deployments have them: `ORCHESTRATOR_…` in the environment, then the file that
//! `ORCHESTRATOR_CONFIG` names. What has a meaning here is used; the rest is accepted and has its place in objects now (the
//! cleanup limits in `Gpu`, the URLs of peers in the steps of `Workload`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{ConfigError, Given, Origin};

const PREFIX: &str = "ORCHESTRATOR_";
const FILE: &str = "ORCHESTRATOR_CONFIG";

/// What is used of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orchestrator {
    /// Where notifications are brought.
    pub web_url: Option<String>,
    /// The state file of GAIA's own orchestrator: imported once, then a mirror for its readers.
    pub state_file: Option<PathBuf>,
}

/// The two layers.
pub(super) struct Settings<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    file: Option<(PathBuf, BTreeMap<String, Value>)>,
}

impl<'a> Settings<'a> {
    pub fn read(variable: &'a dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let file = match variable(FILE).filter(|path| !path.is_empty()) {
            Some(path) => Some((PathBuf::from(&path), read_file(Path::new(&path))?)),
            None => None,
        };
        Ok(Self { variable, file })
    }

    /// The environment wins over the file.
    fn get(&self, key: &'static str) -> Option<Given> {
        let name = format!("{PREFIX}{}", key.to_uppercase());
        if let Some(value) = (self.variable)(&name).filter(|value| !value.is_empty()) {
            return Some(Given { value, origin: Origin::Variable(name) });
        }
        let (path, values) = self.file.as_ref()?;
        let value = match values.get(key)? {
            Value::String(text) => text.clone(),
            Value::Null => return None,
            other => other.to_string(),
        };
        Some(Given { value, origin: Origin::File { file: path.clone(), line: 1, key: key.to_owned() } })
    }

    /// Where GAIA's own service would listen, when it is said.
    pub fn listen(&self) -> Option<Given> {
        let (host, port) = (self.get("host"), self.get("port"));
        let origin = port.as_ref().or(host.as_ref()).map(|given| given.origin.clone())?;
        let host = host.map_or_else(|| "127.0.0.1".to_owned(), |given| given.value);
        let port = port.map_or_else(|| super::DEFAULT_LISTEN.port().to_string(), |given| given.value);
        Some(Given { value: format!("{host}:{port}"), origin })
    }

    pub fn used(&self) -> Orchestrator {
        let directory = self.get("state_dir").map(|given| PathBuf::from(given.value));
        let name = self.get("state_file").map_or_else(|| "state.json".to_owned(), |given| given.value);
        Orchestrator {
            web_url: self.get("web_url").map(|given| given.value),
            state_file: directory.map(|directory| directory.join(name)),
        }
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, Value>, ConfigError> {
    let origin = || Origin::Variable(FILE.to_owned());
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { origin: origin(), path: path.to_owned(), source }),
    };
    let values: Option<BTreeMap<String, Value>> = serde_saphyr::from_str(&text).map_err(|error| {
        let line = error.location().map(|at| at.line());
        ConfigError::Syntax { file: path.to_owned(), line, message: error.without_snippet().to_string() }
    })?;
    Ok(values.unwrap_or_default())
}
