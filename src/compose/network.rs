//! `networks` and `container_name`: where a container is, and under which names.

use std::collections::BTreeSet;

use super::{
    Project,
    field::{Field, scalar},
    project::Part,
};
use crate::api::container::{ContainerSpec, NetworkOptions};

/// A network that is always there.
const DEFAULT: &str = "default";

pub(super) fn read(project: &Project<'_>, name: &str, service: &Field<'_>, out: &mut ContainerSpec) {
    let mut names = BTreeSet::from([name.to_owned()]);
    let mut asked = None;
    for (key, field) in service.given() {
        match key {
            // gaia names containers after the Workload and its variant; who called it by this name goes on doing so.
            "container_name" => names.extend(field.text()),
            "networks" => asked = Some(field),
            "network_mode" => field.complain(
                "is not supported: every container is on its namespace's network, where its Workload's name moves between \
the variants",
            ),
            _ => {}
        }
    }
    let Some(asked) = asked else {
        return join(project, service, DEFAULT, names, out);
    };
    if asked.value.is_array() {
        for item in asked.items() {
            if let Some(network) = item.text() {
                join(project, &item, &network, names.clone(), out);
            }
        }
        return;
    }
    for (network, field) in asked.entries() {
        let mut names = names.clone();
        let settings = if field.is_null() { Vec::new() } else { field.given() };
        for (key, field) in settings {
            match key {
                "aliases" => names.extend(field.texts()),
                // Which one the engine takes for the way out; with one network there is no choice.
                "priority" | "gw_priority" if asked.entries().len() == 1 => {}
                _ => field.unknown(),
            }
        }
        join(project, &field, network, names, out);
    }
}

fn join(project: &Project<'_>, field: &Field<'_>, key: &str, aliases: BTreeSet<String>, out: &mut ContainerSpec) {
    let Some((name, create)) = named(project, field, key) else { return };
    let options = NetworkOptions { aliases: aliases.into_iter().collect(), create: create.then_some(true) };
    out.network_options.insert(name.clone(), options);
    out.networks.push(name);
}

/// What the engine calls it, and whether it is plain enough for us to make. One that is not must be there.
fn named(project: &Project<'_>, field: &Field<'_>, key: &str) -> Option<(String, bool)> {
    let ours = || format!("{}_{key}", project.name);
    let Some(network) = project.declared(Part::Networks, key, field.problems) else {
        if key == DEFAULT {
            return Some((ours(), true));
        }
        field.complain(format!("{key} is not among the networks of the file"));
        return None;
    };
    let (mut name, mut external, mut plain) = (None, false, true);
    let settings = if network.is_null() { Vec::new() } else { network.given() };
    for (key, field) in settings {
        match key {
            "name" => name = field.text(),
            "external" if field.value.is_object() => {
                external = true;
                name = field.value.get("name").and_then(scalar).or(name);
            }
            "external" => external = field.boolean().unwrap_or(false),
            "driver" => plain &= matches!(field.text().as_deref(), Some("bridge" | "default")),
            "labels" | "attachable" => {}
            "driver_opts" | "ipam" | "internal" | "enable_ipv4" | "enable_ipv6" => plain = false,
            _ => field.unknown(),
        }
    }
    Some((name.unwrap_or_else(|| if external { key.to_owned() } else { ours() }), plain && !external))
}
