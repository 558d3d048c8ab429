//! `gaia gpu`: who holds the cards and who waits for them; claiming one, and giving it back.

mod acquire;
mod release;
mod render;

use std::io::Write;

use clap::{Args, Subcommand};
use futures::{StreamExt, stream::BoxStream};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};

use super::{
    CliError, Outcome,
    follow::{End, INTERRUPTED, follow},
    objects,
    print::{self, Format},
    session::{ServerArgs, Session},
    view::View,
};
use crate::api::{
    gpu::Gpu,
    gpuclaim::{GpuClaim, GpuClaimStatus},
};

#[derive(Debug, Subcommand)]
pub enum GpuCommand {
    /// The cards: holder, memory, load, and how old the reading is
    Status(CardsArgs),
    /// Who is on the cards: leases, processes with their containers, and the queue
    Who(CardsArgs),
    /// Claim a card and wait until it is granted
    Acquire(acquire::AcquireArgs),
    /// Wait until a claim that was made before is granted
    Wait(acquire::WaitArgs),
    /// Give a card back
    Release(release::ReleaseArgs),
}

#[derive(Debug, Args)]
pub struct CardsArgs {
    /// Only these cards
    #[arg(value_name = "GPU")]
    names: Vec<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct Common {
    /// Namespace of the claim
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    #[command(flatten)]
    pub server: ServerArgs,
}

pub async fn run(command: GpuCommand, out: &mut dyn Write) -> Outcome {
    match command {
        GpuCommand::Status(args) => cards(args, render::status, out).await,
        GpuCommand::Who(args) => cards(args, render::who, out).await,
        GpuCommand::Acquire(args) => acquire::run(args, out).await,
        GpuCommand::Wait(args) => acquire::wait(args, out).await,
        GpuCommand::Release(args) => release::run(args, out).await,
    }
}

async fn cards(args: CardsArgs, render: fn(&[Gpu], jiff::Timestamp) -> String, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let mut cards: Vec<Gpu> = session.list(None, None).await?;
    if !args.names.is_empty() {
        if let Some(missing) = args.names.iter().find(|name| !cards.iter().any(|card| card.name_any() == **name)) {
            return Err(CliError::Failed(format!("there is no Gpu {missing:?}")));
        }
        cards.retain(|card| args.names.contains(&card.name_any()));
    }
    print::result(out, args.output, &print::list(&cards), || render(&cards, jiff::Timestamp::now()))?;
    Ok(0)
}

/// As `gaia gpu status` shows them.
pub fn cards_table(cards: &[Gpu], now: jiff::Timestamp) -> String {
    render::status(cards, now)
}

fn label(name: &str) -> String {
    objects::label::<GpuClaim>(name)
}

type Watch = BoxStream<'static, watcher::Result<Option<GpuClaim>>>;

fn watch(session: &Session, namespace: &str, name: &str) -> Watch {
    watcher::watch_object(session.within::<GpuClaim>(namespace), name).default_backoff().boxed()
}

/// Follows a claim until `wanted` accepts its status, and shows how it gets there. A claim that is over counts as an end too.
async fn until(
    watch: &mut Watch,
    name: &str,
    limit: Option<std::time::Duration>,
    wanted: fn(&GpuClaimStatus) -> bool,
) -> Result<End<GpuClaim>, CliError> {
    let mut view = View::new();
    let end = follow(watch, limit, |claim: Option<GpuClaim>| {
        let Some(claim) = claim else { return Err(CliError::Failed(format!("{} was deleted", label(name)))) };
        let status = claim.status.clone().unwrap_or_default();
        let line = render::progress(&status);
        view.say(&line);
        view.now(0, &line);
        Ok((wanted(&status) || status.phase.is_terminal()).then_some(claim))
    })
    .await;
    view.finish();
    end
}

/// Somebody stopped waiting: what goes on without them, and how to get back to it.
fn left(name: &str, namespace: &str) -> u8 {
    let within = match namespace {
        "default" => String::new(),
        other => format!(" -n {other}"),
    };
    eprintln!("{} stays. Wait for it: gaia gpu wait {name}{within}", label(name));
    eprintln!("Take it back: gaia gpu release {name}{within}");
    INTERRUPTED
}
