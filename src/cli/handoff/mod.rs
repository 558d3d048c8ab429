//! `gaia handoff`: a card goes from one holder to another, followed to its end; and what is known of those that ended.

mod begin;
pub mod render;
pub mod steps;

use std::io::Write;

use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

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
    handoff::{Handoff, HandoffPhase, HandoffStatus},
};

#[derive(Debug, Subcommand)]
pub enum HandoffCommand {
    /// gaia-prime lets go of the card, gaia-study takes it
    PrimeToStudy(begin::BeginArgs),
    /// gaia-study gives the card back to gaia-prime
    StudyToPrime(begin::BeginArgs),
    /// From any holder to any other
    Start(begin::StartArgs),
    /// Handoffs under way, and those that ended
    Status(StatusArgs),
    /// The flight record of one: steps with their times, processes, memory over time, rollback
    Show(ShowArgs),
    /// Stop one and put the old holder back
    Cancel(CancelArgs),
}

#[derive(Debug, Args)]
pub struct Common {
    /// Namespace of the handoffs
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this one
    name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name of the handoff
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Name of the handoff; the one under way if there is only one
    name: Option<String>,
    /// Do not wait until the old holder is back
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    common: Common,
}

pub async fn run(command: HandoffCommand, out: &mut dyn Write) -> Outcome {
    match command {
        HandoffCommand::PrimeToStudy(args) => begin::direction(args, "gaia-prime", "gaia-study", out).await,
        HandoffCommand::StudyToPrime(args) => begin::direction(args, "gaia-study", "gaia-prime", out).await,
        HandoffCommand::Start(args) => begin::start(args, out).await,
        HandoffCommand::Status(args) => status(args, out).await,
        HandoffCommand::Show(args) => show(args, out).await,
        HandoffCommand::Cancel(args) => cancel(args, out).await,
    }
}

async fn status(args: StatusArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let namespace = Some(args.common.namespace.as_str());
    let now = jiff::Timestamp::now();
    if let Some(name) = &args.name {
        let handoff: Handoff = session.get(namespace, name).await?;
        print::result(out, args.common.output, &handoff, || render::list(std::slice::from_ref(&handoff), now))?;
        return Ok(0);
    }
    let handoffs: Vec<Handoff> = session.list(namespace, None).await?;
    print::result(out, args.common.output, &print::list(&handoffs), || render::list(&handoffs, now))?;
    Ok(0)
}

async fn show(args: ShowArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let handoff: Handoff = session.get(Some(&args.common.namespace), &args.name).await?;
    print::result(out, args.common.output, &handoff, || render::record(&handoff))?;
    Ok(0)
}

async fn cancel(args: CancelArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let namespace = &args.common.namespace;
    let name = match args.name {
        Some(name) => name,
        None => the_one_under_way(&session.list(Some(namespace), None).await?)?,
    };
    let handoff = ask_to_cancel(&session, namespace, &name).await?;
    if args.no_wait {
        print::result(out, args.common.output, &handoff, || format!("{} is asked to stop\n", label(&name)))?;
        return Ok(0);
    }
    let mut watch = watch(&session, &handoff);
    match ended(&mut watch, &name).await? {
        End::Came(handoff) if render::status(&handoff).phase == HandoffPhase::Cancelled => {
            let text = || match render::conclusion(&handoff) {
                Ok(text) => text,
                Err(told) => format!("{}\n", told.report()),
            };
            print::result(out, args.common.output, &handoff, text)?;
            Ok(0)
        }
        End::Came(handoff) => {
            let phase = render::status(&handoff).phase;
            Err(CliError::Failed(format!("{} was not cancelled: it is {phase:?}", label(&name))))
        }
        End::TimedOut | End::Interrupted => Ok(left(&name, namespace)),
    }
}

fn the_one_under_way(handoffs: &[Handoff]) -> Result<String, CliError> {
    let mut running = handoffs.iter().filter(|handoff| !render::status(handoff).phase.is_terminal()).map(render::name);
    match (running.next(), running.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (None, _) => Err(CliError::Failed("no handoff is under way".to_owned())),
        (Some(one), Some(other)) => {
            Err(CliError::Usage(format!("several handoffs are under way ({one}, {other}, …): name one")))
        }
    }
}

async fn ask_to_cancel(session: &Session, namespace: &str, name: &str) -> Result<Handoff, CliError> {
    session.merge(Some(namespace), name, json!({"spec": {"cancel": true}})).await
}

fn label(name: &str) -> String {
    objects::label::<Handoff>(name)
}

/// Somebody stopped waiting: what goes on without them, and how to get back to it.
fn left(name: &str, namespace: &str) -> u8 {
    let within = match namespace {
        "default" => String::new(),
        other => format!(" -n {other}"),
    };
    eprintln!("{} goes on. Look: gaia handoff show {name}{within}", label(name));
    eprintln!("Stop it and go back: gaia handoff cancel {name}{within}");
    INTERRUPTED
}

/// The handoff, and the card it is about.
enum News {
    Handoff(Box<Option<Handoff>>),
    Card(Box<Option<Gpu>>),
}

type Watch = BoxStream<'static, watcher::Result<News>>;

fn watch(session: &Session, handoff: &Handoff) -> Watch {
    let namespace = handoff.metadata.namespace.as_deref().unwrap_or("default");
    let handoffs = watcher::watch_object(session.within::<Handoff>(namespace), render::name(handoff));
    let cards = watcher::watch_object(session.all::<Gpu>(), &handoff.spec.gpu);
    let handoffs = handoffs.default_backoff().map_ok(|handoff| News::Handoff(Box::new(handoff)));
    let cards = cards.default_backoff().map_ok(|card| News::Card(Box::new(card)));
    futures::stream::select(handoffs, cards).boxed()
}

/// Follows a handoff until it has ended, and shows how it goes.
async fn ended(watch: &mut Watch, name: &str) -> Result<End<Handoff>, CliError> {
    let mut view = View::new();
    let mut card = None;
    let mut seen: Option<HandoffStatus> = None;
    let end = follow(watch, None, |news| {
        let mut end = None;
        match news {
            News::Card(now) => card = *now,
            News::Handoff(now) => {
                let Some(now) = *now else { return gone(name) };
                let status = render::status(&now);
                let before = seen.clone().unwrap_or_default();
                for line in render::news(&before, &status, seen.is_none()) {
                    view.say(&line);
                }
                end = status.phase.is_terminal().then_some(now);
                seen = Some(status);
            }
        }
        if let Some(status) = &seen {
            view.now(status.progress_pct, &render::now(status, card.as_ref()));
        }
        Ok(end)
    })
    .await;
    view.finish();
    end
}

fn gone<T>(name: &str) -> Result<Option<T>, CliError> {
    Err(CliError::Failed(format!("{} was deleted", label(name))))
}
