//! Desired files on a real disk, edited while the syncer runs over a registry in memory.

mod broken;
mod crash;
mod drift;
mod edits;
mod examples;
mod git;
#[path = "../support/gitserver.rs"]
mod gitserver;
mod large;
#[path = "../support/port.rs"]
mod port;
mod prune;
mod remote;
mod revisions;
#[path = "../support/sshd.rs"]
mod sshd;
mod two_sources;
mod world;
