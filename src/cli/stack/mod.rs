//! `gaia status`, `gaia live`, `gaia candidate`, `gaia swap`: the services of the host as one stack, as `gaia.sh` speaks of them.

mod running;
pub mod services;
pub mod status;
mod swap;

use std::io::Write;

use clap::{Args, Subcommand};

use super::{
    Outcome,
    print::{self, Format},
    session::{ServerArgs, Session},
};
use crate::api::workload::{Variant, Workload};

pub use swap::SwapArgs;

/// Of one variant of all workloads, or of some.
#[derive(Debug, Subcommand)]
pub enum StackCommand {
    /// Start, and wait until all are healthy
    Start(StackArgs),
    /// Stop, and wait until all have stopped
    Stop(StackArgs),
    /// One line a service
    Status(StackStatusArgs),
}

#[derive(Debug, Args)]
pub struct StackArgs {
    /// Only these, `gaia-core` or `core`; absent: all that have the variant
    #[arg(value_name = "WORKLOAD")]
    names: Vec<String>,
    /// Only workloads with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Give up waiting after so many seconds; what was begun goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Do not wait
    #[arg(long)]
    no_wait: bool,
    /// On Ctrl-C, set back what was changed
    #[arg(long, conflicts_with = "no_wait")]
    cancel_on_interrupt: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct StackStatusArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct Common {
    /// Namespace of the workloads
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(variant: Variant, command: StackCommand, out: &mut dyn Write) -> Outcome {
    match command {
        StackCommand::Start(args) => running::run(variant, true, args, out).await,
        StackCommand::Stop(args) => running::run(variant, false, args, out).await,
        StackCommand::Status(args) => {
            let session = Session::connect(&args.common.server)?;
            let workloads: Vec<Workload> = session.list(Some(&args.common.namespace), None).await?;
            let text = || status::stack(&workloads, variant, status::in_color());
            print::result(out, args.common.output, &print::list(&workloads), text)?;
            Ok(u8::from(!status::all_there(&workloads, variant)))
        }
    }
}

pub async fn swap(args: SwapArgs, out: &mut dyn Write) -> Outcome {
    swap::run(args, out).await
}
