//! Where a Source's files come from, and what a pass takes from there. Pure.

use std::time::Duration;

use super::{
    files::Listing,
    git::Known,
    history::changes,
    load::LoadedFiles,
    status::{Outcome, Pinned, describe},
};
use crate::api::source::{GitSource, Source, SourceReason};

/// What is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    Directory(String),
    Git(Box<GitSource>, Duration),
}

impl Origin {
    pub fn of(source: &Source, interval: Duration) -> Self {
        match &source.spec.git {
            Some(git) => Origin::Git(Box::new(git.clone()), interval),
            None => Origin::Directory(source.spec.directory.clone().unwrap_or_default()),
        }
    }
}

/// What a pass applies.
pub struct Wanted {
    pub loaded: LoadedFiles,
    /// It is a revision, and not what the files say.
    pub pinned: Option<Pinned>,
}

/// Why nothing is known of the files.
pub fn unreadable(source: &Source, listing: &Listing, why: &str) -> Outcome {
    let directory = source.place();
    match &listing.git {
        None => Outcome::Unreadable { reason: SourceReason::DirectoryUnreadable, why: why.to_owned(), directory },
        Some(Known { commit: Some(commit), .. }) => {
            let why = format!("{why} in commit {}", commit.id);
            Outcome::Unreadable { reason: SourceReason::PathNotFound, why, directory }
        }
        Some(Known { failure: Some(failure), .. }) => {
            let why = format!("could not be fetched: {}", failure.message);
            Outcome::Unreadable { reason: failure.reason, why, directory }
        }
        Some(Known { commit: None, failure: None, .. }) => Outcome::Fetching,
    }
}

/// What the files would change in what is pinned.
pub fn difference(pinned: &LoadedFiles, listing: &Listing, files: &LoadedFiles) -> String {
    if let Err(why) = &listing.root {
        return format!("the files cannot be read: the directory {why}");
    }
    if let Some(error) = files.errors.first() {
        return format!("the files are not valid: {}", describe(error));
    }
    match changes(&pinned.documents, &files.documents).as_slice() {
        [] => "the files say the same".to_owned(),
        [first] => format!("the files say otherwise: {first}"),
        [first, rest @ ..] => format!("the files say otherwise: {first} (and {} more)", rest.len()),
    }
}
