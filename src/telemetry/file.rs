//! Files of log lines: when one is full it becomes `.1`, what was `.1` becomes `.2`, and so on. What was there before a start is
//! appended to. One is the file that MLOC's deployments look into, beside stderr: a line an event as MLOC wrote them
//! (`2026-11-20 09:33:33,171 | INFO | message field=value`).
//!
//! A line is written at once and whole, by whoever logs. One that cannot be (a full disk) is lost, and the next is tried again.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    registry::LookupSpan,
};

/// Where, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    pub path: PathBuf,
    /// Before a line that would make it larger the file is put aside; 0: it grows without end.
    pub max_bytes: u64,
    /// So many are kept beside it; 0: it is never put aside.
    pub backups: u32,
    /// Somebody named it: without it nothing starts. Else a warning is enough, for the directory may be nobody's to write.
    pub named: bool,
    /// Made so that only its owner can read it.
    pub private: bool,
}

/// The file, open.
#[derive(Debug)]
pub struct Rolling {
    settings: LogFile,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Rolling {
    pub fn open(settings: &LogFile) -> io::Result<Self> {
        Ok(Self { settings: settings.clone(), open: Mutex::new(Open::at(settings)?) })
    }
}

impl Open {
    fn at(settings: &LogFile) -> io::Result<Self> {
        let mode = if settings.private { 0o600 } else { 0o666 };
        let file = OpenOptions::new().create(true).append(true).mode(mode).open(&settings.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }

    fn write(&mut self, line: &[u8], settings: &LogFile) -> io::Result<()> {
        let full = self.bytes > 0 && self.bytes + line.len() as u64 > settings.max_bytes;
        if settings.max_bytes > 0 && settings.backups > 0 && full {
            *self = roll(settings)?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// Everything one number further; the last one goes. What is no file (`/dev/null`) stays where it is.
fn roll(settings: &LogFile) -> io::Result<Open> {
    if fs::symlink_metadata(&settings.path).is_ok_and(|found| found.is_file()) {
        for number in (1..settings.backups).rev() {
            ignore_missing(fs::rename(numbered(&settings.path, number), numbered(&settings.path, number + 1)))?;
        }
        ignore_missing(fs::rename(&settings.path, numbered(&settings.path, 1)))?;
    }
    Open::at(settings)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn ignore_missing(renamed: io::Result<()>) -> io::Result<()> {
    match renamed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Who writes one line.
pub struct Line<'r> {
    settings: &'r LogFile,
    open: MutexGuard<'r, Open>,
}

impl<'r> MakeWriter<'r> for Rolling {
    type Writer = Line<'r>;

    fn make_writer(&'r self) -> Self::Writer {
        // A panic in between has left a line half written, and nothing else.
        Line { settings: &self.settings, open: self.open.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Write for Line<'_> {
    /// The formatter hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.open.write(line, self.settings)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open.file.flush()
    }
}

/// Whole lines, by who has the file alone.
impl Write for Rolling {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.make_writer().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.make_writer().flush()
    }
}

/// A line as MLOC has it, in the host's time zone.
pub struct AsMloc;

impl<S, N> FormatEvent<S, N> for AsMloc
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
        write!(to, "{now} | {} | ", level(event.metadata().level()))?;
        context.field_format().format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

fn level(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn texts(path: &Path, backups: u32) -> Vec<String> {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        [read(path.to_owned())].into_iter().chain((1..=backups).map(|n| read(numbered(path, n)))).collect()
    }

    fn say(rolling: &Rolling, line: &str) {
        rolling.make_writer().write_all(line.as_bytes()).expect("written");
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("orchestrator.log");
        let settings = LogFile { path: path.clone(), max_bytes: 10, backups: 2, named: true, private: false };
        let rolling = Rolling::open(&settings).expect("open");
        for line in ["one\n", "two\n", "three\n", "four\n", "a line that is longer than any file\n"] {
            say(&rolling, line);
        }
        assert_eq!(texts(&path, 3), ["a line that is longer than any file\n", "four\n", "three\n", ""]);
        // A start goes on where the last one ended.
        drop(rolling);
        say(&Rolling::open(&settings).expect("open"), "x\n");
        assert_eq!(texts(&path, 3), ["x\n", "a line that is longer than any file\n", "four\n", ""]);
    }

    #[test]
    fn without_backups_or_a_size_it_grows() {
        let directory = tempfile::tempdir().expect("a directory");
        for (max_bytes, backups) in [(1, 0), (0, 5)] {
            let path = directory.path().join(format!("{max_bytes}.log"));
            let rolling =
                Rolling::open(&LogFile { path: path.clone(), max_bytes, backups, named: true, private: false })
                    .expect("open");
            say(&rolling, "one\n");
            say(&rolling, "two\n");
            assert_eq!(texts(&path, 1), ["one\ntwo\n", ""]);
        }
        let null = LogFile { path: "/dev/null".into(), max_bytes: 1, backups: 5, named: true, private: false };
        let rolling = Rolling::open(&null).expect("open");
        say(&rolling, "one\n");
        say(&rolling, "two\n");
        assert!(!Path::new("/dev/null.1").exists());
        assert!(Rolling::open(&LogFile { path: directory.path().to_owned(), ..null }).is_err());
    }

    #[test]
    fn a_line_looks_as_mlocs() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let rolling =
            Rolling::open(&LogFile { path: path.clone(), max_bytes: 0, backups: 0, named: true, private: false })
                .expect("open");
        let layer = tracing_subscriber::fmt::layer().event_format(AsMloc).with_ansi(false).with_writer(rolling);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(task = "t1", "a task is late");
        });
        let text = fs::read_to_string(path).expect("written");
        let (at, rest) = text.split_once(" | ").expect("parts");
        assert_eq!(rest, "WARNING | a task is late task=\"t1\"\n");
        assert!(at.len() == 23 && at.as_bytes()[10] == b' ' && at.as_bytes()[19] == b',', "{at}");
    }
}
