//! Settings of the GAIA orchestrator, as its deployments have them: `ORCHESTRATOR_…` in the environment, then in `.env` of the
//! working directory, then the file that `ORCHESTRATOR_CONFIG` names, else `config/orchestrator.yaml`. What has a meaning here is used; the rest is accepted and has its place in objects now (the
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
/// Where GAIA's own service has it, seen from its directory, which is also that of its image.
const DEFAULT_FILE: &str = "config/orchestrator.yaml";
const DOT_ENV: &str = ".env";

/// Of all of GAIA's services.
const SHARED_DIR: &str = "SHARED_DIR";
const DEFAULT_SHARED_DIR: &str = "/shared";

/// What is used of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orchestrator {
    /// Where notifications are brought.
    pub web_url: Option<String>,
    /// The state file of GAIA's own orchestrator: imported once, then a mirror for its readers.
    pub state_file: Option<PathBuf>,
    /// Where GAIA's tools leave the flag of maintenance.
    pub shared_dir: Option<PathBuf>,
}

/// The layers.
pub(super) struct Settings<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    /// `.env`: its path, and what it says of ours.
    dot_env: (PathBuf, BTreeMap<String, String>),
    file: Option<(PathBuf, BTreeMap<String, Value>)>,
}

impl<'a> Settings<'a> {
    pub fn read(variable: &'a dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::read_in(Path::new(""), variable)
    }

    /// As [`read`](Self::read), where `directory` is the working directory. A file that is named must be there.
    pub fn read_in(directory: &Path, variable: &'a dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let dot_env = directory.join(DOT_ENV);
        let lines = fs::read_to_string(&dot_env).unwrap_or_default();
        let dot_env = (dot_env, lines.lines().filter_map(assignment).collect());
        let default = directory.join(DEFAULT_FILE);
        let named = variable(FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = named.or_else(|| default.is_file().then_some(default));
        let file = match path {
            Some(path) => Some((path.clone(), read_file(&path)?)),
            None => None,
        };
        Ok(Self { variable, dot_env, file })
    }

    /// The environment wins over the files.
    fn get(&self, key: &'static str) -> Option<Given> {
        let name = format!("{PREFIX}{}", key.to_uppercase());
        if let Some(value) = (self.variable)(&name).filter(|value| !value.is_empty()) {
            return Some(Given { value, origin: Origin::Variable(name) });
        }
        if let Some(value) = self.dot_env.1.get(&name).filter(|value| !value.is_empty()) {
            let origin = Origin::File { file: self.dot_env.0.clone(), line: 1, key: name };
            return Some(Given { value: value.clone(), origin });
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
        let shared = (self.variable)(SHARED_DIR).filter(|path| !path.is_empty());
        Orchestrator {
            web_url: self.get("web_url").map(|given| given.value),
            state_file: directory.map(|directory| directory.join(name)),
            shared_dir: Some(shared.map_or_else(|| DEFAULT_SHARED_DIR.into(), PathBuf::from)),
        }
    }
}

/// `export ORCHESTRATOR_PORT="6410"`; what is none of ours is passed over.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let name = name.trim();
    name.starts_with(PREFIX).then(|| (name.to_owned(), quoted.unwrap_or(value).to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_beside_the_process_and_the_environment_wins() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("config")).expect("made");
        let yaml = "port: 6411\nweb_url: http://from-yaml:1\nstate_dir: /from/yaml\nunused_key: [1]\n";
        fs::write(dir.path().join(DEFAULT_FILE), yaml).expect("written");
        let dot_env = "# GAIA\nOTHER=1\nexport ORCHESTRATOR_WEB_URL='http://from-env-file:2'\nORCHESTRATOR_STATE_DIR=/from/env/file\n";
        fs::write(dir.path().join(DOT_ENV), dot_env).expect("written");
        let variable = |name: &str| (name == "ORCHESTRATOR_STATE_DIR").then(|| "/from/environment".to_owned());
        let settings = Settings::read_in(dir.path(), &variable).expect("readable");
        let used = settings.used();
        assert_eq!(settings.listen().expect("a port is given").value, "127.0.0.1:6411");
        assert_eq!(used.web_url.as_deref(), Some("http://from-env-file:2"));
        assert_eq!(used.state_file.as_deref(), Some(Path::new("/from/environment/state.json")));
        assert_eq!(used.shared_dir.as_deref(), Some(Path::new("/shared")));
    }

    #[test]
    fn without_any_of_it_nothing_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let nothing = |_: &str| None;
        let settings = Settings::read_in(dir.path(), &nothing).expect("nothing to read");
        assert!(settings.listen().is_none());
        let shared_dir = Some(PathBuf::from(DEFAULT_SHARED_DIR));
        assert_eq!(settings.used(), Orchestrator { shared_dir, ..Orchestrator::default() });
    }
}
