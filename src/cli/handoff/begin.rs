//! Making a handoff, and staying with it.

use std::io::Write;

use clap::Args;
use kube::ResourceExt;

use super::{
    super::{
        CliError, Outcome,
        follow::End,
        holder, objects,
        print::{self, Format},
        session::Session,
    },
    Common, ask_to_cancel, ended, left, render, watch,
};
use crate::api::{
    gpu::{Gpu, Holder, HolderKind},
    handoff::{Handoff, HandoffSpec, HandoffType},
    workload::Variant,
};

#[derive(Debug, Args)]
pub struct BeginArgs {
    /// Name of the Gpu; the one that the giver holds if it is only one
    #[arg(long, value_name = "GPU")]
    gpu: Option<String>,
    /// Why, for people
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    reason: String,
    /// Roll back when the card has not changed hands after so many seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86400))]
    timeout: u32,
    /// Begin it and do not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// On Ctrl-C, cancel it and wait until the old holder is back
    #[arg(long, conflicts_with = "no_wait")]
    cancel_on_interrupt: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    /// Who gives the card: WORKLOAD, WORKLOAD:candidate, NAMESPACE/WORKLOAD, external:NAME; absent: whoever holds it
    #[arg(long, value_parser = holder::parse, value_name = "HOLDER")]
    from: Option<Holder>,
    /// Who gets the card; absent: nobody, it only comes free
    #[arg(long, value_parser = holder::parse, value_name = "HOLDER")]
    to: Option<Holder>,
    #[command(flatten)]
    begin: BeginArgs,
}

pub async fn direction(args: BeginArgs, from: &str, to: &str, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let cards: Vec<Gpu> = session.list(None, None).await?;
    let from = holder::live(from);
    let card = choose(&cards, args.gpu.as_deref(), Some(&from))?;
    // A card that nobody holds has nobody to let go of it; whether that still holds is for the controller to say.
    let from = (!is_free(card)).then_some(from);
    begin(&session, args, card.name_any(), from, Some(holder::live(to)), out).await
}

pub async fn start(args: StartArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.begin.common.server)?;
    let cards: Vec<Gpu> = session.list(None, None).await?;
    let card = choose(&cards, args.begin.gpu.as_deref(), args.from.as_ref())?;
    let from = args.from.or_else(|| card.status.as_ref()?.holder.clone());
    if from.is_none() && args.to.is_none() {
        return Err(CliError::Usage(format!("nobody holds {}: say with --to who shall", card.name_any())));
    }
    begin(&session, args.begin, card.name_any(), from, args.to, out).await
}

async fn begin(
    session: &Session,
    args: BeginArgs,
    gpu: String,
    from: Option<Holder>,
    to: Option<Holder>,
    out: &mut dyn Write,
) -> Outcome {
    let namespace = &args.common.namespace;
    let type_ = kind(from.as_ref(), to.as_ref());
    let spec = HandoffSpec { gpu, type_, from, to, reason: args.reason, timeout_seconds: args.timeout, cancel: false };
    let mut handoff = Handoff::new("", spec);
    handoff.metadata.name = None;
    handoff.metadata.generate_name = Some(prefix(type_).to_owned());
    let handoff = session.create(namespace, &handoff).await?;
    let name = render::name(&handoff).to_owned();
    if args.no_wait {
        let text = || format!("{} created\n", objects::label::<Handoff>(&name));
        print::result(out, args.common.output, &handoff, text)?;
        return Ok(0);
    }
    eprintln!("{} created; Ctrl-C leaves it running", objects::label::<Handoff>(&name));
    let mut watch = watch(session, &handoff);
    let mut end = ended(&mut watch, &name).await?;
    if end == End::Interrupted && args.cancel_on_interrupt {
        eprintln!("cancelling; Ctrl-C again leaves it alone");
        ask_to_cancel(session, namespace, &name).await?;
        end = ended(&mut watch, &name).await?;
    }
    match end {
        End::Came(handoff) => tell(&handoff, args.common.output, out),
        End::TimedOut | End::Interrupted => Ok(left(&name, namespace)),
    }
}

/// The end of a handoff: an object is printed whole even if it failed.
fn tell(handoff: &Handoff, format: Format, out: &mut dyn Write) -> Outcome {
    let conclusion = render::conclusion(handoff);
    if conclusion.is_ok() || format != Format::Text {
        print::result(out, format, handoff, || conclusion.as_deref().unwrap_or_default().to_owned())?;
    }
    conclusion.map(|_| 0)
}

/// The card that is meant: the one named, else the only one that the giver holds, else the only one.
fn choose<'a>(cards: &'a [Gpu], named: Option<&str>, from: Option<&Holder>) -> Result<&'a Gpu, CliError> {
    if let Some(name) = named {
        let found = cards.iter().find(|card| card.name_any() == name);
        return found.ok_or_else(|| CliError::Failed(format!("there is no Gpu {name:?}; there is {}", names(cards))));
    }
    if let [card] = cards {
        return Ok(card);
    }
    let held = |card: &&Gpu| from.is_some_and(|from| card.status.as_ref().is_some_and(|s| s.lease_of(from).is_some()));
    let mut held = cards.iter().filter(held);
    match (held.next(), held.next()) {
        (Some(card), None) => Ok(card),
        _ => Err(CliError::Usage(format!("say which card with --gpu: there is {}", names(cards)))),
    }
}

fn names(cards: &[Gpu]) -> String {
    match cards {
        [] => "none".to_owned(),
        cards => cards.iter().map(Gpu::name_any).collect::<Vec<_>>().join(", "),
    }
}

fn is_free(card: &Gpu) -> bool {
    card.status.as_ref().is_none_or(|status| status.leases.is_empty() && status.holder.is_none())
}

/// What GAIA calls such a handoff. Of a card that nobody held, who gets it tells.
fn kind(from: Option<&Holder>, to: Option<&Holder>) -> HandoffType {
    let is = |holder: &Holder, name: &str| *holder == holder::live(name);
    match (from, to) {
        (Some(from), Some(to)) if variants_of_one(from, to) => match to.variant {
            Variant::Candidate => HandoffType::LiveToCandidate,
            Variant::Live => HandoffType::CandidateToLive,
        },
        (from, Some(to)) if is(to, "gaia-study") && from.is_none_or(|from| is(from, "gaia-prime")) => {
            HandoffType::PrimeToStudy
        }
        (from, Some(to)) if is(to, "gaia-prime") && from.is_none_or(|from| is(from, "gaia-study")) => {
            HandoffType::StudyToPrime
        }
        (_, Some(_) | None) => HandoffType::Transfer,
    }
}

fn variants_of_one(a: &Holder, b: &Holder) -> bool {
    let workload = |holder: &Holder| holder.kind == HolderKind::Workload;
    workload(a) && workload(b) && (&a.namespace, &a.name) == (&b.namespace, &b.name) && a.variant != b.variant
}

fn prefix(type_: HandoffType) -> &'static str {
    match type_ {
        HandoffType::Transfer => "handoff-",
        HandoffType::PrimeToStudy => "prime-to-study-",
        HandoffType::StudyToPrime => "study-to-prime-",
        HandoffType::LiveToCandidate => "live-to-candidate-",
        HandoffType::CandidateToLive => "candidate-to-live-",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn card(name: &str, holder: Option<&str>) -> Gpu {
        let leases: Vec<_> = holder
            .into_iter()
            .map(|name| json!({"holder": {"name": name}, "leaseId": "1", "fencingToken": 1}))
            .collect();
        let object =
            json!({"metadata": {"name": name}, "spec": {"device": {"index": 0}}, "status": {"leases": leases}});
        serde_json::from_value(object).expect("a Gpu")
    }

    fn chosen(cards: &[Gpu], named: Option<&str>, from: Option<&str>) -> Result<String, u8> {
        let from = from.map(holder::live);
        choose(cards, named, from.as_ref()).map(Gpu::name_any).map_err(|e| e.exit_code())
    }

    #[test]
    fn the_card_is_named_or_clear() {
        let two = [card("gpu0", Some("gaia-prime")), card("gpu1", None)];
        assert_eq!(chosen(&two, Some("gpu1"), Some("gaia-prime")), Ok("gpu1".to_owned()));
        assert_eq!(chosen(&two, None, Some("gaia-prime")), Ok("gpu0".to_owned()));
        assert_eq!(chosen(&two, None, Some("gaia-study")), Err(2));
        assert_eq!(chosen(&two, None, None), Err(2));
        assert_eq!(chosen(&two, Some("gpu7"), None), Err(1));
        assert_eq!(chosen(&two[1..], None, Some("gaia-study")), Ok("gpu1".to_owned()));
        assert_eq!(chosen(&[], None, None), Err(2));
        assert!(is_free(&two[1]) && !is_free(&two[0]));
    }

    #[rstest]
    #[case(Some("gaia-prime"), Some("gaia-study"), HandoffType::PrimeToStudy)]
    #[case(None, Some("gaia-study"), HandoffType::PrimeToStudy)]
    #[case(Some("gaia-study"), Some("gaia-prime"), HandoffType::StudyToPrime)]
    #[case(Some("gaia-prime"), Some("gaia-prime:candidate"), HandoffType::LiveToCandidate)]
    #[case(Some("gaia-prime:candidate"), Some("gaia-prime"), HandoffType::CandidateToLive)]
    #[case(Some("gaia-prime"), Some("gaia-study:candidate"), HandoffType::Transfer)]
    #[case(Some("gaia-prime"), None, HandoffType::Transfer)]
    #[case(Some("gaia-prime"), Some("external:gaia-audio"), HandoffType::Transfer)]
    #[case(Some("external:gaia-prime"), Some("gaia-study"), HandoffType::Transfer)]
    fn handoffs_have_the_names_of_gaia(
        #[case] from: Option<&str>,
        #[case] to: Option<&str>,
        #[case] expected: HandoffType,
    ) {
        let [from, to] = [from, to].map(|word| word.map(|word| holder::parse(word).expect(word)));
        assert_eq!(kind(from.as_ref(), to.as_ref()), expected);
    }
}
