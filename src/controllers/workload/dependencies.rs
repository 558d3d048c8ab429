//! What a workload waits for: the look at each dependency, and the search for cycles.

use std::collections::{BTreeMap, VecDeque};

use super::{
    WorkloadReconciler, decide,
    observed::{DependencySeen, DependencyState},
    variant::Wish,
};
use crate::{
    adapters::containers::ContainerState,
    api::workload::{Dependency, DependencyCondition, Variant, VariantHealth, VariantState, Workload},
    controllers::workload::names,
    registry::{ApiResult, ObjectName},
    runtime::objects::Objects,
};

/// A chain of dependencies longer than this is not followed: nobody's is, and the store may hold anything.
const MOST_FOLLOWED: usize = 256;

impl<O: Objects> WorkloadReconciler<O> {
    pub(super) async fn look_at_dependencies(&self, workload: &Workload) -> ApiResult<Vec<DependencySeen>> {
        let mut seen = Vec::new();
        for dependency in &workload.spec.depends_on {
            let name = ObjectName { namespace: workload.metadata.namespace.clone(), name: dependency.workload.clone() };
            let state = match self.objects.get::<Workload>(&name).await? {
                None => DependencyState::NotFound,
                Some(found) if self.meets(&found, dependency).await => DependencyState::Met,
                Some(_) => DependencyState::NotMet,
            };
            seen.push(DependencySeen { workload: dependency.workload.clone(), condition: dependency.condition, state });
        }
        Ok(seen)
    }

    /// On this node the container itself is looked at: a status may be from before the host went down. Elsewhere the
    /// status is all there is.
    async fn meets(&self, found: &Workload, dependency: &Dependency) -> bool {
        if found.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let variant = answering(found);
        if found.spec.node_name.as_ref().is_some_and(|node| *node != self.node) {
            return status_meets(found, variant, dependency.condition);
        }
        let namespace = found.metadata.namespace.as_deref().unwrap_or("default");
        let (name, adopted) = match decide::wish(found, variant) {
            Wish::Absent => return false,
            Wish::Inline { .. } => {
                (names::container(namespace, found.metadata.name.as_deref().unwrap_or_default(), variant), false)
            }
            Wish::Adopt { name, .. } => (name.to_owned(), true),
        };
        // No answer is no reason to start anything.
        let Ok(Some(container)) = self.containers.inspect(&name).await else { return false };
        let owned = names::owner(&container.labels) == found.metadata.uid.as_deref();
        let started = container.name == name && container.state == ContainerState::Running && (owned || adopted);
        started
            && match dependency.condition {
                DependencyCondition::Started => true,
                DependencyCondition::Healthy => {
                    self.prober.peek(&container, found.spec.probes.as_ref()).health == VariantHealth::Healthy
                }
            }
    }

    /// The way from the workload back to itself, if its dependencies lead there.
    pub(super) async fn look_for_cycle(&self, workload: &Workload) -> ApiResult<Option<Vec<String>>> {
        let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut waiting = VecDeque::new();
        let own = workload.metadata.name.clone().unwrap_or_default();
        waiting.extend(names_of(workload));
        edges.insert(own.clone(), names_of(workload));
        while let Some(next) = waiting.pop_front() {
            if edges.contains_key(&next) || edges.len() >= MOST_FOLLOWED {
                continue;
            }
            let name = ObjectName { namespace: workload.metadata.namespace.clone(), name: next.clone() };
            let further = self.objects.get::<Workload>(&name).await?.map(|found| names_of(&found)).unwrap_or_default();
            waiting.extend(further.clone());
            edges.insert(next, further);
        }
        Ok(cycle(&own, &edges))
    }
}

fn names_of(workload: &Workload) -> Vec<String> {
    workload.spec.depends_on.iter().map(|dependency| dependency.workload.clone()).collect()
}

/// Who answers for it, which with failover may be another than the spec says.
fn answering(found: &Workload) -> Variant {
    let told = found.status.as_ref().and_then(|status| status.active).filter(|_| found.spec.failover == Some(true));
    told.unwrap_or_else(|| decide::active(found))
}

fn status_meets(found: &Workload, variant: Variant, condition: DependencyCondition) -> bool {
    let Some(status) = &found.status else { return false };
    let variant = match variant {
        Variant::Live => &status.live,
        Variant::Candidate => &status.candidate,
    };
    variant.as_ref().is_some_and(|seen| {
        seen.state == VariantState::Running
            && match condition {
                DependencyCondition::Started => true,
                DependencyCondition::Healthy => seen.health == VariantHealth::Healthy,
            }
    })
}

/// The shortest way along `edges` from `own` back to it, both ends included.
pub fn cycle(own: &str, edges: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([own]);
    while let Some(at) = waiting.pop_front() {
        for next in edges.get(at).into_iter().flatten() {
            if next == own {
                return Some(way(own, at, &came_from));
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, at);
                waiting.push_back(next);
            }
        }
    }
    None
}

fn way(own: &str, last: &str, came_from: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut back = vec![own.to_owned()];
    let mut at = last;
    while at != own {
        back.push(at.to_owned());
        at = came_from.get(at).copied().unwrap_or(own);
    }
    back.push(own.to_owned());
    back.reverse();
    back
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::alone("a:", None)]
    #[case::on_itself("a:a", Some("a a"))]
    #[case::around_three("a:b b:c c:a", Some("a b c a"))]
    #[case::the_shortest_way("a:b,c b:c c:a", Some("a c a"))]
    #[case::a_cycle_further_on_is_not_ours("a:b b:c c:b", None)]
    #[case::a_diamond_is_no_cycle("a:b,c b:d c:d d:", None)]
    #[case::missing_ones_end_the_way("a:b", None)]
    fn cycles(#[case] edges: &str, #[case] expected: Option<&str>) {
        let edges = edges
            .split(' ')
            .filter_map(|edge| edge.split_once(':'))
            .map(|(from, to)| (from.to_owned(), to.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()))
            .collect();
        assert_eq!(cycle("a", &edges).map(|way| way.join(" ")).as_deref(), expected);
    }
}
