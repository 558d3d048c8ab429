//! What runs of the stack: from what the workload controller last saw, so that a service that hangs costs no time. Only
//! services without a probe of their own are asked here, all at once and briefly.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    Gaia,
    names::{self, GAIA, PART_OF, SERVICES, key_of},
    reply::{Answer, Refusal, ok, stamp},
};
use crate::{
    adapters::probes::ProbeOutcome,
    api::{
        container::ContainerSpec,
        workload::{HttpProbe, Probe, Variant, VariantHealth, VariantState, VariantStatus, Workload},
    },
    runtime::objects::Objects,
};

/// For one service. All are asked at once, so this is also the limit of the whole call.
const ASKED_WITHIN: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceHealth {
    pub name: String,
    pub state: &'static str,
    pub port: Option<u16>,
    pub healthy: bool,
    pub last_check: Option<String>,
}

/// In the order of GAIA's own list, which a sorted map would lose.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Services(Vec<(String, ServiceHealth)>);

impl Serialize for Services {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, health) in &self.0 {
            map.serialize_entry(key, health)?;
        }
        map.end()
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ContainersView {
    pub live: Services,
    pub candidate: Services,
}

pub async fn status(gaia: &Gaia) -> Answer {
    let workloads = gaia.stack().await?;
    let asked = join_all(Variant::ALL.map(|variant| services(gaia, &workloads, variant, true))).await;
    let [live, candidate] = <[Services; 2]>::try_from(asked).unwrap_or_default();
    ok(&ContainersView { live, candidate })
}

/// As seen last, asking nobody.
pub async fn known(gaia: &Gaia) -> Result<ContainersView, Refusal> {
    let workloads = gaia.stack().await?;
    let live = services(gaia, &workloads, Variant::Live, false).await;
    let candidate = services(gaia, &workloads, Variant::Candidate, false).await;
    Ok(ContainersView { live, candidate })
}

impl Gaia {
    /// The Workloads of GAIA's stack, by name.
    pub(super) async fn stack(&self) -> Result<Vec<Arc<Workload>>, Refusal> {
        let mut found = self.objects.list::<Workload>(Some(names::NAMESPACE)).await?;
        found.retain(|workload| {
            let labels = workload.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(PART_OF)).is_some_and(|value| value == GAIA)
        });
        found.sort_by_key(|workload| workload.metadata.name.clone());
        Ok(found)
    }
}

/// The services GAIA knows, there or not, then whatever else belongs to the stack.
async fn services(gaia: &Gaia, workloads: &[Arc<Workload>], variant: Variant, ask: bool) -> Services {
    let named = |key: &str| workloads.iter().find(|workload| key_of(&name_of(workload)) == key);
    let known = SERVICES.iter().map(|service| {
        let port = match variant {
            Variant::Live => service.live_port,
            Variant::Candidate => service.candidate_port,
        };
        (service.key.to_owned(), named(service.key), Some(port))
    });
    let others = workloads.iter().filter(|workload| {
        let name = name_of(workload);
        SERVICES.iter().all(|service| service.key != key_of(&name))
    });
    let others = others.map(|workload| (key_of(&name_of(workload)).to_owned(), Some(workload), None));
    let looks = known.chain(others).map(|(key, workload, port)| async move {
        let health = match workload {
            Some(workload) => look(gaia, workload, variant, port, ask).await,
            None => absent(&format!("gaia-{key}"), variant, port),
        };
        (key, health)
    });
    Services(join_all(looks).await)
}

fn name_of(workload: &Workload) -> String {
    workload.metadata.name.clone().unwrap_or_default()
}

fn absent(name: &str, variant: Variant, port: Option<u16>) -> ServiceHealth {
    ServiceHealth { name: names::container(name, variant), state: "stopped", port, healthy: false, last_check: None }
}

async fn look(gaia: &Gaia, workload: &Workload, variant: Variant, port: Option<u16>, ask: bool) -> ServiceHealth {
    let spec = container_of(workload, variant);
    let declared = spec.and_then(|spec| spec.ports.first());
    let port = declared.map(|port| port.host_port.filter(|port| *port != 0).unwrap_or(port.container_port)).or(port);
    let Some(seen) = status_of(workload, variant) else {
        return absent(&name_of(workload), variant, port);
    };
    let mut health = ServiceHealth {
        name: names::container(&name_of(workload), variant),
        state: state(seen.state),
        port,
        healthy: seen.state == VariantState::Running && seen.health == VariantHealth::Healthy,
        last_check: None,
    };
    let unprobed = seen.state == VariantState::Running && !has_probes(workload);
    if let (true, true, Some(declared), Some(container)) = (ask, unprobed, declared, &seen.container_name) {
        health.healthy = answers(gaia, container, declared.container_port).await;
        health.last_check = Some(stamp(gaia.clock.now()));
    }
    health
}

fn has_probes(workload: &Workload) -> bool {
    let probes = workload.spec.probes.as_ref();
    probes.is_some_and(|probes| probes.startup.is_some() || probes.liveness.is_some() || probes.readiness.is_some())
}

pub fn container_of(workload: &Workload, variant: Variant) -> Option<&ContainerSpec> {
    match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    }
}

/// Meant to run.
pub fn is_to_run(workload: &Workload, variant: Variant) -> bool {
    match variant {
        Variant::Live => workload.spec.live.as_ref().is_some_and(|live| live.running),
        Variant::Candidate => workload.spec.candidate.as_ref().is_some_and(|candidate| candidate.running),
    }
}

pub fn status_of(workload: &Workload, variant: Variant) -> Option<&VariantStatus> {
    let status = workload.status.as_ref()?;
    match variant {
        Variant::Live => status.live.as_ref(),
        Variant::Candidate => status.candidate.as_ref(),
    }
}

/// As GAIA's own service read Docker's states.
fn state(state: VariantState) -> &'static str {
    match state {
        VariantState::Unknown => "unknown",
        VariantState::Absent | VariantState::Created | VariantState::Exited => "stopped",
        VariantState::Running => "running",
        VariantState::Paused => "starting",
    }
}

/// `GET /health`, as GAIA's own service asked.
async fn answers(gaia: &Gaia, container: &str, port: u16) -> bool {
    let ask = async {
        let seen = gaia.containers.inspect(container).await.ok().flatten()?;
        let http = HttpProbe { path: "/health".to_owned(), port, scheme: None };
        let probe = Probe { http: Some(http), ..Probe::default() };
        Some(gaia.probes.probe(&seen, &probe, ASKED_WITHIN).await)
    };
    let outcome = tokio::time::timeout(ASKED_WITHIN, ask).await;
    matches!(outcome, Ok(Some(ProbeOutcome::Success)))
}
