//! `deploy`, of which Compose itself heeds resources, replicas and the restart policy; and `gpus`.

use super::{
    field::Field,
    service::{Service, cores},
};
use crate::api::{
    container::{ContainerSpec, Gpus},
    workload::RestartPolicy,
};

pub(super) fn read(deploy: &Field<'_>, out: &mut Service) {
    for (key, field) in deploy.given() {
        match key {
            "resources" => resources(&field, &mut out.container),
            "replicas" => replicas(&field),
            "mode" if field.text().as_deref() == Some("replicated") => {}
            "mode" => field.complain("is not supported: a Workload is one container a variant"),
            // `restart` beside it wins, as with Compose.
            "restart_policy" => out.restart = out.restart.or(restart(&field)),
            // For swarms: Compose passes over them as well.
            "labels" | "placement" | "update_config" | "rollback_config" | "endpoint_mode" => {}
            _ => field.unknown(),
        }
    }
}

pub(super) fn replicas(field: &Field<'_>) {
    match field.integer() {
        Some(1) | None => {}
        Some(_) => field.complain("is not supported: a Workload is one container a variant, so only 1 can be"),
    }
}

fn restart(policy: &Field<'_>) -> Option<RestartPolicy> {
    let mut found = Some(RestartPolicy::Always);
    for (key, field) in policy.given() {
        match key {
            "condition" => match field.text().as_deref() {
                Some("any") => {}
                Some("on-failure") => found = Some(RestartPolicy::OnFailure),
                Some("none") => found = Some(RestartPolicy::Never),
                _ => field.complain("must be any, on-failure or none"),
            },
            "delay" | "max_attempts" | "window" => {
                field.complain("is not supported: gaia restarts after growing pauses of its own, without end");
            }
            _ => field.unknown(),
        }
    }
    found
}

fn resources(resources: &Field<'_>, container: &mut ContainerSpec) {
    for (part, fields) in resources.given() {
        for (key, field) in fields.given() {
            match (part, key) {
                ("limits", "cpus") => container.resources.get_or_insert_default().cpus = cores(&field),
                ("limits", "memory") => container.resources.get_or_insert_default().memory = field.memory(),
                ("limits", "pids") => container.resources.get_or_insert_default().pids = field.integer(),
                ("reservations", "memory") => {
                    container.resources.get_or_insert_default().memory_reservation = field.memory();
                }
                // On one host nothing follows from it, with Compose neither.
                ("reservations", "cpus") => {}
                ("reservations", "devices") => devices(&field, container),
                _ => field.unknown(),
            }
        }
    }
}

/// `gpus: all`, or as `devices`.
pub(super) fn gpus(field: &Field<'_>, container: &mut ContainerSpec) {
    if field.value.is_array() {
        return devices(field, container);
    }
    match field.text().as_deref() {
        Some("all") => container.gpus = Some(Gpus { count: Some(-1), ..Gpus::default() }),
        _ => field.complain("must be all, or a list of devices"),
    }
}

fn devices(field: &Field<'_>, container: &mut ContainerSpec) {
    let items = field.items();
    if items.len() > 1 || container.gpus.is_some() {
        return field.complain("more than one request for devices is not supported: put their ids into one");
    }
    container.gpus = items.first().map(device);
}

fn device(item: &Field<'_>) -> Gpus {
    let mut gpus = Gpus::default();
    for (key, field) in item.given() {
        match key {
            "driver" => gpus.driver = field.text(),
            "count" if field.text().as_deref() == Some("all") => gpus.count = Some(-1),
            "count" => gpus.count = field.integer(),
            "device_ids" => gpus.device_ids = field.texts(),
            "capabilities" => gpus.capabilities = field.texts(),
            "options" => {
                gpus.options = field.pairs().into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
            }
            _ => field.unknown(),
        }
    }
    match (gpus.count, gpus.device_ids.is_empty()) {
        (Some(_), false) => item.complain("count and device_ids cannot both be given"),
        (None, true) => gpus.count = Some(-1),
        _ => {}
    }
    if gpus.capabilities == ["gpu"] {
        gpus.capabilities.clear();
    }
    gpus
}
