//! Settings of MLOC's orchestrator, by the names that its deployments have: contract section 6. Without `REDIS_URL` there is a bus
//! inside this process.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{ConfigError, Given, Layers, Origin, Token, invalid};
use crate::telemetry::file::LogFile;

/// What is used of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tasks {
    /// A listener of its own beside the main one.
    pub listen: Option<SocketAddr>,
    /// It may hold a password.
    pub redis_url: Option<Token>,
    /// Certificates that may have signed that of Redis. None: those of the host, or what the URL names.
    pub redis_ca_file: Option<PathBuf>,
    /// MLOC's log file. It is written where MLOC's variables are, or when somebody names it.
    pub log_file: Option<LogFile>,
    /// What every call of the tasks' API must show.
    pub token: Option<Token>,
    /// Where workers reach this listener: for results of parts of tasks, whose documents name somebody else. Without a slash at the end.
    pub base_url: Option<String>,
    /// None: beside the objects.
    pub results_dir: Option<PathBuf>,
    pub heartbeat_ttl: Duration,
    pub retry_base: Duration,
    pub retry_max: Duration,
    pub cpu_only_weight: f64,
    pub gpu_weight: f64,
    pub low_ratio: f64,
    pub high_ratio: f64,
    pub most_shards: u32,
    /// `16Gi` asks for nothing, as MLOC had it.
    pub lenient_memory: bool,
    pub most_upload_bytes: u64,
    /// How long a task is kept after its end, unless it says so itself.
    pub retention_age: Duration,
    /// How many tasks that ended well, or were cancelled, are kept.
    pub retention_count: usize,
    /// How many that failed.
    pub dead_letters: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            listen: None,
            redis_url: None,
            redis_ca_file: None,
            log_file: None,
            token: None,
            base_url: None,
            results_dir: None,
            heartbeat_ttl: Duration::from_secs(120),
            retry_base: Duration::from_secs(5),
            retry_max: Duration::from_secs(300),
            cpu_only_weight: 0.6,
            gpu_weight: 1.0,
            low_ratio: 0.6,
            high_ratio: 2.0,
            most_shards: 8,
            lenient_memory: false,
            most_upload_bytes: 256 << 30,
            retention_age: Duration::from_secs(7 * 24 * 3600),
            retention_count: 10_000,
            dead_letters: 500,
        }
    }
}

impl Tasks {
    pub(super) fn read(layers: &Layers<'_>) -> Result<Self, ConfigError> {
        let text = |name: &str| (layers.variable)(name).filter(|value| !value.is_empty());
        let default = Self::default();
        let token = text("ORCHESTRATOR_TOKEN").map(Token::new);
        let listen = layers.get("tasksListen").map(|given| listen(given, token.is_none())).transpose()?;
        let seconds = |name: &str, or: Duration| number(name, text(name), or.as_secs()).map(Duration::from_secs);
        Ok(Self {
            listen,
            redis_url: text("REDIS_URL").map(Token::new),
            redis_ca_file: text("REDIS_CA_FILE").map(PathBuf::from),
            log_file: log_file(&text)?,
            token,
            base_url: text("ORCHESTRATOR_BASE_URL").map(base_url).transpose()?,
            results_dir: text("ORCHESTRATOR_RESULTS_DIR")
                .or_else(|| text("RESULTS_DIR"))
                .map(|dir| expanded(dir, &text)),
            heartbeat_ttl: seconds("HEARTBEAT_TTL_SEC", default.heartbeat_ttl)?,
            retry_base: seconds("RETRY_BASE_DELAY_SEC", default.retry_base)?,
            retry_max: seconds("RETRY_MAX_DELAY_SEC", default.retry_max)?,
            cpu_only_weight: number("CPU_ONLY_WEIGHT", text("CPU_ONLY_WEIGHT"), default.cpu_only_weight)?,
            gpu_weight: number("GPU_WEIGHT", text("GPU_WEIGHT"), default.gpu_weight)?,
            low_ratio: number("LOW_AVAIL_RATIO", text("LOW_AVAIL_RATIO"), default.low_ratio)?,
            high_ratio: number("HIGH_AVAIL_RATIO", text("HIGH_AVAIL_RATIO"), default.high_ratio)?,
            most_shards: number("MAX_AUTO_SHARDS", text("MAX_AUTO_SHARDS"), default.most_shards)?,
            lenient_memory: match text("GAIA_TASKS_MEMORY").as_deref() {
                None | Some("exact") => false,
                Some("lenient") => true,
                Some(other) => {
                    let origin = Origin::Variable("GAIA_TASKS_MEMORY".to_owned());
                    return Err(invalid(origin, format!("{other:?} is not one of exact, lenient")));
                }
            },
            most_upload_bytes: number(
                "GAIA_TASKS_MAX_UPLOAD_BYTES",
                text("GAIA_TASKS_MAX_UPLOAD_BYTES"),
                default.most_upload_bytes,
            )?,
            retention_age: seconds("GAIA_TASKS_RETENTION_SEC", default.retention_age)?,
            retention_count: number(
                "GAIA_TASKS_RETENTION_COUNT",
                text("GAIA_TASKS_RETENTION_COUNT"),
                default.retention_count,
            )?,
            dead_letters: number("TASK_DLQ_LIMIT", text("TASK_DLQ_LIMIT"), default.dead_letters)?,
        })
    }
}

/// Whoever can reach it may run anything on every worker.
fn listen(given: Given, open: bool) -> Result<SocketAddr, ConfigError> {
    let address: SocketAddr = match given.value.replacen("localhost:", "127.0.0.1:", 1).parse() {
        Ok(address) => address,
        Err(_) => {
            let message = format!("{:?} is not an address such as 127.0.0.1:8000 or 0.0.0.0:8000", given.value);
            return Err(invalid(given.origin, message));
        }
    };
    if open && !address.ip().is_loopback() {
        let message = format!(
            "{address} can be reached from other machines, so callers must show a token: set ORCHESTRATOR_TOKEN, or listen on 127.0.0.1"
        );
        return Err(invalid(given.origin, message));
    }
    Ok(address)
}

/// MLOC cannot run without `REDIS_URL`: who sets it means a deployment of MLOC's.
fn log_file(text: &impl Fn(&str) -> Option<String>) -> Result<Option<LogFile>, ConfigError> {
    let usual = || text("REDIS_URL").map(|_| "orchestrator.log".to_owned());
    let named = text("LOG_FILE");
    let Some(path) = named.clone().or_else(usual) else { return Ok(None) };
    Ok(Some(LogFile {
        named: named.is_some(),
        private: false,
        path: expanded(path, text),
        max_bytes: number("LOG_MAX_BYTES", text("LOG_MAX_BYTES"), 5 << 20)?,
        backups: number("LOG_BACKUP_COUNT", text("LOG_BACKUP_COUNT"), 5)?,
    }))
}

fn base_url(given: String) -> Result<String, ConfigError> {
    let url = reqwest::Url::parse(&given).ok();
    let whole = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
    match whole {
        Some(_) => Ok(given.trim_end_matches('/').to_owned()),
        None => {
            let origin = Origin::Variable("ORCHESTRATOR_BASE_URL".to_owned());
            Err(invalid(origin, format!("{given:?} is not a URL such as http://gaia:8000")))
        }
    }
}

/// Numbers may be parted by underscores, as MLOC allows.
fn number<T: std::str::FromStr>(name: &str, given: Option<String>, default: T) -> Result<T, ConfigError> {
    let Some(given) = given else { return Ok(default) };
    given.trim().replace('_', "").parse().map_err(|_| {
        invalid(Origin::Variable(name.to_owned()), format!("{given:?} is not a number that can be used here"))
    })
}

fn expanded(directory: String, text: &impl Fn(&str) -> Option<String>) -> PathBuf {
    match (directory.strip_prefix("~/"), text("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => directory.into(),
    }
}
