//! The command line. `serve` and `demo` start a server in this process, `plan` asks the controllers what they would do;
//! every other command is a client of the HTTP API and knows nothing that another client could not know.
//!
//! Exit codes: 0 done; 1 it failed; 2 the command line or a setting is wrong; 130 interrupted while waiting, and what was
//! begun goes on. `diff` answers 1 for differences and 2 for every failure, as diff(1) does.

mod apply;
mod backup;
mod catalogue;
mod completion;
mod crds;
mod delete;
mod demo;
mod describe;
mod diff;
mod droplet;
mod error;
mod follow;
mod get;
mod gpu;
mod handoff;
mod health;
mod holder;
mod import;
mod kubeconfig;
mod manifest;
mod objects;
mod plan;
mod print;
mod promote;
mod rollback;
mod serve;
mod session;
mod signals;
mod source;
mod stack;
mod table;
mod target;
mod task;
mod view;
mod watch;
mod worker;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

pub use error::CliError;
use session::block_on;

use crate::{api::workload::Variant, telemetry};

/// Under which name our client commands write.
pub const FIELD_MANAGER: &str = "gaia-cli";

/// What a command answers: the exit code, or why it failed.
pub type Outcome = Result<u8, CliError>;

#[derive(Debug, Parser)]
#[command(
    name = "gaia",
    version = telemetry::VERSION,
    about = "Keeps GPU hosts in the state their owner declared",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or setting, 130 interrupted while waiting \
(diff: 0 same, 1 different, 2 failed).",
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::ServeArgs),
    /// Run a server on simulated containers, with example files
    Demo(demo::DemoArgs),
    /// The whole host on one screen: cards, handoffs, services
    Status(stack::status::StatusArgs),
    /// Cards: who holds them, claim one, give it back
    #[command(subcommand)]
    Gpu(gpu::GpuCommand),
    /// Let a card go from one holder to another
    #[command(subcommand)]
    Handoff(handoff::HandoffCommand),
    /// Documents for MLOC's workers: submit, list, show, cancel, results
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// FPAI's droplets: list them, call one, history of calls
    #[command(subcommand)]
    Droplet(droplet::DropletCommand),
    /// Take tasks from a server and run them
    Worker(worker::WorkerArgs),
    /// The live variant of the services: start, stop, status
    #[command(subcommand)]
    Live(stack::StackCommand),
    /// The candidate variant of the services: start, stop, status
    #[command(subcommand)]
    Candidate(stack::StackCommand),
    /// Let the other variant of a service answer under its name
    Swap(stack::SwapArgs),
    /// Put the candidate of a service in the place of live, if it proves itself
    Promote(promote::PromoteArgs),
    /// Undo what was last for a service: a promotion, or a change of its template
    Rollback(rollback::RollbackArgs),
    /// What a service was made from before, and its promotions
    History(rollback::history::HistoryArgs),
    /// Where desired state comes from: earlier revisions, back to one, on again, read it now
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Show objects: as a table, or whole
    Get(get::GetArgs),
    /// Show all about objects: spec, status, conditions, events
    Describe(describe::DescribeArgs),
    /// Follow objects, one line a change
    Watch(watch::WatchArgs),
    /// Make objects as manifests say (server-side apply)
    Apply(apply::ApplyArgs),
    /// Show what an apply would change
    Diff(diff::DiffArgs),
    /// Delete objects
    Delete(delete::DeleteArgs),
    /// Make desired files from what describes a host already
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Show what the controllers would do for a directory of files, and do nothing
    Plan(plan::PlanArgs),
    /// Save every object to a file, from a running server or a stopped one's data directory
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup
    Restore(backup::RestoreArgs),
    /// Make a damaged data directory usable again, and keep what was damaged
    Recover(backup::RecoverArgs),
    /// Ask whether a server is ready; the exit code is the answer
    Health(health::HealthArgs),
    /// Print a kubeconfig for this server
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print the CustomResourceDefinitions of all kinds
    Crds(crds::CrdsArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// The whole program: parses the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout();
    match run(cli, &mut out).and_then(|code| out.flush().map(|()| code).map_err(CliError::from)) {
        Ok(code) => ExitCode::from(code),
        // Who reads our output has seen enough: `gaia get … | head`.
        Err(CliError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", e.report());
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(cli: Cli, out: &mut dyn Write) -> Outcome {
    match cli.command {
        Command::Serve(args) => serve::run(args, out),
        Command::Demo(args) => demo::run(&args, out),
        Command::Plan(args) => plan::run(&args, out),
        Command::Import(command) => import::run(&command, out),
        Command::Status(args) => block_on(stack::status::run(args, out)),
        Command::Gpu(command) => block_on(gpu::run(command, out)),
        Command::Handoff(command) => block_on(handoff::run(command, out)),
        Command::Task(command) => block_on(task::run(command, out)),
        Command::Droplet(command) => block_on(droplet::run(command, out)),
        Command::Worker(args) => worker::run(&args, out),
        Command::Live(command) => block_on(stack::run(Variant::Live, command, out)),
        Command::Candidate(command) => block_on(stack::run(Variant::Candidate, command, out)),
        Command::Swap(args) => block_on(stack::swap(args, out)),
        Command::Promote(args) => block_on(promote::run(args, out)),
        Command::Rollback(args) => block_on(rollback::run(args, out)),
        Command::History(args) => block_on(rollback::history::run(args, out)),
        Command::Source(command) => block_on(source::run(command, out)),
        Command::Get(args) => block_on(get::run(args, out)),
        Command::Describe(args) => block_on(describe::run(args, out)),
        Command::Watch(args) => block_on(watch::run(args, out)),
        Command::Apply(args) => block_on(apply::run(args, out)),
        Command::Diff(args) => block_on(diff::run(args, out)).map_err(CliError::of_diff),
        Command::Delete(args) => block_on(delete::run(args, out)),
        Command::Backup(args) => backup::run(&args, out),
        Command::Restore(args) => backup::restore(&args, out),
        Command::Recover(args) => backup::recover(&args, out),
        Command::Health(args) => block_on(health::run(args, out)),
        Command::Kubeconfig(args) => kubeconfig::run(&args, out),
        Command::Crds(args) => crds::run(&args, out),
        Command::Completion(args) => completion::run(&args, Cli::command(), out),
    }
}
