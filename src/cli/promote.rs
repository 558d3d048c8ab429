//! `gaia promote`: the candidate of a workload answers in the place of live, if it proves itself; followed to its end.

use std::io::Write;

use clap::Args;
use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{
    CliError, Outcome,
    follow::{End, INTERRUPTED, follow},
    handoff::steps,
    objects,
    print::{self, Format},
    session::{ServerArgs, Session},
    view::View,
};
use crate::api::{
    promotion::{GateCommand, Gates, OnFailure, Promotion, PromotionPhase, PromotionSpec, PromotionStatus},
    workload::Variant,
};

#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The workload
    workload: String,
    /// Seconds that the candidate must have run, and stayed ready
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    min_ready: u32,
    /// A command that must succeed in the candidate's container, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Seconds for the command
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "command")]
    command_timeout: u32,
    /// Seconds for all gates together; after that live comes back
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u32,
    /// When it fails, leave everything as it is at that moment
    #[arg(long)]
    hold: bool,
    /// Begin it and do not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// On Ctrl-C, cancel it and wait until live is back
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

pub async fn run(args: PromoteArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let flight = Flight {
        session: &session,
        namespace: &args.namespace,
        no_wait: args.no_wait,
        cancel_on_interrupt: args.cancel_on_interrupt,
        output: args.output,
    };
    flight.carry_out(spec(&args), out).await
}

/// How a Promotion is made and followed.
pub struct Flight<'a> {
    pub session: &'a Session,
    pub namespace: &'a str,
    pub no_wait: bool,
    pub cancel_on_interrupt: bool,
    pub output: Format,
}

impl Flight<'_> {
    pub async fn carry_out(&self, spec: PromotionSpec, out: &mut dyn Write) -> Outcome {
        let (session, namespace) = (self.session, self.namespace);
        let mut promotion = Promotion::new("", spec);
        promotion.metadata.name = None;
        promotion.metadata.generate_name = Some(format!("{}-", promotion.spec.workload));
        let promotion: Promotion = session.create(namespace, &promotion).await?;
        let name = promotion.name_any();
        if self.no_wait {
            print::result(out, self.output, &promotion, || format!("{} created\n", label(&name)))?;
            return Ok(0);
        }
        eprintln!("{} created; Ctrl-C leaves it running", label(&name));
        let mut watch = watcher::watch_object(session.within::<Promotion>(namespace), &name).default_backoff().boxed();
        let mut end = ended(&mut watch, &name).await?;
        if end == End::Interrupted && self.cancel_on_interrupt {
            eprintln!("cancelling; Ctrl-C again leaves it alone");
            session.merge::<Promotion>(Some(namespace), &name, json!({"spec": {"cancel": true}})).await?;
            end = ended(&mut watch, &name).await?;
        }
        match end {
            End::Came(promotion) => {
                let conclusion = conclusion(&promotion);
                if conclusion.is_ok() || self.output != Format::Text {
                    let text = || conclusion.as_deref().unwrap_or_default().to_owned();
                    print::result(out, self.output, &promotion, text)?;
                }
                conclusion.map(|_| 0)
            }
            End::TimedOut | End::Interrupted => {
                eprintln!("{} goes on. Look: gaia describe promotion {name} -n {namespace}", label(&name));
                eprintln!(
                    "Stop it, and put everything back: kubectl patch promotion {name} -n {namespace} --type=merge -p \
                     '{{\"spec\":{{\"cancel\":true}}}}'"
                );
                Ok(INTERRUPTED)
            }
        }
    }
}

fn spec(args: &PromoteArgs) -> PromotionSpec {
    let command = (!args.command.is_empty())
        .then(|| GateCommand { command: args.command.clone(), timeout_seconds: args.command_timeout });
    PromotionSpec {
        workload: args.workload.clone(),
        gates: Gates { min_ready_seconds: args.min_ready, command, timeout_seconds: args.timeout, ..Gates::default() },
        on_failure: if args.hold { OnFailure::Hold } else { OnFailure::Rollback },
        ..PromotionSpec::default()
    }
}

fn label(name: &str) -> String {
    objects::label::<Promotion>(name)
}

async fn ended(
    watch: &mut (impl futures::Stream<Item = watcher::Result<Option<Promotion>>> + Unpin),
    name: &str,
) -> Result<End<Promotion>, CliError> {
    let mut view = View::new();
    let mut seen: Option<PromotionStatus> = None;
    let end = follow(watch, None, |promotion: Option<Promotion>| {
        let Some(promotion) = promotion else { return Err(CliError::Failed(format!("{} was deleted", label(name)))) };
        let status = promotion.status.clone().unwrap_or_default();
        for line in news(seen.as_ref(), &status) {
            view.say(&line);
        }
        let step = steps::running(&status.steps).map(|step| format!(" · {step}")).unwrap_or_default();
        view.now(pct(status.phase), &format!("{:?}{step}", status.phase));
        let over = status.phase.is_terminal();
        seen = Some(status);
        Ok(over.then_some(promotion))
    })
    .await;
    view.finish();
    end
}

/// What happened between two looks, a line each.
fn news(before: Option<&PromotionStatus>, now: &PromotionStatus) -> Vec<String> {
    let news = steps::news(before.map(|before| before.steps.as_slice()).unwrap_or_default(), &now.steps);
    let mut lines = news.ended;
    if before.is_none_or(|before| before.phase != now.phase) {
        lines.push(format!("{:?}", now.phase));
    }
    lines.extend(news.begun);
    lines
}

/// Of a bar; there is no better measure than how many phases there are.
fn pct(phase: PromotionPhase) -> u32 {
    match phase {
        PromotionPhase::Pending => 0,
        PromotionPhase::Releasing => 20,
        PromotionPhase::StartingCandidate => 40,
        PromotionPhase::Gating => 60,
        PromotionPhase::Switching | PromotionPhase::RollingBack => 80,
        PromotionPhase::Completed | PromotionPhase::RolledBack | PromotionPhase::Failed | PromotionPhase::Cancelled => {
            100
        }
    }
}

fn conclusion(promotion: &Promotion) -> Result<String, CliError> {
    let status = promotion.status.clone().unwrap_or_default();
    let (label, workload) = (label(&promotion.name_any()), &promotion.spec.workload);
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.message.clone());
    let why = status.error.clone().or(ready).filter(|why| !why.is_empty());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    match status.phase {
        PromotionPhase::Completed => {
            let to = status.to.unwrap_or(Variant::Candidate).as_str();
            Ok(format!("{label} completed: the {to} variant answers as {workload}\n"))
        }
        PromotionPhase::RolledBack => {
            Err(CliError::Failed(format!("{label} failed{why}; {workload} is as it was before")))
        }
        PromotionPhase::Cancelled => Err(CliError::Failed(format!("{label} was cancelled{why}"))),
        PromotionPhase::Failed
        | PromotionPhase::Pending
        | PromotionPhase::Releasing
        | PromotionPhase::StartingCandidate
        | PromotionPhase::Gating
        | PromotionPhase::Switching
        | PromotionPhase::RollingBack => Err(CliError::Failed(format!("{label} is {:?}{why}", status.phase))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promotion(status: serde_json::Value) -> Promotion {
        let object = json!({"metadata": {"name": "web-1"}, "spec": {"workload": "web"}, "status": status});
        serde_json::from_value(object).expect("a Promotion")
    }

    fn told(status: serde_json::Value) -> Result<String, String> {
        conclusion(&promotion(status)).map_err(|e| e.report())
    }

    #[test]
    fn an_end_tells_who_answers() {
        let done = told(json!({"phase": "Completed", "to": "Live"})).expect("done");
        assert_eq!(done, "promotion.gaia.dev/web-1 completed: the live variant answers as web\n");
        let back = told(json!({"phase": "RolledBack", "error": "the readiness probe failed"})).expect_err("failed");
        assert_eq!(back, "promotion.gaia.dev/web-1 failed: the readiness probe failed; web is as it was before");
        let held = told(json!({"phase": "Failed"})).expect_err("failed");
        assert_eq!(held, "promotion.gaia.dev/web-1 is Failed");
    }

    #[test]
    fn phases_and_steps_are_told_once() {
        let status = |phase: &str| {
            let steps = json!([{"name": "stop web", "outcome": "Succeeded"}]);
            promotion(json!({"phase": phase, "steps": steps})).status.expect("a status")
        };
        let (first, second) = (status("Releasing"), status("Gating"));
        assert_eq!(news(None, &first), ["  stop web: done", "Releasing"]);
        assert_eq!(news(Some(&first), &second), ["Gating"]);
        assert!(news(Some(&second), &second).is_empty());
    }
}
