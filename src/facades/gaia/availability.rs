//! `/ha/status`: how available cognition is, and what of the stack is healthy. GAIA's own service knew this and told nobody.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Gaia,
    containers::{is_to_run, status_of},
    names::container,
    notification::HaStatus,
    reply::{Answer, ok},
};
use crate::api::workload::{Variant, VariantHealth, VariantState};

type Services<T> = BTreeMap<String, T>;

#[derive(Debug, Default, Serialize)]
struct Availability {
    ha_status: &'static str,
    maintenance_mode: bool,
    live: Services<&'static str>,
    candidate: Services<&'static str>,
    /// Restarts without a longer run in between; 0 for one that is well.
    consecutive_failures: Services<u32>,
}

pub async fn status(gaia: &Gaia) -> Answer {
    let maintenance = gaia.maintenance().await.is_some();
    let mut told = Availability { maintenance_mode: maintenance, ..Availability::default() };
    for workload in gaia.stack().await? {
        let name = workload.metadata.name.clone().unwrap_or_default();
        for variant in Variant::ALL {
            if !is_to_run(&workload, variant) {
                continue;
            }
            let seen = status_of(&workload, variant);
            let healthy =
                seen.is_some_and(|seen| seen.state == VariantState::Running && seen.health != VariantHealth::Unhealthy);
            let failures = seen.map_or(0, |seen| seen.restarts_in_a_row);
            let word = if healthy { "healthy" } else { "unhealthy" };
            let name = container(&name, variant);
            told.consecutive_failures.insert(name.clone(), if healthy { failures } else { failures.max(1) });
            match variant {
                Variant::Live => told.live.insert(name, word),
                Variant::Candidate => told.candidate.insert(name, word),
            };
        }
    }
    let core = told.live.get("gaia-core") == Some(&"healthy");
    let known = gaia.hub.availability().filter(|_| !maintenance);
    told.ha_status = known.unwrap_or(HaStatus::of(core, false, false)).into();
    ok(&told)
}
