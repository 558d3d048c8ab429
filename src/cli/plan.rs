//! `gaia plan`: the steps that would be taken if a directory of files were the desired state. Touches nothing, neither on
//! the server nor on this host.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{
    CliError, Outcome,
    catalogue::Catalogue,
    error::Refusal,
    get::{self, PickArgs},
    session::{ServerArgs, Session, block_on},
    target::Target,
};
use crate::{
    api::GROUP,
    app::plan::{self, Objects, Plan, Reality, Start},
};

/// With `--detailed-exitcode`: there are steps.
const STEPS: u8 = 2;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 planned, 1 it failed, or the files have errors; \
with --detailed-exitcode 2 when there are steps.")]
pub struct PlanArgs {
    /// Directory of desired files
    #[arg(short, long = "filename", value_name = "DIR")]
    file: PathBuf,
    /// Where the containers are looked up: this host's Docker, or what the server says of its own
    #[arg(long, value_enum, default_value_t)]
    reality: From,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Exit with 2 when there are steps
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum From {
    #[default]
    Docker,
    /// For a server on simulated containers
    Simulated,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

pub fn run(args: &PlanArgs, out: &mut dyn Write) -> Outcome {
    if !args.file.is_dir() {
        return Err(CliError::Usage(format!("--filename {}: not a directory", args.file.display())));
    }
    let start = block_on(start(args))?;
    let plan = plan::plan(start, &args.file)?;
    match args.output {
        Output::Text => out.write_all(text(&plan).as_bytes())?,
        Output::Json => {
            let json = serde_json::to_string_pretty(&plan).map_err(|e| CliError::Failed(e.to_string()))?;
            writeln!(out, "{json}")?;
        }
    }
    if !plan.errors.is_empty() {
        let message = format!("{}: what these say is not in the plan", plan.errors.join("\n"));
        return Err(CliError::Failed(message));
    }
    Ok(if args.detailed_exitcode && !plan.steps.is_empty() { STEPS } else { 0 })
}

/// The server's objects, if it answers, and the containers.
async fn start(args: &PlanArgs) -> Result<Start, CliError> {
    let session = Session::connect(&args.server)?;
    let objects = match Catalogue::fetch(&session).await {
        Ok(catalogue) => objects(&session, &catalogue).await?,
        Err(CliError::Server { source: Refusal::Unreachable { server, .. }, .. }) => {
            eprintln!("# no server at {server}: planned as if there were no objects");
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let reality = match args.reality {
        From::Simulated => Reality::as_told(&objects),
        From::Docker => {
            let wished = plan::images_of_files(&args.file).into_iter();
            plan::observe(plan::images(&objects).into_iter().chain(wished)).await?
        }
    };
    Ok(Start { objects, reality })
}

/// All objects of our kinds, and the namespaces they are in.
async fn objects(session: &Session, catalogue: &Catalogue) -> Result<Vec<Objects>, CliError> {
    let mut all = Vec::new();
    for kind in catalogue.listable().filter(|kind| kind.api.group == GROUP || kind.api.plural == "namespaces") {
        let target = Target { kind: kind.clone(), name: None };
        let found = get::fetch(session, &target, &PickArgs::default(), None).await?;
        let items = found.into_iter().map(|(_, object)| object).collect();
        all.push(Objects { group: kind.api.group.clone(), plural: kind.api.plural.clone(), items });
    }
    Ok(all)
}

fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for (number, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("{:>3}. {step}\n", number + 1));
    }
    if plan.steps.is_empty() {
        text.push_str("Nothing to do.\n");
    }
    if !plan.settled {
        text.push_str("It would go on like this: these are only the first steps.\n");
    }
    for line in &plan.not_ready {
        text.push_str(&format!("Would not be ready: {line}\n"));
    }
    text
}
