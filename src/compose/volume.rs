//! `volumes` of a service: binds, named volumes and memory.

use super::{Project, field::Field, project::Part, resolve};
use crate::api::container::{Mount, MountType};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

pub(super) fn read(project: &Project<'_>, volumes: &Field<'_>) -> Vec<Mount> {
    let mount = |item: Field<'_>| {
        if item.value.is_object() { long(project, &item) } else { short(project, &item, &item.text()?) }
    };
    volumes.items().into_iter().filter_map(mount).collect()
}

/// `source:target[:options]`
fn short(project: &Project<'_>, field: &Field<'_>, text: &str) -> Option<Mount> {
    let mut parts = text.splitn(3, ':');
    let (source, target, options) = (parts.next()?, parts.next(), parts.next().unwrap_or_default());
    let Some(target) = target else {
        field.complain(ANONYMOUS);
        return None;
    };
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    if source.starts_with(['/', '.', '~']) {
        mount.source = Some(path(project, field, source)?);
        // As Compose does for the short form.
        mount.create_source = Some(true);
    } else {
        mount.type_ = Some(MountType::Volume);
        mount.source = Some(named(project, field, source)?);
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = Some(true),
            "rw" => {}
            "nocopy" => mount.no_copy = Some(true),
            // For file systems of other hosts than Linux.
            "cached" | "delegated" | "consistent" => {}
            "z" | "Z" => field.complain(format!("{option} is not supported: gaia changes no SELinux labels")),
            option if PROPAGATIONS.contains(&option) => mount.propagation = Some(option.to_owned()),
            option => field.complain(format!("the option {option:?} is not supported")),
        }
    }
    Some(mount)
}

const ANONYMOUS: &str = "a volume without a name is not supported: Compose carries it over to the next container, gaia \
would begin with an empty one. Give it a name, or use tmpfs";

fn long(project: &Project<'_>, volume: &Field<'_>) -> Option<Mount> {
    let mut mount = Mount::default();
    let (mut kind, mut source) = (None, None);
    for (key, field) in volume.given() {
        match key {
            "type" => kind = field.text(),
            "source" => source = field.text(),
            "target" => mount.target = field.text()?,
            "read_only" => mount.read_only = field.boolean(),
            "consistency" => {}
            "bind" | "volume" | "tmpfs" => options(key, &field, &mut mount),
            _ => field.unknown(),
        }
    }
    if mount.target.is_empty() {
        volume.complain("target is missing");
    }
    match (kind.as_deref(), source) {
        (Some("bind"), Some(source)) => mount.source = Some(path(project, volume, &source)?),
        (Some("volume"), Some(source)) => {
            mount.type_ = Some(MountType::Volume);
            mount.source = Some(named(project, volume, &source)?);
        }
        (Some("volume"), None) => volume.complain(ANONYMOUS),
        (Some("tmpfs"), None) => mount.type_ = Some(MountType::Tmpfs),
        (Some("bind"), None) => volume.complain("source is missing"),
        (Some(other), _) => volume.complain(format!("the type {other} is not supported; bind, volume and tmpfs are")),
        (None, _) => volume.complain("type is missing"),
    }
    Some(mount)
}

fn options(part: &str, fields: &Field<'_>, mount: &mut Mount) {
    for (key, field) in fields.given() {
        match (part, key) {
            ("bind", "propagation") => match field.text() {
                Some(known) if PROPAGATIONS.contains(&known.as_str()) => mount.propagation = Some(known),
                _ => field.complain(format!("must be one of {}", PROPAGATIONS.join(", "))),
            },
            ("bind", "create_host_path") => mount.create_source = field.boolean().filter(|create| *create),
            ("volume", "nocopy") => mount.no_copy = field.boolean().filter(|no_copy| *no_copy),
            ("tmpfs", "size" | "mode") => {
                field.complain("is not supported here: write `tmpfs: [/path:size=64m,mode=1777]` beside volumes");
            }
            _ => field.unknown(),
        }
    }
}

fn path(project: &Project<'_>, field: &Field<'_>, source: &str) -> Option<String> {
    if source.starts_with('~') {
        field.complain("is not supported: whose home it is would depend on who runs gaia. Write the whole path");
        return None;
    }
    Some(resolve(&project.directory, source).display().to_string())
}

/// What the engine calls a volume of the top level.
fn named(project: &Project<'_>, field: &Field<'_>, key: &str) -> Option<String> {
    let Some(volume) = project.declared(Part::Volumes, key, field.problems) else {
        field.complain(format!("{key} is not among the volumes of the file"));
        return None;
    };
    if volume.is_null() {
        return Some(format!("{}_{key}", project.name));
    }
    let (mut name, mut external) = (None, false);
    for (key, field) in volume.given() {
        match key {
            "name" => name = field.text(),
            "external" if field.value.is_object() => {
                external = true;
                name = field.value.get("name").and_then(super::field::scalar).or(name);
            }
            "external" => external = field.boolean().unwrap_or(false),
            "driver" if matches!(field.text().as_deref(), Some("local" | "default")) => {}
            "labels" => {}
            "driver" | "driver_opts" => {
                field.complain(
                    "is not supported: gaia makes plain volumes. Make it with Docker, and say `external: true`",
                );
            }
            _ => field.unknown(),
        }
    }
    Some(name.unwrap_or_else(|| if external { key.to_owned() } else { format!("{}_{key}", project.name) }))
}
