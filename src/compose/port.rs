//! `ports` and `expose`.

use super::field::Field;
use crate::api::container::{Port, Protocol};

/// So many ports a range may have.
const MAX_RANGE: u16 = 4096;

pub(super) fn published(ports: &Field<'_>, out: &mut Vec<Port>) {
    for item in ports.items() {
        let found = if item.value.is_object() { long(&item) } else { item.text().and_then(|text| short(&item, &text)) };
        out.extend(found.into_iter().flatten());
    }
}

/// Ports that are named and not published: other containers reach them anyway.
pub(super) fn exposed(ports: &Field<'_>, out: &mut Vec<Port>) {
    for item in ports.items() {
        let Some(text) = item.text() else { continue };
        let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let Some(protocol) = self::protocol(&item, protocol) else { continue };
        let Some(range) = self::range(&item, range) else { continue };
        for port in range {
            if !out.iter().any(|known| known.container_port == port && known.protocol == protocol) {
                out.push(Port { container_port: port, host_port: None, host_ip: None, protocol });
            }
        }
    }
}

/// `[[address:]host:]container[/protocol]`, where both sides may be ranges.
fn short(field: &Field<'_>, text: &str) -> Option<Vec<Port>> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = self::protocol(field, protocol)?;
    let (before, container) = match rest.rsplit_once(':') {
        Some((before, container)) => (Some(before), container),
        None => (None, rest),
    };
    let (address, host) = match before.and_then(|before| before.rsplit_once(':')) {
        Some((address, host)) => (address.trim_start_matches('[').trim_end_matches(']'), Some(host)),
        None => ("", before),
    };
    let containers = range(field, container)?;
    let hosts = match host.filter(|host| !host.is_empty()) {
        Some(host) => Some(range(field, host)?),
        None => None,
    };
    pair(field, containers, hosts, address, protocol)
}

fn long(port: &Field<'_>) -> Option<Vec<Port>> {
    let (mut target, mut host, mut address, mut protocol) = (None, None, String::new(), None);
    for (key, field) in port.given() {
        match key {
            "target" => target = field.text().and_then(|text| range(&field, &text)),
            "published" => host = field.text().filter(|text| !text.is_empty()).and_then(|text| range(&field, &text)),
            "host_ip" => address = field.text().unwrap_or_default(),
            "protocol" => protocol = field.text().and_then(|text| self::protocol(&field, &text)).flatten(),
            "mode" if matches!(field.text().as_deref(), Some("host" | "ingress")) => {}
            // For people, and for what stands in front.
            "name" | "app_protocol" => {}
            _ => field.unknown(),
        }
    }
    let Some(target) = target else {
        port.complain("target is missing");
        return None;
    };
    pair(port, target, host, &address, protocol)
}

fn pair(
    field: &Field<'_>,
    containers: std::ops::RangeInclusive<u16>,
    hosts: Option<std::ops::RangeInclusive<u16>>,
    address: &str,
    protocol: Option<Protocol>,
) -> Option<Vec<Port>> {
    let port = |container_port, host_port| Port {
        container_port,
        host_port: Some(host_port),
        host_ip: Some(address.to_owned()),
        protocol,
    };
    let Some(hosts) = hosts else { return Some(containers.map(|container| port(container, 0)).collect()) };
    if hosts.len() != containers.len() {
        field.complain("is not supported: the two ranges must be of one length");
        return None;
    }
    Some(containers.zip(hosts).map(|(container, host)| port(container, host)).collect())
}

/// TCP is not written down.
fn protocol(field: &Field<'_>, text: &str) -> Option<Option<Protocol>> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(None),
        "udp" => Some(Some(Protocol::UDP)),
        other => {
            field.complain(format!("the protocol {other:?} is not supported; tcp and udp are"));
            None
        }
    }
}

fn range(field: &Field<'_>, text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let found = first.trim().parse::<u16>().ok().zip(last.trim().parse::<u16>().ok());
    let found = found.filter(|(first, last)| first <= last && last - first < MAX_RANGE && *first > 0);
    if found.is_none() {
        field.complain(format!("{text:?} is no port, and no range of ports"));
    }
    found.map(|(first, last)| first..=last)
}
