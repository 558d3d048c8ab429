//! Claiming a card: a GpuClaim is made, and followed through the queue.

use std::{collections::BTreeMap, io::Write, time::Duration};

use clap::Args;
use kube::ResourceExt;
use serde_json::json;

use super::{
    super::{
        CliError, Outcome,
        follow::End,
        holder,
        print::{self, Format},
        session::Session,
    },
    Common, label, left, render, until, watch,
};
use crate::api::{
    gpu::Holder,
    gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimSpec, GpuClaimStatus, GpuSelector, Preemption},
};

/// The server ends a claim that waited too long; who waits for it leaves it so much longer to say so.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct AcquireArgs {
    /// Name of the Gpu
    #[arg(long, value_name = "GPU", conflicts_with = "selector")]
    gpu: Option<String>,
    /// Any card with these labels, `tier=large,vendor=x`
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Any card with so much memory, `12Gi`; with --shared: what is taken of the card
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<String>,
    /// So many cards, all or none
    #[arg(long, default_value_t = 1, value_name = "N")]
    count: u32,
    /// Together with others who share, as far as the memory goes
    #[arg(long, requires = "memory")]
    shared: bool,
    /// Who will hold it: WORKLOAD, WORKLOAD:candidate, external:NAME [default: external:$USER]
    #[arg(long, value_parser = holder::parse, value_name = "HOLDER")]
    holder: Option<Holder>,
    /// Why, for people
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    reason: String,
    /// Higher goes first
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    priority: i32,
    /// Take the card from a claim of lower priority
    #[arg(long)]
    preempt: bool,
    /// The lease ends after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    max_hold: Option<u32>,
    /// Leave the queue after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// Do not wait: queue, and say what came of it
    #[arg(long)]
    no_wait: bool,
    /// On Ctrl-C, take the claim back
    #[arg(long, conflicts_with = "no_wait")]
    cancel_on_interrupt: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Name of the GpuClaim
    claim: String,
    /// Give up waiting after so many seconds; the claim stays
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(args: AcquireArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let mut claim = GpuClaim::new("", spec(&args)?);
    claim.metadata.name = None;
    claim.metadata.generate_name = Some(format!("{}-", stem(&claim.spec.holder.name)));
    let (namespace, format) = (args.common.namespace.as_str(), args.common.output);
    let claim: GpuClaim = session.create(namespace, &claim).await?;
    let name = claim.name_any();
    let mut watch = watch(&session, namespace, &name);
    if args.no_wait {
        // What the controller says first is the answer: granted, or a place in the queue.
        return match until(&mut watch, &name, Some(GRACE), |status| status.observed_generation.is_some()).await? {
            End::Came(claim) => told(&claim, format, out),
            End::TimedOut | End::Interrupted => told(&claim, format, out),
        };
    }
    eprintln!("{} created; Ctrl-C leaves it in the queue", label(&name));
    let limit = args.timeout.map(|seconds| Duration::from_secs(seconds.into()) + GRACE);
    match until(&mut watch, &name, limit, granted).await? {
        End::Came(claim) => told(&claim, format, out),
        End::Interrupted if args.cancel_on_interrupt => {
            session.merge::<GpuClaim>(Some(namespace), &name, json!({"spec": {"release": true}})).await?;
            Err(CliError::Failed(format!("{} was taken back", label(&name))))
        }
        End::TimedOut => Err(CliError::Failed(format!(
            "{} waited longer than it was to, and nobody ended it: gaia gpu release {name}",
            label(&name)
        ))),
        End::Interrupted => Ok(left(&name, namespace)),
    }
}

pub async fn wait(args: WaitArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let namespace = &args.common.namespace;
    // A claim that is not there is told before anybody waits for it.
    session.get::<GpuClaim>(Some(namespace), &args.claim).await?;
    let mut watch = watch(&session, namespace, &args.claim);
    let limit = args.timeout.map(Duration::from_secs);
    match until(&mut watch, &args.claim, limit, granted).await? {
        End::Came(claim) => told(&claim, args.common.output, out),
        End::TimedOut => Err(CliError::Failed(format!(
            "{} is not granted after {} s; it stays in the queue",
            label(&args.claim),
            args.timeout.unwrap_or_default()
        ))),
        End::Interrupted => Ok(left(&args.claim, namespace)),
    }
}

fn granted(status: &GpuClaimStatus) -> bool {
    status.phase == GpuClaimPhase::Granted
}

/// What the claim came to. One that is over is a failure; one that waits is not, if nobody wanted to wait with it.
fn told(claim: &GpuClaim, format: Format, out: &mut dyn Write) -> Outcome {
    let conclusion = render::conclusion(claim);
    if conclusion.is_ok() || format != Format::Text {
        print::result(out, format, claim, || conclusion.as_deref().unwrap_or_default().to_owned())?;
    }
    conclusion.map(|_| 0)
}

fn spec(args: &AcquireArgs) -> Result<GpuClaimSpec, CliError> {
    let selector = args.selector.as_deref().map(labels).transpose()?;
    if args.gpu.is_none() && selector.is_none() && args.memory.is_none() && args.count < 2 {
        return Err(CliError::Usage("say which card: --gpu, --memory, --selector or --count".to_owned()));
    }
    Ok(GpuClaimSpec {
        gpu: args.gpu.clone(),
        selector,
        memory: args.memory.clone(),
        count: args.count,
        shared: args.shared,
        holder: args.holder.clone().unwrap_or_else(|| holder::external(&user())),
        reason: args.reason.clone(),
        priority: args.priority,
        preemption: if args.preempt { Preemption::LowerPriority } else { Preemption::Never },
        timeout_seconds: args.timeout,
        max_hold_seconds: args.max_hold,
        ..GpuClaimSpec::default()
    })
}

/// Equality only: a claim's selector knows nothing else.
fn labels(text: &str) -> Result<GpuSelector, CliError> {
    let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()));
    let match_labels: Option<BTreeMap<_, _>> = text.split(',').map(pair).collect();
    match match_labels {
        Some(match_labels) if !text.contains("!=") => Ok(GpuSelector { match_labels }),
        Some(_) | None => Err(CliError::Usage(format!("--selector {text:?} must be name=value pairs"))),
    }
}

fn user() -> String {
    std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "gaia-cli".to_owned())
}

/// A name that objects can begin with.
fn stem(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let stem: String = name.to_lowercase().chars().map(fits).take(40).collect();
    match stem.trim_matches('-') {
        "" => "claim".to_owned(),
        stem => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("gaia-study", "gaia-study")]
    #[case("Ann.Lee_7", "ann-lee-7")]
    #[case("___", "claim")]
    fn names_of_claims_are_names(#[case] holder: &str, #[case] expected: &str) {
        assert_eq!(stem(holder), expected);
    }

    #[test]
    fn a_selector_is_pairs() {
        let read = labels("a=1, b=2").expect("labels").match_labels;
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [("a".into(), "1".into()), ("b".into(), "2".into())]);
        for wrong in ["a", "a!=1", "a=1,,b=2"] {
            assert_eq!(labels(wrong).expect_err(wrong).exit_code(), 2);
        }
    }
}
