//! The command line. `serve` and `demo` start a server in this process, `plan` asks the controllers what they would do;
//! every other command is a client of the HTTP API and knows nothing that another client could not know.
//!
//! Exit codes: 0 done; 1 it failed; 2 the command line or a setting is wrong. `diff` answers 1 for differences and 2 for
//! every failure, as diff(1) does.

mod completion;
mod crds;
mod error;
mod kubeconfig;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use error::CliError;

use crate::{config::DEFAULT_LISTEN, telemetry};

/// What a command answers: the exit code, or why it failed.
pub type Outcome = Result<u8, CliError>;

#[derive(Debug, Parser)]
#[command(
    name = "gaia",
    version = telemetry::VERSION,
    about = "Keeps GPU hosts in the state their owner declared",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or setting (diff: 0 same, 1 different, 2 failed).",
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a kubeconfig for this server
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print the CustomResourceDefinitions of all kinds
    Crds(crds::CrdsArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// Which server a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// URL of the server
    #[arg(long, env = "GAIA_SERVER", default_value_t = format!("http://{DEFAULT_LISTEN}"), value_name = "URL")]
    pub server: String,
    /// Bearer token, when the server asks for one
    #[arg(long, env = "GAIA_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
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
        Command::Kubeconfig(args) => kubeconfig::run(&args, out),
        Command::Crds(args) => crds::run(&args, out),
        Command::Completion(args) => completion::run(&args, Cli::command(), out),
    }
}
