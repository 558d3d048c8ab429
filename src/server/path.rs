//! What a path asks for, read as the API server reads it. Knows no kind: whether `plural` exists is the registry's word.

use percent_encoding::percent_decode_str;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `/`
    Root,
    Version,
    Healthz,
    Livez,
    Readyz,
    Metrics,
    /// `/api`
    LegacyVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    GroupVersion {
        group: String,
        version: String,
    },
    OpenApiV2,
    OpenApiV3Index,
    /// `/openapi/v3/apis/GROUP/VERSION`
    OpenApiV3 {
        group: String,
        version: String,
    },
    /// `/ws/watch`
    WebSocketWatch,
    /// `/sse/watch`
    SseWatch,
    Resource(ResourcePath),
    Unknown,
}

/// `/apis/GROUP/VERSION/[namespaces/NAMESPACE/]PLURAL[/NAME[/SUBRESOURCE]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePath {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    pub plural: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

/// Reads an undecoded URI path.
pub fn parse(path: &str) -> Target {
    let Some(segments) = decode(path) else { return Target::Unknown };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        [] => Target::Root,
        ["version"] => Target::Version,
        ["healthz", ..] => Target::Healthz,
        ["livez", ..] => Target::Livez,
        ["readyz", ..] => Target::Readyz,
        ["metrics"] => Target::Metrics,
        ["ws", "watch"] => Target::WebSocketWatch,
        ["sse", "watch"] => Target::SseWatch,
        ["openapi", "v2"] => Target::OpenApiV2,
        ["openapi", "v3"] => Target::OpenApiV3Index,
        ["openapi", "v3", "api", version] => Target::OpenApiV3 { group: String::new(), version: (*version).to_owned() },
        ["openapi", "v3", "apis", group, version] => {
            Target::OpenApiV3 { group: (*group).to_owned(), version: (*version).to_owned() }
        }
        ["api"] => Target::LegacyVersions,
        ["apis"] => Target::Groups,
        ["apis", group] => Target::Group((*group).to_owned()),
        ["api", version] => Target::GroupVersion { group: String::new(), version: (*version).to_owned() },
        ["apis", group, version] => Target::GroupVersion { group: (*group).to_owned(), version: (*version).to_owned() },
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Target::Unknown,
    }
}

/// Splits, then decodes: an encoded slash stays inside its segment, and `+` stays a plus. None when it is not UTF-8.
fn decode(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(|s| s.into_owned()))
        .collect()
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Target {
    // `namespaces/x/status` is the namespace's own subresource, `namespaces/x/pods` are pods in it.
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        _ => (None, rest),
    };
    let own = |s: &&str| (*s).to_owned();
    let [plural, tail @ ..] = rest else { return Target::Unknown };
    if tail.len() > 2 {
        return Target::Unknown;
    }
    Target::Resource(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        plural: own(plural),
        name: tail.first().map(own),
        subresource: tail.get(1).map(own),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(group: &str, namespace: Option<&str>, plural: &str, name: Option<&str>, subresource: Option<&str>) -> Target {
        Target::Resource(ResourcePath {
            group: group.to_owned(),
            version: "v1".to_owned(),
            namespace: namespace.map(str::to_owned),
            plural: plural.to_owned(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    #[rstest]
    #[case("/apis/g/v1/ws", at("g", None, "ws", None, None))]
    #[case("/apis/g/v1/ws/", at("g", None, "ws", None, None))]
    #[case("/apis/g/v1/ws/a", at("g", None, "ws", Some("a"), None))]
    #[case("/apis/g/v1/namespaces/n/ws", at("g", Some("n"), "ws", None, None))]
    #[case("/apis/g/v1/namespaces/n/ws/a/status", at("g", Some("n"), "ws", Some("a"), Some("status")))]
    #[case("/api/v1/namespaces", at("", None, "namespaces", None, None))]
    #[case("/api/v1/namespaces/n", at("", None, "namespaces", Some("n"), None))]
    #[case("/api/v1/namespaces/n/status", at("", None, "namespaces", Some("n"), Some("status")))]
    #[case("/api/v1/namespaces/n/events", at("", Some("n"), "events", None, None))]
    #[case("/apis/g/v1/ws/a+b%20c%2Fd", at("g", None, "ws", Some("a+b c/d"), None))]
    #[case("/apis/g/v1/ws/a/b/c", Target::Unknown)]
    #[case("/apis/g/v1/ws/%ff", Target::Unknown)]
    #[case("/", Target::Root)]
    #[case("/healthz/ping", Target::Healthz)]
    #[case("/openapi/v3/api/v1", Target::OpenApiV3 { group: String::new(), version: "v1".to_owned() })]
    #[case("/api/v1", Target::GroupVersion { group: String::new(), version: "v1".to_owned() })]
    #[case("/nothing", Target::Unknown)]
    fn reads(#[case] path: &str, #[case] target: Target) {
        assert_eq!(parse(path), target);
    }
}
