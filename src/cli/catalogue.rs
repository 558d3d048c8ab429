//! Which kinds the server serves, by every name a user may call them: `workloads`, `workload`, `wl`, `Workload`,
//! `workloads.gaia.dev`.

use std::fmt;

use axum::http::Request;
use kube::core::discovery::{
    ApiResource,
    v2::{ACCEPT_AGGREGATED_DISCOVERY_V2, APIGroupDiscoveryList, APIResourceDiscovery},
};

use super::{
    CliError,
    error::{Refusal, while_},
    session::Session,
};
use crate::api::GROUP;

/// One kind as discovery tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    pub api: ApiResource,
    pub namespaced: bool,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
}

impl fmt::Display for Kind {
    /// `workload.gaia.dev`, as kubectl writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.api.group.as_str() {
            "" => f.write_str(&self.singular),
            group => write!(f, "{}.{group}", self.singular),
        }
    }
}

impl Kind {
    /// Path of the collection; `namespace` counts only where there are namespaces.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.api.group.is_empty() { "api" } else { "apis" };
        let within = match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("namespaces/{namespace}/"),
            None => String::new(),
        };
        format!("/{root}/{}/{within}{}", self.api.api_version, self.api.plural)
    }

    /// Builds requests to the collection.
    pub fn request(&self, namespace: Option<&str>) -> kube::core::Request {
        kube::core::Request::new(self.path(namespace))
    }

    fn is_called(&self, name: &str) -> bool {
        let qualified = format!("{}.{}", self.api.plural, self.api.group);
        let names = [&self.api.plural, &self.singular, &self.api.kind, &qualified, &self.to_string()];
        names.into_iter().chain(&self.short_names).any(|n| n.eq_ignore_ascii_case(name))
    }
}

/// Every kind of a server, ours first: `events` means the first that has the name.
pub struct Catalogue {
    kinds: Vec<Kind>,
}

impl Catalogue {
    pub async fn fetch(session: &Session) -> Result<Self, CliError> {
        let fetch = async |path: &str| -> Result<APIGroupDiscoveryList, Refusal> {
            let request = Request::get(path).header("accept", ACCEPT_AGGREGATED_DISCOVERY_V2).body(Vec::new());
            let request = request.expect("a constant path and header make a request");
            let answer = session.ask(request).await?;
            serde_json::from_value(answer).map_err(|e| Refusal::Unreachable {
                server: path.to_owned(),
                why: format!("the answer is not a list of kinds: {e}"),
            })
        };
        let doing = || while_("cannot ask which kinds there are");
        let core = fetch("/api").await.map_err(doing())?;
        let groups = fetch("/apis").await.map_err(doing())?;
        Ok(Self::from_lists([core, groups]))
    }

    fn from_lists(lists: impl IntoIterator<Item = APIGroupDiscoveryList>) -> Self {
        let mut kinds = Vec::new();
        for group in lists.into_iter().flat_map(|list| list.items) {
            let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
            for version in group.versions {
                let number = version.version.unwrap_or_default();
                kinds.extend(version.resources.into_iter().map(|resource| kind(&name, &number, resource)));
            }
        }
        kinds.sort_by_key(|kind| match kind.api.group.as_str() {
            GROUP => 0,
            "" => 1,
            _ => 2,
        });
        Self { kinds }
    }

    /// The kinds that a word means: one kind, or all of a category that can be listed.
    pub fn named(&self, word: &str) -> Result<Vec<&Kind>, CliError> {
        if let Some(kind) = self.kinds.iter().find(|kind| kind.is_called(word)) {
            return Ok(vec![kind]);
        }
        let of_category: Vec<_> = self.listable().filter(|k| k.categories.iter().any(|c| c == word)).collect();
        if of_category.is_empty() {
            return Err(CliError::Failed(format!("the server has no kind {word:?}; it has {}", self.plurals())));
        }
        Ok(of_category)
    }

    /// The kind that a manifest speaks of.
    pub fn of_manifest(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.api.api_version == api_version && k.api.kind == kind)
    }

    /// The kinds whose objects can be listed.
    pub fn listable(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().filter(|kind| kind.verbs.iter().any(|verb| verb == "list"))
    }

    /// What one may ask for: questions to the server (reviews) are no kinds of objects, and of namesakes one is enough.
    fn plurals(&self) -> String {
        let mut plurals: Vec<_> = Vec::new();
        for kind in self.listable() {
            let plural = kind.api.plural.as_str();
            if !plurals.contains(&plural) {
                plurals.push(plural);
            }
        }
        plurals.join(", ")
    }
}

fn kind(group: &str, version: &str, resource: APIResourceDiscovery) -> Kind {
    let plural = resource.resource.unwrap_or_default();
    let kind = resource.response_kind.and_then(|k| k.kind).unwrap_or_default();
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Kind {
        singular: resource.singular_resource.filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase()),
        api: ApiResource { group: group.to_owned(), version: version.to_owned(), api_version, kind, plural },
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
        short_names: resource.short_names,
        categories: resource.categories,
        verbs: resource.verbs,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn group(name: &str, version: &str, resources: Value) -> Value {
        json!({"metadata": {"name": name}, "versions": [{"version": version, "resources": resources}]})
    }

    fn catalogue() -> Catalogue {
        let events = json!([{"resource": "events", "responseKind": {"kind": "Event"}, "scope": "Namespaced",
            "singularResource": "event", "verbs": ["list"], "shortNames": ["ev"]}]);
        let ours = json!([{"resource": "workloads", "responseKind": {"kind": "Workload"}, "scope": "Namespaced",
            "singularResource": "workload", "verbs": ["list"], "shortNames": ["wl"], "categories": ["all"]}]);
        let list = json!({"items": [group("events.k8s.io", "v1", events.clone()), group("", "v1", events),
            group("gaia.dev", "v1alpha1", ours)]});
        Catalogue::from_lists([serde_json::from_value(list).expect("a discovery list")])
    }

    #[test]
    fn a_kind_answers_to_all_its_names() {
        let catalogue = catalogue();
        for name in ["workloads", "workload", "wl", "Workload", "workloads.gaia.dev", "workload.gaia.dev", "all"] {
            let kinds = catalogue.named(name).expect(name);
            assert_eq!(kinds[0].path(Some("x")), "/apis/gaia.dev/v1alpha1/namespaces/x/workloads");
        }
        assert!(catalogue.named("pods").expect_err("none").to_string().contains("workloads, events"));
    }

    #[test]
    fn the_core_group_wins_a_shared_name() {
        let catalogue = catalogue();
        assert_eq!(catalogue.named("ev").expect("events")[0].path(None), "/api/v1/events");
        assert_eq!(catalogue.named("events.events.k8s.io").expect("events")[0].api.group, "events.k8s.io");
        assert!(catalogue.of_manifest("events.k8s.io/v1", "Event").is_some());
    }
}
