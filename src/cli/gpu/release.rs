//! Giving a card back: the claim it was granted to is released, and followed until that is done.

use std::io::Write;

use clap::Args;
use kube::ResourceExt;
use serde_json::json;

use super::{
    super::{CliError, Outcome, follow::End, holder, print, session::Session},
    Common, label, left, until, watch,
};
use crate::api::{
    gpu::{Gpu, GpuStatus},
    gpuclaim::GpuClaim,
};

#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Name of the GpuClaim; absent: the one that holds the card
    claim: Option<String>,
    /// The card, when there are several and no claim is named
    #[arg(long, value_name = "GPU", conflicts_with = "claim")]
    gpu: Option<String>,
    /// Do not wait until the lease has ended
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    common: Common,
}

pub async fn run(args: ReleaseArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let (namespace, name) = match &args.claim {
        Some(claim) => (args.common.namespace.clone(), claim.clone()),
        None => {
            let cards: Vec<Gpu> = session.list(None, None).await?;
            let card = card(&cards, args.gpu.as_deref())?;
            match holding(&card.name_any(), &card.status.clone().unwrap_or_default())? {
                Some(claim) => claim,
                None => {
                    let text = || format!("{} is free\n", card.name_any());
                    print::result(out, args.common.output, card, text)?;
                    return Ok(0);
                }
            }
        }
    };
    let claim: GpuClaim = session.merge(Some(&namespace), &name, json!({"spec": {"release": true}})).await?;
    if args.no_wait {
        print::result(out, args.common.output, &claim, || format!("{} is asked to end\n", label(&name)))?;
        return Ok(0);
    }
    let mut watch = watch(&session, &namespace, &name);
    match until(&mut watch, &name, None, |_| false).await? {
        End::Came(claim) => {
            let phase = claim.status.as_ref().map(|status| status.phase).unwrap_or_default();
            print::result(out, args.common.output, &claim, || format!("{} is {phase:?}\n", label(&name)))?;
            Ok(0)
        }
        End::TimedOut | End::Interrupted => Ok(left(&name, &namespace)),
    }
}

fn card<'a>(cards: &'a [Gpu], named: Option<&str>) -> Result<&'a Gpu, CliError> {
    match (named, cards) {
        (Some(name), cards) => cards
            .iter()
            .find(|card| card.name_any() == name)
            .ok_or_else(|| CliError::Failed(format!("there is no Gpu {name:?}"))),
        (None, [card]) => Ok(card),
        (None, []) => Err(CliError::Failed("there is no Gpu".to_owned())),
        (None, _) => Err(CliError::Usage("there are several cards: name a claim, or the card with --gpu".to_owned())),
    }
}

/// Namespace and name of the one claim that holds the card; none when nobody does.
fn holding(card: &str, status: &GpuStatus) -> Result<Option<(String, String)>, CliError> {
    let claims: Vec<&String> = status.leases.iter().filter_map(|lease| lease.claim.as_ref()).collect();
    match (claims.as_slice(), &status.holder) {
        ([claim], _) => {
            let (namespace, name) = claim.split_once('/').unwrap_or(("default", claim));
            Ok(Some((namespace.to_owned(), name.to_owned())))
        }
        ([], None) => Ok(None),
        ([], Some(holder)) => Err(CliError::Failed(format!(
            "{card} is held by {holder} without a claim that could be released; hand it over: gaia handoff start --gpu \
             {card} --from {} --to HOLDER",
            holder::word(holder)
        ))),
        (several, _) => {
            let names: Vec<_> = several.iter().map(|name| name.as_str()).collect();
            Err(CliError::Usage(format!("{card} is shared by {}: name one", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn leases(leases: Value) -> GpuStatus {
        let mut status = GpuStatus::default();
        status.set_leases(serde_json::from_value(leases).expect("leases"));
        status
    }

    fn lease(claim: Option<&str>) -> Value {
        let mut lease = json!({"holder": {"name": "gaia-prime"}, "leaseId": "1", "fencingToken": 1});
        if let Some(claim) = claim {
            lease["claim"] = claim.into();
        }
        lease
    }

    #[test]
    fn only_a_claim_can_be_released() {
        let found = |value| holding("gpu0", &leases(value));
        assert_eq!(found(json!([])).expect("free"), None);
        let one = found(json!([lease(Some("lab/a"))])).expect("a claim");
        assert_eq!(one, Some(("lab".to_owned(), "a".to_owned())));
        let owner = found(json!([lease(None)])).expect_err("the owner's");
        assert!(owner.report().contains("--from gaia-prime"), "{}", owner.report());
        assert_eq!(owner.exit_code(), 1);
        let shared = found(json!([lease(Some("lab/a")), lease(Some("lab/b"))])).expect_err("two");
        assert_eq!((shared.exit_code(), shared.report()), (2, "gpu0 is shared by lab/a, lab/b: name one".to_owned()));
    }
}
