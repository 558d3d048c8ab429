//! `gaia status`: the whole host on one screen, in the words of `gaia.sh`.

use std::io::{IsTerminal, Write};

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::{
    super::{
        CliError, Outcome,
        gpu::cards_table,
        handoff::render as handoffs,
        print::{self, Format},
        session::{ServerArgs, Session},
    },
    services,
};
use crate::api::{
    gpu::Gpu,
    handoff::Handoff,
    workload::{Variant, VariantState, Workload},
};

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Namespace of the workloads
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    namespace: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: StatusArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let namespace = Some(args.namespace.as_str());
    let workloads: Vec<Workload> = session.list(namespace, None).await?;
    let cards: Vec<Gpu> = session.list(None, None).await?;
    let handoffs: Vec<Handoff> = session.list(namespace, None).await?;
    let running: Vec<_> = handoffs.into_iter().filter(|h| !handoffs::status(h).phase.is_terminal()).collect();
    let seen = Seen { server: &args.server.server, workloads: &workloads, cards: &cards, handoffs: &running };
    let whole = print::list(&seen.objects()?);
    print::result(out, args.output, &whole, || seen.text(Timestamp::now(), in_color()))?;
    Ok(0)
}

/// Whether what is printed may be coloured.
pub fn in_color() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

struct Seen<'a> {
    server: &'a str,
    workloads: &'a [Workload],
    cards: &'a [Gpu],
    handoffs: &'a [Handoff],
}

impl Seen<'_> {
    fn objects(&self) -> Result<Vec<Value>, CliError> {
        let failed = |e: serde_json::Error| CliError::Failed(format!("cannot write JSON: {e}"));
        let cards = self.cards.iter().map(serde_json::to_value);
        let workloads = self.workloads.iter().map(serde_json::to_value);
        let handoffs = self.handoffs.iter().map(serde_json::to_value);
        cards.chain(workloads).chain(handoffs).collect::<Result<_, _>>().map_err(failed)
    }

    fn text(&self, now: Timestamp, color: bool) -> String {
        let mut text = String::from("=== GAIA Service Status ===\n");
        let healthy = services::Mark::Healthy.text(color);
        text.push_str(&format!("\nOrchestrator:\n  {healthy} gaia {}\n", self.server));
        text.push_str("\nGPUs:\n");
        text.extend(cards_table(self.cards, now).lines().map(|line| format!("  {line}\n")));
        if !self.handoffs.is_empty() {
            text.push_str("\nHandoffs under way:\n");
            text.extend(handoffs::list(self.handoffs, now).lines().map(|line| format!("  {line}\n")));
        }
        text.push_str(&format!("\nLive Services:\n{}", stack(self.workloads, Variant::Live, color)));
        text.push_str(&format!("\nCandidate Services:\n{}", stack(self.workloads, Variant::Candidate, color)));
        text
    }
}

/// A line for every workload that has the variant. Of candidates that rest only the names.
pub fn stack(workloads: &[Workload], variant: Variant, color: bool) -> String {
    let mut having: Vec<_> = workloads.iter().filter(|workload| services::has(workload, variant)).collect();
    having.sort_by_key(|workload| workload.name_any());
    let lines: String = having.iter().map(|workload| services::line(workload, variant, color)).collect();
    if lines.is_empty() { "  none\n".to_owned() } else { lines }
}

/// Whether everything that is wished to run does, for an exit code.
pub fn all_there(workloads: &[Workload], variant: Variant) -> bool {
    workloads
        .iter()
        .filter(|workload| services::has(workload, variant) && services::wished(workload, variant))
        .all(|workload| services::seen(workload, variant).state == VariantState::Running)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::services::tests::{state, workload},
        *,
    };

    #[test]
    fn the_whole_host_fits_on_a_screen() {
        let (off, well) = (state("Absent", "Unknown"), state("Running", "Healthy"));
        let mut swapped = workload("gaia-mcp", well.clone(), well.clone(), "Running");
        swapped.status.as_mut().expect("a status").active = Some(Variant::Candidate);
        let workloads = [
            workload("gaia-prime", well.clone(), off.clone(), "Running"),
            workload("gaia-core", state("Running", "Starting"), off.clone(), "Starting"),
            workload("gaia-study", off.clone(), off.clone(), "WaitingForGpu"),
            swapped,
        ];
        let card = json!({"metadata": {"name": "gpu0"}, "spec": {"device": {"index": 0}}, "status": {
            "holder": {"name": "gaia-prime"}, "memory": {"totalMib": 24564, "usedMib": 10400, "freeMib": 14164}}});
        let handoff = json!({"metadata": {"name": "prime-to-study-1"}, "spec": {"gpu": "gpu0", "to": {"name": "gaia-study"}},
            "status": {"phase": "ReleasingGpu", "progressPct": 10}});
        let seen = Seen {
            server: "http://127.0.0.1:6410",
            workloads: &workloads,
            cards: &[serde_json::from_value(card).expect("a Gpu")],
            handoffs: &[serde_json::from_value(handoff).expect("a Handoff")],
        };
        insta::assert_snapshot!(seen.text("2026-11-20T10:05:00Z".parse().expect("a time"), false));
        assert!(!all_there(&workloads, Variant::Live) && all_there(&workloads[..2], Variant::Live));
        assert_eq!(stack(&[], Variant::Live, false), "  none\n");
    }
}
