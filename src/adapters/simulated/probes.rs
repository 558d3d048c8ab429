//! Probes of simulated containers: they see what the simulated process would answer.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};

use super::containers::SimulatedContainers;
use crate::{
    adapters::{
        containers::{Container, ContainerState},
        probes::{ProbeOutcome, Probes, probe_engine_health, probe_exec},
    },
    api::workload::Probe,
};

/// Asks the simulated processes. Network probes see them also while the engine is down, as real ones would.
#[derive(Clone)]
pub struct SimulatedProbes {
    containers: SimulatedContainers,
}

impl SimulatedProbes {
    pub fn new(containers: SimulatedContainers) -> Self {
        Self { containers }
    }

    fn answer(&self, target: &Container, port: u16) -> ProbeOutcome {
        match self.containers.answers(&target.id) {
            Some(true) => ProbeOutcome::Success,
            Some(false) | None => ProbeOutcome::Failure(format!("port {port}: connection refused")),
        }
    }
}

impl Probes for SimulatedProbes {
    fn probe<'a>(&'a self, target: &'a Container, action: &'a Probe, timeout: Duration) -> BoxFuture<'a, ProbeOutcome> {
        async move {
            if target.state != ContainerState::Running {
                return ProbeOutcome::Failure("the container does not run".to_owned());
            }
            if let Some(http) = &action.http {
                self.answer(target, http.port)
            } else if let Some(tcp) = &action.tcp {
                self.answer(target, tcp.port)
            } else if let Some(exec) = &action.exec {
                probe_exec(&self.containers, &target.id, &exec.command, timeout).await
            } else {
                probe_engine_health(target)
            }
        }
        .boxed()
    }

    /// A process that answers serves what its arguments name, as vLLM does, else a model called like its image.
    fn models<'a>(
        &'a self,
        target: &'a Container,
        port: u16,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, String>> {
        async move {
            match self.answer(target, port) {
                ProbeOutcome::Success => {}
                ProbeOutcome::Failure(why) | ProbeOutcome::Unknown(why) => return Err(why),
            }
            let specs = self.containers.specs();
            let spec = specs.iter().find(|(seen, _)| seen.id == target.id).map(|(_, spec)| spec);
            let args = spec.and_then(|spec| spec.args.as_deref()).unwrap_or_default();
            let named = ["--served-model-name", "--model"].into_iter().find_map(|flag| {
                let at = args.iter().position(|arg| arg == flag)?;
                args.get(at + 1).cloned()
            });
            Ok(vec![named.unwrap_or_else(|| target.image.clone())])
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        adapters::{
            containers::Containers,
            simulated::containers::{Behaviour, Image, Images},
        },
        api::workload::{ExecProbe, TcpProbe},
        runtime::clock::{Clock, SimulatedClock},
    };

    #[tokio::test(start_paused = true)]
    async fn process_answers_once_it_is_ready() {
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(jiff::Timestamp::UNIX_EPOCH));
        let slow = Behaviour { ready_after: Some(Duration::from_secs(2)), ..Behaviour::default() };
        let engine = SimulatedContainers::new(clock, Images::default().with("app", Image::present(slow)));
        engine.run_foreign("a", "app", BTreeMap::new(), &[]).expect("a free name");
        let target = engine.inspect("a").await.expect("an answer").expect("it is there");
        let probes = SimulatedProbes::new(engine);
        let tcp = Probe { tcp: Some(TcpProbe { port: 80 }), ..Probe::default() };
        let exec = Probe { exec: Some(ExecProbe { command: vec!["check".to_owned()] }), ..Probe::default() };
        for probe in [&tcp, &exec] {
            let outcome = probes.probe(&target, probe, Duration::from_secs(1)).await;
            assert!(matches!(outcome, ProbeOutcome::Failure(_)));
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        for probe in [&tcp, &exec] {
            assert_eq!(probes.probe(&target, probe, Duration::from_secs(1)).await, ProbeOutcome::Success);
        }
    }
}
