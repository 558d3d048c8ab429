//! What a task is called by MLOC's clients and workers: its name; outside the namespace `default` that goes before it.

/// Where MLOC's tasks and workers are.
pub const NAMESPACE: &str = "default";

pub fn wire_id(namespace: &str, name: &str) -> String {
    if namespace == NAMESPACE { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Namespace and name.
pub fn from_wire(id: &str) -> (&str, &str) {
    id.split_once('/').unwrap_or((NAMESPACE, id))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("t1", ("default", "t1"))]
    #[case("team/t1", ("team", "t1"))]
    fn ids_are_told_and_known_again(#[case] id: &str, #[case] known: (&str, &str)) {
        assert_eq!((from_wire(id), wire_id(known.0, known.1).as_str()), (known, id));
    }
}
