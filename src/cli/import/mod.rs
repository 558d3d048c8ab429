//! `gaia import`: desired state from what describes a host already.

mod compose;

use std::io::Write;

use clap::Subcommand;

use super::Outcome;

#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A Workload for each service of a Compose file
    Compose(compose::ComposeArgs),
}

pub fn run(command: &ImportCommand, out: &mut dyn Write) -> Outcome {
    match command {
        ImportCommand::Compose(args) => compose::run(args, out),
    }
}
