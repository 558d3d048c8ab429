//! What dockerd says: events as it writes them, and the answers to an inspection.

use serde_json::{Value, json};

use super::{json as values, once_in, pick};

pub fn docker_events(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut events = Vec::new();
    for _ in 0..rng.usize(..4) {
        let mut event = event(rng);
        let times = rng.usize(..3);
        values::change(rng, &mut event, times);
        events.extend(if once_in(rng, 3) { values::written(rng, &event) } else { event.to_string().into_bytes() });
        events.extend_from_slice(pick(rng, &["\n", "\n", "\r\n", "", "\n\n"]).as_bytes());
    }
    let (mut container, mut image) =
        (container(), json!({"Id": "sha256:1", "Config": {"Env": ["A=b", "PATH=/bin"], "Cmd": ["sh"]}}));
    let times = rng.usize(..4);
    values::change(rng, &mut container, times);
    if once_in(rng, 3) {
        values::change(rng, &mut image, 1);
    }
    let (container, image) = (values::written(rng, &container), image.to_string().into_bytes());
    [events, container, image].join(&b"\n%%\n"[..])
}

fn event(rng: &mut fastrand::Rng) -> Value {
    let id = pick(rng, &["0123456789abcdef", "one", "é"]);
    let action = pick(rng, &["start", "die", "health_status: healthy", "connect", "rename", "exec_create: sh", "oom"]);
    if once_in(rng, 3) {
        return json!({"Type": "network", "Action": action, "scope": "local", "time": 1_764_460_800, "timeNano": 1_764_460_800_000_000_000_i64,
            "Actor": {"ID": "net", "Attributes": {"container": id, "name": "gaia-default", "type": "bridge"}}});
    }
    json!({"status": action, "id": id, "from": "busybox", "Type": "container", "Action": action, "scope": "local",
        "Actor": {"ID": id, "Attributes": {"image": "busybox", "name": "one", "exitCode": "137", "gaia.dev/workload": "default/one"}},
        "time": 1_764_460_800, "timeNano": 1_764_460_800_000_000_000_i64})
}

/// As `docker inspect` shows one that runs.
fn container() -> Value {
    json!({
        "Id": "0123456789abcdef", "Created": "2026-11-29T10:00:00.123456789Z", "Name": "/one", "Image": "sha256:1", "Path": "sh", "Args": ["-c", "true"],
        "State": {"Status": "running", "Running": true, "Paused": false, "OOMKilled": false, "Dead": false, "Pid": 7, "ExitCode": 0, "Error": "",
            "StartedAt": "2026-11-29T10:00:01.5Z", "FinishedAt": "0001-01-01T00:00:00Z", "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []}},
        "HostConfig": {"Binds": ["v:/v"], "NetworkMode": "gaia-default", "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "Memory": 1_073_741_824_i64,
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, "ShmSize": 67_108_864, "LogConfig": {"Type": "json-file", "Config": {}},
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}], "CapAdd": null, "Ulimits": null, "Privileged": false, "IpcMode": "private"},
        "Mounts": [{"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/v", "Driver": "local", "RW": true}],
        "Config": {"Hostname": "0123456789ab", "User": "", "Env": ["A=b", "PATH=/bin"], "Cmd": ["sh"], "Image": "busybox", "Labels": {"gaia.dev/workload": "default/one"},
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000_i64}, "ExposedPorts": {"80/tcp": {}}, "StopTimeout": 10},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]},
            "Networks": {"gaia-default": {"Aliases": ["one", "0123456789ab"], "NetworkID": "net", "IPAddress": "172.18.0.2", "IPPrefixLen": 16}}},
    })
}
