//! What is served, told to clients: legacy documents and the aggregated one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::registry::{Kind, Kinds};

/// What can be done with objects of every kind.
pub const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A resource that answers a question and keeps nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
}

/// The questions clients ask about themselves.
pub const REVIEWS: [Review; 4] = [
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        kind: "SelfSubjectRulesReview",
    },
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
    },
    // kubectl 1.27's `auth whoami` asks this version only.
    Review {
        group: "authentication.k8s.io",
        version: "v1beta1",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
    },
];

/// One group-version and what is in it.
#[derive(Debug, Default)]
struct Members<'a> {
    kinds: Vec<&'a Kind>,
    reviews: Vec<Review>,
}

/// Group, then its versions with the preferred one first.
type Groups<'a> = BTreeMap<String, Vec<(String, Members<'a>)>>;

fn groups(kinds: &Kinds) -> Groups<'_> {
    let mut out = Groups::new();
    for kind in kinds.iter() {
        members(&mut out, &kind.group, &kind.version).kinds.push(kind);
    }
    for review in REVIEWS {
        members(&mut out, review.group, review.version).reviews.push(review);
    }
    for versions in out.values_mut() {
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(priority(version)));
    }
    out
}

fn members<'a, 'b>(groups: &'b mut Groups<'a>, group: &str, version: &str) -> &'b mut Members<'a> {
    let versions = groups.entry(group.to_owned()).or_default();
    let at = versions.iter().position(|(v, _)| v == version).unwrap_or_else(|| {
        versions.push((version.to_owned(), Members::default()));
        versions.len() - 1
    });
    &mut versions[at].1
}

/// Stable before beta before alpha, then the higher number: Kubernetes' order of versions.
fn priority(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.parse::<u32>().ok();
    let parsed = version.strip_prefix('v').and_then(|rest| {
        for (stage, rank) in [("beta", 2), ("alpha", 1)] {
            if let Some((major, minor)) = rest.split_once(stage) {
                return Some((rank, digits(major)?, digits(minor)?));
            }
        }
        Some((3, digits(rest)?, 0))
    });
    parsed.unwrap_or((0, 0, 0))
}

/// Every group-version served, the core group's first.
pub fn group_versions(kinds: &Kinds) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (group, versions) in groups(kinds) {
        out.extend(versions.into_iter().map(|(version, _)| (group.clone(), version)));
    }
    out
}

/// `/api`
pub fn legacy_versions(kinds: &Kinds) -> Value {
    let groups = groups(kinds);
    let versions: Vec<&str> =
        groups.get("").map(|versions| versions.iter().map(|(v, _)| v.as_str()).collect()).unwrap_or_default();
    json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": []})
}

/// `/apis`
pub fn group_list(kinds: &Kinds) -> Value {
    let groups: Vec<Value> = groups(kinds)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_document(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; none when there is no such group.
pub fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let groups = groups(kinds);
    let mut document = group_document(name, groups.get(name).filter(|_| !name.is_empty())?);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Some(document)
}

fn group_document(group: &str, versions: &[(String, Members<'_>)]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

/// `/api/v1`, `/apis/GROUP/VERSION`; none when there is no such group-version.
pub fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let groups = groups(kinds);
    let (_, members) = groups.get(group)?.iter().find(|(v, _)| v == version)?;
    let mut resources = Vec::new();
    for kind in &members.kinds {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories,
            "storageVersionHash": storage_hash(kind),
        }));
        if kind.has_status {
            resources.push(json!({
                "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": STATUS_VERBS,
            }));
        }
        if kind.scale.is_some() {
            resources.push(json!({
                "name": format!("{}/scale", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": STATUS_VERBS,
            }));
        }
    }
    for review in &members.reviews {
        resources.push(json!({
            "name": review.plural, "singularName": review.singular, "namespaced": false, "kind": review.kind,
            "verbs": ["create"],
        }));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

/// `/api` (only the core group) or `/apis` (all others) as one document. `api_version` is `v2` or `v2beta1`.
pub fn aggregated(kinds: &Kinds, core: bool, api_version: &str) -> Value {
    let items: Vec<Value> = groups(kinds)
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, members)| {
                    json!({"version": version, "resources": aggregated_resources(members), "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{api_version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_resources(members: &Members<'_>) -> Vec<Value> {
    let kinds = members.kinds.iter().map(|kind| {
        let response_kind = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let mut resource = json!({
            "resource": kind.plural, "responseKind": response_kind,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": kind.singular, "verbs": VERBS, "shortNames": kind.short_names,
            "categories": kind.categories,
        });
        let mut below = Vec::new();
        if kind.has_status {
            below.push(json!({"subresource": "status", "responseKind": response_kind, "verbs": STATUS_VERBS}));
        }
        if kind.scale.is_some() {
            let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
            below.push(json!({"subresource": "scale", "responseKind": scale, "verbs": STATUS_VERBS}));
        }
        if !below.is_empty() {
            resource["subresources"] = json!(below);
        }
        resource
    });
    let reviews = members.reviews.iter().map(|review| {
        json!({
            "resource": review.plural,
            "responseKind": {"group": review.group, "version": review.version, "kind": review.kind},
            "scope": "Cluster", "singularResource": review.singular, "verbs": ["create"],
        })
    });
    kinds.chain(reviews).collect()
}

fn storage_hash(kind: &Kind) -> String {
    super::openapi::hash(format!("{}/{}/{}", kind.group, kind.version, kind.kind).as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["v1alpha1", "v2", "foo", "v1", "v1beta2", "v1beta1", "v10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
