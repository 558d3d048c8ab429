//! `gaia rollback` and `gaia history`: back to what was before. After a promotion that is the variant that answered before, by
//! another Promotion; after a change of a template it is the earlier template, out of the WorkloadHistory.

mod choose;
pub mod history;
mod restore;

use std::io::Write;

use clap::Args;
use kube::ResourceExt;

use self::choose::{Seen, Undo};
use super::{
    CliError, Outcome, objects,
    print::Format,
    promote::Flight,
    session::{ServerArgs, Session},
    stack::services,
};
use crate::api::{
    promotion::{Gates, Promotion, PromotionSpec},
    workload::{Variant, Workload},
    workloadhistory::WorkloadHistory,
};

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The workload, `gaia-mcp` or `mcp`. Without --to and --variant, what was last is undone: a promotion, or a change of a
    /// template
    workload: String,
    /// Back to this revision of the template, as `gaia history` numbers them
    #[arg(long, value_name = "REVISION")]
    to: Option<i64>,
    /// Whose template: of `live` or `candidate`; with --to alone, of the one that answers
    #[arg(long, value_parser = variant, value_name = "VARIANT")]
    variant: Option<Variant>,
    /// Seconds until it must be back; what was begun goes on, but for a promotion, which then undoes itself
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u32,
    /// Begin it and do not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// On Ctrl-C, undo what was begun
    #[arg(long, conflicts_with = "no_wait")]
    cancel_on_interrupt: bool,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// For clap.
fn variant(word: &str) -> Result<Variant, String> {
    let known = Variant::ALL.into_iter().find(|variant| variant.as_str() == word);
    known.ok_or_else(|| "it is live or candidate".to_owned())
}

pub async fn run(args: RollbackArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let seen = look(&session, &args.namespace, &args.workload).await?;
    match choose::undo(&seen, args.variant, args.to)? {
        Undo::Promotion { name, to } => {
            eprintln!("{} is undone: {} is to answer again", objects::label::<Promotion>(&name), to.as_str());
            let gates = Gates { min_ready_seconds: 0, timeout_seconds: args.timeout.max(1), ..Gates::default() };
            let workload = seen.workload.name_any();
            let spec = PromotionSpec { workload, to: Some(to), gates, ..PromotionSpec::default() };
            let flight = Flight {
                session: &session,
                namespace: &args.namespace,
                no_wait: args.no_wait,
                cancel_on_interrupt: args.cancel_on_interrupt,
                output: args.output,
            };
            flight.carry_out(spec, out).await
        }
        Undo::Template { variant, present, wanted } => {
            let change = restore::Change { workload: &seen.workload, variant, present: &present, wanted: &wanted };
            change.carry_out(&session, &args, out).await
        }
    }
}

/// All that bears on what was before.
async fn look(session: &Session, namespace: &str, name: &str) -> Result<Seen, CliError> {
    let all: Vec<Workload> = session.list(Some(namespace), None).await?;
    let Some(workload) = services::named(&all, name).cloned() else {
        return Err(CliError::Failed(format!("there is no {}", objects::label::<Workload>(name))));
    };
    let history = match session.get::<WorkloadHistory>(Some(namespace), &workload.name_any()).await {
        Err(CliError::Server { source, .. }) if source.is_not_found() => None,
        found => Some(found?),
    };
    let mut promotions: Vec<Promotion> = session.list(Some(namespace), None).await?;
    promotions.retain(|promotion| promotion.spec.workload == workload.name_any());
    Ok(Seen { workload, history, promotions })
}
