//! A case for every validation rule.

use serde_json::Value;

use super::kinds::minimal;

/// `good`, `bad` and `old` are laid over the smallest object of the kind as JSON merge patches.
pub struct Case {
    pub kind: &'static str,
    pub message: &'static str,
    pub good: &'static str,
    pub bad: &'static str,
    /// For rules about a change: what it was before.
    pub old: Option<&'static str>,
}

impl Case {
    pub fn object(&self, patch: &str) -> Value {
        let mut object = minimal(self.kind);
        let patch = serde_json::from_str(patch).unwrap_or_else(|error| panic!("{patch}: {error}"));
        json_patch::merge(&mut object, &patch);
        object
    }
}

const fn state(kind: &'static str, message: &'static str, good: &'static str, bad: &'static str) -> Case {
    Case { kind, message, good, bad, old: None }
}

const fn change(
    kind: &'static str,
    message: &'static str,
    old: &'static str,
    good: &'static str,
    bad: &'static str,
) -> Case {
    Case { kind, message, good, bad, old: Some(old) }
}

pub const CASES: &[Case] = &[
    state(
        "Droplet",
        "must be an http or https URL with a host",
        r#"{"spec": {"endpoint": "https://droplet.example:8443/base"}}"#,
        r#"{"spec": {"endpoint": "ftp://droplet.example"}}"#,
    ),
    state(
        "Droplet",
        "must be an http or https URL with a host",
        r#"{"spec": {"endpoint": "http://[::1]:8100"}}"#,
        r#"{"spec": {"endpoint": "droplet.example:8100"}}"#,
    ),
    state(
        "Droplet",
        "must hold no user name, query or fragment",
        r#"{"spec": {"endpoint": "http://droplet.example"}}"#,
        r#"{"spec": {"endpoint": "http://user@droplet.example"}}"#,
    ),
    state(
        "Gpu",
        "index or uuid must be given",
        r#"{"spec": {"device": {"index": 7}}}"#,
        r#"{"spec": {"device": {"index": null}}}"#,
    ),
    state(
        "Gpu",
        "so many samples do not fit into timeoutSeconds",
        r#"{"spec": {"cleanup": {"samples": 5, "intervalMs": 2000, "timeoutSeconds": 10}}}"#,
        r#"{"spec": {"cleanup": {"samples": 5, "intervalMs": 2000, "timeoutSeconds": 9}}}"#,
    ),
    state(
        "Gpu",
        "must not name a measure twice",
        r#"{"spec": {"onStuck": ["Release", "Stop", "Kill"]}}"#,
        r#"{"spec": {"onStuck": ["Release", "Release"]}}"#,
    ),
    state(
        "Gpu",
        "must go from the gentlest measure to the hardest: Release, Stop, Kill",
        r#"{"spec": {"onStuck": []}}"#,
        r#"{"spec": {"onStuck": ["Kill", "Stop"]}}"#,
    ),
    state(
        "GpuClaim",
        "gpu and selector exclude one another",
        r#"{"spec": {"gpu": null, "selector": {"matchLabels": {"tier": "big"}}}}"#,
        r#"{"spec": {"selector": {"matchLabels": {"tier": "big"}}}}"#,
    ),
    state(
        "GpuClaim",
        "at least one of gpu, selector, memory and count must be given",
        r#"{"spec": {"gpu": null, "memory": "12Gi"}}"#,
        r#"{"spec": {"gpu": null}}"#,
    ),
    state(
        "GpuClaim",
        "one gpu is named: count must be 1",
        r#"{"spec": {"gpu": null, "count": 2}}"#,
        r#"{"spec": {"count": 2}}"#,
    ),
    state(
        "GpuClaim",
        "who shares a card must say how much memory it needs",
        r#"{"spec": {"shared": true, "memory": "4Gi"}}"#,
        r#"{"spec": {"shared": true}}"#,
    ),
    state(
        "GpuClaim",
        "a shared claim is for one card",
        r#"{"spec": {"gpu": null, "memory": "4Gi", "count": 2}}"#,
        r#"{"spec": {"gpu": null, "memory": "4Gi", "count": 2, "shared": true}}"#,
    ),
    state(
        "GpuClaim",
        "minHoldSeconds is more than maxHoldSeconds",
        r#"{"spec": {"minHoldSeconds": 60, "maxHoldSeconds": 60}}"#,
        r#"{"spec": {"minHoldSeconds": 61, "maxHoldSeconds": 60}}"#,
    ),
    change(
        "GpuClaim",
        "count and shared cannot change: make another claim",
        r#"{"spec": {"gpu": null, "count": 2}}"#,
        r#"{"spec": {"gpu": null, "count": 2, "reason": "longer"}}"#,
        r#"{"spec": {"gpu": null, "count": 3}}"#,
    ),
    change(
        "GpuClaim",
        "what was released stays released",
        r#"{"spec": {"release": true}}"#,
        r#"{"spec": {"release": true, "reason": "done"}}"#,
        r#"{"spec": {"release": false}}"#,
    ),
    state(
        "GpuClaim",
        "ttlSeconds is more than maxHoldSeconds",
        r#"{"spec": {"ttlSeconds": 60, "maxHoldSeconds": 60}}"#,
        r#"{"spec": {"ttlSeconds": 61, "maxHoldSeconds": 60}}"#,
    ),
    change(
        "GpuClaim",
        "gpu cannot change: make another claim",
        "{}",
        r#"{"spec": {"priority": 5, "renewedAt": "2026-11-20T10:00:00Z"}}"#,
        r#"{"spec": {"gpu": "gpu1"}}"#,
    ),
    change(
        "GpuClaim",
        "selector cannot change: make another claim",
        r#"{"spec": {"gpu": null, "selector": {"matchLabels": {"tier": "big"}}}}"#,
        r#"{"spec": {"gpu": null, "selector": {"matchLabels": {"tier": "big"}}}}"#,
        r#"{"spec": {"gpu": null, "selector": {"matchLabels": {"tier": "small"}}}}"#,
    ),
    change(
        "GpuClaim",
        "memory cannot change: make another claim",
        r#"{"spec": {"gpu": null, "memory": "12Gi"}}"#,
        r#"{"spec": {"gpu": null, "memory": "12Gi", "reason": "longer"}}"#,
        r#"{"spec": {"gpu": null, "memory": "24Gi"}}"#,
    ),
    change(
        "GpuClaim",
        "holder cannot change: make another claim",
        "{}",
        r#"{"spec": {"holder": {"name": "gaia-study"}}}"#,
        r#"{"spec": {"holder": {"name": "gaia-core"}}}"#,
    ),
    state(
        "Handoff",
        "at least one of from and to must be given",
        r#"{"spec": {"from": {"name": "gaia-prime"}, "to": null}}"#,
        r#"{"spec": {"to": null}}"#,
    ),
    state(
        "Handoff",
        "from and to are the same",
        r#"{"spec": {"from": {"name": "gaia-study", "variant": "Candidate"}}}"#,
        r#"{"spec": {"from": {"name": "gaia-study"}}}"#,
    ),
    change(
        "Handoff",
        "gpu, type, from and to cannot change: cancel it and make another",
        "{}",
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"to": {"name": "gaia-prime"}}}"#,
    ),
    change(
        "Handoff",
        "gpu, type, from and to cannot change: cancel it and make another",
        r#"{"spec": {"type": "PrimeToStudy"}}"#,
        r#"{"spec": {"type": "PrimeToStudy", "timeoutSeconds": 300}}"#,
        r#"{"spec": {"type": "PrimeToStudy", "from": {"name": "gaia-prime"}}}"#,
    ),
    change(
        "Handoff",
        "what was cancelled stays cancelled",
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"cancel": false}}"#,
    ),
    state(
        "Promotion",
        "at least one gate must be given: probes, minReadySeconds, modelLoaded or command",
        r#"{"spec": {"gates": {"probes": false, "minReadySeconds": 0, "command": {"command": ["true"]}}}}"#,
        r#"{"spec": {"gates": {"probes": false, "minReadySeconds": 0}}}"#,
    ),
    state(
        "Promotion",
        "must be less than timeoutSeconds",
        r#"{"spec": {"gates": {"minReadySeconds": 59, "timeoutSeconds": 60}}}"#,
        r#"{"spec": {"gates": {"minReadySeconds": 60, "timeoutSeconds": 60}}}"#,
    ),
    state(
        "Promotion",
        "the command may take longer than all gates together",
        r#"{"spec": {"gates": {"timeoutSeconds": 60, "command": {"command": ["true"]}}}}"#,
        r#"{"spec": {"gates": {"timeoutSeconds": 59, "command": {"command": ["true"]}}}}"#,
    ),
    change(
        "Promotion",
        "workload, to, gates and onFailure cannot change: cancel it and make another",
        "{}",
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"gates": {"probes": false}}}"#,
    ),
    change(
        "Promotion",
        "workload, to, gates and onFailure cannot change: cancel it and make another",
        r#"{"spec": {"to": "Live"}}"#,
        r#"{"spec": {"to": "Live", "cancel": true}}"#,
        r#"{"spec": {"to": "Candidate"}}"#,
    ),
    change(
        "Promotion",
        "workload, to, gates and onFailure cannot change: cancel it and make another",
        "{}",
        r#"{"spec": {"onFailure": "Rollback"}}"#,
        r#"{"spec": {"to": "Live"}}"#,
    ),
    state(
        "Promotion",
        "at least one gate must be given: probes, minReadySeconds, modelLoaded or command",
        r#"{"spec": {"gates": {"probes": false, "minReadySeconds": 0, "modelLoaded": {"port": 8000}}}}"#,
        r#"{"spec": {"gates": {"probes": false, "minReadySeconds": 0}}}"#,
    ),
    change(
        "Promotion",
        "what was cancelled stays cancelled",
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"cancel": false}}"#,
    ),
    state(
        "Source",
        "must be an absolute path",
        r#"{"spec": {"directory": "/srv/gaia"}}"#,
        r#"{"spec": {"directory": "desired"}}"#,
    ),
    state(
        "Source",
        "exactly one of directory and git must be given",
        r#"{"spec": {"directory": null, "git": {"url": "https://git.example.org/hosts.git"}}}"#,
        r#"{"spec": {"git": {"url": "https://git.example.org/hosts.git"}}}"#,
    ),
    state(
        "Source",
        "exactly one of directory and git must be given",
        r#"{"spec": {"directory": "/srv/gaia"}}"#,
        r#"{"spec": {"directory": null}}"#,
    ),
    state(
        "Source",
        "at most one of branch, tag and commit may be given",
        r#"{"spec": {"directory": null, "git": {"url": "ssh://git@example.org/hosts.git", "branch": "main"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "branch": "main", "tag": "v1"}}}"#,
    ),
    state(
        "Source",
        "must be an https:// or ssh:// URL, or one of this host: file:///… or http://127.0.0.1/…",
        r#"{"spec": {"directory": null, "git": {"url": "http://127.0.0.1:8080/hosts.git"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "http://127.0.0.1.example.org/hosts.git"}}}"#,
    ),
    state(
        "Source",
        "must be an https:// or ssh:// URL, or one of this host: file:///… or http://127.0.0.1/…",
        r#"{"spec": {"directory": null, "git": {"url": "http://[::1]:8080/hosts.git"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "git@example.org:hosts.git"}}}"#,
    ),
    state(
        "Source",
        "must hold no password, and no user name but for ssh://: they belong into credentials",
        r#"{"spec": {"directory": null, "git": {"url": "ssh://git@example.org:2222/hosts.git"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "ssh://git:secret@example.org/hosts.git"}}}"#,
    ),
    state(
        "Source",
        "must hold no password, and no user name but for ssh://: they belong into credentials",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/@home/hosts.git"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "https://token@example.org/hosts.git"}}}"#,
    ),
    state(
        "Source",
        "must hold no query, fragment or blank",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git?token=t"}}}"#,
    ),
    state(
        "Source",
        "must be relative to the root of the repository, without . and ..",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "path": "gpu1/..live"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "path": "gpu1/../gpu2"}}}"#,
    ),
    state(
        "Source",
        "a repository of this host takes none",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "credentials": {"file": "/etc/token"}}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "file:///srv/hosts.git", "credentials": {"file": "/etc/token"}}}}"#,
    ),
    state(
        "Source",
        "is for https:// only",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "caFile": "/etc/ca.pem"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "ssh://git@example.org/hosts.git", "caFile": "/etc/ca.pem"}}}"#,
    ),
    state(
        "Source",
        "must be an absolute path",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "caFile": "/etc/ca.pem"}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "caFile": "ca.pem"}}}"#,
    ),
    state(
        "Source",
        "must be an absolute path",
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "credentials": {"file": "/etc/token"}}}}"#,
        r#"{"spec": {"directory": null, "git": {"url": "https://example.org/hosts.git", "credentials": {"file": "token"}}}}"#,
    ),
    change(
        "SourceRevision",
        "a revision is what was: it is never changed",
        "{}",
        r#"{"metadata": {"labels": {"kept": "yes"}}}"#,
        r#"{"spec": {"digest": "another"}}"#,
    ),
    state(
        "Task",
        "a shard depends on nothing: its parent did",
        r#"{"spec": {"shard": {"parent": "t", "index": 0, "total": 2}, "dependsOn": []}}"#,
        r#"{"spec": {"shard": {"parent": "t", "index": 0, "total": 2}, "dependsOn": ["u"]}}"#,
    ),
    state(
        "Task",
        "index counts from 0 to total - 1",
        r#"{"spec": {"shard": {"parent": "t", "index": 1, "total": 2}}}"#,
        r#"{"spec": {"shard": {"parent": "t", "index": 2, "total": 2}}}"#,
    ),
    state(
        "Task",
        "a Task is one step: submit documents with stages or a graph through /api/v1/tasks, which makes a Task of each step",
        r#"{"spec": {"document": {"spec": {"stages": []}}}}"#,
        r#"{"spec": {"document": {"spec": {"stages": [{"name": "one"}]}}}}"#,
    ),
    state(
        "Task",
        "a Task is one step: submit documents with stages or a graph through /api/v1/tasks, which makes a Task of each step",
        r#"{"spec": {"document": {"spec": {"model": {"graphs": 1}}}}}"#,
        r#"{"spec": {"document": {"spec": {"graph": {"nodes": []}}}}}"#,
    ),
    change(
        "Task",
        "document cannot change: submit another task",
        "{}",
        r#"{"spec": {"suspend": true}}"#,
        r#"{"spec": {"document": {"spec": {"taskType": "inference"}}}}"#,
    ),
    change(
        "Task",
        "document cannot change: submit another task",
        r#"{"spec": {"document": {"spec": {"model": {"source": "a"}}}}}"#,
        r#"{"spec": {"document": {"spec": {"model": {"source": "a"}}}, "maxRetries": 0}}"#,
        r#"{"spec": {"document": {"spec": {"model": {"source": "b"}}}}}"#,
    ),
    change(
        "Task",
        "dependsOn cannot change: submit another task",
        r#"{"spec": {"dependsOn": ["a"]}}"#,
        r#"{"spec": {"dependsOn": ["a"], "cancel": true}}"#,
        r#"{"spec": {"dependsOn": ["b"]}}"#,
    ),
    change(
        "Task",
        "what was cancelled stays cancelled",
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"cancel": true}}"#,
        r#"{"spec": {"cancel": false}}"#,
    ),
    state(
        "Workload",
        "metadata.name must be a DNS label of at most 50 characters: containers are named after it",
        r#"{"metadata": {"name": "gaia-core"}}"#,
        r#"{"metadata": {"name": "gaia.core"}}"#,
    ),
    state(
        "Workload",
        "at least one of live and candidate must be given",
        r#"{"spec": {"live": null, "candidate": {"container": {"image": "busybox"}}}}"#,
        r#"{"spec": {"live": null}}"#,
    ),
    state(
        "Workload",
        "active is Candidate, but there is no candidate",
        r#"{"spec": {"active": "Candidate", "candidate": {"container": {"image": "busybox"}}}}"#,
        r#"{"spec": {"active": "Candidate"}}"#,
    ),
    state(
        "Workload",
        "exactly one of image and adopt must be given",
        r#"{"spec": {"live": {"container": {"image": null, "adopt": {"name": "old"}}}}}"#,
        r#"{"spec": {"live": {"container": {"adopt": {"name": "old"}}}}}"#,
    ),
    state(
        "Workload",
        "exactly one of image and adopt must be given",
        r#"{"spec": {"live": {"container": {"image": "", "adopt": {"name": "old"}}}}}"#,
        r#"{"spec": {"live": {"container": {"image": ""}}}}"#,
    ),
    state(
        "Workload",
        "compose is resolved by who reads the files (a Source, gaia plan, gaia import compose); over the API write what it comes to",
        r#"{"spec": {"live": {"container": {"image": "busybox", "compose": {"file": "/c.yaml", "service": "web"}}}}}"#,
        r#"{"spec": {"live": {"container": {"image": null, "compose": {"file": "/c.yaml", "service": "web"}}}}}"#,
    ),
    state(
        "Workload",
        "what comes from a Compose file is taken over where it matches, without adopt",
        r#"{"spec": {"live": {"container": {"image": "busybox", "compose": {"file": "/c.yaml", "service": "web"}}}}}"#,
        r#"{"spec": {"live": {"container": {"image": "busybox", "compose": {"file": "/c.yaml", "service": "web"}, "adopt": {"name": "old"}}}}}"#,
    ),
    state(
        "Workload",
        "at most one of command, shell and disabled may be given",
        r#"{"spec": {"live": {"container": {"image": "busybox", "healthcheck": {"shell": "true", "disabled": false}}}}}"#,
        r#"{"spec": {"live": {"container": {"image": "busybox", "healthcheck": {"shell": "true", "command": ["true"]}}}}}"#,
    ),
    state(
        "Workload",
        "exactly one of http, tcp, exec and docker must be given",
        r#"{"spec": {"probes": {"liveness": {"docker": {}}}}}"#,
        r#"{"spec": {"probes": {"liveness": {"docker": {}, "tcp": {"port": 80}}}}}"#,
    ),
    state(
        "Workload",
        "exactly one of http, vllmSleep, ollamaUnload, llamaCppUnload, comfyFree, exec, stop and kill must be given",
        r#"{"spec": {"gpu": {"releaseSteps": [{"vllmSleep": {"port": 8000}}, {"stop": {}}]}}}"#,
        r#"{"spec": {"gpu": {"releaseSteps": [{"stop": {}, "kill": {}}]}}}"#,
    ),
    state(
        "Workload",
        "exactly one of http, vllmWake, ollamaLoad, llamaCppLoad, exec and start must be given",
        r#"{"spec": {"gpu": {"acquireSteps": [{"start": {}}]}}}"#,
        r#"{"spec": {"gpu": {"acquireSteps": [{"timeoutSeconds": 5}]}}}"#,
    ),
    state(
        "Workload",
        "exactly one of url and port must be given",
        r#"{"spec": {"gpu": {"releaseSteps": [{"http": {"url": "http://gaia-core:6415/gpu/release"}}]}}}"#,
        r#"{"spec": {"gpu": {"releaseSteps": [{"http": {"url": "http://gaia-core:6415/x", "port": 80}}]}}}"#,
    ),
    state(
        "Workload",
        "path goes with port; a url has its own",
        r#"{"spec": {"gpu": {"acquireSteps": [{"http": {"port": 8766, "path": "/study/gpu-ready"}}]}}}"#,
        r#"{"spec": {"gpu": {"acquireSteps": [{"http": {"url": "http://gaia-core:6415", "path": "/x"}}]}}}"#,
    ),
    state(
        "Workload",
        "workload goes with port; a url names its host",
        r#"{"spec": {"gpu": {"acquireSteps": [{"http": {"workload": "gaia-core", "port": 6415}}]}}}"#,
        r#"{"spec": {"gpu": {"acquireSteps": [{"http": {"workload": "gaia-core", "url": "http://gaia-core:6415"}}]}}}"#,
    ),
];
