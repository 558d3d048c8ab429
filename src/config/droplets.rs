//! Settings of FPAI's orchestrator, by the names that its deployments have (contract section 5): from the environment, then from `.env`
//! in the working directory.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ConfigError, Given, Layers, Origin, invalid};

/// Where the original keeps its list. Used where somebody made it.
const CACHE_DIR: &str = "/var/cache/fpai";
const DOT_ENV: &str = ".env";

/// What is used of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Droplets {
    /// A listener of its own beside the main one.
    pub listen: Option<SocketAddr>,
    /// None: the registry is where the original's is, and is asked only when somebody asks us.
    pub registry_url: Option<String>,
    pub sync_interval: Duration,
    pub registry_timeout: Duration,
    /// None: in the data directory.
    pub cache_dir: Option<PathBuf>,
    pub cache_expiry: Duration,
    pub task_timeout: Duration,
    pub attempts: u32,
    pub most_history: usize,
    pub history: History,
}

/// How much of the history of calls survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum History {
    /// Nothing, as with the original.
    Memory,
    /// All but the last moments before a crash.
    #[default]
    Batched,
    /// All: a call is answered once it is on the disk.
    Durable,
}

impl Default for Droplets {
    fn default() -> Self {
        Self {
            listen: None,
            registry_url: None,
            sync_interval: Duration::from_secs(60),
            registry_timeout: Duration::from_secs(5),
            cache_dir: None,
            cache_expiry: Duration::from_secs(300),
            task_timeout: Duration::from_secs(30),
            attempts: 3,
            most_history: 10_000,
            history: History::Batched,
        }
    }
}

impl Droplets {
    /// `open`: callers need to show no token.
    pub(super) fn read(layers: &Layers<'_>, open: bool) -> Result<Self, ConfigError> {
        Self::read_in(Path::new(""), layers, open)
    }

    fn read_in(directory: &Path, layers: &Layers<'_>, open: bool) -> Result<Self, ConfigError> {
        let file = directory.join(DOT_ENV);
        let lines = fs::read_to_string(&file).unwrap_or_default();
        let dot_env: BTreeMap<&str, &str> = lines.lines().filter_map(assignment).collect();
        let get = |name: &str| {
            let variable = (layers.variable)(name).filter(|value| !value.is_empty());
            let given = variable.map(|value| Given { value, origin: Origin::Variable(name.to_owned()) });
            given.or_else(|| {
                let value = dot_env.get(name).filter(|value| !value.is_empty())?;
                let line = lines.lines().take_while(|line| assignment(line).is_none_or(|(n, _)| n != name)).count();
                let line = u64::try_from(line + 1).unwrap_or(1);
                let origin = Origin::File { file: file.clone(), line, key: name.to_owned() };
                Some(Given { value: (*value).to_owned(), origin })
            })
        };
        let default = Self::default();
        let whole = |name: &str, or: u64, least: u64| match get(name) {
            None => Ok(or),
            Some(given) => match given.value.trim().parse::<u64>() {
                Ok(number) if number >= least => Ok(number),
                _ => Err(invalid(given.origin, format!("{:?} is not a whole number from {least} on", given.value))),
            },
        };
        let seconds = |name: &str, or: Duration, least: u64| whole(name, or.as_secs(), least).map(Duration::from_secs);
        let history = match get("TASK_HISTORY") {
            None => History::default(),
            Some(given) => super::one_of(given)?,
        };
        let existing = || Some(PathBuf::from(CACHE_DIR)).filter(|directory| directory.is_dir());
        Ok(Self {
            listen: layers.get("dropletsListen").map(|given| listen(given, open)).transpose()?,
            registry_url: get("REGISTRY_URL").map(registry_url).transpose()?,
            sync_interval: seconds("REGISTRY_SYNC_INTERVAL", default.sync_interval, 1)?,
            registry_timeout: get("REGISTRY_TIMEOUT").map_or(Ok(default.registry_timeout), fraction)?,
            cache_dir: get("REGISTRY_CACHE_DIR")
                .or_else(|| get("CACHE_DIR"))
                .map(|given| PathBuf::from(given.value))
                .or_else(existing),
            cache_expiry: seconds("REGISTRY_CACHE_EXPIRY", default.cache_expiry, 0)?,
            task_timeout: seconds("TASK_TIMEOUT", default.task_timeout, 1)?,
            attempts: u32::try_from(whole("TASK_MAX_RETRIES", default.attempts.into(), 0)?).unwrap_or(u32::MAX),
            most_history: whole("TASK_MAX_HISTORY", 10_000, 0).map(|most| most as usize)?,
            history,
        })
    }
}

/// The original's `LOG_LEVEL`, where it is one.
pub(super) fn log_level(layers: &Layers<'_>) -> Option<Given> {
    let level = match (layers.variable)("LOG_LEVEL")?.as_str() {
        "DEBUG" => "debug",
        "INFO" => "info",
        "WARNING" => "warn",
        "ERROR" | "CRITICAL" => "error",
        // Somebody else's.
        _ => return None,
    };
    Some(Given { value: level.to_owned(), origin: Origin::Variable("LOG_LEVEL".to_owned()) })
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    (!name.starts_with('#')).then(|| (name.trim(), quoted.unwrap_or(value)))
}

fn registry_url(given: Given) -> Result<String, ConfigError> {
    let url = reqwest::Url::parse(&given.value).ok();
    match url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        true => Ok(given.value),
        false => Err(invalid(given.origin, format!("{:?} is not an http or https URL", given.value))),
    }
}

fn fraction(given: Given) -> Result<Duration, ConfigError> {
    let seconds = given.value.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| invalid(given.origin, format!("{:?} is not a number of seconds above 0", given.value)))
}

/// Whoever can reach it may call every droplet.
fn listen(given: Given, open: bool) -> Result<SocketAddr, ConfigError> {
    let address: SocketAddr = match given.value.replacen("localhost:", "127.0.0.1:", 1).parse() {
        Ok(address) => address,
        Err(_) => {
            let example = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8001);
            return Err(invalid(given.origin, format!("{:?} is not an address such as {example}", given.value)));
        }
    };
    match open && !address.ip().is_loopback() {
        true => Err(ConfigError::OpenToAll { origin: given.origin, address }),
        false => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], dot_env: &str) -> Result<Droplets, String> {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(DOT_ENV), dot_env).expect("written");
        let settings = directory.path().join("gaia.yaml");
        fs::write(&settings, "").expect("written");
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let layers = Layers::read(Vec::new(), Some(&settings), &variable).expect("nothing wrong");
        Droplets::read_in(directory.path(), &layers, true).map_err(|error| error.to_string())
    }

    #[test]
    fn the_seeds_names_are_read_and_the_environment_wins() {
        let variables = [("REGISTRY_URL", "http://r:1/"), ("TASK_MAX_RETRIES", "0"), ("TASK_HISTORY", "durable")];
        let dot_env =
            "# FPAI\nREGISTRY_URL=http://other\nREGISTRY_TIMEOUT=\"2.5\"\nCACHE_DIR=/c\nREGISTRY_CACHE_DIR=/r\n";
        let read = read(&variables, dot_env).expect("valid");
        assert_eq!(read.registry_url.as_deref(), Some("http://r:1/"));
        assert_eq!((read.attempts, read.history), (0, History::Durable));
        assert_eq!(read.registry_timeout, Duration::from_millis(2500));
        assert_eq!(read.cache_dir.as_deref(), Some(Path::new("/r")));
    }

    #[test]
    fn a_complaint_names_the_variable_or_the_line() {
        let complaint = |variables: &[(&str, &str)], text: &str| read(variables, text).expect_err("must be refused");
        assert_eq!(
            complaint(&[("REGISTRY_URL", "r:8000")], ""),
            "REGISTRY_URL: \"r:8000\" is not an http or https URL"
        );
        assert!(
            complaint(&[("TASK_TIMEOUT", "0")], "").starts_with("TASK_TIMEOUT: \"0\" is not a whole number from 1 on")
        );
        assert!(complaint(&[("REGISTRY_TIMEOUT", "-1")], "").starts_with("REGISTRY_TIMEOUT: "));
        assert!(complaint(&[], "A=1\nTASK_MAX_HISTORY=many\n").contains(".env:2: TASK_MAX_HISTORY: "));
        assert!(
            complaint(&[("GAIA_DROPLETS_LISTEN", "0.0.0.0:8001")], "").contains("can be reached from other machines")
        );
    }
}
