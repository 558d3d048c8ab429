//! What the process says about itself: log lines on stderr (and in a file, where one is named), the metrics registry, and which build this is.
//!
//! Field names are fixed, so that lines can be searched for: `object` (`Workload/default/web`), `kind`, `namespace`,
//! `name`, `container`, `image`, `node`, `reason`, `error` (the whole chain), `elapsed_ms`, `revision`, `generation`.

pub mod file;
pub mod tasks;

use std::{io::IsTerminal, sync::OnceLock};

use file::{AsMloc, LogFile, Rolling};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, info::Info},
    registry::Registry,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The version of this build, `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, strum::EnumString, strum::VariantNames, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level (`info`) or a filter (`info,gaia::controllers=debug`), valid by [`check_filter`].
    pub filter: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("{filter:?} is not a log filter such as `info` or `info,gaia::controllers=debug`: {message}")]
    Filter { filter: String, message: String },
    #[error("logging has been set up already")]
    SetUpTwice,
    #[error("cannot write log lines to {} (LOG_FILE)", path.display())]
    File { path: std::path::PathBuf, source: std::io::Error },
}

/// The commit this was built from, when the build knew it (`GAIA_COMMIT` at compile time).
pub fn commit() -> &'static str {
    option_env!("GAIA_COMMIT").unwrap_or("unknown")
}

pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    parse_filter(filter).map(|_| ())
}

/// Log lines are written as long as this lives. Dropping it writes those that wait, for a second at most.
#[must_use]
pub struct Logging {
    _writer: WorkerGuard,
}

/// Log lines that may wait to be written. Who reads stderr may stop to, for good (a terminal at rest, a pipe to a program that
/// hangs); what would come beyond these is lost and counted, for a host's cards cannot wait for it.
const LINES_WAITING: usize = 4096;

/// Of the process, as logging is.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Sends log lines to stderr from here on. Once per process.
pub fn init(settings: &LogSettings) -> Result<Logging, TelemetryError> {
    init_with_file(settings, None)
}

/// As [`init`], and to a file as well.
pub fn init_with_file(settings: &LogSettings, file: Option<&LogFile>) -> Result<Logging, TelemetryError> {
    let opened = file.map(|file| Rolling::open(file).map_err(|source| (file, source)));
    let (opened, missing) = match opened.transpose() {
        Ok(opened) => (opened, None),
        Err((file, source)) if file.named => return Err(TelemetryError::File { path: file.path.clone(), source }),
        Err(missing) => (None, Some(missing)),
    };
    let file = opened.map(|file| fmt::layer().event_format(AsMloc).with_ansi(false).with_writer(file));
    let subscriber = tracing_subscriber::registry().with(file).with(parse_filter(&settings.filter)?);
    let waiting = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING).thread_name("gaia-log");
    let (stderr, writer) = waiting.finish(std::io::stderr());
    let lost = stderr.error_counter();
    let done = match settings.format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            subscriber.with(fmt::layer().with_ansi(ansi).with_writer(stderr)).try_init()
        }
        LogFormat::Json => subscriber.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init(),
    };
    done.map_err(|_| TelemetryError::SetUpTwice)?;
    LOST.get_or_init(|| lost);
    if let Some((file, error)) = missing {
        tracing::warn!(path = %file.path.display(), %error, "log lines go to stderr only (LOG_FILE names a file)");
    }
    Ok(Logging { _writer: writer })
}

#[derive(Debug)]
struct LostLines;

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let lost = ConstCounter::new(LOST.get().map_or(0, |lost| lost.dropped_lines() as u64));
        let help = "Log lines that nobody took from stderr in time";
        lost.encode(encoder.encode_descriptor("gaia_log_lines_lost", help, None, lost.metric_type())?)
    }
}

/// The registry behind `/metrics`, holding `gaia_build_info`. Who measures something registers it here at start-up.
pub fn metrics() -> Registry {
    let mut registry = Registry::default();
    registry.register("gaia_build", "Which build this is", Info::new(vec![("version", VERSION), ("commit", commit())]));
    registry.register_collector(Box::new(LostLines));
    registry
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |message| TelemetryError::Filter { filter: filter.to_owned(), message };
    // A bare word would be taken for a target, and a level with a typo in it for one that nothing has: silence.
    let bare = |part: &&str| !part.is_empty() && !part.contains(['=', '[']);
    let mistaken = filter.split(',').map(str::trim).filter(bare).find(|part| part.parse::<LevelFilter>().is_err());
    if let Some(part) = mistaken {
        return Err(refused(format!("{part:?} is no level, and a target is given one with {part}=debug")));
    }
    EnvFilter::try_new(filter).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_name_the_build() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics()).expect("a String takes everything");
        assert!(text.contains(&format!("gaia_build_info{{version=\"{VERSION}\"")), "{text}");
    }

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(check_filter("info,gaia::controllers=debug").is_ok());
        let error = check_filter("gaia=loudly").expect_err("no such level");
        assert!(error.to_string().contains("gaia=loudly"), "{error}");
        assert!(check_filter("off").is_ok());
        let error = check_filter("inof").expect_err("a typo, not a target");
        assert!(error.to_string().contains("\"inof\" is no level"), "{error}");
        assert!(check_filter("gaia::store").is_err());
    }
}
