//! Settings of the server process. A flag wins over the environment, the environment over the file; what is found is
//! validated once, here, and every complaint names the flag, the variable or the line of the file it came from.

pub mod droplets;
mod orchestrator;
mod tasks;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde_saphyr::Spanned;
use strum::VariantNames;

pub use droplets::Droplets;
pub use orchestrator::Orchestrator;
use orchestrator::Settings;
pub use tasks::Tasks;

use crate::telemetry::{self, LogFormat, LogSettings, TelemetryError, file::LogFile};

/// Read when `--config` and `GAIA_CONFIG` name no other; it may be absent.
pub const DEFAULT_FILE: &str = "/etc/gaia/gaia.yaml";
/// Where the server listens unless told otherwise, and where the client commands look for it.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6410);

/// As upstream recommends for its own (`--audit-log-maxsize`, `--audit-log-maxbackup`).
const AUDIT_LOG_BYTES: u64 = 100 << 20;
const AUDIT_LOG_BACKUPS: u32 = 10;

/// The keys of the file. Flag and variable follow from each: `dataDir`, `--data-dir`, `GAIA_DATA_DIR`.
pub const KEYS: [&str; 14] = [
    "listen",
    "dataDir",
    "desired",
    "reality",
    "nvmlLibrary",
    "tokenFile",
    "tlsCertFile",
    "tlsKeyFile",
    "auditLogFile",
    "tasksListen",
    "dropletsListen",
    "nodeName",
    "logFormat",
    "logLevel",
];

/// What the controllers act on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, strum::EnumString, strum::VariantNames, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Reality {
    /// The Docker engine of this host (`DOCKER_HOST`, else its usual socket).
    #[default]
    Docker,
    /// Containers that exist only in this process.
    Simulated,
}

/// A bearer token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A certificate chain and its private key, in PEM. They are read when the server starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The settings of a server, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    /// Made when it is not there.
    pub data_dir: PathBuf,
    /// A directory of desired files to follow.
    pub desired: Option<PathBuf>,
    pub reality: Reality,
    /// None: NVML is where the dynamic linker finds it. Need not exist (yet), as a driver need not.
    pub nvml_library: Option<PathBuf>,
    /// Empty: no token is asked for; only ever so on a loopback address.
    pub tokens: Vec<Token>,
    /// Of the main listener.
    pub tls: Option<TlsFiles>,
    /// Who changed what; put aside when it is large.
    pub audit_log: Option<LogFile>,
    pub node_name: String,
    pub log: LogSettings,
    /// Of GAIA's own orchestrator, whose place this process may take.
    pub orchestrator: Orchestrator,
    /// Of MLOC's, whose place it may take as well.
    pub tasks: Tasks,
    /// Of FPAI's, likewise.
    pub droplets: Droplets,
}

/// Where a setting was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Variable(String),
    File {
        file: PathBuf,
        line: u64,
        key: String,
    },
    /// Nobody set it.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Variable(variable) => f.write_str(variable),
            Origin::File { file, line, key } => write!(f, "{}:{line}: {key}", file.display()),
            Origin::Default(key) => write!(f, "the default of {key}"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {} ({origin})", path.display())]
    Read { origin: Origin, path: PathBuf, source: io::Error },
    #[error("{}{}: {message}", file.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    Syntax { file: PathBuf, line: Option<u64>, message: String },
    #[error("{}:{line}: unknown key {key:?}; the keys are {}", file.display(), KEYS.join(", "))]
    UnknownKey { file: PathBuf, line: u64, key: String },
    #[error("{origin}: {message}")]
    Invalid { origin: Origin, message: String },
    #[error(
        "{origin}: {address} can be reached from other machines, so callers must show a token: \
         give a file of tokens with --token-file (GAIA_TOKEN_FILE, tokenFile), or listen on 127.0.0.1"
    )]
    OpenToAll { origin: Origin, address: SocketAddr },
}

/// What the command line said, by key; and where the rest is looked for.
pub struct Layers<'a> {
    flags: Vec<(&'static str, String)>,
    variable: &'a dyn Fn(&str) -> Option<String>,
    file: Option<File>,
}

struct File {
    path: PathBuf,
    values: BTreeMap<String, Spanned<String>>,
}

struct Given {
    value: String,
    origin: Origin,
}

impl<'a> Layers<'a> {
    /// `flags` holds pairs of a key and what its flag said. `config` is `--config`; a file that is named must exist.
    pub fn read(
        flags: Vec<(&'static str, String)>,
        config: Option<&Path>,
        variable: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let named = match (config, variable("GAIA_CONFIG")) {
            (Some(path), _) => Some((path.to_owned(), Origin::Flag("--config".into()))),
            (None, Some(path)) => Some((path.into(), Origin::Variable("GAIA_CONFIG".into()))),
            (None, None) => None,
        };
        let file = match named {
            Some((path, origin)) => Some(read_file(path, origin)?),
            None if Path::new(DEFAULT_FILE).exists() => {
                Some(read_file(DEFAULT_FILE.into(), Origin::Default("config"))?)
            }
            None => None,
        };
        Ok(Self { flags, variable, file })
    }

    fn get(&self, key: &'static str) -> Option<Given> {
        if let Some((_, value)) = self.flags.iter().find(|(k, _)| *k == key) {
            return Some(Given { value: value.clone(), origin: Origin::Flag(flag_name(key)) });
        }
        let variable = variable_name(key);
        // An empty variable is an unset one, as in compose files that pass `GAIA_X=`.
        if let Some(value) = (self.variable)(&variable).filter(|v| !v.is_empty()) {
            return Some(Given { value, origin: Origin::Variable(variable) });
        }
        let file = self.file.as_ref()?;
        let found = file.values.get(key)?;
        let origin = Origin::File { file: file.path.clone(), line: found.defined.line(), key: key.to_owned() };
        Some(Given { value: found.value.clone(), origin })
    }
}

impl Config {
    /// Everything checked; the token file read.
    pub fn from_layers(layers: &Layers<'_>) -> Result<Self, ConfigError> {
        let tokens = match layers.get("tokenFile") {
            Some(given) => read_tokens(given)?,
            None => Vec::new(),
        };
        let orchestrator = Settings::read(layers.variable)?;
        let droplets = Droplets::read(layers, tokens.is_empty())?;
        Ok(Self {
            listen: listen(layers.get("listen").or_else(|| orchestrator.listen()), tokens.is_empty())?,
            data_dir: data_dir(layers)?,
            desired: layers.get("desired").map(directory).transpose()?,
            reality: layers.get("reality").map(one_of::<Reality>).transpose()?.unwrap_or_default(),
            nvml_library: layers.get("nvmlLibrary").map(library).transpose()?,
            node_name: layers.get("nodeName").map_or_else(|| Ok(host_name()), node_name)?,
            log: LogSettings {
                format: layers.get("logFormat").map(one_of::<LogFormat>).transpose()?.unwrap_or_default(),
                filter: log_filter(layers)?,
            },
            tokens,
            tls: tls(layers.get("tlsCertFile"), layers.get("tlsKeyFile"))?,
            audit_log: layers.get("auditLogFile").map(audit_log).transpose()?,
            orchestrator: orchestrator.used(),
            tasks: Tasks::read(layers)?,
            droplets,
        })
    }
}

/// `dataDir` → `--data-dir`.
pub fn flag_name(key: &str) -> String {
    format!("--{}", words(key, '-'))
}

/// `dataDir` → `GAIA_DATA_DIR`.
pub fn variable_name(key: &str) -> String {
    format!("GAIA_{}", words(key, '_').to_uppercase())
}

fn words(key: &str, separator: char) -> String {
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push(separator);
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn read_file(path: PathBuf, origin: Origin) -> Result<File, ConfigError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { origin, path, source }),
    };
    let values: Option<BTreeMap<String, Spanned<String>>> = serde_saphyr::from_str(&text).map_err(|e| {
        let message = e.without_snippet().to_string();
        ConfigError::Syntax { file: path.clone(), line: e.location().map(|l| l.line()), message }
    })?;
    let values = values.unwrap_or_default();
    if let Some((key, at)) = values.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        return Err(ConfigError::UnknownKey { file: path, line: at.defined.line(), key: key.clone() });
    }
    Ok(File { path, values })
}

fn listen(given: Option<Given>, open: bool) -> Result<SocketAddr, ConfigError> {
    let Some(Given { value, origin }) = given else { return Ok(DEFAULT_LISTEN) };
    let address = value.replacen("localhost:", "127.0.0.1:", 1);
    let Ok(address) = SocketAddr::from_str(&address) else {
        return Err(invalid(origin, format!("{value:?} is not an address such as 127.0.0.1:6410 or [::1]:6410")));
    };
    if open && !address.ip().is_loopback() {
        return Err(ConfigError::OpenToAll { origin, address });
    }
    Ok(address)
}

/// `$XDG_STATE_HOME/gaia`, else `~/.local/state/gaia`, else (no home: a service) `/var/lib/gaia`.
fn data_dir(layers: &Layers<'_>) -> Result<PathBuf, ConfigError> {
    if let Some(Given { value, origin }) = layers.get("dataDir") {
        return if value.is_empty() { Err(invalid(origin, "a directory is needed".into())) } else { Ok(value.into()) };
    }
    let variable = |name: &str| (layers.variable)(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Ok(match (variable("XDG_STATE_HOME"), variable("HOME")) {
        (Some(state), _) => state.join("gaia"),
        (None, Some(home)) => home.join(".local/state/gaia"),
        (None, None) => "/var/lib/gaia".into(),
    })
}

fn directory(given: Given) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&given.value);
    match path.canonicalize() {
        Ok(path) if path.is_dir() => Ok(path),
        Ok(_) => Err(invalid(given.origin, format!("{} is not a directory", path.display()))),
        Err(source) => Err(ConfigError::Read { origin: given.origin, path, source }),
    }
}

/// A relative path would be the dynamic linker's to look up, in other places than people think.
fn library(given: Given) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&given.value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(invalid(given.origin, format!("{:?} is not an absolute path of a library", given.value))),
    }
}

fn one_of<T: FromStr + VariantNames>(given: Given) -> Result<T, ConfigError> {
    T::from_str(&given.value)
        .map_err(|_| invalid(given.origin, format!("{:?} is not one of {}", given.value, T::VARIANTS.join(", "))))
}

/// One token a line; empty lines and lines that begin with `#` do not count.
fn read_tokens(given: Given) -> Result<Vec<Token>, ConfigError> {
    let path = PathBuf::from(&given.value);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { origin: given.origin, path, source }),
    };
    let tokens: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    if tokens.is_empty() {
        return Err(invalid(given.origin, format!("{} holds no token", path.display())));
    }
    if tokens.iter().any(|t| t.contains(char::is_whitespace)) {
        return Err(invalid(given.origin, format!("{} must hold one token a line, without spaces", path.display())));
    }
    Ok(tokens.into_iter().map(Token::new).collect())
}

/// Both or none.
fn tls(certificate: Option<Given>, key: Option<Given>) -> Result<Option<TlsFiles>, ConfigError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { certificate: certificate.value.into(), key: key.value.into() }))
        }
        (Some(Given { origin, .. }), None) => Err(invalid(origin, "a certificate needs its key: tlsKeyFile".into())),
        (None, Some(Given { origin, .. })) => Err(invalid(origin, "a key needs its certificate: tlsCertFile".into())),
    }
}

fn audit_log(given: Given) -> Result<LogFile, ConfigError> {
    if given.value.is_empty() {
        return Err(invalid(given.origin, "a file is needed".into()));
    }
    Ok(LogFile {
        path: given.value.into(),
        max_bytes: AUDIT_LOG_BYTES,
        backups: AUDIT_LOG_BACKUPS,
        named: true,
        private: true,
    })
}

fn node_name(given: Given) -> Result<String, ConfigError> {
    if is_dns_name(&given.value) {
        return Ok(given.value);
    }
    let message = format!("{:?} is not a name of lower-case letters, digits, '-' and '.'", given.value);
    Err(invalid(given.origin, message))
}

/// The name of this host as the kernel tells it, made a valid object name.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    if is_dns_name(&name) { name } else { "localhost".to_owned() }
}

fn is_dns_name(name: &str) -> bool {
    let word = |w: &str| {
        w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !w.is_empty()
            && !w.starts_with('-')
            && !w.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(word)
}

/// `RUST_LOG` counts when nothing of ours is set.
fn log_filter(layers: &Layers<'_>) -> Result<String, ConfigError> {
    let rust_log = || {
        let value = (layers.variable)("RUST_LOG").filter(|v| !v.is_empty())?;
        Some(Given { value, origin: Origin::Variable("RUST_LOG".into()) })
    };
    let Some(Given { value, origin }) =
        layers.get("logLevel").or_else(rust_log).or_else(|| droplets::log_level(layers))
    else {
        return Ok("info".into());
    };
    match telemetry::check_filter(&value) {
        Ok(()) => Ok(value),
        Err(e @ (TelemetryError::Filter { .. } | TelemetryError::SetUpTwice | TelemetryError::File { .. })) => {
            Err(invalid(origin, e.to_string()))
        }
    }
}

fn invalid(origin: Origin, message: String) -> ConfigError {
    ConfigError::Invalid { origin, message }
}

#[cfg(test)]
mod tests;
