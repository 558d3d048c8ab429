//! What things of a workload are called in the engine, and which labels say that they are ours.

use std::collections::BTreeMap;

use crate::{
    adapters::containers::Container,
    api::{container::ContainerSpec, label, workload::Variant},
};

/// `web-live`; outside the namespace `default`, `team.web-live`. A namespace has no dot, so the two never meet.
pub fn container(namespace: &str, workload: &str, variant: Variant) -> String {
    match namespace {
        "default" => format!("{workload}-{}", variant.as_str()),
        _ => format!("{namespace}.{workload}-{}", variant.as_str()),
    }
}

/// The network that every container of a namespace is on.
pub fn network(namespace: &str) -> String {
    format!("gaia-{namespace}")
}

/// Networks of a variant's container with the aliases on each: the active one answers to the workload's name.
pub fn networks(namespace: &str, workload: &str, spec: &ContainerSpec, active: bool) -> Vec<(String, Vec<String>)> {
    let aliases = |network: &str| {
        let stated = spec.network_options.get(network).map(|options| options.aliases.as_slice()).unwrap_or_default();
        let others = stated.iter().filter(|alias| *alias != workload).cloned();
        active.then(|| workload.to_owned()).into_iter().chain(others).collect::<Vec<_>>()
    };
    let own = network(namespace);
    let further = spec.networks.iter().filter(|name| **name != own).cloned();
    [own.clone()].into_iter().chain(further).map(|name| (name.clone(), aliases(&name))).collect()
}

/// What a container of ours carries.
pub fn labels(uid: &str, namespace: &str, workload: &str, variant: Variant, hash: &str) -> BTreeMap<String, String> {
    [
        (label::OWNER_UID, uid.to_owned()),
        (label::WORKLOAD, format!("{namespace}/{workload}")),
        (label::VARIANT, variant.as_str().to_owned()),
        (label::SPEC_HASH, hash.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The owner a container's labels name, if it is one of gaia's.
pub fn owner(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(label::OWNER_UID).map(String::as_str)
}

pub fn variant(labels: &BTreeMap<String, String>) -> Option<Variant> {
    let name = labels.get(label::VARIANT)?;
    Variant::ALL.into_iter().find(|variant| variant.as_str() == name)
}

pub fn spec_hash(container: &Container) -> Option<&str> {
    container.labels.get(label::SPEC_HASH).map(String::as_str)
}
