//! `gaia completion SHELL`.

use std::io::Write;

use clap::Args;
use clap_complete::{Shell, generate};

use super::Outcome;

#[derive(Debug, Args)]
#[command(after_help = "Example: source <(gaia completion bash)")]
pub struct CompletionArgs {
    shell: Shell,
}

pub fn run(args: &CompletionArgs, mut command: clap::Command, out: &mut dyn Write) -> Outcome {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "gaia", &mut script);
    out.write_all(&script)?;
    Ok(0)
}
