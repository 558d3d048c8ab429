//! Maintenance of GAIA: while somebody works on it, Prime is not woken, and a standby that is away is no alarm. It is a flag in
//! GAIA's shared directory, as its own tools set it. One that is too old means nothing: flags were forgotten for days.

use std::{fs, path::Path, time::SystemTime};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value;

use super::Gaia;

/// What counts, where it is there.
const FILE: &str = "maintenance_mode.json";
/// Of older versions: that it is there is all it says.
const LEGACY_FILE: &str = "ha_maintenance";
const DEFAULT_TTL_SECONDS: i64 = 4 * 3600;

/// A flag that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    pub reason: String,
}

impl Gaia {
    /// None: nobody works on it, or nobody said where such flags are.
    pub(super) async fn maintenance(&self) -> Option<Maintenance> {
        let (directory, now) = (self.shared_dir.clone()?, self.clock.now());
        tokio::task::spawn_blocking(move || read(&directory, now)).await.ok().flatten()
    }
}

fn read(directory: &Path, now: Timestamp) -> Option<Maintenance> {
    let written = |name: &str| {
        let at = fs::metadata(directory.join(name)).and_then(|file| file.modified()).ok()?;
        Timestamp::try_from(at.max(SystemTime::UNIX_EPOCH)).ok()
    };
    match fs::read_to_string(directory.join(FILE)) {
        Ok(text) => flag(&text, written(FILE)?, now),
        Err(_) => {
            let since = written(LEGACY_FILE)?;
            lasts(since, DEFAULT_TTL_SECONDS, now).then(|| Maintenance { reason: LEGACY_FILE.to_owned() })
        }
    }
}

/// What the file says. One that cannot be read is as old as the file, and on: somebody meant something by it.
fn flag(text: &str, written: Timestamp, now: Timestamp) -> Option<Maintenance> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    if value["active"] == false {
        return None;
    }
    let since = value["entered_at"].as_str().and_then(time).unwrap_or(written);
    let ttl = value["ttl_seconds"].as_i64().unwrap_or(DEFAULT_TTL_SECONDS);
    let reason = value["reason"].as_str().unwrap_or("maintenance").to_owned();
    lasts(since, ttl, now).then_some(Maintenance { reason })
}

fn lasts(since: Timestamp, ttl_seconds: i64, now: Timestamp) -> bool {
    now.duration_since(since) < SignedDuration::from_secs(ttl_seconds)
}

/// With a zone, or without one and meant as UTC.
fn time(text: &str) -> Option<Timestamp> {
    let naive = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(naive)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"active": true, "entered_at": "2026-11-20T09:00:00Z", "reason": "upgrade"}"#, Some("upgrade"))]
    #[case(r#"{"active": true, "entered_at": "2026-11-20T09:00:00.5", "reason": "upgrade"}"#, Some("upgrade"))]
    #[case(r#"{"active": false, "entered_at": "2026-11-20T09:00:00Z"}"#, None)]
    #[case(r#"{"active": true, "entered_at": "2026-11-20T05:59:00Z"}"#, None)]
    #[case(r#"{"active": true, "entered_at": "2026-11-20T05:59:00+00:00", "ttl_seconds": 86400}"#, Some("maintenance"))]
    #[case("on", Some("maintenance"))]
    fn a_flag_counts_until_it_is_too_old(#[case] text: &str, #[case] reason: Option<&str>) {
        let now = "2026-11-20T10:00:00Z".parse().expect("a time");
        let told = flag(text, now, now).map(|flag| flag.reason);
        assert_eq!(told.as_deref(), reason);
    }

    #[test]
    fn a_file_of_an_older_version_counts_while_the_newer_one_is_not_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = Timestamp::now();
        assert_eq!(read(dir.path(), now), None);
        fs::write(dir.path().join(LEGACY_FILE), "").expect("written");
        assert!(read(dir.path(), now).is_some());
        assert_eq!(read(dir.path(), now + SignedDuration::from_hours(5)), None, "forgotten");
        fs::write(dir.path().join(FILE), r#"{"active": false}"#).expect("written");
        assert_eq!(read(dir.path(), now), None);
    }
}
