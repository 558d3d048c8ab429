//! What a pass found, as the status of its Source. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::git::{Commit, Failure, Known};
use crate::api::{
    condition::{self, ConditionStatus, READY, RECONCILING},
    source::{FETCHED, FileError, InventoryEntry, PINNED, SourceReason, SourceStatus},
};

/// More errors than these are only counted.
const MOST_ERRORS: usize = 100;

/// How a pass ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Suspended,
    Unreadable {
        reason: SourceReason,
        why: String,
        directory: String,
    },
    /// Nothing of the repository is here yet.
    Fetching,
    /// What `spec.pin` names cannot be had.
    NoRevision {
        why: String,
    },
    /// The status has no room for the list of so many objects.
    TooManyObjects {
        objects: usize,
    },
    Read(Box<Read>),
}

/// The directory was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    pub directory_identity: Option<String>,
    pub files: usize,
    /// Objects that are as their files say.
    pub objects: usize,
    pub revision: String,
    pub inventory: Vec<InventoryEntry>,
    pub errors: Vec<FileError>,
    /// The errors are (in part) the server's, not the files'.
    pub server_failed: bool,
    /// Named by no file and still there, because the directory is empty and perhaps the wrong one.
    pub empty_directory: bool,
    /// On their way out.
    pub pruning: usize,
    /// The SourceRevision that holds it.
    pub number: Option<i64>,
    /// The objects came from the pinned revision.
    pub pinned: Option<Pinned>,
}

/// What is applied instead of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub revision: i64,
    /// What the files would change, or why that is not known.
    pub files: String,
}

impl Read {
    /// Everything is as it was read.
    pub fn is_whole(&self) -> bool {
        self.errors.is_empty() && !self.empty_directory
    }
}

/// The status after a pass. Equal input and equal `before` give an equal status, whatever the time.
pub fn status(before: &SourceStatus, outcome: Outcome, generation: Option<i64>, now: Timestamp) -> SourceStatus {
    let mut status = before.clone();
    let now = Time(now);
    status.observed_generation = generation;
    let (ready, reason, message) = match outcome {
        Outcome::Suspended => {
            (ConditionStatus::Unknown, SourceReason::Suspended, "nothing is read and nothing changed".to_owned())
        }
        Outcome::Unreadable { reason, why, directory } => {
            status.errors = vec![FileError { file: ".".to_owned(), line: None, message: format!("{directory} {why}") }];
            let message = format!("{directory} {why}; everything is left as it is");
            condition::clear(&mut status.conditions, PINNED);
            (ConditionStatus::False, reason, message)
        }
        Outcome::Fetching => {
            condition::clear(&mut status.conditions, PINNED);
            let message = "the repository is being fetched for the first time".to_owned();
            (ConditionStatus::Unknown, SourceReason::Fetching, message)
        }
        Outcome::NoRevision { why } => {
            let (no, reason) = (ConditionStatus::False, SourceReason::NoSuchRevision);
            condition::set(&mut status.conditions, PINNED, no, reason.as_str(), why.clone(), generation, &now);
            (no, reason, format!("{why}; everything is left as it is"))
        }
        Outcome::TooManyObjects { objects } => {
            let message = format!(
                "the list of its {objects} objects does not fit into one Source: divide them among several; nothing is deleted"
            );
            (ConditionStatus::False, SourceReason::TooManyObjects, message)
        }
        Outcome::Read(read) => {
            let verdict = verdict(&read);
            take(&mut status, *read, verdict.0 == ConditionStatus::True, &now);
            verdict
        }
    };
    condition::set(&mut status.conditions, READY, ready, reason.as_str(), message, generation, &now);
    status
}

/// What is known of the repository, into the status after a pass. `followed`: what was applied is this commit's.
pub fn add_git(status: &mut SourceStatus, known: Option<&Known>, followed: bool, now: Timestamp) {
    let Some(known) = known else {
        status.git = None;
        return condition::clear(&mut status.conditions, FETCHED);
    };
    let (generation, time) = (status.observed_generation, Time(now));
    let mut git = status.git.take().unwrap_or_default();
    if let Some(commit) = &known.commit
        && git.observed_commit.as_ref() != Some(&commit.id)
    {
        git.observed_commit = Some(commit.id.clone());
        git.subject = Some(commit.subject.clone()).filter(|subject| !subject.is_empty());
        git.last_fetch_time = Some(Time(known.since.unwrap_or(now)));
    }
    let ready = condition::is_true(&status.conditions, READY);
    if ready && followed {
        git.applied_commit = known.commit.as_ref().map(|commit| commit.id.clone());
    }
    let (fetched, reason, message) = match (&known.failure, &known.commit) {
        (Some(Failure { reason, message }), _) => (ConditionStatus::False, *reason, message.clone()),
        (None, Some(Commit { id, subject })) => {
            (ConditionStatus::True, SourceReason::Fetched, format!("{id} {subject}").trim_end().to_owned())
        }
        (None, None) => (ConditionStatus::Unknown, SourceReason::Fetching, "it is under way".to_owned()),
    };
    condition::set(&mut status.conditions, FETCHED, fetched, reason.as_str(), message, generation, &time);
    if let (Some(failure), true, true) = (&known.failure, ready, followed) {
        let commit = git.applied_commit.as_deref().unwrap_or_default();
        let message = format!("{}; what commit {commit} says is kept", failure.message);
        let reason = failure.reason.as_str();
        condition::set(&mut status.conditions, READY, ConditionStatus::False, reason, message, generation, &time);
    }
    status.git = Some(git);
}

fn verdict(read: &Read) -> (ConditionStatus, SourceReason, String) {
    let (objects, files) = (read.objects, read.files);
    match read.errors.first() {
        Some(first) => {
            let reason = if read.server_failed { SourceReason::ApplyFailed } else { SourceReason::InvalidFiles };
            let more = match read.errors.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            (
                ConditionStatus::False,
                reason,
                format!("{}{more}; nothing is deleted until this is mended", describe(first)),
            )
        }
        None if read.empty_directory => {
            let message = "the directory is empty and not certainly the one the objects came from: nothing is deleted. \
                           Put a file there, even one with only a comment, to say that it is";
            (ConditionStatus::False, SourceReason::EmptyDirectory, message.to_owned())
        }
        None => {
            let from = match &read.pinned {
                Some(Pinned { revision, .. }) => format!("of revision {revision}"),
                None => format!("from {files} files"),
            };
            (ConditionStatus::True, SourceReason::Applied, format!("{objects} objects {from}"))
        }
    }
}

fn take(status: &mut SourceStatus, read: Read, ready: bool, now: &Time) {
    if ready && status.applied_revision.as_ref() != Some(&read.revision) {
        status.applied_revision = Some(read.revision);
        status.applied_at = Some(now.clone());
    }
    if ready {
        status.revision = read.number;
    }
    match read.pinned {
        Some(Pinned { revision, files }) => {
            let message = format!("revision {revision} is kept; {files}");
            let (type_, reason, generation) = (PINNED, SourceReason::Pinned.as_str(), status.observed_generation);
            condition::set(&mut status.conditions, type_, ConditionStatus::True, reason, message, generation, now);
        }
        None => condition::clear(&mut status.conditions, PINNED),
    }
    status.directory_identity = read.directory_identity;
    status.files = u32::try_from(read.files).unwrap_or(u32::MAX);
    status.objects = u32::try_from(read.objects).unwrap_or(u32::MAX);
    status.inventory = read.inventory;
    status.errors = bounded(read.errors);
    if read.pruning > 0 {
        let (type_, reason) = (RECONCILING, SourceReason::Pruning.as_str());
        let message = format!("{} objects are being deleted", read.pruning);
        let generation = status.observed_generation;
        condition::set(&mut status.conditions, type_, ConditionStatus::True, reason, message, generation, now);
    } else {
        condition::clear(&mut status.conditions, RECONCILING);
    }
}

fn bounded(mut errors: Vec<FileError>) -> Vec<FileError> {
    let more = errors.len().saturating_sub(MOST_ERRORS);
    if more > 0 {
        errors.truncate(MOST_ERRORS);
        errors.push(FileError { file: ".".to_owned(), line: None, message: format!("and {more} more errors") });
    }
    errors
}

/// `stack/core.yaml:12: what is wrong`
pub fn describe(error: &FileError) -> String {
    match error.line {
        Some(line) => format!("{}:{line}: {}", error.file, error.message),
        None => format!("{}: {}", error.file, error.message),
    }
}
